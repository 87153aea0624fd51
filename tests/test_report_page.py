"""The report's page and Markdown: what each section says, that all of it is counted, and that the script is ours."""

import base64
import hashlib
import re
from collections import Counter

import pytest
from pages import Page
from samples import student_answer, training_row
from test_report import LABELS, TIMINGS, run_report
from whole_report import hostile as hostile_text
from whole_report import whole_report

from curriculum.records import Diagnosis, Example, Grade, SkillLabel, StudentAnswer, Verdict
from curriculum.report import RunReport, StageTiming, Timings
from curriculum.report_cost import cost_rows, forecast_rows, point_words, rejection_rows
from curriculum.report_details import fate_words
from curriculum.report_html import breakable, curve, render_html
from curriculum.report_items import MOST_ANSWER, MOST_ITEMS, FailedItems, ProbeLook, failed_items
from curriculum.report_rows import MOST_ROWS, taught_rows
from curriculum.report_skills import next_words, skill_rows
from curriculum.report_text import render_markdown

SECTIONS = ["overview", "skills", "final", "taught", "failures", "gate", "forgetting", "teacher", "cost", "training"]
SECTIONS += ["adapters", "reproduce"]


def look(adapter: str, round_: int, verdicts: dict[str, Verdict | None], text: str = "an answer") -> ProbeLook:
    """An adapter's answers to these examples; no verdict: no gold answer, and five drawn answers differ."""
    answers: dict[str, StudentAnswer] = {}
    grades, diagnoses = {}, {}
    for id_, verdict in verdicts.items():
        example = Example.make(question=id_, gold="1", grader="exact", source="test").model_copy(update={"id": id_})
        answers[id_] = student_answer(example, text, adapter=adapter)
        if verdict is not None:
            grades[id_] = Grade(
                answer_id=answers[id_].id, example_id=id_, adapter=adapter, grader="exact", verdict=verdict,
                strict_verdict=verdict, extracted="7", strict_extracted=None,
            )  # fmt: skip
        if verdict not in (Verdict.CORRECT, Verdict.FAILED):
            diagnoses[id_] = Diagnosis(
                answer_id=answers[id_].id, example_id=id_, teacher="offline", prompt_hash="", missing_skills=("add",),
                error_kind="wrong", reason="r" * 1000,
            )  # fmt: skip
    return ProbeLook(adapter, round_, answers, grades, diagnoses)


def gathered(*looks: ProbeLook, skills: tuple[str, ...] = ("add",)) -> FailedItems:
    ids = {id_ for one in looks for id_ in one.answers}
    examples = {
        id_: Example.make(question=f"q {id_}", gold="1", grader="exact", source="t").model_copy(update={"id": id_})
        for id_ in ids
    }
    labels = {
        id_: SkillLabel(example_id=id_, teacher="t", prompt_hash="", skills=skills, difficulty=1, reason="")
        for id_ in ids
    }
    return failed_items(looks, examples, labels)


W, C, F = Verdict.WRONG, Verdict.CORRECT, Verdict.FAILED


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        ((W,), "asked once"),
        ((W, F), "asked once"),
        ((W, C), "fixed"),
        ((W, W, C), "fixed"),
        ((W, W), "open"),
        ((W, Verdict.TRUNCATED, Verdict.UNPARSED), "open"),
        ((C, W), "lost"),
        ((W, C, W), "lost"),
        ((None, None), "open"),
    ],
)
def test_an_items_outcome_follows_from_its_verdicts(verdicts: tuple[Verdict | None, ...], outcome: str) -> None:
    made = gathered(*(look(f"a{n}", n, {"x": verdict}) for n, verdict in enumerate(verdicts)))
    (item,) = made.shown
    assert item.outcome == outcome
    (skill,) = made.by_skill
    counted = {"fixed": skill.fixed, "open": skill.open, "lost": skill.lost, "asked once": skill.asked_once}
    assert skill.items == 1 and counted == Counter([outcome]) + Counter() | dict.fromkeys(set(counted) - {outcome}, 0)
    assert fate_words(item).count("a0") == 1


def test_items_that_nobody_failed_are_left_out_and_texts_of_the_middle_too() -> None:
    verdicts: list[dict[str, Verdict | None]] = [{"x": W, "y": C}, {"x": W, "y": C}, {"x": W, "y": C}]
    made = gathered(*(look(f"a{n}", n, of, "t" * 5000) for n, of in enumerate(verdicts)))
    (item,) = made.shown
    assert [a.answer is not None for a in item.answers] == [True, False, True]
    assert all(
        len(a.answer or "") <= MOST_ANSWER + 2 and len(a.diagnosis or "") <= MOST_ANSWER + 2 for a in item.answers
    )
    assert made.items == 1 and [a.adapter for a in item.answers] == ["a0", "a1", "a2"]


def test_of_too_many_failures_some_are_shown_and_all_are_counted() -> None:
    made = gathered(look("base", 0, {f"{n:05}": W for n in range(MOST_ITEMS + 50)}), skills=("add", "gcd"))
    assert made.items == MOST_ITEMS + 50 and len(made.shown) == MOST_ITEMS
    assert [(s.skill, s.items) for s in made.by_skill] == [("add", made.items), ("gcd", made.items)]
    page = Page(render_html(whole_report().model_copy(update={"failed": made}), Timings())).text
    assert f"{made.items} probe items were failed in some round; {MOST_ITEMS} of them are shown" in page


def test_sample_rows_are_of_every_skill_and_origin_and_say_of_how_many() -> None:
    rows = [
        training_row(
            id=f"{n:04}", example_id=f"e{n}", skill=f"s{n % 5}", origin=("pool", "written")[n % 2], question="q" * 999
        )
        for n in range(300)
    ]
    made = taught_rows(1, rows, {"e0"})
    assert (made.rows, len(made.shown)) == (299, MOST_ROWS)
    assert set(Counter((row.skill, row.origin) for row in made.shown).values()) == {MOST_ROWS // 10}
    assert all(len(row.question) < 500 for row in made.shown)
    assert taught_rows(1, rows[:3], ()).shown == tuple(
        sorted(taught_rows(1, rows[:3], ()).shown, key=lambda r: r.skill)
    )


def test_the_table_of_skills_has_every_round_state_and_difficulty() -> None:
    report = whole_report()
    rows = {(row.skill, row.difficulty): row for row in skill_rows(report)}
    assert set(rows) == {(s, d) for s in ("add", "gcd") for d in (None, 1, 2, 3)}
    row = rows["add", None]
    # Round 0 is the base before; round 1 its candidate, 8 and 30 of 40 right.
    assert [(c.gate.correct, c.gate.n) for c in row.cells if c.gate] == [(8, 40), (30, 40)]
    assert (row.state, row.cells[0].state, row.cells[1].state) == ("missing", "", "missing")
    assert row.final is not None and (row.final.before.correct, row.final.after.correct) == (8, 36)
    page = render_html(report, TIMINGS)
    assert '<td class="gate h8"><b>75.0</b><span class="state missing">' in page and "30/40 · 60–86" in page
    line = "| add | missing | +70.0 (+52, +82) | 8/40 20.0 (10–35) | 30/40 75.0 (60–86) |"
    assert line in render_markdown(report, TIMINGS)


@pytest.mark.parametrize(
    ("status", "said"),
    [("running", "goes on with round 2"), ("finished", "--extend N"), ("stopped", "by its own rule")],
)
def test_what_happens_next_is_said(status: str, said: str) -> None:
    words = next_words(whole_report().model_copy(update={"status": status}))
    assert said in words and words.startswith("0 of 2 skills are mastered.")


def test_costs_are_added_up_and_put_beside_the_forecast() -> None:
    report = whole_report()
    timings = Timings(
        stages=(
            StageTiming(stage="train", round=1, seconds=140.0, tokens=100),
            StageTiming(stage="final", round=None, seconds=70.0),
        )
    )
    _, first, other, everything = cost_rows(report, timings)
    assert (first[2], first[3], first[4], first[8]) == ("2 min 20 s", "4", "100", "2")
    assert (other[2], everything[2], everything[4]) == ("1 min 10 s", "3 min 30 s", "100")
    # 70 points were gained on the final split.
    assert point_words(report, timings).startswith("A point recovered on the final split took 3.0 s")
    assert [row[1:] for row in forecast_rows(report, timings)][:2] == [("at most 12", "9"), ("at most 8", "4")]
    assert (
        forecast_rows(report, timings)[2][1].startswith("1 to 2 min") and forecast_rows(run_report("x"), timings) == []
    )
    # Ordered 1 row to write, kept 1, threw away 3 candidates.
    assert rejection_rows(report) == [("1", "1", "1", "3", "0", "0")]


def test_the_contents_lead_to_every_section_once() -> None:
    page = Page(render_html(whole_report(), TIMINGS))
    assert [value for name, value in page.attributes if name == "href"] == [f"#{name}" for name in SECTIONS]
    ids = [value for name, value in page.attributes if name == "id"]
    assert set(SECTIONS) <= set(ids) and len(set(ids)) == len(ids)
    labelled = {value for name, value in page.attributes if name == "aria-labelledby"}
    assert labelled == {f"h-{name}" for name in SECTIONS} and labelled <= set(ids)
    assert page.tags.count("caption") == page.tags.count("table") > 10


@pytest.mark.parametrize("hostile", [False, True])
def test_the_policy_names_the_script_that_stands_in_the_page(hostile: bool) -> None:
    page = render_html(hostile_text(whole_report()) if hostile else whole_report(), TIMINGS)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert len(script) < 6000 and not re.search(r"innerHTML|insertAdjacent|eval|Function|fetch|document\.write", script)


def test_hostile_text_stays_text_on_the_page_and_in_markdown() -> None:
    report, plain = hostile_text(whole_report()), whole_report()
    page, harmless = Page(render_html(report, TIMINGS)), Page(render_html(plain, TIMINGS))
    assert set(page.tags) <= set(harmless.tags) | {"wbr"}
    assert {name for name, _ in page.attributes} <= {name for name, _ in harmless.attributes}
    for text in (page.text, render_markdown(report, TIMINGS)):
        assert not re.search("[\x00\x07\x1b\x9b\u202e\u2066\u200b\ufeff\u2028\ud800]", text)
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", render_markdown(report, TIMINGS), flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)[<>]", outside.replace("&lt;", "")) and not re.search(r"(?<!\\)!\[", outside)


def test_every_view_has_the_facts_of_the_run_as_a_whole() -> None:
    report = whole_report()
    for view in (Page(render_html(report, TIMINGS)).text, render_markdown(report, TIMINGS).replace("\\", "")):
        text = " ".join(view.split())
        for said in (
            "35 probe items were failed in some round; 30 of them are shown", "right, then lost",
            "missing skill share", "Canary: same", "git checkout 0", "Python", "torch", "Forked from earlier",
            "not committed", "run-r01", "at most 12", "Answer: that",
        ):  # fmt: skip
            assert said.lower() in text.lower(), said
    assert RunReport.model_validate(report.model_dump(mode="json")) == report


def test_reports_of_older_runs_are_still_read_and_shown() -> None:
    new = {"failed", "taught", "adapters", "work", "reproduction"}
    old = RunReport.model_validate({k: v for k, v in run_report("x").model_dump(mode="json").items() if k not in new})
    page = Page(render_html(old, Timings()))
    assert "#failures" not in dict.fromkeys(value for _, value in page.attributes)
    assert "How to make it again" in page.text and LABELS


def test_long_curves_are_thinned_and_short_ones_are_level() -> None:
    assert len(curve([1.0] * 5000).split()) <= 240
    assert curve([0.5]) == "0.0,0.0 240.0,0.0"
    assert curve([2.0, 1.0]).split() == ["0.0,0.0", "240.0,35.0"]


def test_names_break_after_underscores_and_nowhere_else() -> None:
    assert breakable("a_b<c>\u202e") == r"a_<wbr>b&lt;c&gt;\u202e"
