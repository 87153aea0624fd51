"""What the controller knows about earlier rounds and about the rows it can order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.loop import Loop
from agents.teacher import RoundFacts
from curriculum.allocation import Measurement
from curriculum.looks import Look, next_look
from curriculum.mastery import Mastery
from curriculum.mixture import Pool, index_pool
from curriculum.plan import PastRound
from curriculum.records import BASE, Example
from curriculum.round_records import DroppedRow, GateDecision, MissingSkillProfile, TrainingRow
from curriculum.rundir import read_record, read_records

ALLOCATION = "allocation.json"
"""In a plan's folder: what each rule of allocation would give."""


MASTERY = "mastery.json"
"""In a profile's folder: what is remembered of each skill, by it and the profiles before it."""


def gate_decision(loop: Loop, round_: int) -> GateDecision:
    """The decision on a round that has passed its gate."""
    return read_record(gate_folder(loop, round_) / "decision.json", GateDecision)


def gate_folder(loop: Loop, round_: int) -> Path:
    """The folder of a round's gate stage."""
    return loop.run.round_stage(round_, "gate")


def adapter_before(loop: Loop, round_: int) -> tuple[str, int]:
    """The adapter that was current before a round's gate, and the round that trained it."""
    for earlier in range(round_ - 1, 0, -1):
        decision = gate_decision(loop, earlier)
        if decision.decision == "accepted" and decision.candidate:
            return decision.candidate, earlier
    return BASE, 0


def past_gates(loop: Loop, before: int) -> list[Path]:
    """The folders of the gate stages of rounds 1 … before − 1."""
    return [gate_folder(loop, r) for r in range(1, before)]


def gate_look(loop: Loop, round_: int) -> Look:
    """The level of a round's test, after what the rounds before have used up."""
    past = [gate_decision(loop, r) for r in range(1, round_)]
    return next_look(round_, loop.config.rounds, loop.config.gate, past)


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


def measurements(loop: Loop, round_: int) -> list[Measurement]:
    """What the probe said of the base and of every adapter accepted before a round, with the rows each was trained on.

    A fresh adapter knows the rows of its own training set; one that goes on from the last has those on top.
    """
    measured = [Measurement(read_profile(loop, 1), {})]
    known: Counter[str] = Counter()
    for r in accepted_rounds(loop, round_):
        rows = read_records(loop.run.round_stage(r, "build") / "training_set.jsonl", TrainingRow)
        trained = Counter(skill for row in rows for skill in {row.skill, *row.skills})
        new = Counter(trained)
        if loop.config.training.start == "base":
            new.subtract(known)
        measured.append(Measurement(read_profile(loop, r + 1), new))
        known = trained
    return measured


def measured_folders(loop: Loop, round_: int) -> list[Path]:
    """The stages that `measurements` reads, besides the decisions."""
    accepted = accepted_rounds(loop, round_)
    profiles = [loop.run.round_stage(r, "profile") for r in (1, *(r + 1 for r in accepted))]
    return [*profiles, *(loop.run.round_stage(r, "build") for r in accepted)]


def read_profile(loop: Loop, round_: int) -> MissingSkillProfile:
    """The missing-skill profile of a round."""
    return read_record(loop.run.round_stage(round_, "profile") / "profile.json", MissingSkillProfile)


def read_mastery(loop: Loop, round_: int) -> Mastery:
    """What is remembered of each skill once a round's profile is made."""
    return read_record(loop.run.round_stage(round_, "profile") / MASTERY, Mastery)


def pool_index(loop: Loop) -> Pool:
    """The labelled examples of the pool that may be taught, by skill."""
    pool = (
        loop.labels[e.id]
        for e in loop.examples.values()
        if e.split == "pool" and e.id in loop.labels and e.id not in loop.holdout
    )
    return index_pool((label.example_id, label.skills, label.difficulty) for label in pool)


def pool_sizes(loop: Loop) -> Mapping[str, Mapping[int, int]]:
    """Skill → difficulty → labelled examples in the pool."""
    return pool_index(loop).sizes()


def written_levels(loop: Loop) -> Mapping[str, Sequence[int]]:
    """Skill → difficulties at which the teacher can write new examples."""
    return {skill.id: loop.teacher.levels(skill.id) for skill in loop.catalogue.skills if skill.writable}
