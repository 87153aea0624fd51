"""A FAKE OpenAI-compatible server on this machine, which misbehaves on demand. No model is behind it.

It answers every role of the teacher from the words of the prompt, remembers each request, and breaks a share of
its answers in the ways it is told to. `python tests/chat_server.py` serves until it is stopped.
"""

import hashlib
import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

HTTP_FAULTS = {"429": 429, "429_retry_after": 429, "500": 500, "401": 401, "404": 404, "400": 400, "503": 503}
FAULTS = (
    *("429", "429_retry_after", "500", "drop", "cut", "slow", "not_json", "truncated", "prose", "preamble"),
    *("wrong_schema", "wrong_ids", "unknown_skill", "duplicate_keys", "empty", "refusal", "huge", "invalid_utf8"),
    "no_usage",
)
CAN = frozenset({"json_schema", "json_object", "seed", "logprobs"})
"""What a server can be held to; the fake does all of it unless it is told not to."""
SKILLS = ("adding_numbers", "spelling", "reading_carefully", "subtracting_numbers")
"""What the fake calls skills, chosen by a hash of the question."""


class Seen(NamedTuple):
    """One request that reached the server."""

    body: str
    authorization: str
    reply: str


class FakeChatServer(ThreadingHTTPServer):
    """Use it as a context manager."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, faults: tuple[str, ...] = (), share: float = 1.0, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.share, self.delay = faults, share, delay
        self.bytes_per_token: int | None = None
        """How its usage is counted; else it is the same for every reply."""
        self.honours = CAN
        self.refuses: frozenset[str] = frozenset()
        """Fields of a request that it does not take."""
        self.script: Callable[[str], str | None] = lambda prompt: None
        """Answers a prompt in place of the fake's own words."""
        self.signs: Callable[[list[dict[str, str]]], float | None] = lambda messages: None
        """What a process reward model would make of a conversation: P(+); none where it names no sign."""
        self.seen: list[Seen] = []
        self.counts: Counter[str] = Counter()
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        """Set to let stalled requests go."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> "FakeChatServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed leaves broken connections."""

    def fault_of(self, body: str) -> str | None:
        """Which fault this request meets; a repeated one draws again."""
        with self.lock:
            draw = _number(body, self.counts[body])
            self.counts[body] += 1
        if not self.faults or (draw % 10_000) / 10_000 >= self.share:
            return None
        return self.faults[draw // 10_000 % len(self.faults)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeChatServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        request, server = json.loads(body), self.server
        with server.lock:
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            fault = server.fault_of(body)
            time.sleep(server.delay + (0.05 if fault == "slow" else 0.0))
            fault = "400" if server.refuses & request.keys() else fault
            text = "+" if request.get("top_logprobs") == 20 else server.script(request["messages"][0]["content"])
            text = text or answer(request, len(server.seen), server.honours)
            with server.lock:
                server.seen.append(Seen(body, self.headers.get("Authorization", ""), text))
            self._send(fault, text, request)
        finally:
            with server.lock:
                server.busy -= 1

    def _send(self, fault: str | None, text: str, request: dict[str, Any]) -> None:
        if fault in HTTP_FAULTS:
            headers = {"Retry-After": "0.02"} if fault == "429_retry_after" else {}
            key = self.headers.get("Authorization", "")
            return self._write(HTTP_FAULTS[fault], json.dumps({"error": {"message": f"no: {key}"}}).encode(), headers)
        if fault == "drop":
            self.close_connection = True
            return self.connection.close()
        if fault == "stall":
            self.server.released.wait(30)
            self.close_connection = True
            return self.connection.close()
        content, finish, refusal = broken(fault, text)
        usage: dict[str, Any] = {"prompt_tokens": 50, "completion_tokens": 20}
        if size := self.server.bytes_per_token:
            prompt = sum(len(turn["content"].encode()) for turn in request["messages"])
            usage = {"prompt_tokens": prompt // size, "completion_tokens": len(text.encode()) // size}
        usage |= {"prompt_tokens_details": {"cached_tokens": 10}}
        usage |= {"completion_tokens_details": {"reasoning_tokens": 5}}
        message = {"role": "assistant", "content": content, "refusal": refusal}
        reply = {"id": "x", "object": "chat.completion", "model": request["model"], "system_fingerprint": "fake"}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if request.get("logprobs") and "logprobs" in self.server.honours:
            choice["logprobs"] = {"content": [{"token": "a", "logprob": -0.25}, {"token": "b", "logprob": -1.5}]}
            if (good := self.server.signs(request["messages"])) is not None:
                signs = [{"token": "+", "logprob": math.log(good)}, {"token": "-", "logprob": math.log(1 - good)}]
                choice["logprobs"] = {"content": [{"token": "+", "logprob": math.log(good), "top_logprobs": signs}]}
        reply |= {"choices": [choice]}
        raw = json.dumps(reply | ({} if fault == "no_usage" else {"usage": usage})).encode()
        if fault == "invalid_utf8":
            raw = raw.replace(b"fake", b"\xff\xfe")
        if fault == "not_json":
            raw = b"<html>upstream error</html>"
        if fault in ("cut", "stall_midway"):
            self._write(200, raw[: len(raw) // 2], {}, len(raw))
            self.server.released.wait(30 if fault == "stall_midway" else 0)
            self.close_connection = True
            return self.connection.close()
        return self._write(200, raw, {})

    def _write(self, status: int, raw: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw) if length is None else length))
        self.end_headers()
        self.wfile.write(raw)


def broken(fault: str | None, text: str) -> tuple[str | None, str, str | None]:
    """Content, finish reason and refusal of a reply with this fault."""
    if fault is None or not text.startswith("{"):
        return text, "stop", None
    top = json.loads(text)
    rows = next((v for v in top.values() if isinstance(v, list) and v and isinstance(v[0], dict)), [])
    contents = {
        "truncated": text[: len(text) // 2],
        "prose": f"Sure! Here it is:\n```json\n{text}\n```\nI hope this helps {{you}}.",
        "preamble": f'<think>First {{"a": 1}} and then …</think>\n{text}',
        "wrong_schema": json.dumps({"result": top}),
        "wrong_ids": json.dumps(_with(top, rows[:1], {"id": "q99"})),
        "unknown_skill": json.dumps(_with(top, rows or [top], {"skills": ["none"], "missing_skills": ["none"]})),
        "duplicate_keys": text[:-1] + ", " + text[1:],
        "empty": "",
        "refusal": None,
        "huge": "x" * 5_000_000 if fault == "huge" else "",
    }
    refusal = "I cannot help with that." if fault == "refusal" else None
    return contents.get(fault or "", text), "length" if fault == "truncated" else "stop", refusal


def _with(top: dict[str, Any], rows: list[Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a reply in which these rows have these values, where they have such keys and not whole skills."""
    copy = json.loads(json.dumps(top))
    flat = [copy] if rows == [top] else [r for v in copy.values() if isinstance(v, list) for r in v if r in rows]
    for row in flat:
        row.update({k: v for k, v in values.items() if k in row and not (row[k] and isinstance(row[k][0], dict))})
    return dict(copy)


def answer(request: dict[str, Any], number: int, honours: frozenset[str] = CAN) -> str:
    """What a well-behaved teacher would reply, from the words of the prompt."""
    prompt = request["messages"][0]["content"]
    if prompt.startswith(("Name three kinds of clouds", "Invent an island")):
        return _checked(request, number, honours)
    blocks = dict(re.findall(r"<(\w+) [0-9a-f]{8}>\n(.*?)\n</\1 [0-9a-f]{8}>", prompt, re.DOTALL))
    questions = {name: text for name, text in blocks.items() if re.fullmatch(r"q\d+", name)}
    if prompt.startswith("You are a teacher who takes questions apart"):
        return json.dumps(
            {"rows": [{"id": i, "skills": [_skill(q), f"fine_{_skill(q)}"]} for i, q in questions.items()]}
        )
    if prompt.startswith("You are a teacher who sorts skills"):
        names = blocks["names"].split("\n")
        groups = {s: [n for n in names if n.endswith(s)] for s in SKILLS}
        skills = [{"name": s, "description": f"It is {s}.", "members": m} for s, m in groups.items() if m]
        return json.dumps({"skills": skills})
    if prompt.startswith("You are a teacher who says which skills"):
        ids = [line.partition(":")[0] for line in blocks["skills"].split("\n")]
        return json.dumps({"labels": [_label(i, q, ids) for i, q in questions.items()]})
    if prompt.startswith("You are a teacher who finds out"):
        ids = [line.partition(":")[0] for line in blocks["skills"].split("\n")]
        skill = ids[_number(blocks["question"]) % len(ids)]
        return json.dumps({"reason": "It guessed.", "error_kind": "no reasoning", "missing_skills": [skill]})
    if prompt.startswith("You are a teacher who writes"):
        skill, draw = (
            blocks["skill"].partition(":")[0].replace(" ", "_"),
            _number(prompt, str(request.get("seed")), number),
        )
        words = [hashlib.sha256(f"{draw}{i}".encode()).hexdigest() for i in range(2)]
        level = re.findall(r"difficulty is (\d)", prompt)[0]
        asked = [
            f"{w[:6]} {w[6:12]} {w[12:20]} {skill} level {level} {w[20:26]}: "
            f"what is {int(w[:3], 16)} + {int(w[3:6], 16)}?"
            for w in words
        ]
        return json.dumps({"design": "They differ.", "questions": asked})
    if prompt.startswith("You are a teacher who plans"):
        return json.dumps(_plan(prompt, blocks["skills"]))
    if prompt.startswith("You are a teacher who decides"):
        told = {"id": re.findall(r'"id": "([0-9a-f]{8})"', prompt)[-1], "reason": "Compared with the reference."}
        return json.dumps(told | {"verdict": _judged(blocks["reference"], blocks["answer"])})
    assert prompt.startswith("Solve the question"), prompt[:80]
    numbers = re.findall(r"what is (\d+) \+ (\d+)\?", blocks["question"])
    total = sum(map(int, numbers[0])) if numbers else 0
    return json.dumps({"solution": f"Way {number}: add both.", "answer": str(total)})


def _plan(prompt: str, skills: str) -> dict[str, Any]:
    """All rows for the first skill that the pool has."""
    rows = int(re.findall(r"at most (\d+) rows to skills", prompt)[0])
    has = [line.partition(" (")[0].partition(":")[0] for line in skills.split("\n") if "; pool 0;" not in line]
    first = {"skill": has[0], "reason": "It is first.", "pool_rows": rows, "written_rows": []}
    return {"reason": "The first skill is enough.", "skills": [first]}


def _judged(reference: str, answer: str) -> str:
    return "unsure" if "perhaps" in answer else "correct" if answer == reference else "wrong"


def _checked(request: dict[str, Any], number: int, honours: frozenset[str]) -> str:
    """The reply to a check of what the server can be held to."""
    asked = request.get("response_format", {})
    if request["messages"][0]["content"].startswith("Invent an island"):
        draw = _number(request.get("seed")) if "seed" in honours else number
        return json.dumps({"sentence": f"On isle {draw} it rains upwards."})
    if asked.get("type") not in honours:
        return "Cirrus, cumulus and stratus drift over the hills."
    schema = asked.get("json_schema", {}).get("schema")
    return json.dumps({"mark": schema["properties"]["mark"]["enum"][0]} if schema else {"clouds": 3})


def _label(id_: str, question: str, ids: list[str]) -> dict[str, Any]:
    named = [i for i in ids if i in question]
    skills = named or [i for i in ids if i == _skill(question)] or ids[:1]
    level = re.findall(r"level (\d)", question)
    difficulty = int(level[0]) if level else 1 + _number(question) % 5
    return {"id": id_, "reason": "It needs it.", "skills": skills, "difficulty": difficulty}


def _skill(question: str) -> str:
    return SKILLS[_number(question) % len(SKILLS)]


def _number(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16)


if __name__ == "__main__":
    with FakeChatServer() as fake:
        print(fake.url, flush=True)  # noqa: T201
        threading.Event().wait()
