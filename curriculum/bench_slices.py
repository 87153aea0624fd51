"""The slices of a bench's final items: easy to hard, so that what a strategy lifts and what it lowers are seen apart.

Takes the final items and their labels; returns each item's slice. Every item is in one slice, or none has any.

Source: Liu et al. 2026 (arXiv 2605.12906), who evaluate by slice: easy training lifts easy slices and lowers hard ones,
hard training on few rows lowers all.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from curriculum.bench_records import SlicedBy
from curriculum.difficulty import BINS, solution_lengths, thirds
from curriculum.records import Example, SkillLabel


class Slices(NamedTuple):
    """The slices of some items."""

    by: SlicedBy | None
    of: Mapping[str, str]
    """Item → slice, for every item or for none."""
    names: Sequence[str]
    """Of those that have an item, easiest first."""

    def places(self, items: Sequence[str]) -> dict[str, list[int]]:
        """Where the items of each slice stand among `items`; without slices that have none."""
        found = {name: [at for at, item in enumerate(items) if self.of[item] == name] for name in self.names}
        return {name: at for name, at in found.items() if at}


NO_SLICES = Slices(None, {}, ())


def final_slices(examples: Sequence[Example], labels: Mapping[str, SkillLabel]) -> Slices:
    """By difficulty where the data declare it of every item or a model labelled it, else thirds by worked solution.

    A difficulty that is the same for all tells nothing apart and counts as none; items of one length are in one third.

    Args:
        examples: the final items.
        labels: example id → label, for each of them.
    """
    levels = {e.id: labels[e.id].difficulty for e in examples}
    known = all(e.difficulty is not None or labels[e.id].teacher != "offline" for e in examples)
    if known and len(set(levels.values())) > 1:
        return Slices(
            "difficulty",
            {id_: f"level {level}" for id_, level in levels.items()},
            [f"level {level}" for level in sorted(set(levels.values()))],
        )
    lengths = solution_lengths(examples)
    if not lengths or len(lengths) < len(examples):
        return NO_SLICES
    found: dict[str, str] = {**thirds(lengths)}
    return Slices("worked-solution length", found, [name for name in BINS if name in found.values()])
