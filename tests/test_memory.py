"""Memory that runs out, for real: one message that says what to lower, exit code 2, nothing half-written."""

import errno
import resource
from pathlib import Path

import pytest
import transformers
from command import canonical_files, limited, write_config
from tiny_model import make_tiny_model

from student.loading import load_base

MEMORY = resource.RLIMIT_AS, 6 * 2**30
"""Address space of the command and of its workers: enough for the libraries and the tiny model."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, engine="transformers", base=str(make_tiny_model(tmp_path / "tiny")))


@pytest.mark.real
def test_a_training_without_memory_says_what_to_lower_and_how_to_go_on(tmp_path: Path, config: Path) -> None:
    done = limited(*MEMORY, "run", config, "--name", "run", "--set", "rounds=1", "--set", "training.rank=10000000")
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("error: ") == 1
    for part in ("memory ran out in training: ", "can't allocate memory", "training.batch_tokens (now 1024)"):
        assert part in done.stderr
    assert "training.rank (now 10000000)" in done.stderr and "dtype bfloat16" in done.stderr
    fork = f"tutelage fork {tmp_path / 'run'} --round 0 --set training.KEY=VALUE"
    assert fork in done.stderr
    train = tmp_path / "run" / "round_01" / "train"
    assert sorted(p.name for p in train.iterdir()) == ["started.json", "train.log"]
    before = canonical_files(tmp_path / "run")

    done = limited(*MEMORY, "resume", tmp_path / "run", "--set", "training.rank=4")
    assert done.returncode == 2 and "training.rank: 10000000 → 4" in done.stderr and "tutelage fork" in done.stderr
    assert canonical_files(tmp_path / "run") == before
    done = limited(*MEMORY, "fork", tmp_path / "run", "--round", "0", "--name", "lower", "--set", "training.rank=4")
    assert done.returncode == 0, done.stderr


@pytest.mark.real
def test_answers_without_memory_say_what_to_lower(tmp_path: Path, config: Path) -> None:
    done = limited(*MEMORY, "run", config, "--name", "run", "--set", "student.max_new_tokens=100000000")
    assert done.returncode == 2 and "Traceback" not in done.stderr and done.stderr.count("error: ") == 1
    for part in ("memory ran out while answering: ", "student.batch_size (now 16)", "start a new run with --set"):
        assert part in done.stderr
    assert "student.max_new_tokens (now 100000000)" in done.stderr
    assert not (tmp_path / "run" / "answers" / "base" / "probe" / "answers.jsonl").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError()])
def test_a_base_that_does_not_fit_is_not_called_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", no_memory)
    with pytest.raises(type(error)) as caught:
        load_base(make_tiny_model(tmp_path / "tiny"), "float32", 1)
    assert caught.value is error
