"""Heavy work in a process of its own: one JSON job on stdin, one JSON line per event on stdout.

`Worker` is the parent's side, `serve` the worker's. Log text goes to stderr, into the caller's log file. A
worker sees no secret of the environment, dies with its parent, and is killed when its events are no longer
wanted. Neither side knows what the job is.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from curriculum.addresses import SECRET
from curriculum.errors import OutOfMemory, StudentError, TrainingError, UserError

Event = dict[str, Any]
"""Plain JSON values: a job, or what is said of it."""
RAISED: dict[str, type[Exception]] = {e.__name__: e for e in (UserError, StudentError, TrainingError, OutOfMemory)}
LOG_END_CHARACTERS = 2000
NO_MEMORY = (
    *("allocate memory", "not enough memory", "out of memory", "MemoryError", "bad_alloc", "memory allocation of"),
    *("failed to map segment", "ALLOC_FAILED"),
)
"""What Python, torch, CUDA, C++, Rust and the kernel say when memory runs out."""


class Worker:
    """A process that does one job after another, each in a fork of its own.

    The libraries are loaded once, by importing the module; a job leaves nothing behind for the next one, and
    one that fails takes nothing with it. The process starts with the first job.
    """

    def __init__(self, module: str, threads: int) -> None:
        self._module = module
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, job: Event, log: Path, failure: type[StudentError] = StudentError) -> Iterator[Event]:
        """Does a job and yields its events as they come.

        Args:
            job: plain JSON values.
            log: file the job's stderr is appended to.
            failure: what to raise when the job dies without saying why.

        Raises:
            StudentError: or the `failure` given, when the job died; the message ends with the end of its log.
            OutOfMemory: memory ran out, or the job was killed by SIGKILL, as the system does then.
            UserError: when the job says so.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        start = log.stat().st_size if log.exists() else 0
        process = self._started(log)
        assert process.stdout is not None
        finished = False
        try:
            self._send(process, {"log": str(log.absolute()), "job": job})
            for line in process.stdout:
                event = json.loads(line)
                if "raise" in event:
                    raise RAISED[event["raise"]](event["message"])
                if "ended" in event:
                    finished = True
                    if event["ended"] != 0:
                        raise _death(self._module, event["ended"], log, start, failure)
                    return
                yield event
            finished = True
            raise _death(self._module, process.wait(), log, start, failure)
        finally:
            if not finished:
                self.close()

    def close(self) -> None:
        """Kills the process and the job it is doing, if any."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None and process.stdout is not None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.read()  # ends when the job, which holds the other end, is gone, too
        process.stdout.close()
        with suppress(BrokenPipeError):  # what the killed process did not read
            process.stdin.close()

    def _started(self, log: Path) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            command = [sys.executable, "-P", "-m", self._module, str(os.getpid())]
            with log.open("ab") as stderr:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=worker_environment(self._threads),
                    start_new_session=True,
                )
        return self._process

    @staticmethod
    def _send(process: "subprocess.Popen[bytes]", order: Event) -> None:
        assert process.stdin is not None
        # A broken pipe: it died before it read the job; its exit status and log tell why.
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()


def run_worker(
    module: str, job: Event, *, threads: int, log: Path, failure: type[StudentError] = StudentError
) -> Iterator[Event]:
    """Does one job in a worker of its own; see `Worker.run`."""
    worker = Worker(module, threads)
    try:
        yield from worker.run(job, log, failure)
    finally:
        worker.close()


def sample_ids(prompt: Event) -> list[str]:
    """The ids of all answers that are wanted to a prompt of a job."""
    return [prompt["id"], *prompt.get("more", ())]


def worker_environment(threads: int) -> dict[str, str]:
    """The parent's environment without secrets, offline, and able to import these packages."""
    kept = {name: value for name, value in os.environ.items() if not any(s in name.upper() for s in SECRET)}
    packages = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {
        # A thread that waits for another must not spin: on a shared or throttled CPU it takes the other's time.
        "GOMP_SPINCOUNT": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(packages),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }


def _death(module: str, returncode: int, log: Path, start: int, failure: type[StudentError]) -> StudentError:
    how = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with status {returncode}"
    with log.open("rb") as file:
        file.seek(start)
        end = file.read().decode(errors="replace")[-LOG_END_CHARACTERS:].strip()
    # Libraries that cannot raise end the process; the system kills it without a word.
    no_memory = returncode == -signal.SIGKILL or any(sign in end for sign in NO_MEMORY)
    hint = " (most often: memory ran out)" if no_memory else ""
    return (OutOfMemory if no_memory else failure)(f"{module} {how}{hint}. The end of {log}:\n{end or '(empty)'}")


def serve(work: Callable[[Event], Iterator[Event]]) -> NoReturn:
    """Reads one order a line, and does each job in a fork of this process, until there are no more.

    Errors a user or the caller can act on are sent as events; any other ends the job with a traceback in its log.
    """
    threading.Thread(target=_die_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    # Libraries print to stdout; the events get a descriptor of their own.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        order = json.loads(line)
        job = os.fork()
        if job == 0:
            do_job(work, order, events)
        _, status = os.waitpid(job, 0)
        _emit(events, {"ended": os.waitstatus_to_exitcode(status)})
    os._exit(0)


def do_job(work: Callable[[Event], Iterator[Event]], order: Event, events: TextIO) -> NoReturn:
    """Does the `job` of an order and ends this process; what libraries print goes into the order's `log`."""
    status = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for event in work(order["job"]):
            _emit(events, event)
        status = 0
    except tuple(RAISED.values()) as error:
        _emit(events, {"raise": type(error).__name__, "message": str(error)})
    except BaseException as error:
        traceback.print_exc()
        if is_out_of_memory(error):
            _emit(events, {"raise": OutOfMemory.__name__, "message": _short(error)})
    finally:
        # The interpreter's own end can hang in library threads; everything is flushed.
        sys.stderr.flush()
        os._exit(status)


def _emit(events: TextIO, event: Event) -> None:
    print(json.dumps(event), file=events, flush=True)


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)  # the job too


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
