"""How hard rows are for the student: bins, where to begin, when to move, draws by bin, and the loop with all of it."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_difficult import with_keys
from test_extra import config_of, loop_of

from agents.forecast import forecast
from agents.graph import run_plain
from agents.history import pool_index
from agents.reporting import write_pages
from curriculum.config import load_config
from curriculum.difficulty import (
    BINS,
    FLOOR,
    bin_shares,
    by_bin,
    choose,
    joined,
    moved,
    pool_bins,
    signal_key,
    slices_of,
    start_focus,
)
from curriculum.difficulty_records import Bin, DifficultyPlan, DifficultySlice, ItemEntropy
from curriculum.mixture import draw_pool, index_pool, room_left
from curriculum.report_difficulty import difficulty_words
from curriculum.round_records import ItemSignals, RoundPlan, SkillPlan, TrainingRow
from curriculum.rundir import read_records


def plan_of(rows: Mapping[str, int]) -> RoundPlan:
    parts = tuple(
        SkillPlan(skill=s, missing=1, share=1 / len(rows), pool_rows=n, written_rows={}, reason="")
        for s, n in rows.items()
    )
    return RoundPlan(round=1, action="train", skills=parts, learning_rate=1e-3, epochs=1, seed=7)


@pytest.mark.parametrize(
    ("rows", "focus"),
    [(300, ("easy", "middle")), (999, ("easy", "middle")), (1000, ("middle",)), (99_999, ("middle",)),
     (100_000, ("middle", "hard"))],
)  # fmt: skip
def test_more_rows_begin_with_harder_ones(rows: int, focus: tuple[Bin, ...]) -> None:
    assert start_focus(rows) == focus


@pytest.mark.parametrize(
    ("focus", "by", "to"),
    [
        (("middle",), -1, ("easy",)),
        (("middle",), 1, ("hard",)),
        (("easy",), -1, ("easy",)),
        (("hard",), 1, ("hard",)),
        (("easy", "middle"), -1, ("easy",)),
        (("easy", "middle"), 1, ("middle", "hard")),
        (("middle", "hard"), 1, ("hard",)),
        (("middle", "hard"), -1, ("easy", "middle")),
    ],
)
def test_moves_by_one_bin(focus: tuple[Bin, ...], by: int, to: tuple[Bin, ...]) -> None:
    assert moved(focus, by) == to


def part(name: Bin, gained: int, lost: int, items: int = 100) -> DifficultySlice:
    ids = [str(n) for n in range(items)]
    before = {id_: n < lost for n, id_ in enumerate(ids)}
    after = {id_: lost <= n < lost + gained for n, id_ in enumerate(ids)}
    (made,) = slices_of(before, after, dict.fromkeys(ids, (0.0,)), 0.0)
    return made.model_copy(update={"bin": name})


@pytest.mark.parametrize(
    ("easy", "middle", "hard", "focus"),
    [
        ((2, 8), (3, 9), (1, 6), ("easy",)),  # all down: too hard
        ((2, 3), (3, 4), (1, 2), ("middle",)),  # all down, as chance may have it
        ((2, 8), (9, 3), (1, 6), ("middle",)),  # not all
        ((2, 8), (4, 4), (1, 6), ("middle",)),  # flat is not down
        ((9, 1), (5, 5), (4, 4), ("hard",)),  # easy up, hard flat: too easy
        ((9, 1), (5, 5), (1, 9), ("hard",)),  # easy up, hard down
        ((9, 1), (5, 5), (9, 1), ("middle",)),  # both up: as it should be
        ((2, 1), (5, 5), (4, 4), ("middle",)),  # easy up, as chance may have it
    ],
)
def test_the_slices_of_the_last_training_say_when_to_move(
    easy: tuple[int, int], middle: tuple[int, int], hard: tuple[int, int], focus: tuple[Bin, ...]
) -> None:
    slices = [part(name, *of) for name, of in zip(BINS, (easy, middle, hard), strict=True)]
    last = DifficultyPlan(measure="pass_rate", focus=("middle",), items={}, slices=(), reason="")
    made = choose("pass_rate", {"a": "easy", "b": "hard"}, 500, last, slices, 0.0)
    assert (made.focus, made.items) == (focus, {"easy": 1, "middle": 0, "hard": 1})
    words = difficulty_words(made)
    assert f"easy {100 * (easy[0] - easy[1]) / 100:+.1f}".replace("-", "−") in words.replace("-", "−")
    assert made.reason in words


def test_one_slice_is_no_evidence_and_seed_noise_is_counted() -> None:
    last = DifficultyPlan(measure="pass_rate", focus=("middle",), items={}, slices=(), reason="")
    alone = choose("pass_rate", {}, 500, last, [part("middle", 0, 50)], 0.0)
    assert alone.focus == ("middle",) and "all alike" in alone.reason
    fell = [part(name, 2, 7) for name in BINS]
    assert choose("pass_rate", {}, 500, last, fell, 0.0).focus == ("easy",)
    assert choose("pass_rate", {}, 500, last, fell, 0.15).focus == ("middle",)


def test_gate_items_are_parted_by_thirds_of_what_orders_them() -> None:
    ids = [f"{n:02d}" for n in range(30)]
    before, after = dict.fromkeys(ids, False), {id_: id_ < "10" for id_ in ids}
    made = slices_of(before, after | {"only after": True}, {id_: (float(id_),) for id_ in ids}, 0.0)
    assert [(s.bin, s.items, s.gained, s.lost) for s in made] == [
        ("easy", 10, 10, 0), ("middle", 10, 0, 0), ("hard", 10, 0, 0)
    ]  # fmt: skip
    assert made[0].p_up < 0.01 and made[0].p_down == pytest.approx(1) and made[1].p_up == 1
    tied = slices_of(before, after, dict.fromkeys(ids, (3.0,)), 0.0)
    assert [(s.bin, s.items) for s in tied] == [("middle", 30)]


def test_fewer_right_samples_then_entropy_make_an_item_harder() -> None:
    def signals(correct: int, samples: int = 4, entropy: float | None = 0.5) -> ItemSignals:
        return ItemSignals(example_id="x", adapter="a", samples=samples, correct=correct, entropy=entropy)

    keys = [signal_key(signals(4)), signal_key(signals(1)), signal_key(signals(0, entropy=0.1)), signal_key(signals(0))]
    assert keys == sorted(keys, key=lambda key: key or ()) and len(set(keys)) == 4
    assert signal_key(signals(0, samples=0)) is None
    assert signal_key(signals(2, entropy=None)) == (0.5, 0.0)


def test_bins_are_thirds_of_each_skill() -> None:
    rows = [(f"{s}{n}", [s], 1) for s in ("a", "b") for n in range(9)] + [("both", ["a", "b"], 1), ("silent", ["a"], 1)]
    pool = index_pool(rows)
    keys = {f"a{n}": (float(n),) for n in range(9)} | {f"b{n}": (100.0 + n,) for n in range(9)} | {"both": (50.0,)}
    bins = pool_bins(keys, pool)
    assert [bins[f"a{n}"] for n in range(9)] == [*["easy"] * 3, *["middle"] * 4, *["hard"] * 2]  # of ten
    assert Counter(bins[f"b{n}"] for n in range(9))["hard"] >= 3  # harder ones than all of the other skill
    assert bins["both"] == "middle"  # the hardest of one skill, the easiest of the other
    assert bins["silent"] == "middle"
    assert set(pool_bins(dict.fromkeys(pool.ids, (0.0,)), pool).values()) == {"middle"}


@given(st.sets(st.sampled_from(BINS), min_size=1))
def test_every_bin_keeps_a_floor(focus: set[Bin]) -> None:
    shares = bin_shares(sorted(focus))
    assert sum(shares.values()) == 1 and min(shares.values()) >= FLOOR
    assert all(shares[name] > FLOOR for name in focus)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 40), min_size=1),
    st.lists(st.tuples(st.sets(st.sampled_from("abc"), min_size=1), st.sampled_from(BINS)), min_size=1, max_size=25),
    st.sets(st.sampled_from(BINS), min_size=1),
    st.integers(1, 3),
)
def test_rows_by_bin_are_as_many_as_without(
    wanted: dict[str, int], items: list[tuple[set[str], Bin]], focus: set[Bin], repeats: int
) -> None:
    pool = index_pool([(f"{n:02d}", sorted(skills), 1) for n, (skills, _) in enumerate(items)])
    bins = {f"{n:02d}": name for n, (_, name) in enumerate(items)}
    plan, used = plan_of(wanted), {"00": 1}
    plain = draw_pool(plan, pool, used, repeats)
    drawn = joined(draw_pool(*by_bin(plan, pool, bins, sorted(focus), used, repeats), used, repeats))
    assert sum(d.rows for d in drawn.draws) + drawn.shortfall == sum(wanted.values())
    assert drawn.shortfall == plain.shortfall
    rows: Counter[str] = Counter()
    for draw in drawn.draws:
        rows[draw.example_id] += draw.rows
        assert draw.skill in "abc"
    room = room_left(pool, used, repeats)
    assert all(count <= room[pool.ids.index(id_)] for id_, count in rows.items())


def test_rows_come_from_the_focus_and_a_few_from_elsewhere() -> None:
    pool = index_pool([(f"{n:02d}", ["a"], 1) for n in range(30)])
    bins = {f"{n:02d}": BINS[n // 10] for n in range(30)}
    plan = plan_of({"a": 10})
    drawn = joined(draw_pool(*by_bin(plan, pool, bins, ("hard",), {}, 4), {}, 4))
    assert Counter(bins[d.example_id] for d in drawn.draws) == {"easy": 1, "middle": 1, "hard": 8}
    # A bin that is used up passes its rows on, to the nearest first; nothing leaves the skill.
    full = joined(draw_pool(*by_bin(plan_of({"a": 24}), pool, bins, ("hard",), {}, 1), {}, 1))
    assert Counter(bins[d.example_id] for d in full.draws) == {"easy": 4, "middle": 10, "hard": 10}
    assert not full.moved


def solved(folder: Path, **plan: Any) -> Path:
    """Three rounds on rows whose worked solutions have 1 to 9 words."""
    path = with_keys(config_of(folder, []), plan={"rows_per_round": 60, "difficulty": "adaptive"} | plan)
    rows = []
    for n in range(10, 90):
        words = " ".join(["then"] * (n % 9 + 1))
        rows.append(
            {"question": f"What is {n} plus {n}?", "gold": str(2 * n), "skills": [f"s{n % 3}"], "solutions": [words],
             "difficulty": n % 5 + 1}
        )  # fmt: skip
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = yaml.safe_load(path.read_text())
    tree["rounds"] = 2
    path.write_text(yaml.safe_dump(tree))
    return path


def test_solutions_whose_lengths_leave_a_bin_empty_give_way_to_entropy(tmp_path: Path) -> None:
    path, data = solved(tmp_path), tmp_path / "data.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for at, row in enumerate(rows):  # seven in eight alike: none of them is in the shortest third
        row["solutions"] = ["one step" if at % 8 else "one step more"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with loop_of(path) as loop:
        run_plain(loop)
        made = loop.plan(1).difficulty
    assert made is not None and made.measure == "entropy"


def test_the_loop_chooses_by_solution_length_and_says_so(tmp_path: Path) -> None:
    with loop_of(solved(tmp_path)) as loop:
        run_plain(loop)
        run, config, rows, plans = loop.run, loop.config, loop.new_rows(1), [loop.plan(1), loop.plan(2)]
    first, second = (plan.difficulty for plan in plans)
    assert first is not None and second is not None
    assert (first.measure, first.focus, first.reason, first.slices) == (
        "solution_length", ("easy", "middle"), "60 rows", ()
    )  # fmt: skip
    assert len(second.slices) == 3 and "slice" in second.reason
    assert sum(s.gained for s in second.slices) > sum(s.lost for s in second.slices), "the fake student learns"
    bins = Counter(row.layer.rpartition("; ")[2] for row in rows)
    assert set(bins) == {f"{name} for the student" for name in BINS}
    assert bins["hard for the student"] < bins["easy for the student"]
    lengths = {
        name: [len(r.target.split()) for r in rows if r.layer.endswith(f"; {name} for the student")] for name in BINS
    }
    assert max(lengths["easy"]) < min(lengths["hard"])
    write_pages(run, config)
    for view in ("report.md", "report.html"):
        assert "Pool rows are easy and middle for the student (60 rows)" in (run.path / view).read_text()


def test_the_loop_chooses_by_drawn_answers_of_the_current_adapter(tmp_path: Path) -> None:
    path = with_keys(solved(tmp_path), student={"signals": {"samples": 4}})
    with loop_of(path) as loop:
        run_plain(loop)
        plan = loop.plan(1)
        rows = [row for row in loop.new_rows(1) if row.origin == "pool"]
    assert plan.difficulty is not None and plan.difficulty.measure == "pass_rate"
    assert (loop.run.path / "answers" / "base" / "pool_samples" / "signals.jsonl").exists()
    assert rows and all(row.layer.endswith(" for the student") for row in rows)
    sized = [load_config(path, ["data.splits.pool=30", *more]) for more in ([], ["plan.difficulty=any"])]
    assert forecast(sized[0]).answers == forecast(sized[1]).answers + 2 * 4 * 30


def test_without_samples_and_solutions_the_loop_chooses_by_entropy(tmp_path: Path) -> None:
    path = with_keys(config_of(tmp_path, []), plan={"difficulty": "adaptive"})
    with loop_of(path) as loop:
        run_plain(loop)
        run, config, plan, rows = loop.run, loop.config, loop.plan(1), loop.new_rows(1)
        pool = pool_index(loop)
    made = read_records(run.path / "answers" / "base" / "pool_entropy" / "entropies.jsonl", ItemEntropy)
    assert [item.example_id for item in made] == pool.ids
    assert plan.difficulty is not None and plan.difficulty.measure == "entropy"
    bins = pool_bins({item.example_id: (item.entropy,) for item in made}, pool)
    drawn = [row for row in rows if row.origin == "pool"]
    assert drawn and all(row.layer.endswith(f"; {bins[row.example_id]} for the student") for row in drawn)
    write_pages(run, config)
    assert "how unsure the student is at the first token" in (run.path / "report.md").read_text()


def test_rows_of_any_difficulty_by_default(tmp_path: Path) -> None:
    with loop_of(solved(tmp_path, difficulty="any")) as loop:
        run_plain(loop)
        assert loop.plan(1).difficulty is None
        rows: list[TrainingRow] = loop.new_rows(1)
    assert rows and not any("for the student" in row.layer for row in rows)
