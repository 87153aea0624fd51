"""From grades to a bench's report, and its three views."""

import json
import re
from collections.abc import Sequence

import jsonschema
import numpy as np
import pytest
from rich.console import Console
from samples import grade

from curriculum.bench_answers import BaseDone, TrainingDone
from curriculum.bench_plots import plot
from curriculum.bench_records import BenchReport
from curriculum.bench_report import BenchFacts, bench_report
from curriculum.bench_views import render_html, render_markdown, render_terminal
from curriculum.bench_words import difference_words, headline, response_words
from curriculum.records import Grade, SkillLabel, Verdict
from curriculum.round_records import Adapter, TrainingRow
from curriculum.strategies import Strategy

ITEMS = 120
HOSTILE = "gcd<script>alert(1)</script>|`x`\x1b[31m[red]"
SKILLS = ("chain_sum", HOSTILE)


def grades(adapter: str, right: Sequence[bool], failed: int = -1) -> list[Grade]:
    verdicts = [Verdict.CORRECT if r else Verdict.WRONG for r in right]
    if failed >= 0:
        verdicts[failed] = Verdict.FAILED
    return [grade(f"{at:04d}", adapter, verdict) for at, verdict in enumerate(verdicts)]


def training(
    strategy: Strategy, seed: int, rate: float, failed: int = -1, rows: tuple[int, int] = (6, 6), response: int = 100
) -> TrainingDone:
    """Right in each item with a chance; the items' own difficulty is the same for all."""
    generator = np.random.default_rng([seed, len(strategy), *map(ord, strategy)])
    right = generator.random(ITEMS) < rate
    adapter = Adapter(
        name=f"{strategy}-{seed}",
        run=strategy,
        round=1,
        base="fake",
        base_hash="0",
        files={},
        training_set_hash="0",
        rows=sum(rows),
        training_tokens=1000 + seed,
        target_tokens=response,
        steps=5,
        first_loss=2.0,
        last_loss=1.0,
    )
    made = [
        TrainingRow(
            id=f"{skill[:3]}{at}",
            example_id="e",
            round=1,
            origin="written" if strategy == "stat_syn" else "pool",
            skill=skill,
            skills=(skill,),
            difficulty=1,
            repeat=0,
            weight=1,
            layer="x",
            question="?",
            target="!",
            source="s",
        )
        for skill, n in zip(SKILLS, rows, strict=True)
        for at in range(n)
    ]
    return TrainingDone(strategy, seed, adapter, made, grades(adapter.name, list(right), failed))


LABELS = {
    f"{at:04d}": SkillLabel(
        example_id=f"{at:04d}", teacher="offline", prompt_hash="0", skills=(SKILLS[at % 2],), difficulty=1, reason=""
    )
    for at in range(ITEMS)
}


def report(done: Sequence[TrainingDone], wanted: int | None = None, notes: Sequence[str] = ()) -> BenchReport:
    facts = BenchFacts(
        "bench-x", len(done) if wanted is None else wanted, "fake", "0" * 64, "1" * 64, {1.0: 1000}, notes
    )
    return bench_report(facts, BaseDone(grades("base", [at % 10 == 0 for at in range(ITEMS)])), done, LABELS)


@pytest.fixture(scope="module")
def made() -> BenchReport:
    rates: dict[Strategy, float] = {
        "uniform": 0.3, "uniform_again": 0.3, "stat_sel": 0.7, "ega": 0.3, "stat_syn": 0.3, "generated_uniform": 0.6,
    }  # fmt: skip
    return report(
        [
            training(s, n, rate, rows=(3, 9) if s == "stat_sel" else (6, 6))
            for s, rate in rates.items()
            for n in (1, 2, 3)
        ]
    )


def test_what_is_better_worse_and_not_told_apart(made: BenchReport) -> None:
    found = {s.strategy: s for s in made.budgets[0].strategies}
    assert {name: s.verdict for name, s in found.items()} == {
        "uniform": "not tested",
        "uniform_again": "no difference seen",
        "stat_sel": "better",
        "ega": "no difference seen",
        "stat_syn": "worse",
        "generated_uniform": "better",
    }
    assert found["stat_syn"].control == "generated_uniform" and found["stat_sel"].control == "uniform"
    gain = found["stat_sel"].gain
    controls = [t.accuracy.correct for s in ("uniform", "uniform_again") for t in found[s].trainings]
    assert gain == pytest.approx(found["stat_sel"].accuracy - sum(controls) / 6 / ITEMS), (
        "all uniform trainings together"
    )
    assert found["stat_sel"].against is not None and found["stat_sel"].p_value is not None
    assert found["stat_sel"].p_value >= found["stat_sel"].against.p_value, "adjusted for the number of strategies"
    assert made.budgets[0].calibration is not None and made.budgets[0].calibration.splits == 10
    assert not made.screening and made.status == "finished" and made.base_accuracy.rate == 0.1
    points = {name: f"{100 * abs(s.gain or 0):.1f} points" for name, s in found.items()}
    assert headline(made) == (
        f"Better than uniform: stat_sel, by {points['stat_sel']}. "
        f"Better than uniform: generated_uniform, by {points['generated_uniform']}. "
        f"Worse than generated_uniform: stat_syn, by {points['stat_syn']}. "
        "No difference from the control was seen: ega."
    )


def test_a_strategy_that_did_what_uniform_does_is_named(made: BenchReport) -> None:
    assert [n for n in made.notes if "than uniform" in n] == [
        "ega gave other skills than uniform only 0% of its rows: hardly a difference is to be expected."
    ], "stat_sel moved a quarter"


def test_the_order_of_trainings_does_not_matter() -> None:
    done = [training(s, n, 0.4) for s in ("uniform", "uniform_again", "ega") for n in (1, 2)]
    assert report(done) == report(done[::-1])


def test_one_seed_is_a_screening_without_intervals() -> None:
    made = report([training(s, 1, 0.4) for s in ("uniform", "uniform_again", "ega")])
    assert made.screening and made.budgets[0].calibration is None and made.budgets[0].seed_sd is None
    assert all(s.against is None and s.verdict == "not tested" for s in made.budgets[0].strategies)
    assert made.budgets[0].strategies[2].gain is not None
    text = render_markdown(made)
    assert "needs two seeds" in text and "this is a screening" in text and "too few seeds" in text


def test_items_without_a_verdict_are_left_out_for_all() -> None:
    done = [training(s, n, 0.4, failed=7 if (s, n) == ("ega", 2) else -1) for s in ("uniform", "ega") for n in (1, 2)]
    made = report(done)
    assert (made.items, made.left_out) == (ITEMS - 1, 1)
    assert {t.accuracy.n for s in made.budgets[0].strategies for t in s.trainings} == {ITEMS - 1}
    assert "1 more have no verdict" in render_markdown(made)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_bench_under_way_has_a_report(count: int) -> None:
    order: list[tuple[Strategy, int]] = [(s, n) for n in (1, 2) for s in ("uniform", "uniform_again", "stat_sel")]
    made = report([training(s, n, 0.4) for s, n in order[:count]], wanted=6)
    assert made.status == "running" and headline(made).startswith(f"{count} of 6 trainings are done")
    assert render_html(made) and render_markdown(made) and shown(made)


def test_the_report_follows_its_schema_and_comes_back_from_disk(made: BenchReport) -> None:
    plain = json.loads(made.model_dump_json())
    jsonschema.validate(plain, BenchReport.model_json_schema())
    assert BenchReport.model_validate(plain) == made and plain["schema_version"] == 2


def test_hostile_names_reach_no_view_as_code(made: BenchReport) -> None:
    page, text, terminal = render_html(made), render_markdown(made), shown(made)
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert re.search(r"(?<!\\)<script>", text) is None
    assert all("\x1b[31m" not in view for view in (page, text, terminal))
    assert "http" not in re.sub(r'lang="en"|http-equiv', "", page) and "<script" not in page


def test_every_view_says_what_matters(made: BenchReport) -> None:
    for view in (render_html(made), render_markdown(made).replace("\\", ""), shown(made)):
        flat = " ".join(view.split())
        for said in (
            "with 80 % power",
            "Random against random",
            "at most 0.1 % off",
            "new seeds and for new items",
            "stat_syn with generated_uniform",
        ):
            assert said in flat, said
    for view in (render_html(made), render_markdown(made)):
        assert "Hillis" in view


def test_the_plot_has_a_mark_for_each_control_and_a_dot_for_each_training(made: BenchReport) -> None:
    drawn = plot(made)
    assert drawn is not None
    assert [m.label for m in drawn.marks] == ["uniform_again", "stat_sel", "stat_syn", "generated_uniform", "ega"]
    for mark in drawn.marks:
        assert mark.low is not None and mark.high is not None and len(mark.dots) == 3
        assert 14 <= mark.low < mark.x < mark.high <= 386
        assert sum(mark.dots) / 3 == pytest.approx(mark.x, abs=0.2), "the mean of the trainings is the mark"
    better = next(m for m in drawn.marks if m.label == "stat_sel")
    assert better.low is not None and better.low > drawn.zero
    assert plot(report([])) is None


def shown(of: BenchReport) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_terminal(of))
    return console.export_text()


# Response tokens


def shorter(seeds: int = 3) -> BenchReport:
    """Complexity takes 60 of 100 response tokens on twice the rows; its control gets more right."""
    arms: list[tuple[Strategy, float, int, tuple[int, int]]] = [
        ("uniform", 0.4, 110, (6, 6)), ("uniform_again", 0.4, 90, (6, 6)), ("complexity", 0.4, 60, (12, 12)),
        ("complexity_random", 0.8, 120, (12, 12)), ("answers", 0.1, 12, (18, 18)), ("dft", 0.4, 100, (6, 6)),
    ]  # fmt: skip
    return report([training(s, n, p, rows=r, response=k) for s, p, k, r in arms for n in range(1, seeds + 1)])


def test_savings_are_against_uniform_whatever_a_strategy_is_compared_with() -> None:
    found = {s.strategy: s for s in shorter().budgets[0].strategies}
    assert {name for name, s in found.items() if s.responses} == {"complexity", "complexity_random", "answers"}
    of = found["complexity"].responses
    assert found["complexity"].control == "complexity_random" and of is not None and of.against is not None
    assert (of.tokens, of.uniform_tokens, of.saved) == (60, 100, pytest.approx(0.4))
    assert (of.rows, of.uniform_rows, of.row_saved) == (24, 12, pytest.approx(0.7))
    even = (found["uniform"].accuracy + found["uniform_again"].accuracy) / 2
    assert of.gain == pytest.approx(found["complexity"].accuracy - even) == pytest.approx(of.against.difference)
    assert of.against.low is not None and of.against.low < 0 < (of.against.high or 0)
    random = found["complexity_random"]
    assert random.control == "uniform" and random.responses is not None and random.against is not None
    assert random.responses.against == random.against, "the same comparison where the control is uniform"
    more = found["complexity_random"].responses
    assert more is not None and more.saved == pytest.approx(-0.2)


def test_the_claim_is_one_sentence_with_its_interval_wherever_the_report_is_read() -> None:
    made = shorter()
    of = next(s for s in made.budgets[0].strategies if s.strategy == "complexity")
    assert of.responses is not None
    said = (
        "complexity takes 40.0 % fewer response tokens a training than uniform, whose rows have worked solutions where "
        f"the data do (60 against 100), at a difference of {difference_words(of.responses.against, None)} points."
    )
    assert response_words(of, of.strategy).startswith(said) and "row by row it takes 70.0 % fewer." in response_words(
        of, of.strategy
    )
    assert "(24 against 12)" in response_words(of, of.strategy) and said in render_markdown(made).replace("\\", "")
    assert said in render_html(made)
    console = Console(record=True, width=200)
    console.print(render_terminal(made))
    assert said in " ".join(console.export_text().split())
    random = next(s for s in made.budgets[0].strategies if s.strategy == "complexity_random")
    assert "takes 20.0 % more response tokens" in response_words(random, random.strategy)
    (lone,) = [s for s in shorter(1).budgets[0].strategies if s.strategy == "answers"]
    assert lone.responses is not None and lone.responses.against is None
    assert "of which no interval is known: it needs two seeds" in response_words(lone, lone.strategy)


def test_nothing_is_saved_of_worked_solutions_where_uniform_has_none() -> None:
    done = [training("uniform", 1, 0.4), training("answers", 1, 0.4, response=10)]
    facts = BenchFacts("bench-x", 2, "fake", "0" * 64, "1" * 64, {1.0: 1000}, (), gold_targets=False)
    made = bench_report(facts, BaseDone(grades("base", [True] * ITEMS)), done, LABELS)
    assert [s.responses for s in made.budgets[0].strategies] == [None, None]
