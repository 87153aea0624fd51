from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.mixture import (
    Draw,
    Pool,
    PoolDraw,
    apportion,
    draw_pool,
    index_pool,
    skill_shares,
    stat_sel_weights,
    training_rows,
)
from curriculum.records import Example, SkillLabel
from curriculum.round_records import RoundPlan, SkillPlan, TrainingRow

SKILLS = ("add", "count", "sort")
COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40), min_size=1)
FLOORS = st.floats(0, 1)


def example(name: str) -> Example:
    return Example.make(question=f"question {name}", gold=name, grader="exact", source=f"test:{name}")


def label(example_: Example, *skills: str, difficulty: int = 2) -> SkillLabel:
    return SkillLabel(
        example_id=example_.id, teacher="t", prompt_hash="h", skills=skills, difficulty=difficulty, reason=""
    )


def plan(rows: dict[str, int], *, round_: int = 1, seed: int = 0, replay: int = 0, **shares: float) -> RoundPlan:
    skills = tuple(
        SkillPlan(skill=s, missing=0, share=shares.get(s, 1 / len(rows)), pool_rows=n, written_rows={}, reason="")
        for s, n in rows.items()
    )
    return RoundPlan(
        round=round_, action="train", skills=skills, replay_rows=replay, learning_rate=1e-4, epochs=1, seed=seed
    )


def labelled(*skills_of: tuple[str, ...]) -> tuple[list[Example], dict[str, SkillLabel]]:
    pool = [example(str(i)) for i in range(len(skills_of))]
    return pool, {e.id: label(e, *skills) for e, skills in zip(pool, skills_of, strict=True)}


def indexed(labels: Iterable[SkillLabel]) -> Pool:
    return index_pool((label_.example_id, label_.skills, label_.difficulty) for label_ in labels)


POOLS = st.lists(st.lists(st.sampled_from(SKILLS), min_size=1, max_size=3, unique=True).map(tuple), max_size=12)
PLANS = st.dictionaries(st.sampled_from(SKILLS), st.integers(0, 30), min_size=1)


def uses(drawn: PoolDraw) -> Counter[str]:
    return Counter({id_: sum(d.rows for d in drawn.draws if d.example_id == id_) for id_, _, _ in drawn.draws})


# Shares


@given(COUNTS, FLOORS)
def test_shares_are_a_distribution_with_a_floor(missing: dict[str, int], floor: float) -> None:
    shares = skill_shares(missing, floor)
    assert sum(shares.values()) == 1
    assert min(shares.values()) >= Fraction(floor) / len(missing) >= 0


def test_shares_follow_failures_over_the_floor() -> None:
    assert skill_shares({"a": 30, "b": 10, "c": 0}, 0.25) == {
        "a": Fraction(3, 4) * Fraction(3, 4) + Fraction(1, 12),
        "b": Fraction(3, 4) * Fraction(1, 4) + Fraction(1, 12),
        "c": Fraction(1, 12),
    }
    assert skill_shares({"a": 0, "b": 0}, 0.0) == {"a": Fraction(1, 2), "b": Fraction(1, 2)}


@given(COUNTS, FLOORS, st.data(), st.integers(1, 40), st.integers(0, 300))
def test_more_failures_of_a_skill_never_lower_its_share_or_its_rows(
    missing: dict[str, int], floor: float, data: st.DataObject, more: int, rows: int
) -> None:
    skill = data.draw(st.sampled_from(sorted(missing)))
    before = skill_shares(missing, floor)
    after = skill_shares(missing | {skill: missing[skill] + more}, floor)
    assert after[skill] >= before[skill]
    assert apportion(after, rows)[skill] >= apportion(before, rows)[skill]


# Integer budgets


@given(COUNTS.filter(lambda weights: sum(weights.values()) > 0), st.integers(0, 500))
def test_budgets_add_up_and_stay_within_one_row_of_their_quota(weights: dict[str, int], total: int) -> None:
    parts = apportion(weights, total)
    assert sum(parts.values()) == total
    for key, part in parts.items():
        assert abs(part - Fraction(total * weights[key], sum(weights.values()))) < 1


def test_ties_go_to_the_first_key() -> None:
    assert apportion({"b": 1, "a": 1, "c": 1}, 4) == {"a": 2, "b": 1, "c": 1}


# STAT-Sel


def test_weights_follow_the_closed_form() -> None:
    pool = {"x": ("add",), "y": ("add", "sort"), "z": ("count",)}
    weights = stat_sel_weights({"add": 3, "sort": 2, "write-only": 9}, pool, k=5)
    assert weights == {"x": 5 * Fraction(3, 2), "y": 5 * (Fraction(3, 2) + 2), "z": 0}


@given(PLANS, POOLS, st.integers(1, 5))
def test_weights_are_non_negative_and_normalise_to_one(
    missing: dict[str, int], skills: list[tuple[str, ...]], k: int
) -> None:
    pool = {str(i): s for i, s in enumerate(skills)}
    weights = stat_sel_weights(missing, pool, k)
    total = sum(weights.values())
    assert total == k * sum(n for skill, n in missing.items() if any(skill in s for s in skills))
    assert all(w >= 0 for w in weights.values())
    assert total == 0 or sum(w / total for w in weights.values()) == 1


@given(PLANS, POOLS, st.integers(0, 9))
def test_without_a_binding_cap_every_skill_gets_its_rows_evenly(
    rows: dict[str, int], skills: list[tuple[str, ...]], seed: int
) -> None:
    _, labels = labelled(*skills)
    rows = {s: n for s, n in rows.items() if any(s in of for of in skills)}
    drawn = draw_pool(plan(rows, seed=seed), indexed(labels.values()), {}, max_repeats=100)
    assert (drawn.moved, drawn.shortfall) == ({}, 0)
    for skill, n in rows.items():
        counts = [d.rows for d in drawn.draws if d.skill == skill]
        size = sum(skill in of for of in skills)
        assert sum(counts) == n
        assert set(counts) <= {n // size, -(-n // size)}


def test_over_seeds_an_item_is_drawn_as_often_as_the_closed_form_says() -> None:
    pool, labels = labelled(("add",), ("add",), ("add", "sort"), ("sort",), ("add", "count"), ("count",), ("add",))
    rows, seeds = {"add": 7, "sort": 3, "count": 1}, 1500
    weights = stat_sel_weights(rows, {e.id: labels[e.id].skills for e in pool})
    total: Counter[str] = Counter()
    for seed in range(seeds):
        total += uses(draw_pool(plan(rows, seed=seed), indexed(labels.values()), {}, max_repeats=100))
    # A count varies by at most one a skill: 0.06 is more than three standard errors of the mean.
    assert {id_: n / seeds for id_, n in total.items()} == pytest.approx(
        {i: float(w) for i, w in weights.items()}, abs=0.06
    )


@given(PLANS, POOLS, st.integers(1, 4), st.integers(0, 9), st.data())
def test_the_cap_holds_and_no_row_is_lost_silently(
    rows: dict[str, int], skills: list[tuple[str, ...]], cap: int, seed: int, data: st.DataObject
) -> None:
    pool, labels = labelled(*skills)
    used = {e.id: data.draw(st.integers(0, 5)) for e in pool}
    drawn = draw_pool(plan(rows, seed=seed), indexed(labels.values()), used, cap)
    counts = uses(drawn)
    assert all(used[id_] + n <= cap for id_, n in counts.items())
    assert all(d.rows > 0 and d.skill in labels[d.example_id].skills for d in drawn.draws)
    assert counts.total() + drawn.shortfall == sum(rows.values())
    assert drawn.shortfall <= sum(drawn.moved.values())
    if drawn.shortfall:
        assert counts.total() == sum(max(0, cap - n) for n in used.values()), "rows were refused with room left"


def test_what_a_skill_cannot_hold_goes_to_the_rest_of_the_pool() -> None:
    _, labels = labelled(("add",), ("sort",), ("sort",))
    drawn = draw_pool(plan({"add": 5, "sort": 0}), indexed(labels.values()), {}, max_repeats=2)
    assert drawn.moved == {"add": 3}
    assert [(d.skill, d.rows) for d in drawn.draws] in (
        [("add", 2), ("sort", 1), ("sort", 2)],
        [("add", 2), ("sort", 2), ("sort", 1)],
    )
    assert drawn.shortfall == 0


def test_a_skill_named_twice_is_needed_once() -> None:
    pool = index_pool([("x", ("add", "add"), 1), ("y", ("add",), 3)])
    assert pool.sizes() == {"add": {1: 1, 3: 1}}
    drawn = draw_pool(plan({"add": 9}), pool, {}, max_repeats=2)
    assert (uses(drawn), drawn.shortfall) == ({"x": 2, "y": 2}, 5)


@given(st.permutations(range(6)))
def test_draws_do_not_depend_on_the_order_of_the_pool(order: list[int]) -> None:
    pool, labels = labelled(("add",), ("add",), ("add", "sort"), ("sort",), ("sort",), ("add",))
    wanted = plan({"add": 4, "sort": 2})
    turned = indexed(labels[pool[i].id] for i in order)
    assert draw_pool(wanted, turned, {}, 3) == draw_pool(wanted, indexed(labels.values()), {}, 3)


# Rows

POOL, LABELS = labelled(("add",), ("add", "sort"), ("sort",))
BY_ID = {e.id: e for e in POOL}
NEW = [example("new one"), example("new two")]
ALL_LABELS = LABELS | {e.id: label(e, "count", difficulty=4) for e in NEW}
DRAWS = (Draw(POOL[0].id, "add", 2), Draw(POOL[1].id, "add", 1), Draw(POOL[1].id, "sort", 1))


def rows_of(wanted: RoundPlan, earlier: list[TrainingRow] | None = None, floor: float = 0.0) -> list[TrainingRow]:
    written = [(e, "count") for e in NEW]
    return training_rows(wanted, DRAWS, BY_ID, written, earlier or [], ALL_LABELS, lambda e: [f"#### {e.gold}"], floor)


def test_every_draw_and_written_example_becomes_a_row_with_its_provenance() -> None:
    rows = rows_of(plan({"add": 3, "sort": 1, "count": 0}))
    assert Counter((r.origin, r.example_id, r.skill, r.repeat) for r in rows) == Counter(
        [
            ("pool", POOL[0].id, "add", 0),
            ("pool", POOL[0].id, "add", 1),
            ("pool", POOL[1].id, "add", 0),
            ("pool", POOL[1].id, "sort", 1),
            ("written", NEW[0].id, "count", 0),
            ("written", NEW[1].id, "count", 0),
        ]
    )
    new = next(r for r in rows if r.example_id == NEW[0].id)
    assert (new.skills, new.difficulty, new.target) == (("count",), 4, "#### new one")
    assert (new.question, new.source, new.weight, new.round) == ("question new one", "test:new one", 1.0, 1)


def test_rows_are_sorted_by_unique_ids_whatever_the_order_of_the_draws() -> None:
    wanted = plan({"add": 3, "sort": 1, "count": 0})
    written = [(e, "count") for e in NEW]
    rows = rows_of(wanted)
    turned = training_rows(wanted, DRAWS[::-1], BY_ID, written[::-1], [], ALL_LABELS, lambda e: [f"#### {e.gold}"], 0.0)
    assert turned == rows
    assert [r.id for r in rows] == sorted({r.id for r in rows})


def test_accepted_rows_are_replayed_under_the_round_that_added_them() -> None:
    earlier = rows_of(plan({"add": 3, "sort": 1}))
    rows = rows_of(plan({"add": 3, "sort": 1}, round_=2, replay=100), earlier)
    replayed = [r for r in rows if r.origin == "replay"]
    assert Counter((r.example_id, r.repeat, r.round, r.layer) for r in replayed) == Counter(
        (r.example_id, r.repeat, 1, "replay") for r in earlier
    )
    assert {r.repeat for r in rows if r.round == 2 and r.example_id == POOL[0].id} == {2, 3}
    assert len({r.id for r in rows}) == len(rows) == 2 * len(earlier)


@given(st.lists(st.sampled_from(SKILLS), max_size=20), st.integers(0, 20))
def test_replay_takes_what_fits_and_is_balanced_over_skills(skills: list[str], room: int) -> None:
    pool, labels = labelled(*((s,) for s in skills))
    draws = [Draw(e.id, labels[e.id].skills[0], 1) for e in pool]
    earlier = training_rows(plan({"add": 1}), draws, {e.id: e for e in pool}, [], [], labels, lambda e: [e.gold], 0.0)
    again = training_rows(plan({"add": 0}, round_=2, replay=room), [], {}, [], earlier, labels, lambda e: [e.gold], 0.0)
    turned = training_rows(
        plan({"add": 0}, round_=2, replay=room), [], {}, [], earlier[::-1], labels, lambda e: [e.gold], 0.0
    )
    assert again == turned
    assert len(again) == min(room, len(earlier))
    kept, had = Counter(r.skill for r in again), Counter(skills)
    for few in had:
        for many in had:
            assert kept[few] == had[few] or kept[many] <= kept[few] + 1


@pytest.mark.parametrize(
    ("floor", "shares", "by_floor"),
    [
        (0.0, {"add": 0.7, "sort": 0.3}, {}),
        (0.4, {"add": 0.8, "sort": 0.2}, {"add": 1, "sort": 1}),
        (0.2, {"add": 0.5, "sort": 0.5}, {"add": 3, "sort": 1}),
    ],
)
def test_the_rows_of_the_uniform_floor_are_marked(
    floor: float, shares: dict[str, float], by_floor: dict[str, int]
) -> None:
    wanted = plan({"add": 3, "sort": 1, "count": 0}, count=0.0, **shares)
    rows = [r for r in rows_of(wanted, floor=floor) if r.origin == "pool"]
    assert Counter(r.skill for r in rows if r.layer == "uniform floor") == by_floor
    assert {r.layer for r in rows} <= {"uniform floor", "missing skill share"}


def test_rows_say_which_rule_chose_them() -> None:
    wanted = plan({"add": 3, "sort": 1}, add=0.8, sort=0.2)
    draws, examples, labels = [Draw(POOL[0].id, "add", 3), Draw(POOL[1].id, "sort", 1)], {e.id: e for e in POOL}, LABELS
    rows = training_rows(wanted, draws, examples, [], [], labels, lambda e: [e.gold], 0.4, "expected_gain")
    assert Counter(r.layer for r in rows) == {"uniform floor": 2, "expected gain": 2}


# Several worked solutions


def taught(rows: list[TrainingRow], epochs: int) -> list[str]:
    """What a training teaches with its rows of one example, epoch by epoch, in the order of their uses."""
    return [row.targets[e % len(row.targets)] for row in sorted(rows, key=lambda r: r.repeat) for e in range(epochs)]


@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_solutions_are_taught_in_turn_over_epochs_repeats_and_rounds(
    n: int, epochs: int, uses: int, later: int
) -> None:
    e = example("many")
    texts = [f"way {i}" for i in range(n)]

    def rows_of_round(round_: int, draw: int, earlier: list[TrainingRow]) -> list[TrainingRow]:
        wanted = plan({"add": draw}, round_=round_, replay=100).model_copy(update={"epochs": epochs})
        draws = [Draw(e.id, "add", draw)] if draw else []
        return training_rows(wanted, draws, {e.id: e}, [], earlier, {e.id: label(e, "add")}, lambda _: texts, 0.0)

    first = rows_of_round(1, uses, [])
    assert taught(first, epochs) == [texts[i % n] for i in range(uses * epochs)]
    assert all(row.target == texts[row.solution or 0] and sorted(row.targets) == texts for row in first)

    second = rows_of_round(1 + later, 1, first)
    new = [row for row in second if row.origin == "pool"]
    assert taught(new, epochs) == [texts[i % n] for i in range(uses * epochs, (uses + 1) * epochs)]
    for row in first:
        again = next(r for r in second if r.origin == "replay" and r.repeat == row.repeat)
        assert again.solution == ((row.solution or 0) + later * epochs) % n
        assert again.target == texts[again.solution]


def test_a_row_with_one_solution_says_nothing_of_it() -> None:
    row = rows_of(plan({"add": 3, "sort": 1}))[0]
    assert row.targets == (row.target,) and row.solution is None
    assert not {"other_targets", "solution"} & row.model_dump(mode="json").keys()
