"""One grading worker seen from its parent: started when first asked, asked item by item, restarted after a break.

An item that raises, takes too much processor time or memory, or kills the worker raises `BrokenItem` and costs
nothing else; a worker that cannot start raises `GradingError`, one whose grader is the user's own `DataError`. What
the worker may do is in `confinement`.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from curriculum import grading_worker
from curriculum.errors import DataError, GradingError

START_SECONDS = 120.0
WALL_FACTOR = 10
"""Wall-clock seconds an item may take for each second of processor time: only a stuck worker needs them all."""


class BrokenItem(Exception):
    """One item broke its worker; the message says how."""


class WorkerProcess:
    """A worker named `math`, `reasoning_gym` or `regex`, or `python` for the user's function; `stop` it when done."""

    def __init__(
        self, name: str, limit_seconds: float, memory_bytes: int, function: tuple[str, Path] | None = None
    ) -> None:
        self._name = name
        self._function = function
        self._limit_seconds = limit_seconds
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any]) -> Any:
        """The worker's result: whether the answer in the request is correct; for `regex` what was found, or `None`.

        Raises:
            BrokenItem: the item broke the worker.
            DataError: the user's function cannot be loaded.
            GradingError: the worker cannot be started.
        """
        try:
            reply = self._exchange(request)
        except EOFError:
            # Killed from outside, say for want of memory, a worker says nothing about the item: it is asked again.
            try:
                reply = self._exchange(request)
            except EOFError as death:
                reply = {"error": str(death)}
        if "error" in reply:
            raise BrokenItem(reply["error"])
        return reply["result"]

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and returns the reply; raises EOFError when the worker died of anything but its limit."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = self._start()
        try:
            line = memoryview(json.dumps(request).encode() + b"\n")
            while line:
                line = line[_pipe(self._process.stdin).write(line) :]
            return self._read(self._limit_seconds * WALL_FACTOR)
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            if code != -signal.SIGPROF:
                raise EOFError(f"the worker ended with exit code {code}") from None
            return {"error": f"more than {self._limit_seconds:g} seconds of processor time"}
        except TimeoutError:
            self.stop()
            return {"error": f"no verdict after {self._limit_seconds * WALL_FACTOR:g} seconds"}

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _pipe(self._process.stdin).close()
            _pipe(self._process.stdout).close()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        # `-I` keeps the user's site and the current folder out; no secret is in this environment.
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        arguments = [self._name, str(self._limit_seconds), str(self._memory_bytes), *map(str, self._function or ())]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(Path(grading_worker.__file__)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            reply = self._read(START_SECONDS)
        except (EOFError, TimeoutError) as error:
            reply = {"error": repr(error)}
        if "error" in reply:
            self.stop()
            if self._function:
                raise DataError(
                    f"data.grader_function {self._function[0]}: expected a function that can be loaded in "
                    f"{self._function[1]}, got {reply['error']}. A grader has no network, writes no file and "
                    "starts no process or thread, also while it is imported"
                )
            raise GradingError(
                f"the grading worker `{self._name}` did not start: {reply['error']}. Check that math-verify and "
                "reasoning-gym are installed as pyproject.toml asks, and that memory is left"
            )
        return self._process

    def _read(self, seconds: float) -> dict[str, Any]:
        """The next reply: one short line."""
        assert self._process is not None
        stdout = _pipe(self._process.stdout)
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(seconds):
                    raise TimeoutError
                part = os.read(stdout.fileno(), 65536)
                if not part:
                    raise EOFError
                line += part
        reply: dict[str, Any] = json.loads(line)
        return reply


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
