"""Splits: which examples train the student, which build its profile, gate its adapters, and stay unseen.

Takes examples and sizes, returns the same examples with a split each, less the duplicates, every drop
with its reason. Duplicates go before anything is split, so no split holds a copy of another's item, and
a group never spans two splits. The result depends on the examples, the sizes and the seed, never on the
order of the rows. What counts as a duplicate, and the leak check, are in `duplicates`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeVar

from curriculum.data_config import SplitSizes
from curriculum.duplicates import SeenQuestions, assert_no_leak, leaks, normalise
from curriculum.errors import DataError
from curriculum.records import Example, Record, Split, content_id

__all__ = ["DroppedExample", "SplitResult", "assert_no_leak", "leaks", "normalise", "split_examples", "with_extra"]

POOL_FULL = "the pool is full"
PROBE_FULL = "no gold answer, and the probe is full"
MOST_SHORT = Fraction(1, 10)
"""A held-out split may stay this share below its size when no group fits into what is missing."""

Cell = tuple[tuple[str, ...], int]
"""A tuple of skills, and a difficulty; 0 where none is declared."""
Key = TypeVar("Key", tuple[str, ...], Cell)


class DroppedExample(Record):
    """An example that got no split, with the reason."""

    example_id: str
    source: str
    reason: str
    duplicate_of: str | None = None


@dataclass(frozen=True)
class SplitResult:
    """The examples with their splits, sorted by id, and those that were dropped."""

    examples: tuple[Example, ...]
    dropped: tuple[DroppedExample, ...]
    extra: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """The items of each extra set, which have no split, sorted by id."""

    @property
    def counts(self) -> dict[str, int]:
        """How many examples each split got and each reason dropped; with those of `extra` they add up to the input."""
        return dict(Counter([str(e.split) for e in self.examples] + [d.reason for d in self.dropped]))


def split_examples(examples: Iterable[Example], sizes: SplitSizes, seed: int) -> SplitResult:
    """Drops duplicates, then gives every example a split.

    The held-out splits get nearly equal counts of every skill, and of every difficulty inside a skill, as
    far as the groups allow (a group counts for the skills and difficulty commonest in it). A cell with few
    items gives at most half of them to the held-out splits together, more only when these need more than
    half of everything. Sizes are exact where the groups allow it; a split may stay short by less than the
    smallest group left in the pool, at most by a tenth. Groups with an item that has no gold answer go to the probe,
    before others; what it has no room for is dropped.

    Raises:
        DataError: there are too few items, or the groups are too large, for the sizes.
    """
    kept, dropped = _deduplicate(examples)
    silent = _without_gold(kept, sizes.probe, seed)
    dropped += [_dropped(e, PROBE_FULL) for e in kept if not e.gold and e.group not in silent]
    kept = [e for e in kept if e.gold or e.group in silent]
    others = [e for e in kept if e.group not in silent]
    left = sizes.model_copy(update={"probe": sizes.probe - (len(kept) - len(others))})
    split_of = _assign(others, left, seed, len(dropped)) | dict.fromkeys(silent, "probe")
    placed = [e.model_copy(update={"split": split_of.get(e.group, "pool")}) for e in kept]
    pool = sorted((e.id for e in placed if e.split == "pool"), key=lambda id_: content_id([seed, id_]))
    surplus = set(pool[sizes.pool :]) if sizes.pool is not None else set()
    dropped += [_dropped(e, POOL_FULL) for e in placed if e.id in surplus]
    return SplitResult(tuple(e for e in placed if e.id not in surplus), tuple(dropped))


def with_extra(
    result: SplitResult, extra: Mapping[str, Sequence[Example]], sizes: Mapping[str, int], seed: int
) -> SplitResult:
    """Adds the extra evaluation sets, and makes all splits and sets disjoint; the held-out splits stay as they are.

    An extra item that repeats an item of a held-out split, of its own set or of a set before it (by name) is
    dropped, and so is every pool item that repeats one of an extra set. A set keeps at most its size.

    Raises:
        DataError: a set has no item left, or the pool.
    """
    seen = SeenQuestions()
    place = {e.id: f"the {e.split} split" for e in result.examples if e.split != "pool"}
    for example in result.examples:
        if example.id in place:
            seen.add(example)
    kept: dict[str, tuple[Example, ...]] = {}
    dropped = list(result.dropped)
    for name in sorted(extra):
        kept[name], repeated = _fill(name, extra[name], sizes[name], seed, seen, place)
        dropped += repeated
    found = {e.id: seen.find(e) for e in result.examples if e.split == "pool"}
    if all(found.values()):
        raise DataError("extra: expected sets that leave a pool, got sets that have every question of it: give others")
    for example in result.examples:
        if match := found.get(example.id):
            dropped.append(_dropped(example, f"{match.reason} of {place[match.duplicate_of]}", match.duplicate_of))
    return replace(
        result,
        examples=tuple(e for e in result.examples if not found.get(e.id)),
        dropped=tuple(dropped),
        extra=kept,
    )


def _fill(
    name: str, examples: Sequence[Example], size: int, seed: int, seen: SeenQuestions, place: dict[str, str]
) -> tuple[tuple[Example, ...], list[DroppedExample]]:
    """The items of one extra set, sorted by id, and those left out; remembers them in `seen` and in `place`."""
    kept: list[Example] = []
    dropped: list[DroppedExample] = []
    for example in sorted(examples, key=lambda e: (content_id([seed, e.id]), e.source)):
        if len(kept) == size:
            dropped.append(_dropped(example, f"extra set {name} is full"))
        elif match := seen.add(example):
            why = f"extra set {name}: {match.reason} of {place[match.duplicate_of]}"
            dropped.append(_dropped(example, why, match.duplicate_of))
        else:
            kept.append(example)
            place[example.id] = f"extra set {name}"
    if not kept:
        raise DataError(f"extra.{name}: expected items that no held-out split and no other set has, got none")
    return tuple(sorted(kept, key=lambda e: e.id)), dropped


def _dropped(example: Example, reason: str, duplicate_of: str | None = None) -> DroppedExample:
    return DroppedExample(example_id=example.id, source=example.source, reason=reason, duplicate_of=duplicate_of)


def _deduplicate(examples: Iterable[Example]) -> tuple[list[Example], list[DroppedExample]]:
    """Keeps the first of each set of duplicates in the order of the ids, those with a gold answer first."""
    seen = SeenQuestions()
    kept: list[Example] = []
    dropped: list[DroppedExample] = []
    for example in sorted(examples, key=lambda e: (not e.gold, e.id, e.source, e.group)):
        match = seen.add(example)
        if match is None:
            kept.append(example)
        else:
            dropped.append(_dropped(example, **match._asdict()))
    return kept, dropped


def _without_gold(kept: Sequence[Example], room: int, seed: int) -> list[str]:
    """The groups with an item that has no gold answer, as many as the probe has room for."""
    sizes = Counter(e.group for e in kept)
    silent = []
    for group in sorted({e.group for e in kept if not e.gold}, key=lambda g: content_id([seed, g])):
        if sizes[group] <= room:
            silent.append(group)
            room -= sizes[group]
    return silent


def _assign(kept: Sequence[Example], sizes: SplitSizes, seed: int, duplicates: int) -> dict[str, Split]:
    """The split of each held-out group."""
    wanted: dict[Split, int] = {"probe": sizes.probe, "gate": sizes.gate, "final": sizes.final}
    held_out = sum(wanted.values())
    if len(kept) <= held_out:
        raise DataError(
            f"data.splits: expected more than {held_out} distinct items ({_words(wanted)}, and the pool), got "
            f"{len(kept)} ({duplicates} duplicates were dropped): lower the sizes in data.splits or give more data"
        )
    groups: dict[str, list[Cell]] = defaultdict(list)
    for example in kept:
        groups[example.group].append((example.skills, example.difficulty or 0))
    cells: dict[Cell, list[str]] = defaultdict(list)
    for group in sorted(groups, key=lambda g: content_id([seed, g])):
        cells[_commonest(groups[group])].append(group)
    quotas = _quotas({cell: sum(len(groups[g]) for g in members) for cell, members in cells.items()}, held_out)
    left, split_of, room = dict(wanted), dict[str, Split](), 0
    for cell in sorted(cells):
        room += quotas[cell]
        for group in cells[cell]:
            # A group that overshoots by less than half of itself is nearer to the quota than none.
            if 2 * room >= len(groups[group]) and _place(group, len(groups[group]), left, wanted, split_of):
                room -= len(groups[group])
    for group in sorted(groups, key=lambda g: content_id([seed, g])):
        if group not in split_of:
            _place(group, len(groups[group]), left, wanted, split_of)
    if any(left[s] > MOST_SHORT * wanted[s] for s in left) or len(split_of) == len(groups):
        raise DataError(
            f"data.splits: expected groups that fill {_words(wanted)} and leave a pool, got {len(groups)} groups of up "
            f"to {max(map(len, groups.values()))} items, which leave {_words(left)} open: lower the sizes in "
            "data.splits, or give the rows smaller groups"
        )
    return split_of


def _place(
    group: str, items: int, left: dict[Split, int], wanted: Mapping[Split, int], split_of: dict[str, Split]
) -> bool:
    """Puts a group into the split that lacks the largest share of its size and has room for it, if any."""
    fitting = [s for s in left if left[s] >= items]
    if not fitting:
        return False
    split = max(fitting, key=lambda s: Fraction(left[s], wanted[s]))
    split_of[group] = split
    left[split] -= items
    return True


def _commonest(cells: Sequence[Cell]) -> Cell:
    counts = Counter(cells)
    return min(counts, key=lambda cell: (-counts[cell], cell))


def _quotas(items: Mapping[Cell, int], held_out: int) -> dict[Cell, int]:
    """How many items each cell gives to the held-out splits: equal over skills, then over difficulties."""
    total = sum(items.values())
    caps = {cell: -(-n * max(total, 2 * held_out) // (2 * total)) for cell, n in items.items()}
    of_skill: dict[tuple[str, ...], dict[Cell, int]] = defaultdict(dict)
    for cell, cap in caps.items():
        of_skill[cell[0]][cell] = cap
    quotas: dict[Cell, int] = {}
    for skill, quota in _share_out(held_out, {skill: sum(of.values()) for skill, of in of_skill.items()}).items():
        quotas.update(_share_out(quota, of_skill[skill]))
    return quotas


def _share_out(total: int, caps: Mapping[Key, int]) -> dict[Key, int]:
    """Shares `total` out as equally as the caps allow; the caps sum to `total` or more."""
    given: dict[Key, int] = {}
    for key in sorted(caps, key=lambda k: (caps[k], k)):
        given[key] = min(caps[key], total // (len(caps) - len(given)))
        total -= given[key]
    return given


def _words(sizes: Mapping[Split, int]) -> str:
    return " + ".join(f"{split} {n}" for split, n in sizes.items())
