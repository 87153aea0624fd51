"""What the trainings of a bench answered, on the items that the base and all of them have a verdict on."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from curriculum.crossed import Right
from curriculum.gate import answered_right
from curriculum.records import Grade, Rate
from curriculum.round_records import Adapter, TrainingRow
from curriculum.statistics import wilson
from curriculum.strategies import Strategy

Key = tuple[float, Strategy, int]
"""The budget, the strategy and the seed of a training."""


class TrainingDone(NamedTuple):
    """One finished training of a bench."""

    strategy: Strategy
    seed: int
    adapter: Adapter
    rows: Sequence[TrainingRow]
    grades: Sequence[Grade]
    """Of its answers to the final items."""
    share: float = 1.0
    """The budget: of the tokens that `plan.rows_per_round` rows cost."""
    extra: Mapping[str, Sequence[Grade]] = {}
    """Of its answers to the items of each extra set."""

    @property
    def key(self) -> Key:
        """What no other training of a bench is called."""
        return self.share, self.strategy, self.seed


class BaseDone(NamedTuple):
    """What the base answered."""

    grades: Sequence[Grade]
    """Of the final items."""
    extra: Mapping[str, Sequence[Grade]] = {}
    """Of the items of each extra set."""


class Answered(NamedTuple):
    """The items that the base and every training have a verdict on."""

    items: list[str]
    left_out: int
    base: dict[str, bool]
    right: dict[Key, Right]
    """Of each training: [n_items]."""

    def base_rate(self, places: Sequence[int]) -> Rate:
        """What the base answers of the items at these places."""
        return wilson(sum(self.base[self.items[at]] for at in places), len(places))


def answered(base: Sequence[Grade], trained: Mapping[Key, Sequence[Grade]]) -> Answered:
    """Puts answers together: the base's, and those of each training to the same items; items are sorted by id."""
    of_base, verdicts = answered_right(base), {key: answered_right(grades) for key, grades in trained.items()}
    items = sorted(set.intersection(set(of_base), *map(set, verdicts.values())))
    right = {key: np.array([of[item] for item in items], float) for key, of in verdicts.items()}
    return Answered(items, len({grade.example_id for grade in base}) - len(items), of_base, right)
