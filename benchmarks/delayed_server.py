"""A FAKE chat server for timings: every reply takes the same time, some first tries fail, some replies are malformed.

    python benchmarks/delayed_server.py SECONDS     (prints its address; `GET /stats`; `POST /reset`)

A process of its own, on asyncio alone, so that it costs a client's core nothing. A request belongs to the row whose
`Row N:` is in its body. Of the first requests for rows one in fifty gets a 500, and another one in fifty a reply that
is cut in the middle of its JSON; any later request for the row gets a good reply.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter

ROW = re.compile(rb"Row (\d+):")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
TOOL = re.compile(rb'"function": ?\{"name": ?"(\w+)"')
LABEL = {"id": "q1", "reason": "The student adds two numbers.", "skills": ["skill_03", "skill_07"], "difficulty": 2}
GOOD = json.dumps({"labels": [LABEL]})
PROBE = json.dumps({"name": "Jason", "age": 25})
"""What Curator wants to hear before it believes that a server keeps to a schema."""
ONE_IN, FAILS_AT, CUT_AT = 50, 7, 23


def fails(row: int) -> bool:
    """Whether the first request for a row gets a 500."""
    return row % ONE_IN == FAILS_AT


def is_cut(row: int) -> bool:
    """Whether the first reply for a row is malformed."""
    return row % ONE_IN == CUT_AT


class Counts:
    """What the server saw since the last reset."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.good: Counter[int] = Counter()
        """Good replies that were handed to a connection that still stood, by row."""
        self.again = 0
        """Requests for a row that had got its good reply before: bought twice."""
        self.unheard = 0
        """Replies whose connection was gone."""
        self.others = 0
        """Requests for no row."""
        self.busy = self.most_busy = 0
        self.first = self.last = 0.0
        self.cpu = time.process_time()

    def table(self) -> dict[str, float]:
        """As the client of `/stats` gets it."""
        return {
            "requests": self.asked.total(),
            "rows": len(self.good),
            "again": self.again,
            "unheard": self.unheard,
            "others": self.others,
            "most_busy": self.most_busy,
            "span": self.last - self.first,
            "cpu": time.process_time() - self.cpu,
        }


class Server:
    """The delay and the counts all connections share."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.counts = Counts()
        self.loop = asyncio.get_running_loop()


class Connection(asyncio.Protocol):
    """HTTP/1.1, as much of it as these clients speak."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.data = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Takes whole requests off what was sent."""
        self.data += data
        while True:
            head, mark, rest = self.data.partition(b"\r\n\r\n")
            found = LENGTH.search(head)
            length = int(found[1]) if found else 0
            if not mark or len(rest) < length:
                return
            body, self.data = rest[:length], rest[length:]
            self.request(head.split(b" ", 2)[1], body)

    def request(self, path: bytes, body: bytes) -> None:
        """Answers `/stats` and `/reset` at once and all else after the delay."""
        server, counts = self.server, self.server.counts
        if path == b"/stats":
            return self.send(200, json.dumps(counts.table()))
        if path == b"/reset":
            server.counts = Counts()
            return self.send(200, "{}")
        found = ROW.search(body)
        if found is None:
            counts.others += 1
            return self.reply(None, 0, None)
        row = int(found[1])
        counts.first = counts.first or server.loop.time()
        counts.asked[row] += 1
        counts.again += counts.good[row] > 0
        counts.busy += 1
        counts.most_busy = max(counts.most_busy, counts.busy)
        tool = TOOL.search(body)
        server.loop.call_later(server.delay, self.reply, row, counts.asked[row], tool and tool[1].decode())
        return None

    def reply(self, row: int | None, try_: int, tool: str | None) -> None:
        """The end of a request, good or not; as a call of a tool where the request has one."""
        counts, first = self.server.counts, row is not None and try_ == 1
        if row is not None:
            counts.busy -= 1
            counts.last = self.server.loop.time()
            if self.transport.is_closing():
                counts.unheard += 1
                return
        if first and fails(row or 0):
            return self.send(500, '{"error": {"message": "overheated"}}')
        cut = first and is_cut(row or 0)
        if row is not None and not cut:
            counts.good[row] += 1
        content = PROBE if row is None else GOOD[: len(GOOD) // 2] if cut else GOOD
        message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
        if tool:
            call = {"id": "call_1", "type": "function", "function": {"name": tool, "arguments": content}}
            message |= {"content": None, "tool_calls": [call]}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 700, "completion_tokens": 40, "total_tokens": 740},
        }
        return self.send(200, json.dumps(answer))

    def send(self, status: int, text: str) -> None:
        """Writes a whole response."""
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        self.transport.write((head + text).encode())


async def main() -> None:
    """Serves until it is killed."""
    shared = Server(float(sys.argv[1]))
    serving = await shared.loop.create_server(lambda: Connection(shared), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}", flush=True)
    await serving.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
