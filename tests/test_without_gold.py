"""Probe questions without a gold answer: on the probe alone, in no rate, difficult when five answers all differ."""

import csv
import json
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import FakeChatServer
from hypothesis import given
from hypothesis import strategies as st
from samples import student_answer
from test_extra import config_of
from test_teacher_check import config_with
from test_teacher_compare import DATA_SKILLS, run_to_the_diagnosis

from agents.forecast import forecast
from agents.graph import run_plain
from agents.progress import ProgressPrinter
from agents.reporting import write_pages
from agents.session import create_run, open_loop
from curriculum.agreement import Repeatability
from curriculum.config import load_config
from curriculum.data import read_examples
from curriculum.data_config import FileData, SplitSizes
from curriculum.errors import ConfigError
from curriculum.grading import Grader
from curriculum.plan import make_plan
from curriculum.profile import build_profile
from curriculum.records import Diagnosis, Example, Grade, Skill, SkillCatalogue, SkillLabel, StudentAnswer, Verdict
from curriculum.round_records import ItemConsistency, MissingSkillProfile
from curriculum.rundir import read_record, read_records
from curriculum.signals import consistency_counts, item_consistency
from curriculum.splits import PROBE_FULL, split_examples

QUESTION = Example.make(question="How many?", gold="", grader="numeric", source="test")
ADD = Skill(id="add", name="add", writable=False)
CATALOGUE = SkillCatalogue(teacher="t", skills=(ADD,))


def drawn(*texts: str | None) -> list[StudentAnswer]:
    """Five answers; None failed on our side."""
    return [
        student_answer(QUESTION, text or "", sample_index=at, finish_reason="stop" if text is not None else "error")
        for at, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("texts", "agreeing", "difficult", "undecided"),
    [
        (("Answer: 1", "Answer: 2", "Answer: 3", "Answer: 4", "Answer: 5"), 1, True, False),
        (("Answer: 1", "Answer: 2", "Answer: 3", "Answer: 4", "It is 1.0"), 2, False, False),
        (("Answer: 7",) * 5, 5, False, False),
        (("no idea",) * 5, 1, True, False),  # nothing that is found can agree
        (("Answer: 1", "Answer: 2", "Answer: 3", "Answer: 4", None), 1, False, True),
        (("Answer: 1", "Answer: 1", None, None, None), 2, False, False),
        ((None,) * 5, 0, False, True),
    ],
)
def test_difficult_is_what_is_answered_in_five_ways(
    texts: tuple[str | None, ...], agreeing: int, difficult: bool, undecided: bool
) -> None:
    with Grader() as grader:
        made = item_consistency(drawn(*texts), lambda a, b: grader.agree(QUESTION, a, b))
    assert (made.agreeing, made.difficult, made.undecided) == (agreeing, difficult, undecided)


@pytest.mark.parametrize(
    ("grader", "first", "second", "same"),
    [
        ("numeric", "Answer: 3", "so it is = 3.0", True),
        ("exact", "Answer: Blue.", "Answer: blue", True),
        ("exact", "Answer: blue", "Answer: red", False),
        ("choice", "Answer: (b)", "Answer: B", True),
        ("math", "Answer: 1/2", r"\boxed{0.5}", True),
        ("math", "Answer: 1/2", r"\boxed{0.51}", False),
        ("regex", "x7x", "y7y", True),
        ("regex", "x7x", "none", False),
    ],
)
def test_answers_agree_as_the_grader_reads_them(grader: Any, first: str, second: str, same: bool) -> None:
    example = Example.make(question="?", gold="", grader=grader, source="test")
    one, other = (student_answer(example, text) for text in (first, second))
    with Grader(pattern=r"\d") as made:
        assert made.agree(example, one, other) == same == made.agree(example, other, one)


def rows_file(folder: Path, silent: int, loud: int = 60) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["q", "a", "s", "g"])
        for n in range(silent):
            writer.writerow([f"Which {n} is it of the many {n * 7}?", " " if n % 2 else "", f"s{n % 3}", ""])
        for n in range(loud):
            writer.writerow([f"What is {n} plus {n}?", 2 * n, f"s{n % 3}", ""])
    return path


def data(path: Path, probe: int = 10, **keys: Any) -> FileData:
    columns = {"question": "q", "answer": "a", "skills": "s", "group": "g"}
    splits = {"probe": probe, "gate": 10, "final": 10}
    plain = {"kind": "file", "path": path, "columns": columns, "splits": splits, "probe_without_gold": True}
    return FileData.model_validate(plain | keys)


def test_rows_without_an_answer_are_examples_only_where_the_config_says_so(tmp_path: Path) -> None:
    path = rows_file(tmp_path, 4)
    examples, bad = read_examples(data(path))
    assert [e.gold for e in examples[:5]] == ["", "", "", "", "0"] and not bad
    examples, bad = read_examples(data(path, probe_without_gold=False, max_bad_share=0.5))
    assert len(bad) == 4 and all(e.gold for e in examples)
    own = tmp_path / "rows.jsonl"
    own.write_text('{"question": "a?"}\n{"question": "b?", "gold": null}\n{"question": "", "gold": ""}\n{"gold": 1}\n')
    examples, bad = read_examples(data(own, columns=None, format="examples", max_bad_share=1.0))
    assert [(e.question, e.gold) for e in examples] == [("a?", ""), ("b?", "")]
    assert [b.reason for b in bad] == ["`question`: is empty", "column `question` is missing"]


@pytest.mark.parametrize(
    "change",
    [
        {"columns": None, "format": "gsm8k"},
        {"columns": {"messages": "m"}},
        {"grader": "judge", "grader_rubric": "Be right."},
    ],
)
def test_data_whose_answers_cannot_be_blank_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="goes with a"):
        data(tmp_path / "x.csv", **change)


@given(st.integers(0, 20), st.integers(1, 10), st.integers(0, 3))
def test_they_are_on_the_probe_alone(silent: int, probe: int, seed: int) -> None:
    quiet = [
        Example.make(question=f"Which {n} of the {7 * n}?", gold="", grader="exact", source="t", group=f"g{n // 2}")
        for n in range(silent)
    ]
    loud = [
        Example.make(question=f"What is {n} plus {n}?", gold="1", grader="exact", source="t", skills=("a",))
        for n in range(50)
    ]
    made = split_examples([*loud, *quiet], SplitSizes(probe=probe, gate=5, final=5), seed)
    placed = [e for e in made.examples if not e.gold]
    assert {e.split for e in placed} <= {"probe"}
    assert len(placed) == silent if silent <= probe else probe - 1 <= len(placed) <= probe
    assert sum(e.split == "probe" for e in made.examples) <= probe
    dropped = [d for d in made.dropped if d.reason == PROBE_FULL]
    assert len(placed) + len(dropped) == silent
    if not silent:
        assert made == split_examples(loud, SplitSizes(probe=probe, gate=5, final=5), seed)


def test_a_copy_with_an_answer_is_kept_before_one_without() -> None:
    twins = [Example.make(question="What is it, then?", gold=g, grader="exact", source="t") for g in ("", "red")]
    others = [Example.make(question=f"Name {n} of {n}.", gold="1", grader="exact", source="t") for n in range(40)]
    made = split_examples([*twins, *others], SplitSizes(probe=4, gate=4, final=4), 0)
    assert [e.gold for e in made.examples if e.question == twins[0].question] == ["red"]


def consistency(name: str, difficult: bool) -> ItemConsistency:
    return ItemConsistency(
        example_id=name, adapter="base", samples=5, agreeing=1 if difficult else 3, difficult=difficult
    )


def test_the_profile_counts_them_apart_and_the_plan_does_not_call_a_skill_mastered(tmp_path: Path) -> None:
    labels = {
        name: SkillLabel(example_id=name, teacher="t", prompt_hash="", skills=("add",), difficulty=2, reason="")
        for name in ("right", "open1", "open2")
    }
    grade = Grade(answer_id="x", example_id="right", adapter="base", grader="numeric", verdict=Verdict.CORRECT,
                  strict_verdict=Verdict.CORRECT, extracted="1", strict_extracted="1")  # fmt: skip
    diagnosis = Diagnosis(answer_id="y", example_id="open1", teacher="t", prompt_hash="", missing_skills=("add",),
                          error_kind="inconsistent", reason="")  # fmt: skip
    asked = [consistency("open1", True), consistency("open2", False)]
    made = build_profile(0, "base", labels, [grade], [diagnosis], CATALOGUE, (), asked)
    (skill,) = made.skills
    assert (skill.accuracy.n, skill.accuracy.correct, skill.missing) == (1, 1, 1)
    assert skill.without_gold == consistency_counts(asked) and skill.without_gold is not None
    assert (skill.without_gold.items, skill.without_gold.difficult) == (2, 1)
    (cell,) = made.cells
    assert cell.without_gold == skill.without_gold and made.overall.n == 1
    config = load_config(config_of(tmp_path, []))
    plan = make_plan(1, config, made, CATALOGUE, {"add": {2: 5}}, [], {}, 0)
    assert plan.action == "train" and "2 asked without a gold answer" in plan.skills[0].reason
    calm = build_profile(0, "base", labels, [grade], [], CATALOGUE, (), [consistency("open2", False)])
    assert make_plan(1, config, calm, CATALOGUE, {"add": {2: 5}}, [], {}, 0).action == "stop"
    only = build_profile(0, "base", labels, [], [diagnosis], CATALOGUE, (), asked)
    assert (
        only.overall.rate is None
        and make_plan(1, config, only, CATALOGUE, {"add": {2: 5}}, [], {}, 0).skills[0].missing
    )


@pytest.mark.parametrize("silent", [6, 30])
def test_a_run_diagnoses_them_and_keeps_them_out_of_every_rate(silent: int, tmp_path: Path) -> None:
    tree = yaml.safe_load(config_of(tmp_path, []).read_text())
    tree["data"] = data(rows_file(tmp_path, silent, loud=90)).model_dump(mode="json")
    tree["data"]["splits"]["gate"] = 24
    path = tmp_path / "open.yaml"
    path.write_text(yaml.safe_dump(tree))
    config = load_config(path)
    said = StringIO()
    with open_loop(create_run(config, path, "open"), config, ProgressPrinter(said)) as loop:
        run_plain(loop)
        run, quiet = loop.run, {e.id for e in loop.examples.values() if not e.gold}
    placed = min(silent, 10)
    assert len(quiet) == placed and f"{placed} of the probe have no gold answer" in said.getvalue()
    for grades in run.path.rglob("grades.jsonl"):
        assert not quiet & {g.example_id for g in read_records(grades, Grade)}, grades
    rows = "".join(p.read_text() for p in run.path.rglob("training_set.jsonl"))
    assert rows and not [id_ for id_ in quiet if id_ in rows]
    folder = run.path / "answers" / "base" / "probe_without_gold"
    found = read_records(folder / "consistency.jsonl", ItemConsistency)
    difficult = {item.example_id for item in found if item.difficult}
    assert {item.example_id for item in found} == quiet and difficult
    assert len(read_records(folder / "answers.jsonl", StudentAnswer)) == 5 * placed
    diagnosed = read_records(run.path / "round_00" / "diagnose" / "diagnoses.jsonl", Diagnosis)
    kinds = {d.example_id: d.error_kind for d in diagnosed if d.example_id in quiet}
    assert kinds == dict.fromkeys(difficult, "inconsistent")
    made = read_record(run.path / "round_00" / "profile" / "profile.json", MissingSkillProfile)
    assert made.overall.n == 10 - placed
    counted = [s.without_gold for s in made.skills if s.without_gold]
    assert sum(c.items for c in counted) == placed and sum(c.difficult for c in counted) == len(difficult)
    report = write_pages(run, config)
    shown = [f for f in report.rounds[0].failures if f.gold is None]
    assert shown and all(f.verdict is None for f in shown)
    for view in ("report.md", "report.html"):
        text = (run.path / view).read_text()
        assert "Probe items without a gold answer, in no rate" in text and "five answers, all different" in text
        assert "No gold answer" in text
    assert forecast(config).answers == forecast(load_config(path, ["data.probe_without_gold=false"])).answers + 50


def test_a_teacher_is_told_that_nobody_knows_what_is_right(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        path = config_with(tmp_path, server, **DATA_SKILLS)
        tree = yaml.safe_load(path.read_text())
        tree["data"] = data(rows_file(tmp_path, 8)).model_dump(mode="json")
        tree["data"]["splits"] = {"probe": 10, "gate": 24, "final": 9}
        path.write_text(yaml.safe_dump(tree))
        run_to_the_diagnosis(path, "run-a")
        asked = [s.body for s in server.seen if "which skills a student is missing" in s.body]
    quiet = [body for body in asked if "answered in five different ways" in body]
    assert quiet and all("Which " in body and "was not accepted" not in body for body in quiet)
    assert all("was not accepted" in body for body in asked if body not in quiet)


def test_some_diagnoses_are_asked_for_twice(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        path = config_with(tmp_path, server, **DATA_SKILLS, repeat_diagnoses=4)
        before: Counter[str] = Counter()

        def reply(prompt: str) -> str | None:
            if "which skills a student is missing" not in prompt:
                return None
            before[prompt] += 1  # the first time s0; the second time one more
            return json.dumps({"reason": "r", "error_kind": "e", "missing_skills": ["s0", "s1"][: before[prompt]]})

        server.script = reply
        config = load_config(path)
        with open_loop(create_run(config, path, "run-a"), config, ProgressPrinter(StringIO())) as loop:
            run_plain(loop)
            run = loop.run
        asked = [s.body for s in server.seen if "which skills a student is missing" in s.body]
    rounds = sorted(run.path.glob("round_*"))
    found = [read_record(r / "diagnose" / "repeated.json", Repeatability) for r in rounds]
    diagnosed = [len(read_records(r / "diagnose" / "diagnoses.jsonl", Diagnosis)) for r in rounds]
    assert [r.asked for r in found] == [min(4, n) for n in diagnosed]
    # Round 1 begins with the base's answers, too: what was asked of them is not bought again.
    assert found[0] == found[1] and len(asked) == diagnosed[0] + found[0].asked
    assert (found[0].answered, found[0].same.correct, found[0].jaccard.value) == (4, 0, 0.5)
    report = write_pages(run, config)
    assert report.rounds[0].probe is not None and report.rounds[0].probe.repeated == found[0]
    assert "asked for twice" in (run.path / "report.md").read_text()


def test_the_offline_teacher_is_not_asked_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="repeats itself"):
        load_config(config_of(tmp_path, []), ["teacher.repeat_diagnoses=3"])
