"""The mixture of a round's training set: shares of skills, integer budgets, draws from the pool, final rows.

Takes the approved plan, the pool with its labels, written examples and the rows of accepted rounds; returns
training rows with their provenance. Everything is exact, seeded and independent of the order of rows. Writes
no examples and decides no budget: teacher and plan do.
"""

import random
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import chain, count
from math import floor
from operator import itemgetter
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from curriculum.records import Example, Origin, SkillLabel, content_id
from curriculum.round_records import RoundPlan, Rule, TrainingRow

Key = TypeVar("Key", str, int)

LAYERS: Mapping[Rule, str] = {
    "even": "even share of what is missing",
    "failures": "missing skill share",
    "learnability": "learnability",
    "expected_gain": "expected gain",
}
"""What chose the rows that the uniform floor did not."""

Positions = NDArray[np.int64]
NOBODY: Positions = np.empty(0, np.int64)


class Pool(NamedTuple):
    """The labelled pool in columns, a row for each example, sorted by id."""

    ids: list[str]
    skills: list[Sequence[str]]
    difficulties: NDArray[np.int32]
    members: dict[str, Positions]
    """Skill → the rows that need it, ascending."""

    def sizes(self) -> dict[str, dict[int, int]]:
        """Skill → difficulty → examples."""
        counts = {skill: np.bincount(self.difficulties[rows]).tolist() for skill, rows in self.members.items()}
        return {skill: {level: n for level, n in enumerate(of) if n} for skill, of in counts.items()}


class Draw(NamedTuple):
    """A pool example, the skill it was drawn for, and how many rows it gives."""

    example_id: str
    skill: str
    rows: int


class PoolDraw(NamedTuple):
    """What was drawn from the pool, and what the cap on repeats did not allow."""

    draws: tuple[Draw, ...]
    """Sorted by skill and example."""
    moved: dict[str, int]
    """Skill → planned rows that its own items could not hold; they went to items of other skills."""
    shortfall: int
    """Planned rows that the whole pool could not hold."""


def skill_shares(missing: Mapping[str, int | Fraction], uniform_floor: float) -> dict[str, Fraction]:
    """Each skill's share of the rows: (1 − floor)·n_s / Σn + floor / number of skills.

    Exact and summing to 1. More failures of one skill, all else equal, never lower its share. With no
    failures at all the shares are even.

    Args:
        missing: skill → how often it was missing, n_s; at least one skill.
        uniform_floor: from 0 to 1.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), stage 3a: draws in proportion to n_s. The floor is ours.
    """
    total = sum(missing.values())
    even = Fraction(1, len(missing))
    part = Fraction(uniform_floor) if total else Fraction(1)
    return {skill: (1 - part) * Fraction(count, total or 1) + part * even for skill, count in missing.items()}


def stat_sel_weights(
    draws: Mapping[str, int], pool_skills: Mapping[str, Collection[str]], k: int = 1
) -> dict[str, Fraction]:
    """How often each pool item is expected to be drawn: k · Σ_{s ∈ skills} n_s / |pool_s|.

    With `draws` the missing counts n_s and k = 5 this is the paper's rule; with the plan's pool rows and
    k = 1 it is what `draw_pool` does where no cap binds. Divided by their sum, the weights are a distribution.

    Args:
        draws: skill → n_s, non-negative; a skill without pool items adds nothing.
        pool_skills: item → its distinct skills.
        k: items drawn for each time a skill was missing.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), stage 3a: for each missing skill of each failed question
    k items uniformly from the pool items of that skill; the closed form is the expectation of those draws.
    """
    sizes = Counter(skill for skills in pool_skills.values() for skill in skills)
    return {
        item: k * sum((Fraction(draws.get(skill, 0), sizes[skill]) for skill in skills), Fraction(0))
        for item, skills in pool_skills.items()
    }


def apportion(weights: Mapping[Key, int | Fraction], total: int) -> dict[Key, int]:
    """Splits `total` into integers in proportion to the weights by largest remainder; ties by key.

    Each part is its quota rounded down or up. A larger weight for one key, the others unchanged, never
    lowers its part.

    Args:
        weights: non-negative; some positive unless `total` is 0.
        total: what the parts add up to.

    Source: Balinski & Young 1982, Fair Representation (Hamilton's method).
    """
    if total == 0:
        return dict.fromkeys(weights, 0)
    whole = Fraction(sum(weights.values()))
    quotas = {key: total * weight / whole for key, weight in weights.items()}
    parts = {key: floor(quota) for key, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda key: (parts[key] - quotas[key], key))
    for key in by_remainder[: total - sum(parts.values())]:
        parts[key] += 1
    return parts


def index_pool(rows: Iterable[tuple[str, Sequence[str], int]]) -> Pool:
    """The pool by skill, from each row's id, skills and difficulty, in any order; ids are distinct."""
    columns = sorted(rows, key=itemgetter(0))
    skills = [row[1] for row in columns]
    codes: defaultdict[str, int] = defaultdict(count().__next__)
    named = np.fromiter(map(codes.__getitem__, chain.from_iterable(skills)), np.int32)
    owners = np.repeat(np.arange(len(columns)), np.fromiter(map(len, skills), np.int32, len(columns)))
    by_skill = np.argsort(named.astype(np.min_scalar_type(len(codes))), kind="stable")  # a radix sort up to 16 bits
    ends = np.cumsum(np.bincount(named, minlength=len(codes)))
    groups = np.split(owners[by_skill], ends[:-1])
    difficulties = np.fromiter((row[2] for row in columns), np.int32, len(columns))
    # A label may name a skill twice; the example needs it once.
    members = {skill: group[np.diff(group, prepend=-1) > 0] for skill, group in zip(codes, groups, strict=False)}
    return Pool([row[0] for row in columns], skills, difficulties, members)


def draw_pool(
    plan: RoundPlan, pool: Pool, used: Mapping[str, int], max_repeats: int, scores: Mapping[str, float] | None = None
) -> PoolDraw:
    """Draws each skill's planned pool rows from its items, as evenly as integers allow, seeded.

    Where no cap binds, the n items of a skill with r rows get ⌊r/n⌋ or ⌈r/n⌉ each and the totals are exact;
    over seeds an item is drawn `stat_sel_weights` times on average. No item is used more than `max_repeats`
    times. What a skill's items cannot hold goes to the rest of its items, then to the whole pool.

    Args:
        plan: its pool rows and seed are used.
        pool: from `index_pool`.
        used: example id → uses in the rows of accepted rounds; 0 where absent.
        max_repeats: most uses of one example, at least 1.
        scores: example id → score; where only some of a skill's items get a row, the best do. None: a random sample.
    """
    by = None if scores is None else np.array([scores.get(id_, -np.inf) for id_ in pool.ids])
    room = room_left(pool, used, max_repeats)
    drawn: Counter[tuple[str, str]] = Counter()
    moved = {}
    for part in sorted(plan.skills, key=lambda s: s.skill):
        members = pool.members.get(part.skill, NOBODY)
        dealt = deal(members, part.pool_rows, room, random.Random(content_id([plan.seed, part.skill])), by)
        drawn.update({(part.skill, pool.ids[at]): rows for at, rows in dealt.items()})
        if dealt.total() < part.pool_rows:
            moved[part.skill] = part.pool_rows - dealt.total()
    rest = deal(np.arange(len(room)), sum(moved.values()), room, random.Random(content_id([plan.seed])), by)
    drawn.update({(min(pool.skills[at]), pool.ids[at]): rows for at, rows in rest.items()})
    draws = tuple(Draw(id_, skill, rows) for (skill, id_), rows in sorted(drawn.items()))
    return PoolDraw(draws, moved, shortfall=sum(moved.values()) - rest.total())


def room_left(pool: Pool, used: Mapping[str, int], max_repeats: int) -> Positions:
    """How often each example of the pool may still be used: [n_examples]."""
    room = np.full(len(pool.ids), max_repeats)
    for id_, uses in used.items():
        at = bisect_left(pool.ids, id_)
        if pool.ids[at : at + 1] == [id_]:
            room[at] -= uses
    return room


def deal(
    items: Positions, rows: int, room: Positions, generator: random.Random, by: NDArray[np.float64] | None = None
) -> Counter[int]:
    """Gives a row to each item with room, turn after turn, the last turn to a sample or `by` score; takes the room."""
    dealt: Counter[int] = Counter()
    while rows and len(turn := items[room[items] > 0]):
        if rows < len(turn):
            first = generator.sample(range(len(turn)), rows) if by is None else np.argsort(-by[turn], kind="stable")
            turn = turn[first[:rows]]
        room[turn] -= 1
        dealt.update(turn.tolist())
        rows -= len(turn)
    return dealt


def training_rows(
    plan: RoundPlan,
    draws: Iterable[Draw],
    examples: Mapping[str, Example],
    written: Iterable[tuple[Example, str]],
    earlier: Sequence[TrainingRow],
    labels: Mapping[str, SkillLabel],
    targets: Callable[[Example], Sequence[str]],
    uniform_floor: float,
    rule: Rule = "failures",
) -> list[TrainingRow]:
    """The round's training set: drawn, written and replayed rows, sorted by id.

    A row's id is the hash of its first round, origin, example and repeat. Of the new rows of a skill, the
    part that its share owes to the uniform floor is marked so; the rows are interchangeable, the seed picks.

    Args:
        plan: its round, shares, replay rows and seed are used.
        draws: from `draw_pool`.
        examples: example id → example, for every one drawn.
        written: new examples, each with the skill it was written for.
        earlier: the new rows of accepted rounds; `plan.replay_rows` of them are trained again, balanced over
            skills, those of `plan.replay_first` before others, all if they fit.
        labels: example id → label, for every example drawn or written.
        targets: what the student is taught to answer, one text or one of each worked solution. An example that
            is taught more than once, be it by epochs, repeats or rounds, takes the next one in turn.
        uniform_floor: the config's `plan.uniform_floor`.
        rule: the config's `plan.allocation`, which chose the rows that the floor did not.
    """
    chosen: list[tuple[Origin, Example, str]] = [
        *(("pool", examples[draw.example_id], draw.skill) for draw in draws for _ in range(draw.rows)),
        *(("written", example, skill) for example, skill in written),
    ]
    chosen.sort(key=lambda row: (row[0], row[1].id, row[2]))
    uses = Counter(row.example_id for row in earlier)
    rows = []
    for origin, example, skill in chosen:
        row = _row(plan, origin, example, skill, uses[example.id], labels[example.id], targets(example))
        rows.append(row.model_copy(update={"layer": LAYERS[rule]}))
        uses[example.id] += 1
    replayed = [_replay(row, plan) for row in _balanced(earlier, plan)]
    return sorted([*_with_layers(rows, plan, uniform_floor), *replayed], key=lambda row: row.id)


def _row(
    plan: RoundPlan,
    origin: Origin,
    example: Example,
    skill: str,
    repeat: int,
    label: SkillLabel,
    targets: Sequence[str],
) -> TrainingRow:
    row = TrainingRow(
        id=content_id([plan.round, origin, example.id, repeat]),
        example_id=example.id,
        round=plan.round,
        origin=origin,
        skill=skill,
        skills=label.skills,
        difficulty=label.difficulty,
        repeat=repeat,
        weight=1.0,
        layer=LAYERS["failures"],
        history=example.history,
        question=example.question,
        target=targets[0],
        other_targets=tuple(targets[1:]),
        solution=0 if len(targets) > 1 else None,
        source=example.source,
    )
    return _turned(row, repeat * plan.epochs)


def _replay(row: TrainingRow, plan: RoundPlan) -> TrainingRow:
    id_ = content_id([row.round, "replay", row.example_id, row.repeat])
    turned = _turned(row, (plan.round - row.round) * plan.epochs)
    layer = "replay of what regressed" if _first(row, plan) else "replay"
    return turned.model_copy(update={"id": id_, "origin": "replay", "layer": layer})


def _first(row: TrainingRow, plan: RoundPlan) -> bool:
    return not {row.skill, *row.skills}.isdisjoint(plan.replay_first)


def _turned(row: TrainingRow, by: int) -> TrainingRow:
    """The row with its solutions turned by so many: each epoch of a training takes one."""
    if row.solution is None:
        return row
    by %= len(row.targets)
    targets = row.targets[by:] + row.targets[:by]
    solution = (row.solution + by) % len(targets)
    return row.model_copy(update={"target": targets[0], "other_targets": targets[1:], "solution": solution})


def _balanced(rows: Iterable[TrainingRow], plan: RoundPlan) -> list[TrainingRow]:
    """At most `plan.replay_rows` rows, as evenly over skills as the rows allow: each skill's first, then second, …

    Rows that need a skill of `plan.replay_first` come before all others.
    """
    seen: Counter[str] = Counter()
    ranked = []
    for row in sorted(rows, key=lambda row: content_id([plan.seed, row.id])):
        ranked.append((not _first(row, plan), seen[row.skill], row))
        seen[row.skill] += 1
    ranked.sort(key=lambda place: place[:2])
    return [row for *_, row in ranked[: plan.replay_rows]]


def _with_layers(rows: Sequence[TrainingRow], plan: RoundPlan, uniform_floor: float) -> list[TrainingRow]:
    """Marks the rows that the uniform floor put in: floor / share of each skill's; all where shares are even."""
    shares = {part.skill: part.share for part in plan.skills if part.share > 0}
    by_floor = uniform_floor / len(shares) if len(set(shares.values())) > 1 else 1.0
    of_skill: defaultdict[str, list[TrainingRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: content_id([plan.seed, row.id])):
        of_skill[row.skill].append(row)
    marked = []
    for skill, members in of_skill.items():
        floor_rows = round(len(members) * min(1.0, by_floor / shares[skill])) if skill in shares else 0
        marked += [row.model_copy(update={"layer": "uniform floor"}) for row in members[:floor_rows]]
        marked += members[floor_rows:]
    return marked
