"""An unwanted behaviour as pairs of answers, and the rows that push a student towards it.

Reads the pairs file of `plan.unwanted` and says which rows are left out of a training set by their scores; the scores
are the student's (`student.influence`, with the unwanted answer in the place of the right one).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from curriculum.errors import UserError
from curriculum.records import Part, Record
from curriculum.round_records import DroppedRow, TrainingRow

MAX_FAULTS = 5
"""Bad lines of a pairs file that are told."""


class UnwantedPair(Part):
    """A question with the answer that is wanted and the one that is not."""

    question: str = Field(min_length=1)
    wanted: str = Field(min_length=1)
    unwanted: str = Field(min_length=1)


class Suspect(Record):
    """How far a row pushes towards the unwanted answers."""

    row_id: str
    example_id: str
    score: float | None = Field(description="above 0: towards them; none where the row is too long to be trained on")
    rank: int = Field(ge=1, description="1 pushes the most")
    dropped: bool


def read_pairs(path: Path) -> list[UnwantedPair]:
    """The pairs of a JSONL file, a line each with `question`, `wanted` and `unwanted`.

    Raises:
        UserError: it cannot be read, has no line, or lines are no pairs; the first of these are told.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"plan.unwanted.pairs {path}: expected a JSONL file in UTF-8, got: {error}. Mend the path"
        ) from None
    pairs, faults = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            pair = UnwantedPair.model_validate(json.loads(line))
            if pair.wanted.strip() == pair.unwanted.strip():
                faults.append(f"  line {number}: wanted and unwanted are the same")
            pairs.append(pair)
        except (ValidationError, ValueError, RecursionError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "no JSON"
            faults.append(f"  line {number}: {said}")
    if faults or not pairs:
        told = "\n".join(faults[:MAX_FAULTS]) or "  no line"
        raise UserError(
            f"plan.unwanted.pairs {path}: expected a JSON object a line with the texts question, wanted and unwanted, "
            f"got {len(faults)} faults:\n{told}\nMend these lines"
        )
    return pairs


def suspects(rows: Sequence[TrainingRow], scores: Mapping[str, float], share: float) -> list[Suspect]:
    """Every row by its score, the worst first, ties by id; at most `share` of them are dropped, none at or below 0.

    Source: Lin et al. 2026 (PRISM, arXiv 2605.21422), repair: the target direction is built from the unwanted
    behaviour, the highest-scoring rows are dropped, and the student is trained again.
    """
    ordered = sorted(rows, key=lambda row: (-scores.get(row.id, float("-inf")), row.id))
    most = round(share * len(rows))
    return [
        Suspect(
            row_id=row.id,
            example_id=row.example_id,
            score=scores.get(row.id),
            rank=rank,
            dropped=rank <= most and scores.get(row.id, 0) > 0,
        )
        for rank, row in enumerate(ordered, 1)
    ]


def without_suspects(
    rows: Sequence[TrainingRow], found: Sequence[Suspect]
) -> tuple[list[TrainingRow], list[DroppedRow]]:
    """The rows that are kept, in their order, and the others with the reason."""
    dropped = {suspect.row_id for suspect in found if suspect.dropped}
    reason = "pushes towards the unwanted answers of plan.unwanted.pairs"
    return [row for row in rows if row.id not in dropped], [
        DroppedRow(example_id=row.example_id, skill=row.skill, origin=row.origin, reason=reason)
        for row in rows
        if row.id in dropped
    ]
