"""SIGKILL anywhere, then resume: the canonical files equal those of an undisturbed run, byte for byte."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from command import canonical_files, tutelage, write_config
from tiny_model import make_tiny_model

pytestmark = pytest.mark.real
MOST_KILLS = 200
EXTRA = "extra: {far: {kind: reasoning_gym, tasks: {gcd: [{difficulty: 1}]}, per_task: 20}}\n"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A config with the fake student, and the canonical files of its undisturbed run."""
    return undisturbed(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The same with a tiny randomly initialised model, answered and trained for real."""
    folder = tmp_path_factory.mktemp("tiny")
    return undisturbed(folder, engine="transformers", base=str(make_tiny_model(folder / "model")))


def undisturbed(folder: Path, **student: str) -> tuple[Path, dict[str, str]]:
    config = write_config(folder, **student, extra=EXTRA)
    done = tutelage("run", config, "--name", "run")
    assert done.code == 0, done.err
    files = canonical_files(folder / "run")
    (folder / "run").rename(folder / "undisturbed")
    return config, files


def kill_until_done(config: Path, point: str, first: int, later: int) -> int:
    """Kills the run each time it reaches a point, until it gets through; returns how often it was killed."""
    run = config.parent / "run"
    done = tutelage("run", config, "--name", "run", kill_at=(point, first))
    kills = 0
    while done.code:
        assert done.code == -9, done.err
        kills += 1
        assert kills < MOST_KILLS
        done = tutelage("resume", run, kill_at=(point, later))
    return kills


def set_aside(config: Path) -> dict[str, str]:
    """The canonical files of the finished run, whose name is then free for the next test."""
    run = config.parent / "run"
    found = canonical_files(run)
    run.rename(config.parent / f"killed-{len(list(config.parent.iterdir()))}")
    return found


def test_killed_before_each_done_json(fake: tuple[Path, dict[str, str]]) -> None:
    config, expected = fake
    stages = sum(path.endswith("done.json") for path in expected)
    # The second `done.json` of each resumed process: the first is that of the stage it was killed in.
    assert kill_until_done(config, "done", 1, 2) == stages
    assert set_aside(config) == expected


def test_killed_inside_journal_lines(fake: tuple[Path, dict[str, str]]) -> None:
    config, expected = fake
    assert kill_until_done(config, "line", 17, 23) > 5
    assert set_aside(config) == expected


def test_killed_inside_whole_file_writes(fake: tuple[Path, dict[str, str]]) -> None:
    config, expected = fake
    assert kill_until_done(config, "rename", 6, 25) > 3
    assert set_aside(config) == expected


def random_kills(config: Path, seed: int, longest: float) -> None:
    """Kills the command line and leaves its workers to find out, after random spans of time."""
    draw = random.Random(seed)
    run = config.parent / "run"
    for _ in range(MOST_KILLS):
        start = ["resume", str(run)] if (run / "run.json").exists() else ["run", str(config), "--name", "run"]
        process = subprocess.Popen(
            [sys.executable, "-m", "agents.cli", *start], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        longest *= 1.1  # whatever the machine, it gets through in the end
        try:
            _, err = process.communicate(timeout=draw.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        else:
            assert process.returncode == 0, err
            return
    pytest.fail("the run never finished")


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(fake: tuple[Path, dict[str, str]], seed: int) -> None:
    config, expected = fake
    random_kills(config, seed, longest=3.0)
    assert set_aside(config) == expected


@pytest.mark.parametrize(("point", "first", "later"), [("done", 1, 4), ("line", 30, 50)])
def test_a_tiny_model_killed_at_chosen_points(
    tiny: tuple[Path, dict[str, str]], point: str, first: int, later: int
) -> None:
    config, expected = tiny
    assert kill_until_done(config, point, first, later) > 5
    assert set_aside(config) == expected


def test_a_tiny_model_killed_at_random_moments(tiny: tuple[Path, dict[str, str]]) -> None:
    config, expected = tiny
    random_kills(config, seed=2, longest=15.0)
    assert set_aside(config) == expected


def test_the_real_student_killed_inside_an_evaluation_and_inside_training(tmp_path: Path) -> None:
    """SmolLM2 in bf16 where the machine computes in it; one small round."""
    sizes = ["data.splits.probe=6", "data.splits.gate=6", "data.splits.final=6", "data.per_task=12"]
    steps = ["rounds=1", "plan.rows_per_round=6", "student.batch_size=3", "training.batch_tokens=200"]
    overrides = [part for key in [*sizes, *steps, "student.dtype=bfloat16"] for part in ("--set", key)]
    config = write_config(tmp_path, engine="transformers", base="smollm2-135m")
    assert tutelage("run", config, "--name", "run", *overrides).code == 0
    expected = canonical_files(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "undisturbed")
    assert tutelage("run", config, "--name", "run", *overrides, kill_at=("line", 5)).code == -9
    assert len(list((tmp_path / "run").rglob("answers.journal"))) == 1
    assert tutelage("resume", tmp_path / "run", kill_at=("step", 2)).code == -9
    assert not (tmp_path / "run" / "round_01" / "train" / "done.json").exists()
    assert tutelage("resume", tmp_path / "run").code == 0
    assert canonical_files(tmp_path / "run") == expected


@pytest.mark.parametrize("stage", ["final", "final_few_shot"])
def test_the_final_test_interrupted_halfway_is_opened_once_more_and_ends_the_same(
    fake: tuple[Path, dict[str, str]], stage: str
) -> None:
    config, expected = fake
    run = config.parent / "run"
    # Two adapters answered the probe and three the gate; then each opening of the final split is a line, too.
    lines = 2 * 40 + 3 * 60 + (1 + 20 if stage == "final" else 1 + 40 + 1 + 20)
    assert tutelage("run", config, "--name", "run", kill_at=("line", lines)).code == -9
    assert (run / "answers" / "base" / stage / "answers.journal").exists()
    assert tutelage("resume", run).code == 0
    assert set_aside(config) == expected


def test_a_bad_line_inside_a_journal_is_damage_and_is_named(fake: tuple[Path, dict[str, str]]) -> None:
    config, _ = fake
    run = config.parent / "run"
    assert tutelage("run", config, "--name", "run", kill_at=("line", 20)).code == -9
    (journal,) = run.rglob("answers.journal")
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([lines[0], lines[1][:10], *lines[2:]]))
    done = tutelage("resume", run)
    run.rename(config.parent / "damaged")
    assert done.code == 2 and f"{journal.name}:2" in done.err
