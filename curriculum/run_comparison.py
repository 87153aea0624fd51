"""How the adapters of two runs, or of two rounds, differ on the items that both were asked: records and arithmetic.

Takes what each run recorded; returns a `RunComparison`. Items are the same when their ids are, which hash question,
gold answer and grader; what only one run asked is counted and left out. Reads no file and words nothing but notes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field, JsonValue

from curriculum.gate import answered_right, skill_changes
from curriculum.records import Change, Grade, Part, Rate, Record, SkillLabel
from curriculum.report import RunReport, Timings
from curriculum.round_records import GateSkill
from curriculum.statistics import mcnemar_p, paired_change, wilson

SELECTED = "The gate split selected adapters in each run: rates on it flatter."
SEEDS = (
    "Each side is one training seed. The interval compares these two adapters on these items; it does not show that "
    "one way of teaching is better: that takes several seeds of each."
)
OPENED = (
    "Whoever chooses between runs by this table selects on the final split: it is no final test of what was chosen."
)


class Side(Part):
    """One of the two that are compared."""

    run: str
    round: int | None = Field(description="whose candidate it is, 0 for the base; none: what the run ended with")
    adapter: str
    base: str
    base_hash: str


class Difference(Part):
    """A config key, or another fact of the run, whose values differ."""

    key: str
    a: JsonValue
    b: JsonValue
    kind: Literal["identity", "operational", "made with"]


class PairedItems(Part):
    """Both sides on the same items of one split."""

    split: Literal["final", "gate"]
    items_a: int = Field(description="items with a verdict")
    items_b: int
    common: int
    a: Rate = Field(description="on the common items, by the lenient extraction, as all of these")
    b: Rate
    change: Change = Field(description="b − a")
    p_value: float | None = Field(description="two-sided exact McNemar test")
    skills: tuple[GateSkill, ...] = Field(description="before is a, after is b; by the labels of a; p adjusted (BH)")
    relabelled: int = Field(description="common items that the two runs label with different skills")


class Spent(Part):
    """What the whole run took."""

    seconds: float
    seconds_answering: float
    seconds_training: float
    rounds: int = Field(description="that trained")
    training_tokens: int
    teacher_requests: int | None = Field(default=None, description="none: the teacher is offline")
    teacher_tokens: int | None = None
    teacher_money: float | None = None


class RunComparison(Record):
    """What `tutelage compare` finds."""

    a: Side
    b: Side
    differences: tuple[Difference, ...]
    items: PairedItems | None = Field(description="none: the two have no item in common")
    spent_a: Spent
    spent_b: Spent
    notes: tuple[str, ...] = Field(description="what a reader must know before believing it")


class Examined(NamedTuple):
    """What one side answered on one split."""

    grades: Sequence[Grade]
    labels: Mapping[str, SkillLabel]


def pair_items(split: Literal["final", "gate"], a: Examined, b: Examined) -> PairedItems | None:
    """Both sides on the items that both have a verdict on; none where there is no such item."""
    right_a, right_b = answered_right(a.grades), answered_right(b.grades)
    common = sorted(right_a.keys() & right_b.keys())
    if not common:
        return None
    before, after = {i: right_a[i] for i in common}, {i: right_b[i] for i in common}
    change = paired_change(before, after)
    return PairedItems(
        split=split,
        items_a=len(right_a),
        items_b=len(right_b),
        common=len(common),
        a=wilson(sum(before.values()), len(common)),
        b=wilson(sum(after.values()), len(common)),
        change=change,
        p_value=mcnemar_p(change.gained, change.lost),
        skills=skill_changes(before, after, a.labels),
        relabelled=sum(set(a.labels[i].skills) != set(b.labels[i].skills) for i in common),
    )


def differences(
    a: Mapping[str, JsonValue], b: Mapping[str, JsonValue], kind: Literal["identity", "operational", "made with"]
) -> list[Difference]:
    """The keys whose values differ, sorted; a key that one side lacks is null there."""
    return [
        Difference(key=key, a=a.get(key), b=b.get(key), kind=kind)
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]


def spent(report: RunReport, timings: Timings) -> Spent:
    """What a run took, all its rounds together."""
    total = report.teaching.total if report.teaching else None

    def seconds(begins: str) -> float:
        return sum(t.seconds for t in timings.stages if t.stage.split(" / ")[0] == begins)

    trained = [r.training for r in report.rounds if r.training]
    return Spent(
        seconds=sum(t.seconds for t in timings.stages),
        seconds_answering=seconds("answers"),
        seconds_training=seconds("train"),
        rounds=len(trained),
        training_tokens=sum(t.training_tokens for t in trained),
        teacher_requests=total.requests if total else None,
        teacher_tokens=total.prompt_tokens + total.completion_tokens if total else None,
        teacher_money=total.money if total else None,
    )


def notes(a: Side, b: Side, items: PairedItems | None) -> tuple[str, ...]:
    """What a reader must know before believing the comparison."""
    told = []
    if items is None:
        told.append("The two have no item in common: nothing of what they answered can be compared.")
    else:
        left = (items.items_a - items.common, items.items_b - items.common)
        if any(left):
            told.append(
                f"Only the {items.common} items that both were asked are compared; {left[0]} of A alone and {left[1]} "
                "of B alone are left out, so the rates here are not those of the reports."
            )
        if items.relabelled:
            told.append(f"{items.relabelled} of them have other skills in B: the table goes by the labels of A.")
        told.append(SELECTED if items.split == "gate" else OPENED)
    if a.base_hash != b.base_hash:
        told.append("The two have different bases: the change is one between models, not only between trainings.")
    return (*told, SEEDS)
