"""The control arm: the round's training set with its targeted rows replaced by as many untargeted ones.

Takes what the round's own training set was made of; returns the control's rows, and later how the two adapters compare
on the same items. Replay stays as it is, row for row. Drawn rows give way to draws from the whole pool, each item as
likely as any other; rows of a generator to generated ones, spread evenly over every skill and level it has; rows that
an LLM wrote to draws from the pool, for there is no untargeted author. A control is never accepted and selects nothing.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import hypot
from typing import NamedTuple

import numpy as np
from pydantic import Field

from curriculum.gate import answered_right, skill_changes
from curriculum.mixture import Draw, Pool, apportion, deal, room_left, training_rows
from curriculum.records import Change, Example, Grade, Part, Rate, SkillLabel, content_id
from curriculum.round_records import Adapter, GateSkill, RoundPlan, SkillPlan, TrainingRow
from curriculum.statistics import Z95, paired_change, wilson

LAYER = "control: untargeted"
"""What chose a control's rows."""


class ArmReport(Part):
    """What one of the two was trained on."""

    adapter: str
    pool: int = Field(ge=0, description="new rows drawn from the pool")
    written: int = Field(ge=0, description="new rows that were generated or written")
    replay: int = Field(ge=0, description="rows of earlier accepted rounds")
    training_tokens: int
    steps: int
    rate: Rate


class ControlReport(Part):
    """The targeted candidate against its control, on the same items."""

    round: int
    targeted: ArmReport
    control: ArmReport
    change: Change = Field(description="targeted − control on the same items, with the 95 % interval over items")
    seed_sd: float = Field(description="standard deviation of what another seed would change, in shares of 1")
    seed_low: float | None = Field(description="the interval, widened by that")
    seed_high: float | None
    skills: tuple[GateSkill, ...] = Field(description="control and targeted, one a skill")


class Arm(NamedTuple):
    """One of the two: its adapter, its training set, its grades on the items compared."""

    adapter: Adapter
    rows: Sequence[TrainingRow]
    grades: Sequence[Grade]


def control_order(plan: RoundPlan, written: int, levels: Mapping[str, Sequence[int]]) -> RoundPlan:
    """The round's plan with `written` rows ordered evenly over all that can be generated, and nothing drawn.

    Args:
        plan: of the round; the control's draws and its generated rows have a seed of their own.
        written: rows that the round had generated.
        levels: skill → difficulties that can be generated; some, unless `written` is 0.
    """
    cells = sorted((skill, level) for skill, of_skill in levels.items() for level in of_skill)
    parts = apportion(dict.fromkeys(range(len(cells)), 1), written)
    rows: dict[str, dict[int, int]] = {}
    for at, (skill, level) in enumerate(cells):
        rows.setdefault(skill, {})[level] = parts[at]
    skills = tuple(
        SkillPlan(skill=skill, missing=0, share=0, pool_rows=0, written_rows=of, reason=LAYER)
        for skill, of in rows.items()
    )
    return plan.model_copy(update={"skills": skills, "seed": int(content_id([plan.seed, LAYER], 8), 16)})


def draw_untargeted(rows: int, seed: int, pool: Pool, used: Mapping[str, int], max_repeats: int) -> list[Draw]:
    """So many rows from the whole pool, seeded, each item as likely as any other; fewer if the cap leaves fewer.

    Args:
        rows: how many.
        seed: of the draw.
        pool: from `index_pool`.
        used: example id → uses in the rows of accepted rounds.
        max_repeats: most uses of one example.
    """
    room = room_left(pool, used, max_repeats)
    dealt = deal(np.arange(len(room)), rows, room, random.Random(content_id([seed])))
    return [Draw(pool.ids[at], min(pool.skills[at]), count) for at, count in sorted(dealt.items())]


def control_rows(
    plan: RoundPlan,
    targeted: Iterable[TrainingRow],
    draws: Iterable[Draw],
    examples: Mapping[str, Example],
    written: Iterable[tuple[Example, str]],
    earlier: Sequence[TrainingRow],
    labels: Mapping[str, SkillLabel],
    targets: Callable[[Example], Sequence[str]],
) -> list[TrainingRow]:
    """The control's training set, sorted by id: the round's own replay, and untargeted rows.

    Args:
        plan: of the round.
        targeted: the round's training set.
        draws: from `draw_untargeted`.
        examples, written, earlier, labels, targets: as in `training_rows`.
    """
    bare = plan.model_copy(update={"skills": (), "replay_rows": 0})
    new = training_rows(bare, draws, examples, written, earlier, labels, targets, 0.0)
    replay = [row for row in targeted if row.origin == "replay"]
    return sorted([*(row.model_copy(update={"layer": LAYER}) for row in new), *replay], key=lambda row: row.id)


def compare(
    round_: int, targeted: Arm, control: Arm, labels: Mapping[str, SkillLabel], retrain_sd: float
) -> ControlReport:
    """How the targeted candidate and its control answered the same items.

    The widened interval adds `retrain_sd` (in shares of 1), the standard deviation of the true difference of two
    trainings that differ in the seed only, to the standard error over items: in quadrature, for they are independent.
    """
    right = {name: answered_right(arm.grades) for name, arm in (("targeted", targeted), ("control", control))}
    both = right["targeted"].keys() & right["control"].keys()
    new, old = ({id_: right[name][id_] for id_ in sorted(both)} for name in ("targeted", "control"))
    change = paired_change(old, new)
    low = high = None
    if change.low is not None and change.high is not None:
        centre, half = (change.low + change.high) / 2, (change.high - change.low) / 2
        wide = hypot(half, Z95 * retrain_sd)
        low, high = max(-1.0, centre - wide), min(1.0, centre + wide)
    return ControlReport(
        round=round_,
        targeted=_arm(targeted, new),
        control=_arm(control, old),
        change=change,
        seed_sd=retrain_sd,
        seed_low=low,
        seed_high=high,
        skills=skill_changes(old, new, labels),
    )


def _arm(arm: Arm, right: Mapping[str, bool]) -> ArmReport:
    origins = Counter(row.origin for row in arm.rows)
    return ArmReport(
        adapter=arm.adapter.name,
        pool=origins["pool"],
        written=origins["written"],
        replay=origins["replay"],
        training_tokens=arm.adapter.training_tokens,
        steps=arm.adapter.steps,
        rate=wilson(sum(right.values()), len(right)),
    )
