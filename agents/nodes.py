"""The nodes of a run, one function each: read what earlier stages wrote, do one thing, write it down.

Every node takes the loop and the state and returns the update of the state that its stage recorded,
whether the stage ran now or was found done. Nodes do not know that they are in a graph: a plain `for`
loop over them does the same.
"""

from collections.abc import Mapping, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

from agents.difficult import FOUND, difficult_questions
from agents.evaluation import Sampled, evaluate_probe, sample_split
from agents.history import MASTERY, read_profile
from agents.loop import REPEATED, Loop, State, WaitingForApproval, stage_inputs, write_failures
from agents.method_checks import check_skills
from agents.teacher import Failure
from curriculum.agreement import repeatability
from curriculum.catalogue_file import (
    CATALOGUE,
    edited_catalogue,
    first_catalogue,
    mapped,
    read_catalogue,
    write_catalogue,
)
from curriculum.mastery import remember
from curriculum.profile import build_profile, check_profile_set
from curriculum.records import BASE, Diagnosis, SkillLabel, Split, content_id
from curriculum.rundir import read_records, write_json, write_record, write_records
from curriculum.signals import with_measured_difficulty
from curriculum.teacher_config import Role
from curriculum.teacher_records import TeacherFailure

PROPOSED = "proposed.json"
"""In the catalogue's folder: the skills as the teacher proposed them."""


def catalogue(loop: Loop, state: State) -> State:
    """The teacher names the skills; those of an LLM a person may rename, merge and drop.

    Raises:
        ConfigError: `training.dft_skills` has others.
    """
    inputs = stage_inputs(loop, loop.run.stage_path("prepare"))
    folder = loop.run.stage_path("catalogue")
    file = folder / CATALOGUE

    def work(folder: Path) -> Mapping[str, Any]:
        proposed = loop.teacher.propose_skills(loop.split("pool"))
        if loop.config.teacher.kind == "offline":
            write_record(folder / "skills.json", proposed)
            return {}
        write_record(folder / PROPOSED, proposed)
        if not file.exists():
            write_catalogue(file, first_catalogue(proposed, not loop.config.teacher.catalogue.approve))
        edited = read_catalogue(file)
        if not edited.approved:
            raise WaitingForApproval(file)
        made, moved = edited_catalogue(proposed, edited, file)
        write_json(folder / "moved.json", {"schema_version": 1, "moved": moved})
        write_record(folder / "skills.json", made)
        return {}

    try:
        update = loop.stage(folder, inputs, work)
    except WaitingForApproval:
        return {"waiting_for": str(file)}
    check_skills(loop.config, loop.catalogue)
    return {**update, "waiting_for": ""}


def label(loop: Loop, state: State) -> State:
    """The teacher labels every example with skills and difficulty, unless the student's own measure that is wanted."""
    sampled = _undeclared(loop)
    inputs = stage_inputs(
        loop, loop.run.stage_path("prepare"), loop.run.stage_path("catalogue"), *(s.folder for s in sampled)
    )

    def work(folder: Path) -> Mapping[str, Any]:
        signals = {item.example_id: item for of_split in sampled for item in of_split.signals}
        known = {skill.id for skill in loop.skills}
        labels: list[SkillLabel] = []
        failures: list[TeacherFailure] = []
        for made in loop.teacher.label(loop.profiled.values(), loop.proposed):
            if isinstance(made, SkillLabel):
                skills = mapped(made.skills, loop.moved_skills)
                strange = made.example_id not in loop.examples and not known.intersection(skills)
                if skills and not strange:
                    kept = made.model_copy(update={"skills": skills})
                    labels.append(with_measured_difficulty(kept, loop.profiled[made.example_id], signals))
                else:
                    why = "the pool has none of its skills" if skills else "all of its skills were dropped"
                    failures.append(failed(made.example_id, "label", why))
            else:
                failures.append(made)
        labels.sort(key=lambda r: r.example_id)
        check_profile_set(loop.config.profile_set(), loop.profiled.keys() - loop.examples.keys(), labels)
        write_records(folder / "labels.jsonl", labels)
        write_failures(folder, failures)
        return {}

    return loop.stage(loop.run.stage_path("label"), inputs, work)


def _undeclared(loop: Loop) -> list[Sampled]:
    """The base's drawn answers on splits that have items of no declared difficulty, where it is to be measured.

    Not on the gate and final splits: nothing is chosen by their difficulty.
    """
    signals = loop.config.student.signals
    if signals is None or signals.difficulty == "declared":
        return []
    splits: tuple[Split, ...] = ("pool", "probe")
    return [
        sample_split(loop, loop.adapter_files(BASE, 0), split)
        for split in splits
        if any(e.difficulty is None for e in loop.examples.values() if e.split == split)
    ]


def evaluate(loop: Loop, state: State) -> State:
    """The current adapter answers the probe split, and draws several answers to each item where that is wanted."""
    loop.check_stop()
    adapter = loop.adapter_files(state["adapter"], state["adapter_round"])
    evaluate_probe(loop, adapter, state["round"])
    if loop.config.student.signals is not None:
        sample_split(loop, adapter, "probe")
    difficult_questions(loop, adapter, state["round"])
    return {}


def diagnose(loop: Loop, state: State) -> State:
    """The teacher names the missing skills of every difficult probe question."""
    adapter = loop.adapter_files(state["adapter"], state["adapter_round"])
    probe, difficult = evaluate_probe(loop, adapter, state["round"]), difficult_questions(loop, adapter, state["round"])
    inputs = stage_inputs(loop, loop.run.stage_path("label"), probe.folder, *difficult.folders)

    def work(folder: Path) -> Mapping[str, Any]:
        wrong = difficult.failures
        if difficult.found is not None:
            write_record(folder / FOUND, difficult.found)
        diagnoses, failures = _diagnosed(loop, wrong, state["round"], 0)
        again = nsmallest(
            loop.config.teacher.repeat_diagnoses, wrong, key=lambda f: content_id([loop.config.seed, f.answer.id])
        )
        if again:
            second, _ = _diagnosed(loop, again, state["round"], 1)
            said = [{d.answer_id: d.missing_skills for d in of} for of in (diagnoses, second)]
            write_record(folder / REPEATED, repeatability(len(again), *said))
        write_records(folder / "diagnoses.jsonl", diagnoses)
        write_failures(folder, failures)
        return {}

    return loop.stage(loop.run.round_stage(state["round"], "diagnose"), inputs, work)


def _diagnosed(
    loop: Loop, wrong: Sequence[Failure], round_: int, sample: int
) -> tuple[list[Diagnosis], list[TeacherFailure]]:
    """What the teacher says of failures, in the skills of the edited catalogue, and what it failed on."""
    diagnoses: list[Diagnosis] = []
    failures: list[TeacherFailure] = []
    for made in loop.teacher.diagnose(wrong, loop.proposed, round_, sample):
        if isinstance(made, TeacherFailure):
            failures.append(made)
        elif skills := mapped(made.missing_skills, loop.moved_skills):
            diagnoses.append(made.model_copy(update={"missing_skills": skills}))
        else:
            failures.append(failed(made.answer_id, "diagnose", "all of its skills were dropped"))
    return diagnoses, failures


def profile(loop: Loop, state: State) -> State:
    """Grades, labels and diagnoses become the missing-skill profile, and it and those before it the mastery memory."""
    round_ = state["round"]
    adapter = loop.adapter_files(state["adapter"], state["adapter_round"])
    probe, difficult = evaluate_probe(loop, adapter, round_), difficult_questions(loop, adapter, round_)
    sampled = [sample_split(loop, adapter, "probe")] if loop.config.student.signals is not None else []
    diagnosed = loop.run.round_stage(round_, "diagnose")
    read = (loop.run.stage_path("catalogue"), loop.run.stage_path("label"), probe.folder, diagnosed)
    folders = [s.folder for s in sampled] + difficult.folders
    earlier = [loop.run.round_stage(r, "profile") for r in range(round_)]
    inputs = stage_inputs(loop, *read, *folders, *earlier)

    def work(folder: Path) -> Mapping[str, Any]:
        diagnoses = read_records(diagnosed / "diagnoses.jsonl", Diagnosis)
        signals = [item for of_split in sampled for item in of_split.signals if item.example_id in loop.labels]
        of_probe = (loop.labels, probe.grades, diagnoses, loop.catalogue, signals, difficult.consistency)
        made = build_profile(round_, state["adapter"], *of_probe)
        write_record(folder / "profile.json", made)
        profiles = [*(read_profile(loop, r) for r in range(round_)), made]
        write_record(folder / MASTERY, remember(profiles, loop.config.plan))
        return {}

    return loop.stage(loop.run.round_stage(round_, "profile"), inputs, work)


def failed(item_id: str, role: Role, reason: str) -> TeacherFailure:
    """An item whose skills a person's edits took away."""
    return TeacherFailure(item_id=item_id, role=role, kind="unknown_skill", reason=reason)
