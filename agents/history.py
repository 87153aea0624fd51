"""What the controller knows about earlier rounds and about the rows it can order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.loop import Loop
from agents.teacher import RoundFacts
from curriculum.mixture import Pool, index_pool
from curriculum.plan import PastRound
from curriculum.records import Example
from curriculum.round_records import DroppedRow, GateDecision
from curriculum.rundir import read_record, read_records


def gate_decision(loop: Loop, round_: int) -> GateDecision:
    """The decision on a round that has passed its gate."""
    return read_record(gate_folder(loop, round_) / "decision.json", GateDecision)


def gate_folder(loop: Loop, round_: int) -> Path:
    """The folder of a round's gate stage."""
    return loop.run.round_stage(round_, "gate")


def past_rounds(loop: Loop, before: int) -> list[PastRound]:
    """The approved plans of rounds 1 … before − 1, with whether their adapters were accepted."""
    return [PastRound(loop.plan(r), gate_decision(loop, r).decision == "accepted") for r in range(1, before)]


def round_facts(loop: Loop, before: int) -> list[RoundFacts]:
    """What a planner sees of rounds 1 … before − 1."""
    facts = []
    for r in range(1, before):
        built = build_folder(loop, r)
        dropped = [row for row in read_records(built / "dropped.jsonl", DroppedRow) if row.origin == "written"]
        kept = len(read_records(built / "written.jsonl", Example))
        facts.append(RoundFacts(loop.plan(r), gate_decision(loop, r), kept, Counter(row.reason for row in dropped)))
    return facts


def build_folder(loop: Loop, round_: int) -> Path:
    """The folder of a round's build stage."""
    return loop.run.round_stage(round_, "build")


def accepted_rounds(loop: Loop, before: int) -> list[int]:
    """The rounds before `before` whose adapters, and so whose rows, were accepted."""
    return [r for r in range(1, before) if gate_decision(loop, r).decision == "accepted"]


def pool_index(loop: Loop) -> Pool:
    """The labelled examples of the pool, by skill."""
    pool = (loop.labels[e.id] for e in loop.examples.values() if e.split == "pool" and e.id in loop.labels)
    return index_pool((label.example_id, label.skills, label.difficulty) for label in pool)


def pool_sizes(loop: Loop) -> Mapping[str, Mapping[int, int]]:
    """Skill → difficulty → labelled examples in the pool."""
    return pool_index(loop).sizes()


def written_levels(loop: Loop) -> Mapping[str, Sequence[int]]:
    """Skill → difficulties at which the teacher can write new examples."""
    return {skill.id: loop.teacher.levels(skill.id) for skill in loop.catalogue.skills if skill.writable}
