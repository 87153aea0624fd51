"""A bench at several budgets: names, equal tokens, nothing is repeated; slices, extra sets and their plots."""

import io
import json
import re
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from command import tutelage
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bench import CONFIG, count_trainings, files, made_of, rows, write
from test_bench import bench as run_at_one_budget
from test_bench_report import ITEMS, LABELS, grades, shown, training
from test_strategies import make_pool, materials, row
from whole_report import WORST, hostile

from agents.bench import ASKED, Bench, check_bench, log_asked, open_bench, run_bench
from agents.bench_forecast import bench_forecast, forecast_words
from agents.bench_training import Training
from agents.progress import ProgressPrinter
from agents.session import open_loop
from curriculum.bench_answers import BaseDone, TrainingDone
from curriculum.bench_budgets import at_budget, budget_words, parse_budgets
from curriculum.bench_plots import HEIGHT, Panel, key, slices, strategy_slices, tradeoff
from curriculum.bench_records import BenchReport
from curriculum.bench_report import BenchFacts, bench_report
from curriculum.bench_slices import Slices, final_slices
from curriculum.bench_tradeoff import peak_words, slice_rows, tradeoff_heads, tradeoff_rows
from curriculum.bench_views import render_html, render_markdown
from curriculum.bench_words import leader_words, sentences
from curriculum.config import Config, load_config
from curriculum.errors import UserError
from curriculum.mixture import draw_pool
from curriculum.records import Example, SkillLabel
from curriculum.run_index import Found, bench_row
from curriculum.strategies import Strategy, cut_to_budget, parse_strategies, strategy_plan, strategy_pool

EXTRA = """\
extra:
  far:
    kind: reasoning_gym
    per_task: 14
    tasks: {chain_sum: [{difficulty: 5, params: {min_terms: 8, max_terms: 9, max_digits: 3}}]}
"""
BINS: tuple[Strategy, ...] = ("uniform", "uniform_again", "easy", "middle", "hard")


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (Training("easy", 1), "easy-1"),
        (Training("easy", 12, 1.0), "easy-12"),
        (Training("uniform_again", 1, 0.25), "uniform_again-1-x0.25"),
        (Training("easy", 1, 2.0), "easy-1-x2"),
    ],
)
def test_folders_of_the_whole_budget_have_the_names_they_had(made: Training, name: str) -> None:
    assert made.name == name


@pytest.mark.parametrize(
    ("text", "shares"), [("1", (1.0,)), ("1, .25,0.5,1.0", (0.25, 0.5, 1.0)), ("0.1234,3", (0.1234, 3.0))]
)
def test_budgets_are_shares_with_commas(text: str, shares: tuple[float, ...]) -> None:
    assert parse_budgets(text) == shares
    assert len({budget_words(share) for share in shares}) == len(shares)


@pytest.mark.parametrize(
    "text", ["", ",", "0", "-1", "nan", "inf", "101", "0.12345", "half", "1;2", "\x1b[31m", "1_0x"]
)
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--budgets: expected shares .* such as 0.25,0.5,1, got") as caught:
        parse_budgets(text)
    assert "\x1b" not in str(caught.value)


def test_a_budget_of_no_row_is_refused_at_the_start(tmp_path: Path) -> None:
    config = load_config(write(tmp_path))
    with pytest.raises(UserError, match=r"0\.005 of plan.rows_per_round, which is 60, is no row"):
        check_bench(config, Bench(BINS, 1, (0.005, 1.0)))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load_config(write(tmp_path_factory.mktemp("config"), CONFIG.replace("{epochs: 2}", "{epochs: 1}")))


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 1.0), st.integers(1, 5), st.sampled_from(["uniform", "easy", "middle", "hard", "stat_sel"]))
def test_every_strategy_gets_a_budget_s_tokens(config: Config, share: float, seed: int, strategy: Strategy) -> None:
    of = at_budget(materials(config), round(share, 2))
    whole = materials(config)
    assert of.budget == pytest.approx(round(share, 2) * whole.budget, abs=0.5 * whole.budget / 60 + 1)
    plan = strategy_plan(strategy, seed, of)
    assert plan.seed != strategy_plan(strategy, seed, whole).seed or round(share, 2) == 1, (
        "no two trainings share a seed"
    )
    drawn = draw_pool(plan, strategy_pool(strategy, of.pool, bins=of.bins), {}, config.plan.max_repeats)
    made = [row(draw.skill, f"{draw.example_id}-{n}") for draw in drawn.draws for n in range(draw.rows)]
    tokens = {r.id: {"chain_sum": 50, "gcd": 100, "lcm": 200}[r.skill] for r in made}
    kept = cut_to_budget(made, tokens, of.budget, plan.seed)
    assert abs(sum(tokens[r.id] for r in kept) - of.budget) <= 100, "half the longest row"


def test_the_whole_budget_is_what_it_was(config: Config) -> None:
    of = materials(config)
    assert at_budget(of, 1.0) is of and len(make_pool().ids) == len(of.pool.ids)


# A bench with the fake student.


def bench(folder: Path, strategies: tuple[Strategy, ...], budgets: tuple[float, ...], **changes: Any) -> BenchReport:
    config = load_config(write(folder, CONFIG + EXTRA), [f"{key}={value}" for key, value in changes.items()])
    run = open_bench(config, "bench")
    with run, open_loop(run, config, ProgressPrinter(io.StringIO())) as loop:
        made = run_bench(loop, Bench(strategies, 1, budgets))
    assert isinstance(made, BenchReport)
    return made


def test_more_budgets_go_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = count_trainings(monkeypatch)
    arms = parse_strategies("hard")
    first = bench(tmp_path, arms, (1.0,))
    folder = tmp_path / "bench"
    before = {name: of for name, of in files(folder).items() if not name.startswith("bench.")}
    assert len(begun) == 3 and sorted(p.name for p in (folder / "trainings").iterdir()) == [
        "hard-1",
        "uniform-1",
        "uniform_again-1",
    ]
    more = bench(tmp_path, arms, (0.25, 0.5, 1.0))
    assert len(begun) == 9, "three trainings at each of two more budgets"
    assert before.items() <= files(folder).items(), "nothing that was there is changed"
    assert [b.share for b in more.budgets] == [0.25, 0.5, 1.0] and more.trainings == more.wanted == 9
    assert more.budgets[2].strategies == first.budgets[0].strategies
    for budget in more.budgets:
        tokens = [t.training_tokens for s in budget.strategies for t in s.trainings]
        assert len(tokens) == 3 and tokens == pytest.approx([budget.tokens] * 3, rel=0.05)
    assert [round(b.tokens / more.budgets[2].tokens, 2) for b in more.budgets] == [0.25, 0.5, 1.0]
    drawn = {name: {r.example_id for r in rows(folder, name)} for name in ("uniform-1", "uniform-1-x0.5")}
    assert drawn["uniform-1-x0.5"] - drawn["uniform-1"], "rows of its own"
    assert bench(tmp_path, arms, (0.25, 0.5, 1.0)) == more and len(begun) == 9
    loaded = load_config(tmp_path / "small.yaml")
    assert bench_forecast(loaded, Bench(arms, 1, (0.25, 0.5, 1.0)), folder).answers == 0


def test_a_log_of_wishes_from_before_there_were_budgets_is_read(tmp_path: Path) -> None:
    run = open_bench(load_config(write(tmp_path)), "bench")
    wish = {"at": "2026-11-20T10:00:00+00:00", "strategies": list(BINS), "seeds": 1}
    (run.path / ASKED).write_text(json.dumps(wish) + "\n")
    log_asked(run, Bench(BINS, 1))
    assert len((run.path / ASKED).read_text().splitlines()) == 1, "the same wish"
    log_asked(run, Bench(BINS, 1, (0.25, 1.0)))
    assert json.loads((run.path / ASKED).read_text().splitlines()[1])["budgets"] == [0.25, 1.0]


def test_each_adapter_answers_each_extra_set_once_and_nothing_else_looks_at_it(tmp_path: Path) -> None:
    made = bench(tmp_path, parse_strategies("stat_sel"), (0.5, 1.0))
    answers = tmp_path / "bench" / "answers"
    adapters = {t.adapter for b in made.budgets for s in b.strategies for t in s.trainings}
    assert len(adapters) == 6
    for name in adapters:
        assert sorted(p.name for p in (answers / name).iterdir()) == ["extra-far", "final"]
    assert sorted(p.name for p in (answers / "base").iterdir()) == ["extra-far", "final", "probe"]
    (of,) = made.extra
    assert (of.name, of.items, of.left_out) == ("far", 14, 0) and of.base.n == 14
    for result in (s for b in made.budgets for s in b.strategies):
        (extra,) = result.extra
        assert extra.accuracy == pytest.approx(extra.trainings[0].correct / 14)
        graded = (answers / result.trainings[0].adapter / "extra-far" / "grades.jsonl").read_text().splitlines()
        assert sum(json.loads(line)["verdict"] == "correct" for line in graded) == extra.trainings[0].correct
    for view in (render_html(made), render_markdown(made), shown(made)):
        assert "Extra sets (never select)" in view and "far" in view
    other = tmp_path / "without"
    other.mkdir()
    run_at_one_budget(other, parse_strategies("stat_sel"), 1)
    with_set, without = (rows(folder / "bench", "stat_sel-1") for folder in (tmp_path, other))
    assert with_set == without, "the rows are those of a bench without the set"


def test_the_forecast_counts_budgets_and_extra_sets(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, CONFIG + EXTRA))
    wanted = Bench(BINS, 2, (0.25, 1.0))
    made = bench_forecast(config, wanted, tmp_path / "none")
    assert made.trainings == 20 and made.answers == 60 + 21 * (90 + 14)
    one = bench_forecast(config, Bench(BINS, 2), tmp_path / "none")
    quarter = bench_forecast(config, Bench(BINS, 2, (0.25,)), tmp_path / "none")
    assert one.answers == quarter.answers and one.minutes and quarter.minutes and quarter.minutes < one.minutes
    said = "\n".join(forecast_words(config, wanted, made))
    assert "5 strategies with 2 seeds at budgets 0.25 (15 rows' tokens), 1 (60 rows' tokens): 20 trainings" in said
    assert "inside one budget" in said and "answer also far, which choose nothing" in said


@pytest.mark.real
@pytest.mark.parametrize("point", [("done", 14), ("line", 330), ("step", 3)], ids=lambda p: p[0])
def test_a_kill_anywhere_changes_nothing(tmp_path: Path, whole: Path, point: tuple[str, int]) -> None:
    args = ("bench", write(tmp_path, CONFIG + EXTRA), "--name", "bench", "--arms", "hard", "--seeds", "1")
    args = (*args, "--budgets", "0.5,1")
    assert tutelage(*args, kill_at=point).code == -9
    assert made_of(tmp_path / "bench").status == "running"
    done = tutelage(*args)
    assert done.code == 0, done.err
    assert "at budgets 0.5 (30 rows' tokens), 1 (60 rows' tokens): 6 trainings" in done.err
    assert "hard seed 1 at budget 0.5:" in done.err and "Extra sets (never select)" in done.out
    assert files(tmp_path / "bench") == files(whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed bench at two budgets."""
    folder = tmp_path_factory.mktemp("whole")
    bench(folder, parse_strategies("hard"), (0.5, 1.0))
    return folder / "bench"


# From grades to plots.


def report(arms: tuple[Strategy, ...], shares: tuple[float, ...], seeds: int, wanted: int | None = None) -> BenchReport:
    """A bench of made-up answers whose final items lie in three slices, with an extra set."""
    done: list[TrainingDone] = []
    for share, strategy, seed in product(shares, arms, range(1, seeds + 1)):
        of = training(strategy, seed + round(100 * share), 0.2 + 0.3 * share * (1 + (strategy == "hard")))
        extra = grades(of.adapter.name, [at % 4 < seed for at in range(12)])
        done.append(of._replace(seed=seed, share=share, extra={"far": extra}))
    names = ("easy", "middle", "hard")
    cut = Slices("worked-solution length", {f"{at:04d}": names[at % 3] for at in range(ITEMS)}, names)
    tokens = {share: round(1000 * share) for share in shares}
    count = len(done) if wanted is None else wanted
    base = BaseDone(
        grades("base", [at % 10 == 0 for at in range(ITEMS)]), {"far": grades("base", [at == 3 for at in range(12)])}
    )
    return bench_report(BenchFacts("b", count, "fake", "0" * 64, "1" * 64, tokens, []), base, done, LABELS, cut)


@pytest.fixture(scope="module")
def made() -> BenchReport:
    return report(BINS, (0.25, 0.5, 1.0), 3)


def accuracies(panel: Panel, at: int) -> dict[str, float]:
    """What the marks of one budget stand for, as read off the axis."""
    (low, low_label), (high, high_label) = panel.ticks[0], panel.ticks[-1]
    first, last = (float(label.removesuffix(" %")) / 100 for label in (low_label, high_label))
    read = [first + (dot.y - low) / (high - low) * (last - first) for dot in panel.lines[at].dots]
    assert read == pytest.approx([dot.accuracy for dot in panel.lines[at].dots], abs=0.001)
    return dict(zip([name for _, name in panel.columns], read, strict=True))


def test_the_numbers_of_the_plots_are_those_of_the_document(made: BenchReport) -> None:
    document = json.loads(made.model_dump_json())
    drawn, by_slice = tradeoff(made), slices(made)
    assert drawn is not None and len(by_slice) == 3 and strategy_slices(made) == []
    for at, budget in enumerate(document["budgets"]):
        found = {s["strategy"]: s for s in budget["strategies"]}
        even = (found["uniform"]["accuracy"] + found["uniform_again"]["accuracy"]) / 2
        expected = {s: found[s]["accuracy"] for s in ("easy", "middle", "hard")} | {"all": even}
        assert accuracies(drawn, at) == pytest.approx(expected, abs=0.001)
        for place, panel in enumerate(by_slice):
            of = {s: found[s]["slices"][place]["accuracy"] for s in BINS}
            even = (of.pop("uniform") + of.pop("uniform_again")) / 2
            assert accuracies(panel, at) == pytest.approx(of | {"all": even}, abs=0.001)
        for dot, name in zip(drawn.lines[at].dots, ("easy", "middle", "hard"), strict=False):
            rates = [t["accuracy"]["rate"] for t in found[name]["trainings"]]
            assert dot.low >= dot.y >= dot.high, "y grows downwards"
            assert dot.title == (
                f"{name} ×{budget['share']:g}: {100 * found[name]['accuracy']:.1f} "
                f"({100 * min(rates):.1f}–{100 * max(rates):.1f}) %"
            )
        assert len(drawn.lines[at].points.split()) == 3, "the line joins easy, middle and hard, and not all"
    assert [label for _, label in key(made)] == ["×0.25, 250 tokens", "×0.5, 500 tokens", "×1, 1,000 tokens"]
    assert all(0 <= y <= HEIGHT for line in drawn.lines for dot in line.dots for y in (dot.y, dot.low, dot.high))


def test_strategies_without_difficulty_have_their_slices_drawn_at_one_budget() -> None:
    of = report(("uniform", "uniform_again", "stat_sel"), (1.0,), 1)
    assert tradeoff(of) is None and slices(of) == [] and peak_words(of) == ""
    panels = strategy_slices(of)
    assert [p.title for p in panels] == ["easy, 40 items", "middle, 40 items", "hard, 40 items"]
    expected = [s.slices[0].accuracy for s in of.budgets[0].strategies]
    assert [dot.accuracy for dot in panels[0].lines[0].dots] == pytest.approx(expected)
    (low, _), (high, label) = panels[0].ticks[0], panels[0].ticks[-1]
    for dot in panels[0].lines[0].dots:
        assert (dot.x - low) / (high - low) * float(label[:-2]) / 100 == pytest.approx(dot.accuracy, abs=0.001)
        assert dot.low < dot.x < dot.high, "the interval of a single training"
    cells = slice_rows(of, of.budgets[0])[0]
    assert all(re.fullmatch(r"\d+/40 \d+\.\d \(\d+–\d+\)", cell) for cell in cells[2:]), cells


def test_slices_of_a_strategy_add_up_to_all_final_items(made: BenchReport) -> None:
    assert sum(of.items for of in made.slices) == made.items == ITEMS
    for result in (s for b in made.budgets for s in b.strategies):
        for at, one in enumerate(result.trainings):
            assert sum(of.trainings[at].correct for of in result.slices) == one.accuracy.correct
            assert sum(of.trainings[at].n for of in result.slices) == one.accuracy.n
    assert sum(of.base.correct for of in made.slices) == made.base_accuracy.correct


def test_p_values_are_adjusted_over_all_budgets(made: BenchReport) -> None:
    alone = report(BINS, (1.0,), 3)
    pairs = list(zip(alone.budgets[0].strategies, made.budgets[2].strategies, strict=True))
    assert all(one.against == of.against for one, of in pairs), "a budget is compared within itself"
    assert all((of.p_value or 0) >= (of.against.p_value if of.against else 0) for _, of in pairs)
    nine = [s.p_value for b in made.budgets for s in b.strategies if s.strategy in ("easy", "middle", "hard")]
    assert len(nine) == 9 and any("9 comparisons at 3 budgets" in said for said in sentences(made))
    assert not any("comparisons" in said for said in sentences(alone))


def test_who_led_is_said_with_what_it_is_worth(made: BenchReport) -> None:
    said = leader_words(made)
    assert len(said) == 4 and said[2].startswith("At budget 1 (1,000 tokens) hard led with ")
    assert said[2].endswith(", better.") and "adjusted p" in said[2] and "flatters" in said[3]
    assert "hard at ×1" in peak_words(made) and "not tested" in peak_words(made)
    one = leader_words(report(BINS, (1.0,), 1))
    assert one[0].startswith("Here hard led with ") and one[0].endswith("points against uniform, not tested.")
    assert "Here" not in " ".join(leader_words(report(BINS, (1.0,), 1, wanted=99))), "not while it is under way"


def test_the_tables_say_what_the_plots_draw(made: BenchReport) -> None:
    assert tradeoff_heads(made) == ["budget", "tokens", "easy", "middle", "hard", "all"]
    cells = tradeoff_rows(made)
    assert [c[:2] for c in cells] == [["×0.25", "250"], ["×0.5", "500"], ["×1", "1,000"]]
    for view in (render_html(made), render_markdown(made)):
        assert all(cell in view for row_ in cells for cell in row_)
        assert "Difficulty and budget" in view and "the words of their worked solution" in view
    assert "×0.25" in shown(made) and "Right by slice ×1, %" in shown(made)
    page = render_html(made)
    assert page.count('role="img"') == 5 and "<script" not in page
    assert page.count("<title>") == 1 + 3 * 4 * 4 + 12, (
        "a title a mark: of four plots with four columns, and 12 differences"
    )


def test_hostile_text_is_escaped_in_every_view(made: BenchReport) -> None:
    of = hostile(made)
    assert of.slices[0].slice.startswith(WORST[:20]) and of.extra[0].name != "far"
    page = render_html(of)
    tags = set(re.findall(r"<([a-zA-Z]+)", page))
    assert not tags & {"script", "iframe", "img", "base", "textarea", "link", "form"}, tags
    assert page.count("<style>") == 2 and not re.search(r"<[^>]*\bon\w+=", page.replace("&lt;", ""))
    assert re.search(r"(?<!\\)<(script|img|iframe)", render_markdown(of)) is None
    assert "\x1b[31m" not in shown(of) + page


def test_a_document_of_schema_1_is_read(made: BenchReport) -> None:
    alone = json.loads(report(BINS, (1.0,), 2).model_dump_json())
    (budget,) = alone.pop("budgets")
    old = {k: v for k, v in alone.items() if k not in ("sliced_by", "slices", "extra")}
    old |= {"schema_version": 1, "budget": budget["tokens"], "seed_sd": budget["seed_sd"], "calibration": None}
    old["strategies"] = [
        {k: v for k, v in s.items() if k not in ("slices", "extra")} | {"levels": []} for s in budget["strategies"]
    ]
    read = BenchReport.model_validate(old)
    assert read.schema_version == 2 and read.budgets[0].share == 1.0 and read.budgets[0].tokens == 1000
    assert [s.accuracy for s in read.budgets[0].strategies] == [s["accuracy"] for s in budget["strategies"]]
    assert render_html(read) and render_markdown(read)
    row_ = bench_row(Found(name="b", facts=None, report=old))
    assert row_.trainings == "10 of 10" and not row_.notes
    newer = bench_row(Found(name="b", facts=None, report=json.loads(made.model_dump_json()) | {"schema_version": 3}))
    assert "schema_version" in newer.notes[0]


# Slices.


def example(at: int, words: int | None, level: int | None) -> Example:
    solutions = () if words is None else (" ".join(["step"] * words),)
    made = Example.make(
        question=f"question {at}?", gold="1", grader="exact", source="t", solutions=solutions, difficulty=level
    )
    return made


def label(of: Example, level: int, teacher: str) -> SkillLabel:
    return SkillLabel(example_id=of.id, teacher=teacher, prompt_hash="0", skills=("s",), difficulty=level, reason="")


ITEM = st.tuples(st.none() | st.integers(0, 6), st.none() | st.integers(1, 5))


@given(st.lists(ITEM, min_size=1, max_size=25), st.sampled_from(["offline", "a-model"]))
def test_slices_part_the_final_items(items: list[tuple[int | None, int | None]], teacher: str) -> None:
    examples = [example(at, words, level) for at, (words, level) in enumerate(items)]
    labels = {e.id: label(e, e.difficulty or 3, teacher) for e in examples}
    made = final_slices(examples, labels)
    ids = sorted(labels)
    places = made.places(ids)
    if made.by is None:
        assert not places and not made.names
        return
    assert sorted(at for part in places.values() for at in part) == list(range(len(ids))), "each item in one slice"
    assert list(places) == list(made.names) and all(places.values())
    by_name = {e.id: (e.difficulty or 3) if made.by == "difficulty" else len(e.solutions[0].split()) for e in examples}
    ends = [(min(by_name[ids[at]] for at in part), max(by_name[ids[at]] for at in part)) for part in places.values()]
    assert all(before[1] < after[0] for before, after in pairwise(ends)), "easiest first, none shared"


@pytest.mark.parametrize(
    ("items", "teacher", "by"),
    [
        ([(1, 1), (2, 2)], "offline", "difficulty"),
        ([(1, 2), (5, 2)], "offline", "worked-solution length"),  # one level tells nothing apart
        ([(1, None), (5, 2)], "offline", "worked-solution length"),  # 3 is what the offline teacher gives for none
        ([(1, None), (5, 2)], "a-model", "difficulty"),
        ([(None, None), (5, 2)], "offline", None),
        ([(None, 1), (None, 2)], "offline", "difficulty"),
    ],
)
def test_what_orders_the_final_items(items: list[tuple[int | None, int | None]], teacher: str, by: str | None) -> None:
    examples = [example(at, words, level) for at, (words, level) in enumerate(items)]
    labels = {e.id: label(e, e.difficulty or 3, teacher) for e in examples}
    assert final_slices(examples, labels).by == by
