"""Heavy work in a process of its own: one JSON job on stdin, one JSON line per event on stdout.

`run_worker` is the parent's side, a generator of events; `serve` is the worker's. Log text goes to
stderr, into the caller's log file. A worker sees no secret of the environment, dies with its parent and
is killed when the generator is closed. Neither side knows what the job is.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from curriculum.errors import StudentError, TrainingError, UserError

Event = dict[str, Any]
SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL")
"""A variable with one of these in its name is not given to a worker."""
RAISED: dict[str, type[Exception]] = {e.__name__: e for e in (UserError, StudentError, TrainingError)}
LOG_END_CHARACTERS = 2000


def run_worker(
    module: str, job: Event, *, threads: int, log: Path, failure: type[StudentError] = StudentError
) -> Iterator[Event]:
    """Runs `python -m module` on a job and yields its events as they come.

    Args:
        module: a module whose main calls `serve`.
        job: plain JSON values.
        threads: CPU threads the worker may use.
        log: file the worker's stderr is appended to.
        failure: what to raise when the worker dies without saying why.

    Raises:
        StudentError: or the `failure` given, when the worker died; the message ends with the end of its log.
        UserError: when the worker says so.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", module, str(os.getpid())]
    with log.open("ab") as stderr:
        start = stderr.tell()
        worker = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=worker_environment(threads),
            start_new_session=True,
        )
    try:
        assert worker.stdin is not None and worker.stdout is not None
        _send(worker.stdin, job)
        for line in worker.stdout:
            event = json.loads(line)
            if "raise" in event:
                raise RAISED[event["raise"]](event["message"])
            yield event
        if worker.wait() != 0:
            raise failure(_death(module, worker.returncode, log, start))
    finally:
        _kill(worker)


def worker_environment(threads: int) -> dict[str, str]:
    """The parent's environment without secrets, offline, and able to import these packages."""
    kept = {name: value for name, value in os.environ.items() if not any(s in name.upper() for s in SECRET)}
    packages = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(packages),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }


def _send(stdin: Any, job: Event) -> None:
    try:
        with stdin:
            stdin.write(json.dumps(job).encode())
    except BrokenPipeError:
        pass  # The worker died before it read the job; its exit status and log tell why.


def _death(module: str, returncode: int, log: Path, start: int) -> str:
    how = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with status {returncode}"
    hint = " (often: memory ran out)" if returncode == -signal.SIGKILL else ""
    with log.open("rb") as file:
        file.seek(start)
        end = file.read().decode(errors="replace")[-LOG_END_CHARACTERS:].strip()
    return f"{module} {how}{hint}. The end of {log}:\n{end or '(empty)'}"


def _kill(worker: subprocess.Popen[bytes]) -> None:
    if worker.poll() is None:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


def serve(work: Callable[[Event], Iterator[Event]]) -> NoReturn:
    """Reads the job, does the work and prints its events; then ends this process.

    Errors a user or the caller can act on are sent as events; any other ends the process with a traceback in the log.
    """
    threading.Thread(target=_die_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    # Libraries print to stdout; the events get a descriptor of their own.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        for event in work(json.loads(sys.stdin.buffer.read())):
            print(json.dumps(event), file=events, flush=True)
    except tuple(RAISED.values()) as error:
        print(json.dumps({"raise": type(error).__name__, "message": str(error)}), file=events, flush=True)
    # The interpreter's own end can hang in library threads; everything is flushed.
    sys.stderr.flush()
    os._exit(0)


def _die_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that memory ran out."""
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)
