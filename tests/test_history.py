"""What the controller reads from the run directory; the loop is a stand-in with the examples and labels of the test."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from samples import training_row

from agents.history import gate_folder, measured_folders, measurements, pool_index, pool_sizes
from curriculum.records import Example, SkillLabel, Split
from curriculum.round_records import GateDecision, MissingSkillProfile, VerdictCounts
from curriculum.rundir import RunDir, write_record, write_records
from curriculum.statistics import wilson


def example(name: str, split: Split) -> Example:
    return Example.make(question=name, gold=name, grader="exact", source="test").model_copy(update={"split": split})


@pytest.fixture
def loop() -> Any:
    splits: dict[str, Split] = {"a": "pool", "b": "pool", "c": "pool", "d": "probe"}
    examples = {e.id: e for e in (example(name, split) for name, split in splits.items())}
    a, b, _, d = examples
    skills = {a: ("add",), b: ("add", "sort"), d: ("sort",)}
    labels = {
        id_: SkillLabel(example_id=id_, teacher="t", prompt_hash="h", skills=s, difficulty=len(s), reason="")
        for id_, s in skills.items()
    }
    return SimpleNamespace(examples=examples, labels=labels, holdout=frozenset())


def test_the_pool_is_what_is_in_the_split_and_has_a_label(loop: Any) -> None:
    assert sorted(pool_index(loop).skills) == [("add",), ("add", "sort")]


def test_pool_sizes_count_an_example_for_each_of_its_skills_at_its_difficulty(loop: Any) -> None:
    assert pool_sizes(loop) == {"add": {1: 1, 2: 1}, "sort": {2: 1}}


@pytest.mark.parametrize(
    ("start", "rows"),
    [
        ("accepted", [{}, {"add": 3, "sort": 1}, {"add": 2, "sort": 4}]),
        ("base", [{}, {"add": 3, "sort": 1}, {"add": -1, "sort": 3}]),
    ],
)
def test_measurements_are_of_accepted_adapters_with_the_rows_they_have_on_top(
    tmp_path: Path, start: str, rows: list[dict[str, int]]
) -> None:
    """Round 2 of 3 was rolled back. A fresh adapter knows its own training set only, replay included."""
    run = RunDir(tmp_path)
    made: Any = SimpleNamespace(run=run, config=SimpleNamespace(training=SimpleNamespace(start=start)))
    sets = {1: ["add", "add", "add+sort"], 2: ["add"] * 9, 3: ["add+sort", "add+sort", "sort", "sort"]}
    for round_ in (1, 2, 3, 4):
        for stage in ("profile", "build", "gate"):
            run.round_stage(round_, stage).mkdir(parents=True)
        write_record(
            run.round_stage(round_, "profile") / "profile.json",
            MissingSkillProfile(
                round=round_, adapter="x", overall=wilson(0, 0), counts=VerdictCounts(), skills=(), cells=()
            ),
        )
    for round_, of in sets.items():
        decision = "rolled_back" if round_ == 2 else "accepted"
        write_record(
            gate_folder(made, round_) / "decision.json",
            GateDecision(
                round=round_,
                decision=decision,  # type: ignore[arg-type]
                reason="",
                current="base",
                candidate="x",
                before=wilson(0, 0),
                after=None,
                change=None,
                p_value=None,
                rule="",
                false_accept_rate=None,
                detectable_gain=None,
                skills=(),
            ),
        )
        taught = [training_row(id=str(i), skill=s.split("+")[0], skills=tuple(s.split("+"))) for i, s in enumerate(of)]
        write_records(run.round_stage(round_, "build") / "training_set.jsonl", taught)
    measured = measurements(made, 4)
    assert [m.profile.round for m in measured] == [1, 2, 4]
    assert [dict(m.rows) for m in measured] == rows
    read = {folder.relative_to(tmp_path).as_posix() for folder in measured_folders(made, 4)}
    assert read == {f"round_0{r}/profile" for r in (1, 2, 4)} | {f"round_0{r}/build" for r in (1, 3)}
