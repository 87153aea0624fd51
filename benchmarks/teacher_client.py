"""The teacher's client beside Bespoke Curator and distilabel: 5,000 rows labelled against one local server, in one run.

    python benchmarks/teacher_client.py --install     (once: makes an environment for each peer under .bench/)
    python benchmarks/teacher_client.py               (under ten minutes)

The server (`delayed_server.py`, a process of its own) takes 0.5 s for each reply; one first request in fifty fails
with a 500, one first reply in fifty is cut. Each program (`label_rows.py`) has the same prompt, one question in a
request, the same number of requests at once, JSON by schema, and its own retries. Ideal are requests × delay ÷ requests
at once, with the requests that the program itself sent. `seconds` is the labelling call without imports, `whole` the
process.

Each program labels all rows; again with everything cached; and all rows in a new folder, killed (SIGKILL, all its
processes) when half are answered, and started again; the counts of `resumed` are those of both. `again` are requests
for rows whose good reply had been delivered before: bought twice; `unheard` are replies that nobody was there for any
more. Memory is the largest sum over a program's processes (proportional set size).
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from delayed_server import CUT_AT, FAILS_AT, ONE_IN
from label_rows import question, setting
from machine import describe

from agents.prompting import load_prompts, questions_block, skill_list

HERE = Path(__file__).parent
BENCH = HERE.parent / ".bench"
PEERS = {
    "curator": ("bespokelabs-curator==0.1.31",),
    "distilabel": ("distilabel[openai,instructor]==1.5.3",),
}
EVERY = 0.5
"""Seconds between two looks at memory and at the server."""
LONGEST = 600.0
HEAD = "program     phase    seconds  whole  rows/s  of ideal  requests  lost  again  unheard  at once  memory, MB"


class Server:
    """The server's process."""

    def __init__(self, delay: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "delayed_server.py"), str(delay)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def get(self, path: str) -> dict[str, float]:
        """A table of counts."""
        with urllib.request.urlopen(f"{self.url}/{path}") as reply:
            table: dict[str, float] = json.load(reply)
            return table

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


class Ended(NamedTuple):
    """One process of a program: what it printed last, its seconds and memory; `said` is empty when it was ended."""

    said: dict[str, Any]
    whole: float
    memory: float
    """Megabytes."""
    code: int


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="makes the peers' environments, and ends")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds of each reply")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--programs", default="tutelage,curator,distilabel")
    parser.add_argument("--curator", type=Path, default=BENCH / "curator/bin/python", help="its Python")
    parser.add_argument("--distilabel", type=Path, default=BENCH / "distilabel/bin/python", help="its Python")
    given = parser.parse_args()
    if given.install:
        return install()
    pythons = {"tutelage": Path(sys.executable), "curator": given.curator, "distilabel": given.distilabel}
    print(describe("openai", "httpx2"))
    print(", ".join(f"{name}: {version(pythons[name], name)}" for name in given.programs.split(",")))
    server = Server(0.0)
    rate = asyncio.run(ceiling(server, 2000, given.concurrency))
    server.stop()
    print(f"the server alone, without delay, to a bare client: {rate:.0f} replies/s")
    server = Server(given.delay)
    try:
        print(f"{given.rows} rows, {given.delay:g} s a reply, {given.concurrency} at once")
        print(HEAD)
        for name in given.programs.split(","):
            with tempfile.TemporaryDirectory() as folder:
                phases(name, pythons[name], server, given, Path(folder))
    finally:
        server.stop()
    return None


def install() -> None:
    """Makes an environment for each peer."""
    for name, packages in PEERS.items():
        subprocess.run([sys.executable, "-m", "venv", str(BENCH / name)], check=True)
        subprocess.run([str(BENCH / name / "bin/pip"), "install", "--quiet", *packages], check=True)


def version(python: Path, name: str) -> str:
    """Of a peer, and of the client library it uses."""
    if name == "tutelage":
        return "this tree"
    wanted = {"curator": ("bespokelabs-curator", "litellm", "aiohttp"), "distilabel": ("distilabel", "openai")}[name]
    code = "import sys; from importlib.metadata import version as v; print(*(n + ' ' + v(n) for n in sys.argv[1:]))"
    return subprocess.run([str(python), "-c", code, *wanted], capture_output=True, text=True).stdout.strip()


def phases(name: str, python: Path, server: Server, given: argparse.Namespace, folder: Path) -> None:
    """All rows; all rows cached; and all rows with a kill in the middle."""
    calm, killed = (job(folder / what, server.url, given) for what in ("calm", "killed"))
    for phase, file in (("all", calm), ("cached", calm)):
        server.get("reset")
        show(name, phase, run(name, python, file, server), server, given)
    server.get("reset")
    ended = run(name, python, killed, server, kill_at=given.rows // 2)
    show(name, "killed", ended, server, given)
    show(name, "resumed", run(name, python, killed, server), server, given)


def job(folder: Path, url: str, given: argparse.Namespace) -> Path:
    """The file that says what to do; the prompts are those that this program's client makes."""
    (folder / "state").mkdir(parents=True)
    rows: list[dict[str, Any]] = [{"row": row} for row in range(given.rows)]
    task = {"url": url, "rows": rows, "concurrency": given.concurrency}
    examples, catalogue, _ = setting(task)
    prompt = load_prompts()["label"]
    for row, example in zip(rows, examples, strict=True):
        row["prompt"] = prompt.render(skills=skill_list(catalogue), questions=questions_block(["q1"], [example]))
        assert question(row["row"]) in row["prompt"]
    path = folder / "job.json"
    path.write_text(json.dumps(task))
    return path


def run(name: str, python: Path, file: Path, server: Server, kill_at: int | None = None) -> Ended:
    """Runs a program to its end, or until so many rows are answered; then all its processes are killed."""
    since, memory = time.perf_counter(), 0.0
    log = file.with_suffix(f".{time.time_ns()}.log")
    with log.open("w") as out:
        process = subprocess.Popen(
            [str(python), str(HERE / "label_rows.py"), name, str(file)],
            cwd=HERE.parent,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        while process.poll() is None:
            memory = max(memory, session_memory(process.pid))
            answered = kill_at is not None and server.get("stats")["rows"] >= kill_at
            if answered or time.perf_counter() - since > LONGEST:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            else:
                time.sleep(EVERY)
    whole = time.perf_counter() - since
    lines = log.read_text(errors="replace").splitlines()
    if process.returncode == 0:
        return Ended(json.loads(lines[-1]), whole, memory, 0)
    if process.returncode != -signal.SIGKILL or kill_at is None:
        print("\n".join(line[:300] for line in lines[-12:]))
    return Ended({}, whole, memory, process.returncode)


def session_memory(leader: int) -> float:
    """Megabytes of all processes of a session; pages that several share are counted once."""
    total = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != leader:
                continue
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:  # it ended meanwhile
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1000


def show(name: str, phase: str, ended: Ended, server: Server, given: argparse.Namespace) -> None:
    """A line of the table."""
    time.sleep(2 * given.delay)  # replies to a process that was killed
    seen = server.get("stats")
    seconds = ended.said.get("seconds", ended.whole)
    labelled = ended.said.get("labelled", 0)
    ideal = seen["requests"] * given.delay / given.concurrency
    share = f"{ideal / seconds:.1%}" if phase == "all" and ended.said else "–"
    lost = str(given.rows - labelled) if ended.said else ("–" if phase == "killed" else "all: it ended")
    print(
        f"{name:<11} {phase:<8}{seconds:>8.1f}{ended.whole:>7.1f}{labelled / seconds:>8.1f}{share:>10}"
        f"{seen['requests']:>10.0f}{lost:>6}{seen['again']:>7.0f}{seen['unheard']:>9.0f}{seen['most_busy']:>9.0f}"
        f"{ended.memory:>12.0f}",
        flush=True,
    )


async def ceiling(server: Server, requests: int, at_once: int) -> float:
    """Replies a second of the server to a client that does nothing but write and read."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"messages": [{"content": f"Row {ONE_IN + max(FAILS_AT, CUT_AT) + 1}: " + "x" * 3000}]})
    request = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    async def ask(times: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(times):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b"Length: ")[2]))
        writer.close()

    since = time.perf_counter()
    await asyncio.gather(*(ask(requests // at_once) for _ in range(at_once)))
    return requests // at_once * at_once / (time.perf_counter() - since)


if __name__ == "__main__":
    main()
