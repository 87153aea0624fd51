"""Training in several processes: the adapter of one, one message when a process dies, and nothing left behind."""

import os
import select
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from samples import training_row
from tiny_model import make_tiny_model

from curriculum.errors import TrainingError
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.interface import TrainingSettings
from student.local import LocalStudent

QUESTIONS = ["x", "What is 12 plus 7?", "Solve the problem.", "yes no"]
TARGETS = ["Answer: 19", "19", "true", "red green blue"]
ENDLESS = 10_000
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
"""As the kernel writes 127.0.0.1 and ::1."""
pytestmark = pytest.mark.real


def rows(count):
    return [
        training_row(
            id=f"r{at}", example_id=f"r{at}", question=QUESTIONS[at % 4], target=TARGETS[at % 3], weight=0.5 + at % 2
        )
        for at in range(count)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


def open_student(base, processes):
    training = TrainingConfig(rank=4, alpha=8, batch_tokens=100, processes=processes)
    return closing(LocalStudent(StudentConfig(base=str(base), dtype="float32"), training, "Be brief."))


@pytest.fixture(scope="module")
def pair(base):
    with open_student(base, processes=2) as student:
        yield student


def read(path):
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def processes_of(folder, words=b""):
    """Ids of the processes whose command line names this folder and has these words."""
    lines = {int(p.name): read(p / "cmdline") for p in Path("/proc").glob("[0-9]*")}
    return [pid for pid, line in lines.items() if bytes(folder) in line and words in line and pid != os.getpid()]


def ranks_of(folder):
    """The ids of the processes that train, in order of rank."""
    found = processes_of(folder, b"\0-m\0student.data_parallel")
    return sorted(
        (pid for pid in found if b"torch.distributed.run" not in read(Path(f"/proc/{pid}/cmdline"))),
        key=lambda pid: b"\0RANK=1\0" in read(Path(f"/proc/{pid}/environ")),
    )


def listening_addresses(pids):
    """Addresses on which these processes wait for connections."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    tables = [line.split() for n in ("tcp", "tcp6") for line in Path(f"/proc/net/{n}").read_text().splitlines()[1:]]
    return {fields[1].split(":")[0] for fields in tables if fields[3] == "0A" and fields[9] in inodes}


def test_two_processes_train_the_adapter_of_one(base, pair, tmp_path):
    results, weights, heard, seen = [], [], set(), []

    def watch(progress):
        if progress.done == 1:
            pids = processes_of(tmp_path)
            seen.extend(ranks_of(tmp_path))
            heard.update(listening_addresses(pids))

    with open_student(base, processes=1) as alone:
        for student, folder in ((alone, tmp_path / "1"), (pair, tmp_path / "2")):
            settings = TrainingSettings(1e-2, 2, 0, None)
            results.append(student.train(rows(13), settings, folder, tmp_path / "log", watch))
            weights.append(load_file(folder / "adapter_model.safetensors"))
    one, two = results
    # A row of the 13 is a batch of its own: one process has nothing of it.
    assert one.steps == 14
    assert len(seen) == 2
    assert heard <= LOOPBACK, "nobody else may connect"
    assert heard, "the ranks do talk"
    assert two._replace(losses=(), gradient_norms=()) == one._replace(losses=(), gradient_norms=())
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
    assert two.gradient_norms == pytest.approx(one.gradient_norms, rel=1e-4)
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-5)
    assert {f.name for f in tmp_path.iterdir()} == {"1", "2", "log"}
    assert not processes_of(tmp_path)


@pytest.mark.parametrize(
    ("victim", "message"),
    [
        ("rank 1", "process 1 of the 2 that train was killed by SIGKILL"),
        ("torchrun", "torchrun was killed by SIGKILL"),
        ("job", r"student\.worker was killed by SIGKILL"),
    ],
)
def test_a_killed_process_ends_the_training_with_one_message(pair, tmp_path, victim, message):
    ended = []

    def kill(progress):
        if progress.done == 1:
            first, second = ranks_of(tmp_path)
            (torchrun,) = processes_of(tmp_path, b"torch.distributed.run")
            job = int(read(Path(f"/proc/{torchrun}/stat")).split()[3])
            ended.extend(os.pidfd_open(pid) for pid in (first, second, torchrun))
            os.kill({"rank 0": first, "rank 1": second, "torchrun": torchrun, "job": job}[victim], signal.SIGKILL)

    settings = TrainingSettings(1e-5, ENDLESS, 0, None)
    with pytest.raises(TrainingError, match=f"^memory ran out in training: {message}"):
        pair.train(rows(4), settings, tmp_path / "adapter", tmp_path / "log", kill)
    wait_for_ends(ended)
    assert not processes_of(tmp_path)
    assert not (tmp_path / "adapter").exists()


def wait_for_ends(descriptors):
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 60)[0], "a process is left"
        os.close(descriptor)


def test_killing_the_parent_leaves_no_process(base, tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_data_parallel import ENDLESS, TrainingSettings, open_student, rows
with open_student({str(base)!r}, 2) as student:
    folder = Path({str(tmp_path)!r})
    settings = TrainingSettings(1e-5, ENDLESS, 0, None)
    student.train(rows(4), settings, folder / "adapter", folder / "log", lambda p: print(p.done, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"1\n"
        ended = [os.pidfd_open(pid) for pid in processes_of(tmp_path) if pid != parent.pid]
        assert len(ended) == 3
        parent.kill()
    wait_for_ends(ended)


def test_a_fault_of_the_training_is_told_once(base, tmp_path):
    training = TrainingConfig(rank=4, max_length=5, processes=2)
    with (
        closing(LocalStudent(StudentConfig(base=str(base), dtype="float32"), training, "")) as student,
        pytest.raises(TrainingError, match=r"^expected rows of at most training\.max_length \(5\) tokens, got none$"),
    ):
        student.train(rows(4), TrainingSettings(1e-2, 1, 0, None), tmp_path / "a", tmp_path / "log", lambda _: None)
    assert not processes_of(tmp_path)
