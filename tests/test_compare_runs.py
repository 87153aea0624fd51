"""Two runs compared: only on items that both were asked, with what differs between them, harmless in every view."""

import json
import re
import shutil
from io import StringIO
from pathlib import Path

import pytest
from command import tutelage
from finished_run import edit, make_fake_run
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from samples import grade
from test_report import HOSTILE

from agents.compare_runs import compare_runs
from curriculum.errors import UserError
from curriculum.records import SkillLabel, Verdict, content_id
from curriculum.run_comparison import Examined, RunComparison, Side, Spent, differences, notes, pair_items
from curriculum.run_comparison_text import comparison_markdown, comparison_terminal, verdict

SPENT = Spent(seconds=90, seconds_answering=60, seconds_training=30, rounds=1, training_tokens=10)


def examined(verdicts: dict[str, Verdict], skills: dict[str, str] | None = None) -> Examined:
    grades = [grade(id_, "x", verdict) for id_, verdict in verdicts.items()]
    labels = {
        id_: SkillLabel(
            example_id=id_,
            teacher="t",
            prompt_hash="",
            skills=((skills or {}).get(id_, "add"),),
            difficulty=1,
            reason="",
        )
        for id_ in verdicts
    }
    return Examined(grades, labels)


def comparison(text: str, a: Examined, b: Examined) -> RunComparison:
    side = Side(run=text, round=None, adapter=text, base=text, base_hash="0")
    items = pair_items("final", a, b)
    different = differences({"k" + text: text, "same": 1}, {"k" + text: [text], "same": 1}, "identity")
    return RunComparison(
        a=side, b=side, differences=tuple(different), items=items, spent_a=SPENT, spent_b=SPENT,
        notes=notes(side, side, items),
    )  # fmt: skip


RIGHT, WRONG, FAILED = Verdict.CORRECT, Verdict.WRONG, Verdict.FAILED


def test_only_items_that_both_have_a_verdict_on_are_compared_and_the_others_are_counted() -> None:
    a = examined({"1": WRONG, "2": WRONG, "3": RIGHT, "4": RIGHT, "5": RIGHT}, {"3": "gcd"})
    b = examined({"1": RIGHT, "2": WRONG, "3": RIGHT, "5": FAILED, "6": RIGHT}, {"2": "other"})
    made = pair_items("final", a, b)
    assert made is not None
    assert (made.items_a, made.items_b, made.common, made.relabelled) == (5, 4, 3, 2)
    assert (made.a.correct, made.b.correct, made.change.gained, made.change.lost) == (1, 2, 1, 0)
    assert [(s.skill, s.before.n, s.change.gained) for s in made.skills] == [("add", 2, 1), ("gcd", 1, 0)]
    told = " ".join(comparison("x", a, b).notes)
    assert (
        "Only the 3 items" in told and "2 of A alone and 1 of B alone" in told and "2 of them have other skills" in told
    )


def test_without_a_common_item_nothing_is_said() -> None:
    made = comparison("x", examined({"1": RIGHT}), examined({"2": RIGHT}))
    assert made.items is None and "no item in common" in verdict(made) and "no item in common" in made.notes[0]
    assert "| Skill |" not in comparison_markdown(made)


@given(st.dictionaries(st.sampled_from("abcdefghij"), st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_the_other_way_round_the_change_is_the_opposite(right: dict[str, tuple[bool, bool]]) -> None:
    one, other = (examined({i: RIGHT if pair[at] else WRONG for i, pair in right.items()}) for at in (0, 1))
    there, back = pair_items("gate", one, other), pair_items("gate", other, one)
    assert there is not None and back is not None and there.change.change is not None
    assert there.change.change == -(back.change.change or 0) and there.p_value == back.p_value
    assert there.change.change == pytest.approx((there.b.rate or 0) - (there.a.rate or 0))


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [(9, 0, "B is better"), (0, 9, "A is better"), (5, 0, "no difference can be told"), (4, 4, "no difference")],
)
def test_a_difference_is_told_where_chance_is_a_poor_reason(gained: int, lost: int, expected: str) -> None:
    before = {f"{n}": WRONG if n < gained else RIGHT for n in range(20)}
    after = {f"{n}": RIGHT if n < 20 - lost else WRONG for n in range(20)}
    assert expected in verdict(comparison("x", examined(before), examined(after)))


def test_every_view_takes_nothing_from_runs_but_text() -> None:
    skills = dict.fromkeys("12", HOSTILE.replace("\ud800", ""))
    made = comparison(HOSTILE, examined({"1": RIGHT, "2": WRONG}, skills), examined({"1": RIGHT, "2": RIGHT}, skills))
    text = comparison_markdown(made)
    assert not re.search(r"(?<!\\)[<>]|(?<!\\)!\[|(?<!\\)\]\(|[\x00\x1b\u202e\ud800]", text)
    assert len(re.findall("^# ", text, re.MULTILINE)) == 1
    console = Console(file=StringIO(), width=200, color_system=None)
    console.print(comparison_terminal(made))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert not re.search("[\x00\x1b\x07\u202e\ud800]", shown) and "[red]red[/red]" in shown


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fake_run(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def fork(run: Path) -> Path:
    done = tutelage("fork", run, "--round", "1", "--name", "other", "--set", "plan.rows_per_round=80")
    assert done.code == 0, done.err
    return run.parent / "other"


@pytest.mark.real
def test_two_runs_are_compared_on_the_final_split(run: Path, fork: Path) -> None:
    done = tutelage("compare", run, fork, "--markdown", "--json")
    assert done.code == 0, done.err
    made, reports = done.last, [json.loads((r / "report.json").read_text()) for r in (run, fork)]
    assert (made["items"]["split"], made["items"]["common"]) == ("final", 40)
    for side, report in zip("ab", reports, strict=True):
        assert made["items"][side] == report["final"]["adapter"]
        assert made[side]["adapter"] == report["final"]["adapter_name"]
    changed = {d["key"]: (d["a"], d["b"]) for d in made["differences"] if d["kind"] == "identity"}
    assert changed == {"plan.rows_per_round": (40, 80)}
    tokens = [sum(r["training"]["training_tokens"] for r in report["rounds"][1:]) for report in reports]
    assert [made["spent_a"]["training_tokens"], made["spent_b"]["training_tokens"]] == tokens
    assert "| plan.rows\\_per\\_round | 40 | 80 | identity |" in done.out
    skills = {s["skill"]: s["change"]["n"] for s in made["items"]["skills"]}
    assert skills == {s["skill"]: s["before"]["n"] for s in reports[0]["final"]["skills"]}


@pytest.mark.real
def test_rounds_are_compared_on_the_gate_split_unless_both_answered_the_final_one(run: Path, fork: Path) -> None:
    rounds = compare_runs(f"{run}:1", f"{fork}:2")
    assert rounds.items is not None and rounds.items.split == "gate" and "selected" in rounds.notes[0]
    report = json.loads((fork / "report.json").read_text())["rounds"][2]
    assert rounds.items.b.model_dump() == report["after"]
    base = compare_runs(f"{run}:0", str(run))
    assert base.items is not None and base.items.split == "final" and base.a.adapter == "base"
    assert base.differences == ()


@pytest.mark.real
def test_a_run_of_an_older_version_is_compared_and_what_it_did_not_know_is_named(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    edit(copy / "run.json", lambda facts: facts["identity"]["gate"].pop("retrain_sd"))
    made = compare_runs(str(copy), str(run))
    assert [(d.key, d.a, d.b, d.kind) for d in made.differences] == [("gate.retrain_sd", None, 0.0, "identity")]
    before = json.loads((run / "report.json").read_text())["config_hash"]
    shown = tutelage("report", copy)
    hashed = json.loads((copy / "report.json").read_text())["config_hash"]
    assert (
        shown.code == 0 and hashed == content_id(json.loads((copy / "run.json").read_text())["identity"], 64) != before
    )
    edit(copy / "run.json", lambda facts: facts["identity"]["gate"].update(alpha=0.01))
    with pytest.raises(UserError, match=r"gate\.alpha: 0\.01 → 0\.05"):
        compare_runs(str(copy), str(run))


@pytest.mark.real
def test_what_cannot_be_compared_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for side, message in [
        (f"{copy}:7", r"expected one of its finished rounds that trained \(0, 1, 2\), got 7"),
        (str(tmp_path), "expected a run's folder"),
    ]:
        with pytest.raises(UserError, match=message):
            compare_runs(str(run), side)
    (grades,) = copy.glob("answers/run-r02-*/final/grades.jsonl")
    grades.write_text(grades.read_text().replace('"wrong"', '"correct"'))
    done = tutelage("compare", run, copy, "--json")
    assert done.code == 2 and "expected a finished examination as the run recorded it" in done.last["error"]
    edit(copy / "final" / "done.json", lambda d: d.clear())
    (copy / "final" / "done.json").unlink()
    with pytest.raises(UserError, match="expected a finished run"):
        compare_runs(str(run), str(copy))
