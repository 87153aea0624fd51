"""A stand-in for the vLLM server, to see how its process is treated and what it is asked: it answers with fixed tokens.

`fake_vllm.py MODE serve … --port N` or `--uds PATH`: `ok`; `dies:TEXT` (says so, and ends); `parent` (starts a process
of its own, too); `breaks` (each completion fails); `ends` (the second completion ends it); `together:N` (answers when N
requests are under way).
"""

import json
import math
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingUnixStreamServer

ANSWER = [5, 6, 2]
LIKELIEST = {"token_id:7": math.log(0.25), "token_id:5": math.log(0.5)}


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    completions = 0

    def do_GET(self) -> None:
        self.reply(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        Handler.completions += "prompt" in body
        say({"path": self.path, "key": self.headers["Authorization"], "body": body})
        if MODE == "breaks":
            self.reply(400, {"error": {"message": "this request is broken"}})
        elif "prompt" not in body:
            self.reply(200, {})
        elif MODE == "ends" and Handler.completions > 1:
            os._exit(1)
        else:
            if MODE.startswith("together"):
                TOGETHER.wait(60)
            choice = {
                "index": 0, "text": "", "finish_reason": "stop", "logprobs": None,
                "token_ids": ANSWER, "prompt_token_ids": body["prompt"],
            }  # fmt: skip
            if body.get("logprobs"):
                choice["logprobs"] = {"token_logprobs": [-1.0], "top_logprobs": [LIKELIEST], "tokens": ["token_id:5"]}
            self.reply(200, {"id": "x", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]})

    def reply(self, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Keeps the log to what the tests read."""


if __name__ == "__main__":
    MODE = sys.argv[1]
    TOGETHER = threading.Barrier(int(MODE.partition(":")[2]) if MODE.startswith("together") else 1)
    if MODE.startswith("dies"):
        said = MODE.partition(":")[2] or "torch.OutOfMemoryError: out of memory"
        sys.exit(f"INFO non-default args: {{'max_model_len': 512}}\n{said}; my key is {os.environ['VLLM_API_KEY']}")
    if MODE == "parent":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    say({"argv": sys.argv, "key": os.environ["VLLM_API_KEY"], "dev": os.environ["VLLM_SERVER_DEV_MODE"]})
    if "--uds" in sys.argv:
        ThreadingUnixStreamServer(sys.argv[sys.argv.index("--uds") + 1], Handler).serve_forever()
    port = int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
