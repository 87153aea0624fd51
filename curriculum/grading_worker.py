"""The process that runs graders which parse hostile text or are the user's own code.

Started as a script, so that it imports nothing of this project: `grading_worker.py NAME CPU_SECONDS MEMORY_BYTES`,
for a user's function `python CPU_SECONDS MEMORY_BYTES MODULE:FUNCTION FOLDER`. Reads one JSON request a line and
writes one JSON reply a line: `{"result": …}` or `{"error": text}`; the first reply says that it is ready. It confines
itself before it imports the user's code or reads anything, and ends when its input does. An item that takes too much
processor time kills the process: the kernel does it, so also inside C code, and also without a parent.
"""

import importlib
import json
import logging
import os
import re
import runpy
import signal
import sys
from collections import deque
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TextIO

Check = Callable[[dict[str, Any]], bool | str | None]


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


def regex_check() -> Check:
    """What the last match of the request's pattern holds: its first group that took part, or all of it."""

    def check(request: dict[str, Any]) -> str | None:
        matches = deque(re.finditer(request["pattern"], request["text"]), maxlen=1)
        if not matches:
            return None
        groups = matches[0].groups()
        return next((g for g in groups if g is not None), None) if groups else matches[0][0]

    return check


def python_check(name: str, folder: str) -> Check:
    """The user's function `package.module:function`, from a folder or from what is installed."""
    sys.path.insert(0, folder)
    module, _, attributes = name.partition(":")
    function = reduce(getattr, attributes.split("."), importlib.import_module(module))
    if not callable(function):
        raise TypeError(f"{name} is no function but a {type(function).__name__}")

    def check(request: dict[str, Any]) -> bool:
        result = function(**request)
        if result is not True and result is not False:
            raise TypeError(f"{name} returned a {type(result).__name__}, expected True or False")
        return result

    return check


def load_check(name: str, arguments: list[str]) -> Check:
    """The grader of this name."""
    if name == "python":
        return python_check(*arguments)
    return {"math": math_check, "reasoning_gym": gym_check, "regex": regex_check}[name]()


def reply(replies: TextIO, value: dict[str, Any]) -> None:
    """Writes one reply."""
    replies.write(json.dumps(value) + "\n")
    replies.flush()


def answer_one(check: Check, line: str, cpu_seconds: float) -> dict[str, Any]:
    """The reply to one request; too much processor time ends the process by SIGPROF."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    try:
        return {"result": check(json.loads(line))}
    except BaseException as error:
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
    confinement = runpy.run_path(str(Path(__file__).with_name("confinement.py")))
    try:
        confinement["leave_network"]()
        if name == "python":  # its import is the user's code; libraries may write caches of theirs
            confinement["confine"]()
        check = load_check(name, sys.argv[4:])
        if name != "python":
            confinement["confine"]()
        confinement["limit_memory"](memory_bytes)
    except BaseException as error:
        reply(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    reply(replies, {"ready": True})
    for line in sys.stdin:
        reply(replies, answer_one(check, line, cpu_seconds))


if __name__ == "__main__":
    main()
