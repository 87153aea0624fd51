"""Extended and forked runs, through the real command line with the fake student."""

import json
import shutil
from pathlib import Path

import pytest
from command import canonical_files, tutelage, write_config

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds."""
    folder = tmp_path_factory.mktemp("forks")
    done = tutelage("run", write_config(folder), "--name", "run")
    assert done.code == 0, done.err
    return folder / "run"


def decisions(run: Path) -> list[tuple[int, str]]:
    return [(r["round"], r["candidate"]) for r in json.loads((run / "report.json").read_text())["rounds"]]


def test_a_run_is_extended_by_rounds(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    done = tutelage("resume", run, "--extend", "1", "--json")
    assert (done.code, done.last["status"], done.last["rounds"]) == (0, "finished", 3)
    assert '"rounds":[2,3]' in (run / "config_changes.jsonl").read_text()
    first, then = json.loads((run / "report.json").read_text())["reproduction"]["commands"][-2:]
    assert first.endswith("--set rounds=2") and then.endswith("-again --extend 1")
    assert decisions(run)[:3] == decisions(finished)
    again = tutelage("resume", run, "--json")
    assert again.last["rounds"] == 3, "an extension is remembered, and is not made twice"


def test_a_run_that_stopped_itself_is_not_extended(finished: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = tutelage("run", config, "--name", "run", "--set", "plan.target_rate=0.01", "--json")
    assert done.last["status"] == "stopped", done.err
    refused = tutelage("resume", tmp_path / "run", "--extend", "1")
    assert refused.code == 2 and f"tutelage fork {tmp_path / 'run'} --round 0" in refused.err
    refused = tutelage("fork", tmp_path / "run", "--round", "1")
    assert refused.code == 2 and "stopped the run" in refused.err and "--round 0" in refused.err


def test_a_fork_shares_rounds_and_goes_on_with_other_settings(finished: Path) -> None:
    before = canonical_files(finished)
    changes = ["--set", "plan.rows_per_round=60", "--set", "training.learning_rate=0.0005", "--set", "rounds=3"]
    done = tutelage("fork", finished, "--round", "1", "--name", "forked", *changes, "--json")
    assert (done.code, done.last["rounds"]) == (0, 3), done.err
    forked = finished.with_name("forked")
    assert canonical_files(finished) == before

    ours = canonical_files(forked)
    shared = [p for p in before if p.startswith(("prepare/", "label/", "round_00/", "round_01/", "answers/base/"))]
    assert {p: ours[p] for p in shared} == {p: before[p] for p in shared}
    assert decisions(forked)[:2] == decisions(finished)[:2]
    names = [name for _, name in decisions(finished) + decisions(forked)[2:] if name]
    assert len(set(names)) == len(names) == 4 and decisions(forked)[2][1].startswith("forked-r02-")
    assert len((forked / "round_02" / "build" / "training_set.jsonl").read_text().splitlines()) > 60

    facts = json.loads((forked / "run.json").read_text())
    assert facts["lineage"] == [
        {
            "run": "run",
            "round": 1,
            "changed": {"plan.rows_per_round": [40, 60], "training.learning_rate": [0.001, 0.0005]},
        }
    ]
    for view in ("report.md", "report.html"):
        assert "Forked from run, whose rounds 0 to 1 it shares" in (forked / view).read_text().replace("\\", "")
    *_, command = json.loads((forked / "report.json").read_text())["reproduction"]["commands"]
    assert "fork runs/run --round 1 --name forked-again --set rounds=3 --set plan.rows_per_round=60" in command
    openings = [json.loads(line) for line in (forked / "final_openings.jsonl").read_text().splitlines()]
    assert [o["adapter"] for o in openings].count("base") == 2, "the base answered the final split in the first run"

    assert tutelage("resume", forked).code == 0
    assert canonical_files(forked) == ours
    refused = tutelage("resume", forked, "--set", "plan.rows_per_round=61")
    assert refused.code == 2 and "plan.rows_per_round: 60 → 61" in refused.err


def test_a_fork_of_a_fork_tells_both(finished: Path, tmp_path: Path) -> None:
    place = ["--set", f"runs_dir={tmp_path}"]
    assert tutelage("fork", finished, "--round", "1", "--name", "a", *place).code == 0
    assert tutelage("fork", tmp_path / "a", "--round", "0", "--set", "seed=1", *place).code == 0
    facts = json.loads((tmp_path / "a-fork-1" / "run.json").read_text())
    assert [(f["run"], f["round"], f["changed"]) for f in facts["lineage"]] == [
        ("run", 1, {}),
        ("a", 0, {"seed": [0, 1]}),
    ]
    assert decisions(tmp_path / "a")[:2] == decisions(finished)[:2]
    assert decisions(tmp_path / "a")[2] != decisions(finished)[2]


def test_a_fork_that_was_killed_goes_on(finished: Path, tmp_path: Path) -> None:
    args = ["fork", finished, "--round", "1", "--name", "run", "--set", f"runs_dir={tmp_path}"]
    assert tutelage(*args, kill_at=("done", 2)).code == -9
    assert tutelage("resume", tmp_path / "run").code == 0
    killed = canonical_files(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "killed")
    assert tutelage(*args).code == 0
    assert canonical_files(tmp_path / "run") == killed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--round", "7"], "one of its finished rounds (0 to 2), got --round 7"),
        (["--round", "1", "--set", "data.per_task=70"], "data.per_task: 60 → 70"),
        (["--round", "1", "--set", "student.max_new_tokens=9"], "student.max_new_tokens: 8 → 9"),
        (["--round", "1", "--set", "plan.colour=red"], "unknown key `plan.colour`"),
        (["--round", "1", "--name", "run"], "this run exists"),
        (["--round", "1", "--name", "../run"], "plain folder name"),
    ],
)
def test_a_fork_that_cannot_be_is_refused(finished: Path, arguments: list[str], expected: str) -> None:
    there = sorted(finished.parent.iterdir())
    done = tutelage("fork", finished, *arguments)
    assert done.code == 2 and expected in done.err and "Traceback" not in done.err
    assert sorted(finished.parent.iterdir()) == there


def test_damage_is_found_before_and_after(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "round_01" / "gate" / "decision.json").write_text("{}")
    place = ["--set", f"runs_dir={tmp_path}"]
    done = tutelage("fork", run, "--round", "1", "--name", "forked", *place)
    assert done.code == 2 and "round_01/gate" in done.err
    assert not (tmp_path / "forked").exists()

    assert tutelage("fork", finished, "--round", "1", "--name", "forked", *place).code == 0
    plan = tmp_path / "forked" / "round_01" / "approve" / "plan.approved.yaml"
    plan.write_text(plan.read_text() + "\n")
    done = tutelage("resume", tmp_path / "forked")
    assert done.code == 2 and "round_01/approve" in done.err and "fork again" in done.err
    assert plan.exists()
