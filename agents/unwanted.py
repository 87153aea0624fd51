"""Finds and drops the rows of a training set that push the student towards an unwanted behaviour."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agents.evaluation import plain_prompt
from agents.loop import Loop
from curriculum.round_records import DroppedRow, TrainingRow
from curriculum.rundir import file_hash, write_records
from curriculum.unwanted import read_pairs, suspects, without_suspects
from student.interface import AdapterFiles, Influence, Target

SUSPECTS = "suspects.jsonl"
"""In the folder of a build: every row by how far it pushes towards the unwanted answers."""


class Kept(NamedTuple):
    """The rows that stay, and those that do not."""

    rows: list[TrainingRow]
    dropped: list[DroppedRow]


def unwanted_inputs(loop: Loop) -> dict[str, str]:
    """What a stage that drops rows depends on, besides the rows; empty where none are dropped."""
    unwanted = loop.config.plan.unwanted
    if unwanted is None:
        return {}
    read_pairs(unwanted.pairs)
    return {"unwanted": file_hash(unwanted.pairs), "base": loop.base_hash, "prompt": loop.prompt.hash}


def drop_unwanted(loop: Loop, adapter: AdapterFiles, rows: Sequence[TrainingRow], folder: Path) -> Kept:
    """The rows without those that `plan.unwanted` drops; writes into the folder how all of them scored.

    Args:
        loop: of the run.
        adapter: the current one, whose gradients are looked at.
        rows: a training set, replay included.
        folder: of the stage that builds it.

    Raises:
        UserError: the pairs file cannot be used, or no row or pair fits.
    """
    unwanted, plan = loop.config.plan.unwanted, loop.config.plan
    if unwanted is None or not rows:
        return Kept(list(rows), [])

    targets = [
        Target(
            plain_prompt(loop, str(at), (), pair.question),
            right=pair.unwanted,
            wrong=pair.wanted,
            skills=("unwanted",),
        )
        for at, pair in enumerate(read_pairs(unwanted.pairs))
    ]
    scores = loop.student.influence(
        [(plain_prompt(loop, row.id, row.history, row.question), row.targets) for row in rows],
        targets,
        Influence("prism", plan.prism_weight, plan.less, loop.config.seed),
        adapter,
        folder / "unwanted.log",
        loop.stoppable("looking for unwanted rows"),
    )
    found = suspects(rows, scores, unwanted.drop_share)
    write_records(folder / SUSPECTS, found)
    return Kept(*without_suspects(rows, found))
