"""Changes of pass rates, where each item has several drawn answers: paired on items, with resampled intervals.

Takes the signals of two adapters on the same items; returns one `DrawnChange` a skill. The answers to one item are
alike, so it is items that are resampled, never answers. Decides nothing.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curriculum.agreement import DRAWS, LEAST_ITEMS
from curriculum.records import Part, SkillLabel
from curriculum.round_records import ItemSignals
from curriculum.statistics import benjamini_hochberg


class DrawnChange(Part):
    """One skill's mean pass rates on the same items before and after, in shares of 1, with the change's interval."""

    skill: str
    items: int = Field(ge=1)
    before: float
    after: float
    change: float
    low: float | None = Field(description="95 %; none on fewer than ten items, or where all items changed alike")
    high: float | None
    p_value: float | None = Field(description="two-sided sign-flip test over items, adjusted over the skills (BH)")


class MeanChange(NamedTuple):
    """A mean with its 95 % interval and a p-value, as far as there are any."""

    mean: float
    low: float | None
    high: float | None
    p_value: float | None


def mean_change(differences: NDArray[np.float64]) -> MeanChange:
    """The mean of paired differences [n_items], one item or more; the same for the same differences in any order.

    The interval is the BCa bootstrap interval over items; there is none on fewer than ten items, or where all
    differences are the same. The p-value is that of flipping the signs of the differences, in all ways up to 13 items
    and in 10,000 random ones beyond; 1 for a single item, and where none differs from 0.

    Source: Efron 1987, JASA 82(397), 171-185 (BCa); Fisher 1935, The Design of Experiments, section 21 (sign flips).
    """
    from scipy.stats import bootstrap, permutation_test

    values = np.sort(np.asarray(differences, dtype=np.float64))
    mean = float(values.mean())
    if not values.any() or len(values) == 1:
        return MeanChange(mean, None, None, 1.0)
    flipped = permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=10_000,
        rng=np.random.default_rng(0),
        vectorized=True,
    )
    low = high = None
    if len(values) >= LEAST_ITEMS and values[0] < values[-1]:
        with warnings.catch_warnings():  # said by `None` where resamples show no spread
            warnings.simplefilter("ignore")
            made = bootstrap((values,), np.mean, n_resamples=DRAWS, method="BCa", rng=np.random.default_rng(0))
        if np.isfinite([*made.confidence_interval]).all():
            low, high = (float(end) for end in made.confidence_interval)
    return MeanChange(mean, low, high, float(flipped.pvalue))


def drawn_changes(
    before: Iterable[ItemSignals], after: Iterable[ItemSignals], labels: Mapping[str, SkillLabel]
) -> tuple[DrawnChange, ...]:
    """The change in the mean pass rate of each skill, on the items of which both have graded samples, sorted by skill.

    Args:
        before: signals of one adapter, one an item.
        after: the same of the other.
        labels: example id → label. An item counts for every skill it needs.
    """
    old, new = ({s.example_id: s.correct / s.samples for s in of if s.samples} for of in (before, after))
    items: dict[str, list[str]] = {}
    for id_ in sorted(old.keys() & new.keys()):
        for skill in set(labels[id_].skills):
            items.setdefault(skill, []).append(id_)
    skills = sorted(items)
    pairs = [(np.array([old[i] for i in items[s]]), np.array([new[i] for i in items[s]])) for s in skills]
    made = [mean_change(later - earlier) for earlier, later in pairs]
    adjusted = benjamini_hochberg([change.p_value for change in made])
    return tuple(
        DrawnChange(
            skill=skill,
            items=len(earlier),
            before=float(earlier.mean()),
            after=float(later.mean()),
            change=change.mean,
            low=change.low,
            high=change.high,
            p_value=p,
        )
        for skill, (earlier, later), change, p in zip(skills, pairs, made, adjusted, strict=True)
    )
