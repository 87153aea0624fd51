"""Agreement of two labellings: tables worked out by hand, another library's kappa, and what must always hold."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.agreement import agreement, cohen_kappa, jaccard, mean_jaccard, repeatability, spearman

COUNTS = st.integers(0, 40)
TABLES = st.tuples(COUNTS, COUNTS, COUNTS, COUNTS)
LEVELS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=30)
SETS = st.sets(st.sampled_from("abcde"))


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ((20, 5, 10, 15), 0.4),  # agree 35/50; by chance 25·30 + 25·20 = 1250 of 2500
        ((45, 15, 25, 15), 0.06 / 0.46),  # agree 0.60, by chance (60·70 + 40·30) / 100² = 0.54
        ((10, 0, 0, 10), 1.0),
        ((0, 10, 10, 0), -1.0),
        ((5, 5, 5, 5), 0.0),
        ((0, 0, 0, 20), None),  # neither ever gives it
        ((20, 0, 0, 0), None),
        ((0, 0, 0, 0), None),
    ],
)
def test_kappa_of_tables_worked_out_by_hand(table: tuple[int, int, int, int], kappa: float | None) -> None:
    made = cohen_kappa(*table)
    assert made.value == (None if kappa is None else pytest.approx(kappa))
    assert made.n == sum(table)


@settings(max_examples=40, deadline=None)
@given(TABLES)
def test_kappa_is_that_of_another_library_whichever_of_the_two_comes_first(table: tuple[int, int, int, int]) -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    a, b, c, d = table
    made, turned = cohen_kappa(a, b, c, d), cohen_kappa(a, c, b, d)
    assert made.value == (None if turned.value is None else pytest.approx(turned.value))
    if made.value is not None:
        assert made.value == pytest.approx(cohens_kappa([[a, b], [c, d]], return_results=False))
        assert -1 <= made.value <= 1
    if made.low is not None and made.high is not None:
        assert -1 <= made.low <= made.high <= 1 and made == cohen_kappa(a, b, c, d)


def test_the_bootstrap_interval_of_kappa_is_near_the_large_sample_one() -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    theirs = cohens_kappa([[80, 25], [15, 80]])
    made = cohen_kappa(80, 25, 15, 80)
    assert made.low == pytest.approx(theirs.kappa_low, abs=0.02)
    assert made.high == pytest.approx(theirs.kappa_upp, abs=0.02)


@pytest.mark.parametrize("table", [(10, 0, 0, 10), (4, 1, 1, 3), (0, 7, 0, 33), (2, 0, 38, 0)])
def test_no_interval_where_resampling_shows_nothing(table: tuple[int, int, int, int]) -> None:
    made = cohen_kappa(*table)
    assert made.value is not None and made.low is made.high is None


@pytest.mark.parametrize(
    ("first", "second", "rho"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 1.0),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 − 6·4 / (5·24)
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),  # ranks 1, 2.5, 2.5, 4
        ([3, 3, 3], [1, 2, 3], None),
        ([1], [1], None),
        ([], [], None),
    ],
)
def test_spearman_of_ranks_worked_out_by_hand(first: list[int], second: list[int], rho: float | None) -> None:
    made = spearman(first, second)
    assert made.value == (None if rho is None else pytest.approx(rho)) and made.n == len(first)


@settings(max_examples=25, deadline=None)
@given(LEVELS)
def test_spearman_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    first, second = zip(*pairs, strict=True)
    made = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert made.value is None
    else:
        assert made.value == pytest.approx(spearmanr(first, second).statistic)
        assert made.value == pytest.approx(spearman(second, first).value)
        assert made.low is None or (made.high is not None and -1 <= made.low <= made.high <= 1)


@given(SETS, SETS)
def test_jaccard_is_symmetric_and_1_only_for_the_same_sets(first: set[str], second: set[str]) -> None:
    assert jaccard(first, second) == jaccard(second, first)
    assert 0 <= jaccard(first, second) <= 1
    assert (jaccard(first, second) == 1) == (first == second)


def test_mean_jaccard_has_an_interval_also_where_all_agree() -> None:
    half = mean_jaccard([("ab", "ab"), ("a", "b"), ("ab", "bc"), ("a", "ab")])
    assert half.value == pytest.approx((1 + 0 + 1 / 3 + 1 / 2) / 4)
    assert half.low is not None and half.high is not None and 0 < half.low < half.value < half.high < 1
    all_same = mean_jaccard([("a", "a")] * 20)
    assert all_same.value == all_same.high == 1 and all_same.low == pytest.approx(0.839, abs=1e-3)
    assert mean_jaccard([]).value is None


def test_two_labellings_are_compared_on_the_items_that_both_have() -> None:
    first = {"1": ("add",), "2": ("add", "gcd"), "3": ("gcd",), "only": ("lcm",)}
    second = {"1": ("add",), "2": ("gcd",), "3": ("add",), "other": ("sort",)}
    made = agreement(first, second, ({"1": 1, "2": 2, "3": 5}, {"1": 1, "2": 3, "3": 4}))
    assert (made.items, made.same.correct, made.jaccard.value) == (3, 1, pytest.approx(0.5))
    add, gcd = made.skills
    assert (add.skill, add.both, add.first_only, add.second_only, add.neither) == ("add", 1, 1, 1, 0)
    assert (gcd.skill, gcd.both, gcd.first_only, gcd.second_only, gcd.neither) == ("gcd", 1, 1, 0, 1)
    assert made.difficulty is not None and made.difficulty.value == 1.0
    assert made.same_difficulty is not None and made.same_difficulty.correct == 1
    assert agreement(first, second).difficulty is None
    assert agreement({}, {}).jaccard.value is None


def test_repeatability_counts_what_was_answered_both_times() -> None:
    made = repeatability(4, {"1": "a", "2": "ab", "3": "c"}, {"1": "a", "2": "a", "9": "c"})
    assert (made.asked, made.answered, made.same.correct) == (4, 2, 1)
    assert made.jaccard.value == pytest.approx(0.75)
