"""The three rules: shares are shares, keep their bounds, and go where they should."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.allocation import (
    MOST_SHARES,
    Budget,
    Measurement,
    allocate,
    bounded,
    expected_gain_shares,
    learnability,
    plan_ahead,
    shares_by_rule,
    skill_statuses,
)
from curriculum.config import Config
from curriculum.learning_curves import Evidence, expected_half, fit_curves
from curriculum.records import Skill, SkillCatalogue
from curriculum.round_records import Allocation, MissingSkillProfile, Rule, SkillProfile, VerdictCounts
from curriculum.statistics import wilson

RULES: tuple[Rule, ...] = ("even", "failures", "learnability", "expected_gain")
NAMES = "abcdefgh"
Answers = Mapping[str, tuple[int, int]]
"""Skill → right and wrong answers."""


def config(rule: Rule = "failures", **plan: object) -> Config:
    sizes = {"probe": 10, "gate": 10, "final": 10}
    data = {"kind": "reasoning_gym", "tasks": {"a": [{"difficulty": 1}]}, "per_task": 100, "splits": sizes}
    made = {"rows_per_round": 100, "allocation": rule, **plan}
    return Config.model_validate({"data": data, "plan": made, "rounds": 3})


def profile(answers: Answers, unparsed: int = 0) -> MissingSkillProfile:
    def part(skill: str, right: int, wrong: int) -> SkillProfile:
        counts = VerdictCounts(correct=right, wrong=wrong)
        missing = wrong + unparsed
        rate = wilson(right, right + wrong + unparsed)
        return SkillProfile(skill=skill, difficulty=None, counts=counts, missing=missing, accuracy=rate)

    right, wrong = (sum(pair[at] for pair in answers.values()) for at in (0, 1))
    return MissingSkillProfile(
        round=1,
        adapter="base",
        overall=wilson(right, right + wrong),
        counts=VerdictCounts(correct=right, wrong=wrong, unparsed=unparsed * len(answers)),
        skills=tuple(part(skill, *pair) for skill, pair in answers.items()),
        cells=(),
    )


def allocated(
    *measured: Answers,
    settings: Config | None = None,
    rows: int = 30,
    pool: Mapping[str, int] | None = None,
    writable: Sequence[str] = (),
    unparsed: int = 0,
) -> Allocation | None:
    skills = list(measured[0])
    sizes = dict.fromkeys(skills, 1000) if pool is None else pool
    points = [
        Measurement(profile(m, unparsed), dict.fromkeys(skills, rows) if i else {}) for i, m in enumerate(measured)
    ]
    catalogue = SkillCatalogue(teacher="t", skills=tuple(Skill(id=s, name=s, writable=s in writable) for s in skills))
    levels = {s: {1: n} for s, n in sizes.items()}
    return allocate(len(measured), settings or config(), points, catalogue, levels, dict.fromkeys(writable, (1,)))


def shares(made: Allocation | None, rule: Rule) -> dict[str, float]:
    assert made is not None
    return {part.skill: getattr(part.shares, rule) for part in made.skills}


ANSWERS = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=8
)
FLOORS = st.floats(0, 1)


@settings(max_examples=40)
@given(ANSWERS, FLOORS, st.sampled_from([0, 30]))
def test_shares_of_every_rule_sum_to_one_and_keep_the_floor_and_the_cap(
    answers: dict[str, tuple[int, int]], floor: float, rows: int
) -> None:
    better = {skill: (right + 1, wrong) for skill, (right, wrong) in answers.items()}
    made = allocated(answers, better, settings=config(uniform_floor=floor), rows=rows)
    n = len(answers)
    for rule in RULES:
        of = shares(made, rule)
        assert sum(of.values()) == pytest.approx(1)
        assert all(share >= 0 for share in of.values())
    for rule in ("failures", "learnability"):
        assert all(share >= floor / n - 1e-12 for share in shares(made, rule).values())
    assert all(share <= MOST_SHARES / n + 1e-9 for share in shares(made, "expected_gain").values())


@settings(max_examples=40)
@given(ANSWERS, FLOORS, st.randoms(use_true_random=False))
def test_the_order_of_skills_is_irrelevant_and_the_same_input_gives_the_same_shares(
    answers: dict[str, tuple[int, int]], floor: float, random: object
) -> None:
    turned = list(answers.items())
    random.shuffle(turned)  # type: ignore[attr-defined]
    chosen = config("expected_gain", uniform_floor=floor)
    one = allocated(answers, answers, settings=chosen)
    assert one == allocated(dict(turned), dict(turned), settings=chosen)


@settings(max_examples=40)
@given(st.integers(0, 18), st.integers(1, 20), FLOORS)
def test_more_failures_never_lower_a_share_by_failures(wrong: int, more: int, floor: float) -> None:
    def share(failures: int) -> float:
        answers = {"a": (10, failures), "b": (5, 5), "c": (0, 3)}
        return shares(allocated(answers, settings=config(uniform_floor=floor)), "failures")["a"]

    assert share(wrong + more) >= share(wrong)


@pytest.mark.parametrize(
    ("right", "answers", "expected"), [(0, 0, 0), (0, 9, 0), (9, 9, 0), (1, 4, Fraction(3, 16)), (2, 4, Fraction(1, 4))]
)
def test_learnability_is_largest_where_half_is_right(right: int, answers: int, expected: Fraction) -> None:
    assert learnability(right, answers) == expected


def test_missing_is_not_learnable_is_not_worth_a_row() -> None:
    """a stays at nothing, b is half right and stays there, c rises from nothing."""
    first = {"a": (0, 40), "b": (20, 20), "c": (0, 40)}
    then = {"a": (0, 40), "b": (20, 20), "c": (16, 24)}
    made = allocated(first, then, then | {"c": (24, 16)}, settings=config("expected_gain", uniform_floor=0))
    by = {rule: shares(made, rule) for rule in RULES}
    assert max(by["failures"], key=by["failures"].__getitem__) == "a"
    assert max(by["learnability"], key=by["learnability"].__getitem__) == "b"
    assert max(by["expected_gain"], key=by["expected_gain"].__getitem__) == "c"
    assert by["learnability"]["a"] == 0


def test_no_data_no_rate_even_shares() -> None:
    nothing = dict.fromkeys("abc", (0, 0))
    for rule in RULES:
        assert shares(allocated(nothing), rule) == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_a_base_whose_answers_are_mostly_unparsed_gets_even_shares_by_expected_gain() -> None:
    answers = {"a": (5, 1), "b": (0, 6)}
    assert shares(allocated(answers, unparsed=10), "expected_gain") == {"a": 0.5, "b": 0.5}
    assert shares(allocated(answers), "expected_gain") != {"a": 0.5, "b": 0.5}


def test_a_mastered_skill_keeps_the_floor() -> None:
    answers = {"a": (40, 0), "b": (10, 30)}
    made = allocated(answers, answers, settings=config(uniform_floor=0.2))
    assert made is not None and [part.status for part in made.skills] == ["mastered", "open"]
    for rule in RULES:
        assert shares(made, rule)["a"] == pytest.approx(0.1, abs=0.01), rule


def test_only_skills_that_can_be_taught_have_a_share() -> None:
    answers = {"a": (1, 9), "b": (1, 9), "c": (1, 9)}
    made = allocated(answers, pool={"a": 5}, writable=["b"], settings=config(write_share=0.5))
    assert set(shares(made, "failures")) == {"a", "b"}
    assert allocated(answers, pool={}) is None


def test_no_skill_gets_more_than_its_pool_holds() -> None:
    answers = {"a": (0, 20), "b": (0, 20), "c": (0, 20)}
    chosen = config(max_repeats=2, write_share=0.5)
    of = shares(allocated(answers, pool={"a": 5, "b": 900, "c": 5}, writable=["c"], settings=chosen), "expected_gain")
    assert of["a"] == pytest.approx(5 * 2 / 100)
    assert of["b"] == pytest.approx(of["c"], abs=1 / 60)


def test_the_rules_own_shares_sum_to_one_exactly() -> None:
    made = allocated({"a": (1, 9), "b": (2, 5), "c": (7, 9)}, settings=config("expected_gain"))
    assert made is not None
    assert sum(shares_by_rule(made).values()) == 1


def test_a_range_goes_with_every_expected_gain() -> None:
    made = allocated({"a": (1, 9), "b": (2, 5)}, {"a": (6, 4), "b": (2, 5)}, settings=config("expected_gain"))
    assert made is not None and made.points == 2
    for part in made.skills:
        assert 0 <= part.gain_low <= part.gain_high <= 1 and part.rows == 30
        assert part.gain_low <= part.gain <= part.gain_high


def walk(rounds: int, rows: float, truth: Sequence[Sequence[float]]) -> list[list[float]]:
    """Shares over rounds of skills with true curves (start, ceiling, half, steepness) and noise-free answers."""
    start, ceiling, half, steepness = np.array(truth).T
    trained, seen, given = np.zeros(len(truth)), [], []
    for round_ in range(rounds):
        with np.errstate(divide="ignore"):
            seen.append(100 * (start + (ceiling - start) / (1 + (half / trained) ** steepness)))
        correct = np.stack(seen, axis=1)
        evidence = Evidence(correct, np.full_like(correct, 100), np.array(given).reshape(round_, len(truth)).T * rows)
        curves = fit_curves(evidence, expected_half(int(rows), rounds, len(truth)))
        of = expected_gain_shares(curves, 100 - correct[:, -1], Budget(int(rows), rounds, rounds - round_))
        given.append(of)
        trained = trained + rows * of
    return [of.tolist() for of in given]


def test_a_skill_that_stays_flat_gives_its_rows_to_one_that_rises() -> None:
    flat = [2 * of[0] for of in walk(5, 48, [(0.1, 0.1, 50, 1), (0.1, 0.8, 30, 1)])]
    assert flat[0] == pytest.approx(1, abs=0.1)
    assert max(flat[3:]) < 0.3


def test_rows_go_to_the_skill_with_more_left_to_gain() -> None:
    given = walk(4, 60, [(0.6, 0.95, 40, 1), (0.05, 0.9, 40, 1)])
    low, high = (sum(of[skill] for of in given) for skill in (0, 1))
    assert high > 1.2 * low


def test_equal_skills_get_equal_rows() -> None:
    for of in walk(3, 120, [(0.1, 0.6, 40, 1)] * 5):
        assert of == pytest.approx([0.2] * 5, abs=1e-9)


def test_a_plan_gives_all_chunks_of_the_rounds_left() -> None:
    curves = fit_curves(Evidence(np.array([[1.0], [5.0]]), np.array([[9.0], [9.0]]), np.zeros((2, 0))), 50.0)
    assert plan_ahead(curves, 100, 3).sum() == pytest.approx(1)


def test_parked_is_what_rows_did_not_move_and_never_what_had_none() -> None:
    stuck, rising, mastered = [2.0] * 6, [2.0, 20.0, 30.0, 35.0, 40.0, 44.0], [95.0] * 6
    correct = np.array([*[stuck] * 4, rising, mastered])
    answers = np.full_like(correct, 100)

    def statuses(rows: float) -> list[str]:
        return list(skill_statuses(fit_curves(Evidence(correct, answers, np.full((6, 5), rows)), 60.0), 240))

    assert statuses(60) == ["parked"] * 4 + ["open", "mastered"]
    assert "parked" not in statuses(0)


WEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(WEIGHTS, st.data())
def test_bounded_shares_sum_to_one_keep_their_bounds_and_their_order(weights: list[float], data: st.DataObject) -> None:
    n = len(weights)
    low, high = data.draw(st.floats(0, 1 / n)), data.draw(st.floats(1 / n, 1))
    of = bounded(np.array(weights), low, high)
    assert of.sum() == pytest.approx(1)
    assert ((of >= low - 1e-12) & (of <= high + 1e-12)).all()
    ranked = of[np.argsort(weights, kind="stable")]
    assert (np.diff(ranked) >= -1e-9).all()


def test_bounds_that_cannot_be_kept_give_way() -> None:
    assert bounded(np.array([0.9, 0.1]), 0.0, np.array([0.2, 0.3])) == pytest.approx([0.4, 0.6])
    assert bounded(np.array([0.9, 0.1]), 0.8, 1.0) == pytest.approx([0.5, 0.5])
    assert bounded(np.zeros(4), 0.0, 1.0) == pytest.approx([0.25] * 4)
