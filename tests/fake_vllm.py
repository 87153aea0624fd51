"""A stand-in for the vLLM server, to see how its process is treated and what it is asked: it answers with fixed tokens.

`fake_vllm.py MODE serve … --port N`: `ok`; `dies` (says why, and ends); `parent` (starts a process of its own, too);
`breaks` (each completion fails); `ends` (the second completion ends it).
"""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = [5, 6, 2]


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


class Handler(BaseHTTPRequestHandler):
    completions = 0

    def do_GET(self) -> None:
        self.reply(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Handler.completions += 1
        say({"path": self.path, "key": self.headers["Authorization"], "body": body})
        if MODE == "breaks":
            self.reply(400, {"error": {"message": "this request is broken"}})
        elif MODE == "ends" and Handler.completions > 1:
            os._exit(1)
        else:
            choice = {
                "index": 0, "text": "", "finish_reason": "stop", "logprobs": None,
                "token_ids": ANSWER, "prompt_token_ids": body["prompt"],
            }  # fmt: skip
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
    if MODE == "dies":
        sys.exit(f"torch.OutOfMemoryError: out of memory; my key is {os.environ['VLLM_API_KEY']}")
    if MODE == "parent":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    port = int(sys.argv[sys.argv.index("--port") + 1])
    say({"argv": sys.argv, "key": os.environ["VLLM_API_KEY"]})
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
