"""How far two labellings of the same items agree: kappa of each skill, Jaccard, Spearman, each with an interval.

Takes skills and difficulties by item; returns estimates. Says nothing of who is right: two teachers can agree on what
is wrong. Intervals are 95 % and over items; where resampling the items cannot show any spread there is none.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curriculum.records import Part, Rate, Record
from curriculum.statistics import score_interval, wilson

DRAWS = 2000
"""Resamples of the items."""
LEAST_ITEMS = 10
"""Fewer are not resampled: their resamples say nothing of other items."""
Floats = NDArray[np.float64]


class Estimate(Part):
    """A coefficient on `n` items with its 95 % interval; `None` where it is not defined or cannot be estimated."""

    n: int = Field(ge=0)
    value: float | None
    low: float | None
    high: float | None


class SkillAgreement(Part):
    """One skill: which items each labelling gives it, and Cohen's kappa."""

    skill: str
    both: int
    first_only: int
    second_only: int
    neither: int
    kappa: Estimate


class Agreement(Part):
    """Two labellings of the same items."""

    items: int
    same: Rate = Field(description="items with exactly the same skills")
    jaccard: Estimate = Field(description="mean over items of shared skills / skills of either")
    skills: tuple[SkillAgreement, ...] = Field(description="sorted by skill; those that neither uses are left out")
    difficulty: Estimate | None = Field(default=None, description="Spearman's rank correlation")
    same_difficulty: Rate | None = None


class Repeatability(Record):
    """The same questions put twice to the same teacher, with nothing changed but the sample."""

    asked: int
    answered: int = Field(description="of these, how many got a usable reply both times")
    same: Rate = Field(description="items with exactly the same skills both times")
    jaccard: Estimate


def agreement(
    first: Mapping[str, Collection[str]],
    second: Mapping[str, Collection[str]],
    levels: tuple[Mapping[str, int], Mapping[str, int]] | None = None,
) -> Agreement:
    """Compares two labellings on the items that both have.

    Args:
        first: item → its skills.
        second: the same by the other.
        levels: item → difficulty from 1 to 5, by either; left out where one says none.
    """
    items = sorted(first.keys() & second.keys())
    pairs = [(set(first[i]), set(second[i])) for i in items]
    names = sorted({skill for pair in pairs for of in pair for skill in of})
    difficulty = same_difficulty = None
    if levels is not None:
        rated = sorted(levels[0].keys() & levels[1].keys())
        one, other = ([of[i] for i in rated] for of in levels)
        difficulty = spearman(one, other)
        same_difficulty = wilson(sum(a == b for a, b in zip(one, other, strict=True)), len(rated))
    return Agreement(
        items=len(items),
        same=_same(pairs),
        jaccard=mean_jaccard(pairs),
        skills=tuple(_skill(skill, pairs) for skill in names),
        difficulty=difficulty,
        same_difficulty=same_difficulty,
    )


def repeatability(
    asked: int, first: Mapping[str, Collection[str]], second: Mapping[str, Collection[str]]
) -> Repeatability:
    """How far the replies to `asked` questions agree with those to the same questions, put once more."""
    pairs = [(set(first[i]), set(second[i])) for i in sorted(first.keys() & second.keys())]
    return Repeatability(asked=asked, answered=len(pairs), same=_same(pairs), jaccard=mean_jaccard(pairs))


def jaccard(first: Collection[str], second: Collection[str]) -> float:
    """Shared members over the members of either, from 0 to 1; two empty sets are the same."""
    one, other = set(first), set(second)
    return len(one & other) / len(one | other) if one | other else 1.0


def mean_jaccard(pairs: Iterable[tuple[Collection[str], Collection[str]]]) -> Estimate:
    """The mean over items. Its interval is that of as many yes-or-no items, which spread at least as much."""
    values = [jaccard(*pair) for pair in pairs]
    if not values:
        return Estimate(n=0, value=None, low=None, high=None)
    low, high = score_interval(fmean(values), len(values))
    return Estimate(n=len(values), value=fmean(values), low=low, high=high)


def cohen_kappa(both: int, first_only: int, second_only: int, neither: int) -> Estimate:
    """Agreement on a yes-or-no label beyond that of chance, from −1 to 1; not defined where both say the same of all.

    (p_o − p_e) / (1 − p_e) with p_o the share of items on which they agree and p_e what their marginals alone give.
    The interval is the percentile interval of resampled items; there is none on fewer than ten items, or where all
    resamples are alike: they never differ, or one of them never gives the label.

    Source: Cohen 1960, Educational and Psychological Measurement 20(1), 37-46; Efron & Tibshirani 1993, chapter 13.
    """
    table = np.array([both, first_only, second_only, neither], dtype=np.float64)
    n = int(table.sum())
    value = float(_kappa(table[None, :])[0]) if n else float("nan")
    draws = np.empty(0)
    if n >= LEAST_ITEMS and first_only + second_only:
        # Drawing n of n items with replacement is drawing the four counts from their shares.
        draws = _kappa(np.random.default_rng(0).multinomial(n, table / n, size=DRAWS).astype(np.float64))
    return _estimate(n, value, draws)


def spearman(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Rank correlation, from −1 to 1, ties at their mean rank; not defined where one of them is constant.

    The interval as in `cohen_kappa`.

    Source: Spearman 1904, American Journal of Psychology 15(1), 72-101.
    """
    n = len(first)
    if n < 2:
        return _estimate(n, float("nan"), np.empty(0))
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    value = float(_rank_correlation(one[None, :], other[None, :])[0])
    draws = np.empty(0)
    if n >= LEAST_ITEMS and abs(value) < 1:
        chosen = np.random.default_rng(0).integers(0, n, size=(DRAWS, n))
        draws = _rank_correlation(one[chosen], other[chosen])
    return _estimate(n, value, draws)


def _same(pairs: Sequence[tuple[set[str], set[str]]]) -> Rate:
    return wilson(sum(one == other for one, other in pairs), len(pairs))


def _skill(skill: str, pairs: Sequence[tuple[set[str], set[str]]]) -> SkillAgreement:
    both = sum(skill in one and skill in other for one, other in pairs)
    first = sum(skill in one for one, _ in pairs) - both
    second = sum(skill in other for _, other in pairs) - both
    neither = len(pairs) - both - first - second
    kappa = cohen_kappa(both, first, second, neither)
    return SkillAgreement(
        skill=skill, both=both, first_only=first, second_only=second, neither=neither, kappa=kappa
    )  # fmt: skip


def _kappa(tables: Floats) -> Floats:
    """Of each table [n_tables, 4]; not a number where it is not defined."""
    a, b, c, d = tables.T
    n = tables.sum(axis=1)
    observed, expected = (a + d) * n, (a + b) * (a + c) + (c + d) * (b + d)  # both times n², so that 1 − p_e is exact
    made = np.full(len(tables), np.nan)
    np.divide(observed - expected, n * n - expected, out=made, where=n * n != expected)
    return made


def _rank_correlation(first: Floats, second: Floats) -> Floats:
    """Of each row [n_rows, n_items]; not a number where a row is constant."""
    from scipy.stats import rankdata

    one, other = (rankdata(values, axis=1) for values in (first, second))
    one, other = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (one, other))
    spread = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    made = np.full(len(spread), np.nan)
    np.divide((one * other).sum(axis=1), spread, out=made, where=spread > 0)
    clipped: Floats = np.clip(made, -1.0, 1.0)
    return clipped


def _estimate(n: int, value: float, draws: Floats) -> Estimate:
    defined = draws[~np.isnan(draws)]
    low = high = None
    if len(defined) and defined.min() < defined.max():
        low, high = (float(q) for q in np.quantile(defined, (0.025, 0.975)))
    return Estimate(n=n, value=None if np.isnan(value) else value, low=low, high=high)
