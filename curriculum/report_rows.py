"""A sample of the rows that each round taught, with what chose each of them.

Pure functions from training rows to the part `taught` of a run's report: a few of each skill and origin, long texts
cut, and how many there are of which so many are shown. Reads no file and decides nothing.
"""

from collections.abc import Collection, Sequence

from pydantic import Field

from curriculum.records import Origin, Part
from curriculum.report_samples import cut, spread
from curriculum.round_records import TrainingRow

MOST_ROWS = 60
"""Rows shown of a round."""
MOST_TEXT = 400
"""Characters shown of a question and of a target."""


class TaughtRow(Part):
    """One row that the student was trained on."""

    skill: str = Field(description="the skill it was chosen for")
    origin: Origin
    difficulty: int
    layer: str = Field(description="which layer of the score chose it")
    round: int = Field(description="the round that first added it; an earlier one for replayed rows")
    weight: float
    repeat: int = Field(description="0 for the first use of the example, 1 for the second, …")
    source: str
    question: str
    target: str = Field(description="what the student is taught to answer")


class TaughtRows(Part):
    """The rows of one round: how many there are, and a few of them."""

    round: int
    rows: int = Field(description="that were trained on")
    shown: tuple[TaughtRow, ...] = Field(description="a few of each skill and origin, sorted by both")


def taught_rows(round_: int, rows: Sequence[TrainingRow], dropped: Collection[str]) -> TaughtRows:
    """Chooses the rows of a round that are shown.

    Args:
        round_: the round.
        rows: its training set.
        dropped: example ids of rows that the trainer left out, for they were too long.
    """
    taught = [row for row in rows if row.example_id not in dropped]
    chosen = spread(taught, lambda row: f"{row.skill}\n{row.origin}", MOST_ROWS)
    return TaughtRows(
        round=round_,
        rows=len(taught),
        shown=tuple(
            TaughtRow(
                skill=row.skill,
                origin=row.origin,
                difficulty=row.difficulty,
                layer=row.layer,
                round=row.round,
                weight=row.weight,
                repeat=row.repeat,
                source=cut(row.source, MOST_TEXT),
                question=cut(row.question, MOST_TEXT),
                target=cut(row.target, MOST_TEXT),
            )
            for row in sorted(chosen, key=lambda row: (row.skill, row.origin, row.id))
        ),
    )
