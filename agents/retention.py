"""What a candidate must not forget, as both adapters answer it: the retention set of a round's gate."""

from pathlib import Path
from typing import NamedTuple

from agents.evaluation import Evaluation, evaluate_extra
from agents.history import gate_decision, read_mastery
from agents.loop import Loop
from curriculum.gate import answered_right
from curriculum.retention import Kept, regressed
from student.interface import AdapterFiles


class Retained(NamedTuple):
    """The parts of the retention set, and the stages they were read from."""

    folders: list[Path]
    parts: list[Kept]


def retained(
    loop: Loop, round_: int, adapters: tuple[AdapterFiles, AdapterFiles], gate: tuple[Evaluation, Evaluation]
) -> Retained:
    """The mastered skills' gate items and the named sets, answered by the current adapter and by the candidate.

    Args:
        round_: from 1 on.
        adapters: the current one and the candidate, in this order, here and below.
        gate: what they answered on the gate split.
    """
    folders = [loop.run.round_stage(round_, "profile")]
    items = sorted({grade.example_id for of in gate for grade in of.grades})
    parts = []
    for part in read_mastery(loop, round_).skills:
        if part.mastered:
            needs = {id_: (part.skill,) for id_ in items if part.skill in loop.labels[id_].skills}
            before, after = (answered_right([g for g in of.grades if g.example_id in needs]) for of in gate)
            parts.append(Kept(part.skill, "skill", before, after, needs))
    known = {skill.id for skill in loop.skills}
    for name in loop.config.retention_sets:
        answered = [evaluate_extra(loop, adapter, name, "plain") for adapter in adapters]
        folders += [of.folder for of in answered]
        of_item = {e.id: known.intersection(e.skills) for e in loop.extra[name]}
        before, after = (answered_right(of.grades) for of in answered)
        parts.append(Kept(name, "set", before, after, of_item))
    return Retained(folders, parts)


def replay_first(loop: Loop, round_: int) -> tuple[str, ...]:
    """The skills whose rows a round's plan replays first: those that slipped, then what the last gate saw fall."""
    slipped = [part.skill for part in read_mastery(loop, round_).skills if part.state == "slipped"]
    fell = regressed(gate_decision(loop, round_ - 1).retention) if round_ > 1 else ()
    return tuple(dict.fromkeys((*slipped, *fell)))
