"""Runs a server in this process group, and ends the whole group when the parent or the server is gone.

Started as the leader of a group of its own: `python -m student.vllm_guard PARENT COMMAND…`. A signal to stop is
passed on to the server, which gets some seconds to finish what it does. Nothing of the group is left afterwards,
however the parent ended: it is watched from a process that imports nothing and so always gets to run.
"""

import os
import signal
import subprocess
import sys
import time
from typing import NoReturn

DRAIN_SECONDS = 20.0
POLL_SECONDS = 0.2
SAYS = "vllm_guard: "
"""What every sentence of a guard begins with. One that says nothing was killed itself."""
TOLD = "told to stop"


def guard(parent: int, command: list[str]) -> NoReturn:
    """Runs `command` until it ends, is told to stop, or `parent` is gone; then kills the group, itself included."""
    stop_by: list[float] = []

    def stop(number: int, frame: object) -> None:
        if not stop_by:
            stop_by.append(time.monotonic() + DRAIN_SECONDS)
            say(TOLD)
            server.terminate()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, stop)
    while server.poll() is None and os.getppid() == parent and not (stop_by and time.monotonic() > stop_by[0]):
        time.sleep(POLL_SECONDS)
    status = server.poll()
    if status is None:
        say("the server did not stop in time" if stop_by else "the process that started the server is gone")
    else:
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        say(f"the server ended: {how}")
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL reaches this process, too")


def say(sentence: str) -> None:
    """Writes into the server's log, from a signal handler, too."""
    os.write(2, f"\n{SAYS}{sentence}\n".encode())


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2:])
