"""The report: gathered from records, true to its published schema, and harmless in every view."""

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest
from pages import Page
from rich.console import Console
from samples import allocation, student_answer, training_row

from curriculum.config import GateConfig
from curriculum.errors import UserError
from curriculum.gate import baseline, decide, stopped
from curriculum.records import Change, Diagnosis, Example, Grade, ShrunkRate, SkillLabel, StudentAnswer, Verdict
from curriculum.report import RunReport, StageTiming, Timings, read_timings
from curriculum.report_allocation import final_price_words, price_words, status_words
from curriculum.report_build import MAX_FAILURES, ArmGrades, RoundRecords, final_report, round_report
from curriculum.report_html import render_html
from curriculum.report_probe import probe_words
from curriculum.report_text import escape_markdown, fenced, print_terminal, render_markdown, render_terminal
from curriculum.report_words import cut_words, headline, visible
from curriculum.round_records import (
    Adapter,
    DroppedRow,
    ItemSignals,
    MissingSkillProfile,
    RoundPlan,
    SkillPlan,
    SkillProfile,
    VerdictCounts,
)
from curriculum.rundir import write_json
from curriculum.statistics import wilson

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> \" onload='x' {{ 7 * 7 }} ![x](http://evil.example/x.png) "
    "[a](javascript:x) \x1b[2J\x1b]0;owned\x07 [red]red[/red] a|b ```` `code`\n# head\n\n```\n\u202ertl \ud800 \x00"
)
TIMINGS = Timings(
    stages=(
        StageTiming(stage="prepare", round=None, seconds=1.5),
        StageTiming(stage="train " + HOSTILE, round=1, seconds=200.0, tokens=12345),
    )
)
LABELS = {
    f"i{n}": _label
    for n in range(40)
    for _label in [
        SkillLabel(
            example_id=f"i{n}",
            teacher="offline",
            prompt_hash="",
            skills=("add",) if n < 20 else ("add", "gcd"),
            difficulty=1 + n % 3,
            reason="declared",
        )
    ]
}


def grades(verdicts: Sequence[Verdict], adapter: str = "base") -> list[Grade]:
    return [
        Grade(
            answer_id=f"{adapter}-i{n}",
            example_id=f"i{n}",
            adapter=adapter,
            grader="numeric",
            verdict=v,
            strict_verdict=v if n % 2 else Verdict.UNPARSED,
            extracted=HOSTILE,
            strict_extracted=None,
        )
        for n, v in enumerate(verdicts)
    ]


def right(count: int, of: int = 40) -> list[Verdict]:
    return [Verdict.CORRECT if n < count else Verdict.WRONG for n in range(of)]


def arms(base: list[Grade]) -> ArmGrades:
    return ArmGrades(base, grades(right(20)), grades(right(36), "a"))


class FailedProbe(NamedTuple):
    example: Example
    answer: StudentAnswer
    grade: Grade
    diagnosis: Diagnosis


def failed_probe(text: str) -> FailedProbe:
    """An item that was answered wrong, with the text everywhere."""
    example = Example.make(question=text, gold=text, grader="numeric", source="test")
    answer = student_answer(example, text * 5)
    grade = Grade(
        answer_id=answer.id,
        example_id=example.id,
        adapter="base",
        grader="numeric",
        verdict=Verdict.WRONG,
        strict_verdict=Verdict.WRONG,
        extracted=text,
        strict_extracted=None,
    )
    diagnosis = Diagnosis(
        answer_id=answer.id,
        example_id=example.id,
        teacher=text,
        prompt_hash="",
        missing_skills=(text,),
        error_kind="wrong",
        reason=text,
    )
    return FailedProbe(example, answer, grade, diagnosis)


def trained(name: str) -> Adapter:
    return Adapter(
        name=name,
        run="run",
        round=1,
        base="base",
        base_hash="0",
        files={},
        training_set_hash="0",
        rows=4,
        training_tokens=100,
        target_tokens=40,
        steps=3,
        first_loss=2.0,
        last_loss=1.0,
    )


def round_records(text: str) -> tuple[RoundRecords, dict[str, Example]]:
    probe = failed_probe(text)
    counts = VerdictCounts(correct=1, wrong=2)
    skill = SkillProfile(skill=text, difficulty=None, counts=counts, missing=2, accuracy=wilson(1, 3))
    rows = [
        training_row(id=f"r{n}", origin=origin, skill=text, skills=(text,), difficulty=2)
        for n, origin in enumerate(("pool", "pool", "written", "replay"))
    ]
    before, after = grades(right(8)), grades(right(30), "run-r01")
    decision = decide(1, "base", text, before, after, LABELS, GateConfig())
    plan = SkillPlan(skill=text, missing=2, share=1.0, pool_rows=2, written_rows={2: 1}, reason=text)
    records = RoundRecords(
        decision=decision,
        grades_before=before,
        grades_after=after,
        profile=MissingSkillProfile(
            round=1, adapter="base", overall=wilson(1, 3), counts=counts, skills=(skill,), cells=()
        ),
        probe_answers=[probe.answer],
        probe_grades=[probe.grade],
        diagnoses=[probe.diagnosis],
        allocation=allocation("failures", **{text: 1.0}),
        plan=RoundPlan(round=1, action="train", skills=(plan,), learning_rate=1e-4, epochs=1, seed=0, changed=text),
        rows=rows,
        dropped=[DroppedRow(example_id="e", skill=text, origin="written", reason=text)] * 3,
        adapter=trained(text),
        losses=[2.0, 1.5, 1.0],
    )
    return records, {probe.example.id: probe.example}


def run_report(text: str) -> RunReport:
    records, examples = round_records(text)
    labels = LABELS | {i: LABELS["i0"].model_copy(update={"skills": (text,)}) for i in examples}
    first = RoundRecords(decision=baseline(0, "base", grades(right(8)), LABELS), grades_before=grades(right(8)))
    return RunReport(
        run=text,
        status="finished",
        stop_reason=text,
        base=text,
        base_hash="0123",
        teacher="offline",
        data=text,
        split_sizes={"final": 40},
        extra_sizes={text.replace("\ud800", ""): 40},
        config_hash="4567",
        tutelage_version="0.1.0",
        git_commit=None,
        notes=(text,),
        final=final_report(
            LABELS, arms(grades(right(8))), text, f"opened once for {text}", {text: arms(grades(right(0)))}
        ),
        rounds=(round_report(first, {}, LABELS), round_report(records, examples, labels)),
    )


@pytest.fixture(scope="module")
def hostile() -> RunReport:
    return run_report(HOSTILE)


def terminal(report: RunReport, round_: int | None) -> str:
    console = Console(file=StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(render_terminal(report, TIMINGS, round_))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_report_validates_against_its_own_schema(hostile: RunReport) -> None:
    jsonschema.validate(hostile.model_dump(mode="json"), RunReport.model_json_schema())
    assert RunReport.model_validate(hostile.model_dump(mode="json")) == hostile


def test_schema_has_what_readers_rely_on(hostile: RunReport) -> None:
    plain = hostile.model_dump(mode="json")
    for arm in ("base", "base_few_shot", "adapter"):
        assert set(plain["final"][arm]) == {"n", "correct", "rate", "low", "high"}
    for round_ in plain["rounds"]:
        assert isinstance(round_["decision"], str)
        assert all({"skill", "before", "after", "change"} <= set(s) for s in round_["skills"])


def test_report_holds_no_times() -> None:
    text = str(RunReport.model_json_schema())
    assert not re.search(r"seconds|duration|timestamp", text)


def test_round_counts_rows_and_reasons() -> None:
    records, examples = round_records("gcd")
    made = round_report(records, examples, LABELS | dict.fromkeys(examples, LABELS["i0"]))
    assert [(c.origin, c.rows) for c in made.mixture] == [("pool", 2), ("replay", 1), ("written", 1)]
    assert [(d.reason, d.rows) for d in made.dropped] == [("gcd", 3)]
    assert made.verdicts_after == VerdictCounts(correct=30, wrong=10)
    assert made.decision == "accepted"
    assert made.training is not None and made.training.losses == (2.0, 1.5, 1.0)
    assert made.failures[0].answer == "gcd" * 5


def test_changes_are_shown_by_skill_and_difficulty() -> None:
    made = run_report("run")
    assert made.final is not None
    cells = made.final.cells
    assert [(c.skill, c.difficulty) for c in cells] == [(s, d) for s in ("add", "gcd") for d in (1, 2, 3)]
    assert sum(c.before.n for c in cells if c.skill == "add") == 40
    first = cells[0]
    assert (first.change.gained, first.change.lost, first.change.n) == (9, 0, 14)
    assert first.p_value is not None and 2 / 2**9 <= first.p_value <= 6 * 2 / 2**9
    assert made.rounds[0].cells[0].after.rate is None and made.rounds[1].cells[0].after.rate is not None
    for page in (render_html(made, TIMINGS), render_markdown(made, TIMINGS)):
        assert "gcd, difficulty 3" in page and "fewer than six items" in page


def test_shrunk_rates_stand_beside_the_raw_ones() -> None:
    records, examples = round_records("gcd")
    assert records.profile is not None
    shrunk = ShrunkRate(rate=0.241, low=0.12, high=0.385, borrowed=0.5)
    skill = records.profile.skills[0].model_copy(update={"shrunk": shrunk})
    made = round_report(
        records._replace(profile=records.profile.model_copy(update={"skills": (skill,)})),
        examples,
        LABELS | dict.fromkeys(examples, LABELS["i0"]),
    )
    report = run_report("gcd")
    report = report.model_copy(update={"rounds": (report.rounds[0], made)})
    assert "24.1 % <small>12.0–38.5</small>" in render_html(report, TIMINGS)
    assert "24.1 % (12.0–38.5)" in render_markdown(report, TIMINGS)
    for page in (render_html(report, TIMINGS), render_markdown(report, TIMINGS)):
        assert "plans use the counts" in page


def test_drawn_answers_are_compared_with_those_of_the_base() -> None:
    records, examples = round_records("gcd")
    drawn = [
        [ItemSignals(example_id=f"i{n}", adapter=a, samples=8, correct=c, entropy=None) for n in range(20)]
        for a, c in (("base", 2), ("run-r01", 4))
    ]
    made = round_report(
        records._replace(drawn_of_base=drawn[0], drawn=drawn[1]),
        examples,
        LABELS | dict.fromkeys(examples, LABELS["i0"]),
    )
    assert made.probe is not None and [(d.skill, d.change) for d in made.probe.drawn] == [("add", 0.25)]
    assert "beside those of the base" in probe_words(made) and "add +25.0 points (20 items, p <0.001)" in probe_words(
        made
    )


def test_failures_are_few_cut_and_spread_over_skills() -> None:
    records, examples = round_records("x" * 2000)
    (id_,) = examples
    diagnoses = [
        records.diagnoses[0].model_copy(update={"missing_skills": (skill,)}) for skill in ["add"] * 20 + ["gcd", "lcm"]
    ]
    made = round_report(records._replace(diagnoses=diagnoses), examples, LABELS | {id_: LABELS["i0"]})
    assert len(made.failures) == MAX_FAILURES
    assert [f.missing_skills[0] for f in made.failures[:4]] == ["add", "gcd", "lcm", "add"]
    assert all(len(f.question) < 700 for f in made.failures)


def test_final_pairs_items_and_tells_format_apart() -> None:
    failed = [Verdict.FAILED, *right(8)[1:]]
    made = final_report(LABELS, arms(grades(failed)), "a", "opened once")
    assert (made.base.n, made.base.correct) == (39, 7)
    assert (made.change.n, made.change.gained, made.change.lost) == (39, 28, 0)
    # By the strict extraction only odd items can be right: 4 of 39 before, 18 of 39 after.
    assert made.strict.adapter.correct == 18
    assert made.format_share == pytest.approx((18 - 4) / 39 - 28 / 39)
    assert made.verdicts.base.failed == 1


@pytest.mark.parametrize("view", ["html", "markdown", "terminal"])
def test_shares_under_every_rule_and_the_price_are_shown(view: str) -> None:
    report = run_report("gcd")
    page = Page(render_html(report, Timings())).text
    text = {"html": page, "markdown": render_markdown(report, Timings()), "terminal": terminal(report, 1)}[view]
    # 100 training tokens, 10 points expected of the one skill, 55 seen.
    for shown in ("100.0", "+10.0 (+0.0 to +20.0)", "open", "Rule: failures", "the gate saw"):
        assert shown in " ".join(text.split())
    assert "Price: 100 training tokens for +55.0 points" in " ".join(text.split())


def test_a_price_says_what_is_not_known() -> None:
    report = run_report("gcd")
    first = report.rounds[1]

    def words(change: Change) -> str:
        return price_words(report, first.model_copy(update={"change": change}))

    sure, unsure, none = ((0.1, 0.05, 0.15), (0.1, -0.02, 0.22), (-0.1, -0.2, 0.0))
    made = [
        words(Change(n=40, gained=4, lost=0, change=c, low=low, high=high)) for c, low, high in (sure, unsure, none)
    ]
    assert made[0].endswith("10 training tokens a point, at most 20 together.")
    assert made[1].endswith("10 training tokens a point, with no upper bound.")
    assert made[2].endswith("no point was gained.")
    assert price_words(report, report.rounds[0]) == ""
    assert final_price_words(report).startswith("Price: 100 training tokens for +70.0 points")


def test_a_parked_skill_is_never_called_unlearnable() -> None:
    part = allocation("failures", gcd=1.0).skills[0]
    assert status_words(part) == "open"
    parked = status_words(part.model_copy(update={"status": "parked", "rows": 61.4}))
    assert parked == "parked: no gain expected in this form after 61 rows"


def test_training_tokens_are_split_over_skills_by_length_of_text() -> None:
    records, examples = round_records("gcd")
    rows = [
        training_row(id="a", skill="long", question="q" * 30, target="t" * 30),
        training_row(id="b", skill="short", question="q" * 15, target="t" * 5),
    ]
    made = round_report(records._replace(rows=rows), examples, LABELS | dict.fromkeys(examples, LABELS["i0"]))
    assert made.training is not None and {of.skill: of.tokens for of in made.training.skill_tokens} == {
        "long": 75,
        "short": 25,
    }


@pytest.mark.parametrize("view", ["html", "markdown", "terminal"])
def test_extra_sets_are_shown_with_counts_and_as_what_never_selects(view: str) -> None:
    report = run_report("retention")
    page = Page(render_html(report, Timings())).text
    text = {"html": page, "markdown": render_markdown(report, Timings()), "terminal": terminal(report, None)}[view]
    shown = text[text.index("Extra sets") :]
    assert "never select" in shown.splitlines()[0] and "retention" in shown
    low, high = (
        f"{100 * bound:.{0 if view == 'terminal' else 1}f}" for bound in (wilson(36, 40).low, wilson(36, 40).high)
    )
    for count in ("0/40", "20/40", "36/40", f"{low}–{high}", "+90.0"):
        assert count in shown


def test_extra_sets_are_paired_like_the_final_split() -> None:
    of_set = ArmGrades(grades([Verdict.FAILED, *right(39, 39)]), grades(right(20)), grades(right(30), "a"))
    made = final_report(LABELS, arms(grades(right(8))), "a", "opened once", {"b": of_set, "a": arms(grades(right(0)))})
    assert [s.name for s in made.extra] == ["a", "b"]
    kept = made.extra[1]
    assert (kept.base.n, kept.adapter.correct) == (39, 30)
    assert (kept.change.n, kept.change.gained, kept.change.lost) == (39, 0, 10)
    assert (kept.strict.adapter.correct, kept.verdicts.base.failed) == (15, 1)


def test_no_adapter_is_said_plainly() -> None:
    base = grades(right(8))
    final = final_report(LABELS, ArmGrades(base, grades(right(9)), base), "base", "opened once")
    report = run_report("x").model_copy(update={"final": final})
    assert "no adapter was accepted" in headline(report)
    assert final.change.change == 0


@pytest.mark.parametrize(("after", "expected"), [(36, "lies above both"), (9, "overlaps both")])
def test_headline_says_whether_intervals_overlap(after: int, expected: str) -> None:
    final = final_report(
        LABELS, ArmGrades(grades(right(8)), grades(right(8)), grades(right(after), "a")), "a", "opened once"
    )
    assert expected in headline(run_report("x").model_copy(update={"final": final}))


def test_html_takes_nothing_from_data_but_text(hostile: RunReport) -> None:
    harmless, page = Page(render_html(run_report("x"), Timings())), Page(render_html(hostile, TIMINGS))
    assert set(page.tags) == set(harmless.tags)
    assert page.tags.count("script") == 1 and "img" not in page.tags
    names = {name for name, _ in page.attributes}
    assert names == {name for name, _ in harmless.attributes}
    assert not names & {"onerror", "onload", "src", "style"}
    assert all(str(value).startswith("#") for name, value in page.attributes if name == "href")
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search("[\x00\x1b\u202e\ud800]", page.text)


def test_html_is_self_contained(hostile: RunReport) -> None:
    html = render_html(hostile, TIMINGS)
    assert "default-src 'none'" in html
    assert not re.search(r"<(link|iframe|object)|@import|url\(", html)


def test_markdown_takes_nothing_from_data_but_text(hostile: RunReport) -> None:
    markdown = render_markdown(hostile, TIMINGS)
    fence, outside = "", []
    for line in markdown.splitlines():
        if not fence and line.startswith("```"):
            fence = line.rstrip("tex")
        elif fence:
            fence = "" if line == fence else fence
        else:
            outside.append(line)
    text = "\n".join(outside)
    assert fence == ""
    assert not re.search(r"(?<!\\)[<>]", text)
    assert not re.search(r"(?<!\\)!\[|(?<!\\)\]\(", text)
    assert not re.search("[\x00\x1b\u202e\ud800]", markdown)
    assert "\n# head" not in text
    rows = [line for line in outside if line.startswith("| ")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    harmless = [line for line in render_markdown(run_report("x"), TIMINGS).splitlines() if line.startswith("| ")]
    assert widths == [len(re.findall(r"(?<!\\)\|", line)) for line in harmless]


def test_markdown_escapes_stay_on_one_line() -> None:
    assert escape_markdown("a|b\n<c> `d`") == r"a\|b \<c\> \`d\`"
    assert fenced("````\nx").startswith("`````text\n````\nx\n`````")


@pytest.mark.parametrize("round_", [None, 0, 1])
def test_terminal_takes_nothing_from_data_but_text(hostile: RunReport, round_: int | None) -> None:
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal(hostile, round_))  # rich's own styles
    assert not re.search("[\x00\x07\x1b\u202e\ud800]", shown)
    if round_ != 0:
        assert "[red]red[/red]" in shown


def test_terminal_shows_counts_and_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    assert "8/40 20.0 (10–35)" in terminal(run_report("x"), None)
    print_terminal(run_report("x"), TIMINGS)
    assert "Skills on the final split" in capsys.readouterr().out


def test_terminal_refuses_an_unknown_round(hostile: RunReport) -> None:
    with pytest.raises(UserError, match="rounds \\(0, 1\\), got --round 7"):
        render_terminal(hostile, TIMINGS, 7)


@pytest.mark.parametrize(("cut", "warned"), [(0, False), (20, False), (21, True), (100, True)])
def test_many_answers_of_the_base_that_were_cut_off_are_a_warning(cut: int, warned: bool) -> None:
    said = cut_words(VerdictCounts(truncated=cut, wrong=100 - cut, failed=7), 64)
    assert said.startswith(f"{cut} of 100 answers of the base were cut at 64 tokens") if warned else said == ""


def test_a_run_without_rounds_or_final_has_every_view() -> None:
    report = run_report("x").model_copy(update={"final": None, "rounds": (), "status": "running"})
    assert "the final split is still closed" in render_html(report, Timings())
    assert "the final split is still closed" in render_markdown(report, Timings())
    assert "the final split is still closed" in terminal(report, None)


def test_a_stopped_round_has_every_view() -> None:
    decision = stopped(1, "base", grades(right(40)), LABELS, "every skill is mastered")
    made = round_report(RoundRecords(decision=decision, grades_before=grades(right(40))), {}, LABELS)
    report = run_report("x").model_copy(update={"rounds": (made,), "status": "stopped"})
    for view in (render_html(report, Timings()), render_markdown(report, Timings()), terminal(report, 1)):
        assert "every skill is mastered" in view


def test_visible_shows_what_hides() -> None:
    assert visible("a\x1b[2J\u202eb\ud800\n\t") == "a\\x1b[2J\\u202eb\\ud800\n\t"


def test_timings_come_from_the_stages(tmp_path: Path) -> None:
    for folder, measured in {"prepare": {"seconds": 1.0}, "round_02/train": {"seconds": 9.5, "tokens": 7}}.items():
        (tmp_path / folder).mkdir(parents=True)
        write_json(tmp_path / folder / "timing.json", measured)
    once, trained = read_timings(tmp_path).stages
    assert (once.stage, once.round, once.seconds, once.tokens) == ("prepare", None, 1.0, None)
    assert (trained.stage, trained.round, trained.seconds, trained.tokens) == ("train", 2, 9.5, 7)
