"""Shrunk rates: between a skill's own and all skills', wide enough, and none where there is nothing to borrow."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from curriculum.records import ShrunkRate
from curriculum.shrinkage import shrunk_rates

SKILL = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
SKILLS = st.lists(SKILL, max_size=12)


def one(counts: list[tuple[int, int]], at: int = 0) -> ShrunkRate:
    rate = shrunk_rates(counts)[at]
    assert rate is not None
    return rate


@given(SKILLS)
def test_a_shrunk_rate_lies_between_its_own_and_the_pooled_one(counts: list[tuple[int, int]]) -> None:
    made = shrunk_rates(counts)
    assert len(made) == len(counts)
    right, items = (sum(of) for of in zip(*counts, strict=True)) if counts else (0, 0)
    pooled = (right + 0.5) / (items + 1)
    for (k, n), rate in zip(counts, made, strict=True):
        if n == 0 or sum(of > 0 for _, of in counts) < 2:
            assert rate is None
        else:
            assert rate is not None
            low, high = sorted((k / n, pooled))
            assert low - 1e-9 <= rate.rate <= high + 1e-9
            assert 0 <= rate.low < rate.rate < rate.high <= 1
            assert 0 < rate.borrowed < 1
            assert rate.rate == pytest.approx(k / n + rate.borrowed * (pooled - k / n), abs=0.5)


@given(SKILLS, st.integers(1, 10), st.integers(1, 10), st.integers(2, 6))
def test_of_two_skills_with_one_rate_the_one_with_more_items_borrows_less(
    others: list[tuple[int, int]], right: int, wrong: int, times: int
) -> None:
    small = (right, right + wrong)
    made = shrunk_rates([small, (times * small[0], times * small[1]), *others])
    few, many = made[:2]
    assert few is not None and many is not None
    assert many.borrowed < few.borrowed
    assert abs(many.rate - right / (right + wrong)) <= abs(few.rate - right / (right + wrong)) + 1e-12


@given(SKILLS, st.randoms(use_true_random=False))
def test_the_order_of_skills_changes_nothing(counts: list[tuple[int, int]], random: object) -> None:
    assume(sum(n > 0 for _, n in counts) > 1)
    turned = shrunk_rates(counts[::-1])[::-1]
    for was, now in zip(shrunk_rates(counts), turned, strict=True):
        assert (was is None) == (now is None)
        if was is not None and now is not None:
            assert (now.rate, now.low, now.high) == pytest.approx((was.rate, was.low, was.high), abs=1e-9)


@pytest.mark.parametrize("counts", [[], [(0, 0)], [(3, 5)], [(3, 5), (0, 0)]])
def test_without_other_skills_nothing_is_borrowed(counts: list[tuple[int, int]]) -> None:
    assert shrunk_rates(counts) == [None] * len(counts)


@pytest.mark.parametrize("right", [0, 3, 5])
def test_skills_that_are_all_alike_keep_an_interval(right: int) -> None:
    rate = one([(right, 5)] * 9)
    assert rate.rate == pytest.approx(right / 5, abs=0.02)
    assert 0.02 < rate.high - rate.low < 0.5


def test_a_skill_with_five_items_does_not_shout() -> None:
    quiet, loud = one([(0, 5), (30, 60), (28, 60), (33, 60)]), one([(0, 60), (30, 60), (28, 60), (33, 60)])
    assert quiet.rate > 0.2 and quiet.borrowed > 0.5
    assert loud.rate < 0.05 and loud.borrowed < 0.1


def test_skills_that_differ_are_left_apart() -> None:
    low, high = (one([(2, 40), (38, 40), (1, 40), (39, 40)], at) for at in (0, 1))
    assert low.rate < 0.1 and high.rate > 0.9


@pytest.mark.parametrize("pair", [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="0 ≤ right ≤ items"):
        shrunk_rates([(1, 2), pair])


def test_intervals_hold_the_true_rates_of_most_skills() -> None:
    random = np.random.default_rng(0)
    held = closer = skills = 0
    for _ in range(200):
        rates = random.beta(3, 7, 9)
        right = random.binomial(6, rates)
        for rate, k, made in zip(rates, right, shrunk_rates([(int(k), 6) for k in right]), strict=True):
            assert made is not None
            held += made.low <= rate <= made.high
            closer += (made.rate - rate) ** 2 < (k / 6 - rate) ** 2
            skills += 1
    assert 0.92 < held / skills < 0.99
    assert closer / skills > 0.6
