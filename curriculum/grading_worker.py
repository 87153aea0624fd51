"""The process that runs graders which parse hostile text: math-verify and reasoning-gym's scorers.

Started as a script, so that it imports nothing of this project: `grading_worker.py NAME CPU_SECONDS MEMORY_BYTES`.
Reads one JSON request a line and writes one JSON reply a line: `{"correct": bool}` or `{"error": text}`; the first
reply says that it is ready. It confines itself before it reads anything, and ends when its input does. An item that
takes too much processor time kills the process: the kernel does it, so also inside C code, and also without a parent.
"""

import ctypes
import importlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
FORBIDDEN = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system")
"""Audit events of Python that no grader needs."""

Check = Callable[[dict[str, Any]], bool]


def leave_network() -> None:
    """Moves this process into an empty network namespace where the kernel allows it; needs a single thread."""
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(CLONE_NEWNET) != 0:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)


def confine(memory_bytes: int) -> None:
    """Takes away sockets, new processes, files and cores, and leaves `memory_bytes` beyond what is in use."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    sys.addaudithook(_refuse)


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        raise PermissionError(f"a grader may not use {event}")


def math_check() -> Check:
    """Mathematical equivalence by math-verify: gold first, and two unparsed texts are not equal."""
    math_verify = importlib.import_module("math_verify")

    def parse(text: str) -> list[Any]:
        # Its own timeouts are wall-clock alarms: on a busy machine they would change verdicts.
        parsed: list[Any] = math_verify.parse(
            text, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True
        )
        return parsed

    def check(request: dict[str, Any]) -> bool:
        gold, answer = parse(request["gold"]), parse(request["answer"])
        return bool(math_verify.verify(gold, answer, timeout_seconds=None, raise_on_error=True))

    return check


def gym_check() -> Check:
    """The scorer of the request's reasoning-gym task; correct means a score of exactly 1."""
    gym = importlib.import_module("reasoning_gym")
    scorers: dict[str, Callable[..., float]] = {}

    def check(request: dict[str, Any]) -> bool:
        task = request["task"]
        if task not in scorers:
            scorers[task] = gym.get_score_answer_fn(task)
        return float(scorers[task](answer=request["answer"], entry=request["entry"])) == 1.0

    return check


def reply(replies: TextIO, value: dict[str, Any]) -> None:
    """Writes one reply."""
    replies.write(json.dumps(value) + "\n")
    replies.flush()


def answer_one(check: Check, line: str, cpu_seconds: float) -> dict[str, Any]:
    """The reply to one request; too much processor time ends the process by SIGPROF."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        return {"correct": check(json.loads(line))}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Serves requests until the input ends."""
    name, cpu_seconds, memory_bytes = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    # What a library prints must not be taken for a reply.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable()
    leave_network()
    try:
        check = math_check() if name == "math" else gym_check()
        confine(memory_bytes)
    except Exception as error:
        reply(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    reply(replies, {"ready": True})
    for line in sys.stdin:
        reply(replies, answer_one(check, line, cpu_seconds))


if __name__ == "__main__":
    main()
