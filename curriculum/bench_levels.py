"""A strategy's accuracy by labelled difficulty, in a bench."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pydantic import Field

from curriculum.crossed import Right
from curriculum.records import Part, SkillLabel


class BenchLevel(Part):
    """One strategy on the final items of one difficulty, over its trainings."""

    difficulty: int
    items: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1, description="mean over trainings")


def bench_levels(way: Right, items: Sequence[str], labels: Mapping[str, SkillLabel]) -> tuple[BenchLevel, ...]:
    """Easiest first.

    Args:
        way: trainings × items, right or not.
        items: the examples, in that order.
        labels: of each.
    """
    at: defaultdict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        at[labels[item].difficulty].append(place)
    return tuple(
        BenchLevel(difficulty=level, items=len(places), accuracy=float(way[:, places].mean()))
        for level, places in sorted(at.items())
    )
