"""Training in several processes, one a GPU (or on the CPU, for tests): every batch is split, gradients are summed.

`train_parallel` is a worker's job that starts torchrun; `python -m student.data_parallel` is one of its processes, a
rank. Each rank draws the same batches, takes its rows of each, and divides by the target tokens of the whole batch,
so the sum of the gradients is the gradient that one process has. Rank 0 writes and reports; whichever fails says why.

Nothing here listens beyond this machine: ranks meet in a file, and talk over the loopback interface. A rank ends when
its standard input does, so none outlives the job, whatever kills it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from curriculum.errors import OutOfMemory, StudentError, TrainingError, UserError
from student.subprocess_job import LOG_END_CHARACTERS, RAISED, Event, do_job

ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    # torchrun would open a store of its own, to all interfaces and without a key.
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}
FAILED = re.compile(rb"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
"""How torchrun logs the process that failed first."""
LOST_SECONDS = 3.0


def command(processes: int, folder: Path, python: str = sys.executable) -> list[str]:
    """What starts the ranks; they find the job in `folder`, where they and torchrun also meet."""
    return [
        python, "-P", "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(processes),
        "--max-restarts", "0", "--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file",
        "--rdzv-endpoint", str(folder / "torchrun"), "--local-addr", "127.0.0.1", "--log-dir", str(folder),
        "--no-python", python, "-P", "-m", "student.data_parallel", str(folder),
    ]  # fmt: skip


def train_parallel(job: Event) -> Iterator[Event]:
    """Does a job of `train_worker.train` in `training.processes` ranks; `log` names the file they write to.

    Raises:
        TrainingError: as `train`; or a rank died.
        OutOfMemory: in a rank, or one was killed by SIGKILL.
        UserError: as `train`; or there are fewer GPUs than processes.
    """
    log, target = Path(job["log"]), Path(job["folder"])
    folder = target.with_name(f".{target.name}.ranks")
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(job))
    start = log.stat().st_size if log.exists() else 0
    ranks = subprocess.Popen(
        command(job["training"]["processes"], folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | ENVIRONMENT,
    )
    stdin, stdout = ranks.stdin, ranks.stdout
    assert stdin is not None and stdout is not None
    # Without torchrun nobody would end the other ranks when one fails.
    threading.Thread(target=lambda: (ranks.wait(), stdin.close()), daemon=True).start()
    try:
        for line in stdout:
            event = json.loads(line)
            if "raise" in event:
                raise RAISED[event["raise"]](event["message"])
            yield event
        if ranks.wait() != 0:
            raise _death(job["training"]["processes"], ranks.returncode, log, start)
    finally:
        ranks.kill()
        ranks.wait()
        stdin.close()
        stdout.read()  # ends when the last rank, which holds the other end, is gone
        shutil.rmtree(folder)


def _death(processes: int, status: int, log: Path, start: int) -> StudentError:
    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
    failed = FAILED.search(text)
    code = int(failed[1]) if failed else status
    who = f"process {int(failed[2])} of the {processes} that train" if failed else "torchrun"
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    said = text[: failed.start()].rpartition(b"\n")[0] if failed else text
    end = said.decode(errors="replace")[-LOG_END_CHARACTERS:].strip() or "(empty)"
    # As of any job: the system kills without a word when memory runs out.
    kind = OutOfMemory if code == -signal.SIGKILL else TrainingError
    return kind(f"{who} {how}. The end of {log} before that:\n{end}")


def _rank(job: Event) -> Iterator[Event]:
    """One rank's training; rank 0's events."""
    import torch
    from torch.distributed import FileStore, init_process_group  # type: ignore[attr-defined]

    from student.train_worker import train

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    gpus = torch.cuda.device_count()
    if 0 < gpus < ranks:
        raise UserError(
            f"training.processes: expected at most one a GPU, got {ranks} for {gpus}. Lower it: tutelage fork RUN "
            f"--round K --set training.processes={gpus}"
        )
    store = FileStore(str(Path(sys.argv[1]) / "ranks"), ranks)
    init_process_group("nccl" if gpus else "gloo", store=store, rank=rank, world_size=ranks)
    try:
        for event in train(job, rank, ranks):
            if rank == 0:
                yield event
    except RuntimeError:
        # Perhaps another rank died and this one only lost it: let torchrun, which looks ten times a second, find that
        # one first and end this one. The message then names the cause.
        time.sleep(LOST_SECONDS)
        raise


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> NoReturn:
    """One of torchrun's processes: does its part of the job and ends."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    job = json.loads((Path(sys.argv[1]) / "job.json").read_text())
    do_job(_rank, {"log": job["log"], "job": job}, events)


if __name__ == "__main__":
    main()
