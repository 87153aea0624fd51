"""Records of how hard pool rows are for the student, and of what the last training did to easy and hard items."""

from typing import Literal

from pydantic import Field

from curriculum.records import Part, Record

Bin = Literal["easy", "middle", "hard"]
"""A third of a skill's pool items, by how hard they are for the student; or of the gate's items."""
Measure = Literal["pass_rate", "solution_length", "entropy"]
"""What tells hard items from easy ones: right drawn answers, the length of worked solutions, or the entropy of the
first answer token."""


class ItemEntropy(Record):
    """How unsure a student is of the answer to one item."""

    example_id: str
    entropy: float = Field(ge=0, description="nats at the first answer token, exact")


class DifficultySlice(Part):
    """What the last training changed on the gate items of one difficulty."""

    bin: Bin
    items: int = Field(ge=1)
    gained: int = Field(ge=0)
    lost: int = Field(ge=0)
    p_up: float = Field(description="one-sided, against a retrain with another seed; as p_down")
    p_down: float


class DifficultyPlan(Part):
    """How hard a round's pool rows are to be for the student; see `difficulty`. Every bin gets some, `focus` most."""

    measure: Measure
    focus: tuple[Bin, ...] = Field(min_length=1)
    items: dict[Bin, int] = Field(description="pool items in each bin")
    slices: tuple[DifficultySlice, ...] = Field(description="of the last training")
    reason: str
