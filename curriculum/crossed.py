"""How far two ways of teaching differ, when trainings and items both are samples: crossed variance components.

Takes for each way of teaching which items each of its trainings answered right; returns the difference in
accuracy with an interval that holds for new seeds and for new items of the same kind. Knows nothing of what a
training was; `bench_report` says which are compared.

The model: right = way + training + item + way × item + rest. Trainings are nested in ways (each has a seed of its
own), items are crossed with both; ways are fixed, the others random. All ways' trainings scatter alike.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curriculum.records import Part

LEVEL = 0.95
"""Of intervals; what is called different has a p-value of at most 1 − LEVEL."""
POWER = 0.8
TINY = 1e-15
"""A squared standard error below it is rounding: nothing varies."""
MOST_SPLITS = 2000
"""Ways to halve the same trainings that a calibration looks at."""

Right = NDArray[np.float64]
"""1 where a training (row) answered an item (column) right, else 0: [n_trainings, n_items]."""


class Difference(Part):
    """The accuracy of one way of teaching less that of another, in shares of 1."""

    difference: float
    low: float | None = Field(description="of the 95 % interval; none where nothing varies")
    high: float | None
    standard_error: float = Field(ge=0)
    degrees_of_freedom: float = Field(gt=0)
    p_value: float = Field(ge=0, le=1, description="two-sided, not adjusted")
    detectable: float = Field(ge=0, description="smallest true difference that is called different with 80 % power")


class Calibration(Part):
    """Trainings of one way, halved in all ways: how often the halves would be called different."""

    splits: int = Field(ge=1)
    different: int = Field(ge=0)


class SeedScatter(NamedTuple):
    """How trainings of one way differ in accuracy, pooled over ways."""

    observed: float
    """Variance of their accuracies on these items."""
    by_items: float
    """The part of it that these finite items explain; what is beyond is the seeds' own, and may come out negative."""
    df: int
    items_df: int

    @property
    def true_sd(self) -> float:
        """Standard deviation of true accuracy from seed to seed, in shares of 1."""
        return float(np.sqrt(max(0.0, self.observed - self.by_items)))


def seed_scatter(ways: Sequence[Right]) -> SeedScatter:
    """The variance of accuracy between trainings of one way, pooled over ways: one a way, two or more in some.

    Raises:
        ValueError: no way has two trainings, or there are fewer than two items.

    Source: two-way crossed analysis of variance without replication, as in Searle, Casella & McCulloch 1992,
    Variance Components, chapter 4: mean squares of trainings and of the rest, each divided by the number of items.
    """
    df = sum(len(way) - 1 for way in ways)
    items = ways[0].shape[1]
    if df == 0 or items < 2:
        raise ValueError(f"expected two trainings of some way and two items, got {df + len(ways)} and {items}")
    between = rest = 0.0
    for way in ways:
        accuracies, per_item = way.mean(axis=1, keepdims=True), way.mean(axis=0, keepdims=True)
        between += float(((accuracies - way.mean()) ** 2).sum())
        rest += float(((way - accuracies - per_item + way.mean()) ** 2).sum())
    items_df = df * (items - 1)
    return SeedScatter(between / df, rest / items_df / items, df, items_df)


def difference(way: Right, control: Right, scatter: SeedScatter) -> Difference:
    """Accuracy of `way` less that of `control` on the same items, for new seeds and new items.

    The squared standard error is the variance of the items' differences over their number, which holds way × item
    and the rest, plus the seeds' own variance over the trainings of either; the degrees of freedom are Satterthwaite's.

    Args:
        way: [n_trainings, n_items], at least one training.
        control: [n_trainings, n_items], the same items.
        scatter: from `seed_scatter`, of these ways and of others trained with the same recipe.

    Source: Satterthwaite 1946, Biometrics Bulletin 2(6), 110-114; for readers (here trainings) crossed with cases
    (items) Hillis 2007, Statistics in Medicine 26(3), 596-619, who sets a negative component to zero as here.
    """
    items = way.shape[1]
    per_item = way.mean(axis=0) - control.mean(axis=0)
    each = 1 / len(way) + 1 / len(control)
    by_items = float(per_item.var(ddof=1)) / items
    squared = by_items + each * max(0.0, scatter.observed - scatter.by_items)
    spread = (
        by_items**2 / (items - 1)
        + (each * scatter.observed) ** 2 / scatter.df
        + (each * scatter.by_items) ** 2 / scatter.items_df
    )
    return _tested(float(per_item.mean()), squared, squared**2 / spread if spread > 0 else float(items - 1))


def _tested(found: float, squared: float, df: float) -> Difference:
    from scipy.stats import t

    df, error = max(df, 1.0), float(np.sqrt(squared)) if squared > TINY else 0.0
    reach = float(t.ppf((1 + LEVEL) / 2, df)) * error
    return Difference(
        difference=found,
        low=found - reach if error else None,
        high=found + reach if error else None,
        standard_error=error,
        degrees_of_freedom=df,
        p_value=float(min(1.0, 2 * t.sf(abs(found) / error, df))) if error else 1.0,
        detectable=_detectable(error, df),
    )


def _detectable(error: float, df: float) -> float:
    """(t of the level + t of the power) · standard error. Source: Bloom 1995, Evaluation Review 19(5), 547-556."""
    from scipy.stats import t

    return float((t.ppf((1 + LEVEL) / 2, df) + t.ppf(POWER, df)) * error)


def planned_detectable(
    trainings: int, controls: int, df: int, items: int, discordant_share: float, retrain_sd: float
) -> float:
    """The smallest difference a bench can see with 80 % power, before it is run, in shares of 1.

    Args:
        trainings: of the way that is compared.
        controls: trainings of its control.
        df: degrees of freedom of the seeds' scatter: trainings less ways, over all ways; at least 1.
        items: final items.
        discordant_share: share of items that only one of two trainings answers right.
        retrain_sd: standard deviation of the true difference of two trainings that differ in the seed.
    """
    each = 1 / trainings + 1 / controls
    by_items, by_seeds = discordant_share / 2 / items, retrain_sd**2 / 2
    squared = each * (by_items + by_seeds)
    spread = (each * by_items) ** 2 / (items - 1) + squared**2 / df
    return _detectable(float(np.sqrt(squared)), max(1.0, squared**2 / spread))


def calibration(way: Right, others: Sequence[Right]) -> Calibration:
    """Halves the trainings of one way in every manner and counts halves that would be called different.

    Splits share trainings, so this is a check of the method on these data and no estimate with an interval. Where there
    are more than `MOST_SPLITS` a seeded sample of them is looked at.

    Args:
        way: [n_trainings, n_items] with at least four trainings.
        others: the other ways, whose scatter is pooled with the halves'.
    """
    size = len(way) // 2 - 1
    # With an even number every split is met once: the half that holds the first training names it.
    others_of_first = range(1, len(way))
    halves = set(combinations(others_of_first, size)) if comb(len(way) - 1, size) <= MOST_SPLITS else set()
    draw = Random(len(way))
    while not halves or len(halves) < min(MOST_SPLITS, comb(len(way) - 1, size)):
        halves.add(tuple(sorted(draw.sample(others_of_first, size))))
    different = 0
    for half in sorted(halves):
        inside = np.isin(np.arange(len(way)), (0, *half))
        one, other = way[inside], way[~inside]
        found = difference(one, other, seed_scatter([one, other, *others]))
        different += found.p_value <= 1 - LEVEL
    return Calibration(splits=len(halves), different=different)
