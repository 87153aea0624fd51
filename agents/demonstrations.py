"""Demonstrations for in-context approximation: chosen when rows are built, read when they are trained on."""

import time
from collections.abc import Sequence
from pathlib import Path

from agents.evaluation import plain_prompt
from agents.loop import Loop
from curriculum.duplicates import Asked
from curriculum.errors import DataError
from curriculum.extraction import taught_text
from curriculum.in_context import choose_demonstrations
from curriculum.method_records import Demonstration, RowDemonstrations, RowWeight
from curriculum.records import BASE
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_records, record_cost, write_records
from student.interface import AdapterFiles, Shots, Weighed

HOLDOUT, CHOSEN, WEIGHTS = "holdout.jsonl", "demonstrations.jsonl", "weights.jsonl"
"""In a build's folder: the demonstrations, and which each row gets. In a training's: what they made of it."""


def write_demonstrations(loop: Loop, folder: Path, rows: Sequence[TrainingRow]) -> None:
    """Chooses each row's demonstrations by the base's own embeddings, where rows are weighed; else does nothing.

    Only holdout examples that no row teaches are shown (a fork may replay rows from before there was a holdout), and
    only those without earlier chat turns: a demonstration is one question and one answer.

    Raises:
        DataError: there are fewer than each row is to get.
    """
    if loop.config.training.weights != "ica":
        return
    ica = loop.config.training.ica
    taught = {row.example_id for row in rows}
    shown = sorted(
        (e for e in loop.examples.values() if e.id in loop.holdout - taught and not e.history), key=lambda e: e.id
    )
    if len(shown) < ica.neighbours:
        raise DataError(
            f"{folder}: expected at least training.ica.neighbours ({ica.neighbours}) examples without earlier turns in "
            f"the holdout, got {len(shown)}: raise training.ica.holdout_share (now {ica.holdout_share:g}) or lower "
            "training.ica.neighbours, in a fork or a new run. A skill whose pool items are all of one group gives none"
        )
    since = time.monotonic()
    asked: list[Asked] = [*rows, *shown]
    prompts = [plain_prompt(loop, a.id, a.history, a.question) for a in asked]
    vectors = loop.student.embed(prompts, AdapterFiles(BASE, None), folder / "embed.log")
    of_rows, of_shown = vectors[: len(rows)], vectors[len(rows) :]
    chosen = choose_demonstrations(rows, of_rows, shown, of_shown, ica.neighbours, loop.config.seed)
    write_records(
        folder / HOLDOUT,
        [Demonstration(example_id=e.id, question=e.question, answer=taught_text(e)) for e in shown],
    )
    write_records(
        folder / CHOSEN,
        [
            RowDemonstrations(
                row_id=row.id,
                nearest=tuple(shown[at].id for at in of_row.nearest),
                random=tuple(shown[at].id for at in of_row.random),
            )
            for row, of_row in zip(rows, chosen, strict=True)
        ],
    )
    record_cost(folder, scoring_seconds=round(time.monotonic() - since, 1))


def read_shots(built: Path, subtract_random: bool) -> dict[str, Shots] | None:
    """The demonstrations of each row by its id, as they were chosen; none where rows are not weighed."""
    if not (built / CHOSEN).exists():
        return None
    texts = {d.example_id: (d.question, d.answer) for d in read_records(built / HOLDOUT, Demonstration)}
    return {
        of_row.row_id: Shots(
            [texts[id_] for id_ in of_row.nearest],
            [texts[id_] for id_ in of_row.random] if subtract_random else None,
        )
        for of_row in read_records(built / CHOSEN, RowDemonstrations)
    }


def write_weights(folder: Path, built: Path, rows: Sequence[TrainingRow], weighed: Sequence[Weighed]) -> None:
    """Writes what every scoring of a training said of each row; no file where rows are not weighed."""
    if not weighed:
        return
    examples = {row.id: row.example_id for row in rows}
    nearest = {of_row.row_id: of_row.nearest for of_row in read_records(built / CHOSEN, RowDemonstrations)}
    write_records(
        folder / WEIGHTS,
        [
            RowWeight(
                **w._asdict() | {"demonstrations": nearest[w.row_id][: w.demonstrations]},
                example_id=examples[w.row_id],
            )
            for w in weighed
        ],
    )
