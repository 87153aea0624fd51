"""The nodes of a run, one function each: read what earlier stages wrote, do one thing, write it down.

Every node takes the loop and the state and returns the update of the state that its stage recorded,
whether the stage ran now or was found done. Nodes do not know that they are in a graph: a plain `for`
loop over them does the same.
"""

from collections.abc import Mapping, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

from agents.evaluation import Sampled, ask_without_gold, evaluate_split, sample_split
from agents.history import (
    ALLOCATION,
    accepted_rounds,
    build_folder,
    gate_folder,
    gate_look,
    measured_folders,
    measurements,
    past_gates,
    past_rounds,
    pool_sizes,
    round_facts,
    written_levels,
)
from agents.loop import REPEATED, Loop, State, stage_inputs, write_failures
from agents.teacher import Failure, Planner, PlannerView
from curriculum.agreement import repeatability
from curriculum.allocation import allocate
from curriculum.catalogue_file import edited_catalogue, mapped, read_catalogue, write_catalogue
from curriculum.errors import UserError
from curriculum.gate import baseline, decide
from curriculum.plan import check_edited, make_plan
from curriculum.plan_file import PlanApproval, read_approval, read_proposed, write_approval, write_proposed
from curriculum.profile import build_profile
from curriculum.records import BASE, Diagnosis, SkillLabel, Split, Verdict, content_id
from curriculum.report_words import visible
from curriculum.round_records import MissingSkillProfile, RoundPlan
from curriculum.rundir import read_json, read_record, read_records, write_json, write_record, write_records
from curriculum.signals import with_measured_difficulty
from curriculum.teacher_config import Role
from curriculum.teacher_records import TeacherFailure

APPROVED = "plan.approved.yaml"
CATALOGUE = "catalogue.yaml"
TOLD = "told.journal"
"""What a planner is told that changes from minute to minute; gone when its stage is done."""


def catalogue(loop: Loop, state: State) -> State:
    """The teacher names the skills; those of an LLM a person may rename, merge and drop."""
    inputs = stage_inputs(loop, loop.run.stage_path("prepare"))
    folder = loop.run.stage_path("catalogue")
    file = folder / CATALOGUE

    def work(folder: Path) -> Mapping[str, Any]:
        proposed = loop.teacher.propose_skills(loop.split("pool"))
        if loop.config.teacher.kind == "offline":
            write_record(folder / "skills.json", proposed)
            return {}
        if not file.exists():
            write_catalogue(file, proposed, approved=not loop.config.teacher.catalogue.approve)
        edited = read_catalogue(file)
        if not edited.approved:
            raise _WaitingForApproval(file)
        made, moved = edited_catalogue(proposed, edited, file)
        write_record(folder / "proposed.json", proposed)
        write_json(folder / "moved.json", {"schema_version": 1, "moved": moved})
        write_record(folder / "skills.json", made)
        return {}

    try:
        update = loop.stage(folder, inputs, work)
    except _WaitingForApproval:
        return {"waiting_for": str(file)}
    return {**update, "waiting_for": ""}


def label(loop: Loop, state: State) -> State:
    """The teacher labels every example with skills and difficulty, unless the student's own measure that is wanted."""
    sampled = _undeclared(loop)
    inputs = stage_inputs(
        loop, loop.run.stage_path("prepare"), loop.run.stage_path("catalogue"), *(s.folder for s in sampled)
    )

    def work(folder: Path) -> Mapping[str, Any]:
        signals = {item.example_id: item for of_split in sampled for item in of_split.signals}
        labels: list[SkillLabel] = []
        failures: list[TeacherFailure] = []
        for made in loop.teacher.label(loop.examples.values(), loop.proposed):
            if isinstance(made, SkillLabel):
                skills = mapped(made.skills, loop.moved_skills)
                if skills:
                    kept = made.model_copy(update={"skills": skills})
                    labels.append(with_measured_difficulty(kept, loop.examples[made.example_id], signals))
                else:
                    failures.append(failed(made.example_id, "label", "all of its skills were dropped"))
            else:
                failures.append(made)
        labels.sort(key=lambda r: r.example_id)
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
    evaluate_split(loop, adapter, "probe")
    if loop.config.student.signals is not None:
        sample_split(loop, adapter, "probe")
    ask_without_gold(loop, adapter)
    return {}


def diagnose(loop: Loop, state: State) -> State:
    """The teacher names the missing skills of every failed probe answer."""
    adapter = loop.adapter_files(state["adapter"], state["adapter_round"])
    probe = evaluate_split(loop, adapter, "probe")
    asked = ask_without_gold(loop, adapter)
    inputs = stage_inputs(loop, loop.run.stage_path("label"), probe.folder, *(a.folder for a in asked))

    def work(folder: Path) -> Mapping[str, Any]:
        wrong = [
            Failure(loop.examples[grade.example_id], answer, grade, loop.labels[grade.example_id])
            for answer, grade in zip(probe.answers, probe.grades, strict=True)
            if grade.verdict not in (Verdict.CORRECT, Verdict.FAILED)
        ]
        wrong += [
            Failure(loop.examples[a.example_id], a, None, loop.labels[a.example_id])
            for of_probe in asked
            for a in of_probe.difficult
        ]
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
    """Grades, labels and diagnoses become the missing-skill profile."""
    round_ = state["round"]
    adapter = loop.adapter_files(state["adapter"], state["adapter_round"])
    probe = evaluate_split(loop, adapter, "probe")
    sampled = [sample_split(loop, adapter, "probe")] if loop.config.student.signals is not None else []
    asked = ask_without_gold(loop, adapter)
    diagnosed = loop.run.round_stage(round_, "diagnose")
    read = (loop.run.stage_path("catalogue"), loop.run.stage_path("label"), probe.folder, diagnosed)
    folders = [s.folder for s in sampled] + [s.folder for s in asked]
    inputs = stage_inputs(loop, *read, *folders)

    def work(folder: Path) -> Mapping[str, Any]:
        diagnoses = read_records(diagnosed / "diagnoses.jsonl", Diagnosis)
        signals = [item for of_split in sampled for item in of_split.signals if item.example_id in loop.labels]
        consistency = [item for of_probe in asked for item in of_probe.consistency]
        made = build_profile(
            round_, state["adapter"], loop.labels, probe.grades, diagnoses, loop.catalogue, signals, consistency
        )
        write_record(folder / "profile.json", made)
        return {}

    return loop.stage(loop.run.round_stage(round_, "profile"), inputs, work)


def plan(loop: Loop, state: State) -> State:
    """The controller decides which rows to reweight and which to have written, or to stop: the rule, or an LLM."""
    round_ = state["round"]
    profiled = loop.run.round_stage(round_, "profile")
    past = [stage for r in range(1, round_) for stage in (loop.run.round_stage(r, "approve"), gate_folder(loop, r))]
    if loop.planner is not None:
        past += [build_folder(loop, r) for r in range(1, round_)]
    read = dict.fromkeys([profiled, *past, *measured_folders(loop, round_)])
    inputs = stage_inputs(loop, loop.run.stage_path("label"), *read)

    def work(folder: Path) -> Mapping[str, Any]:
        missing = read_record(profiled / "profile.json", MissingSkillProfile)
        sizes, levels = pool_sizes(loop), written_levels(loop)
        allocation = allocate(round_, loop.config, measurements(loop, round_), loop.catalogue, sizes, levels)
        if allocation is not None:
            write_record(folder / ALLOCATION, allocation)
        made = make_plan(
            round_,
            loop.config,
            missing,
            loop.catalogue,
            sizes,
            past_rounds(loop, round_),
            levels,
            sum(len(loop.new_rows(r)) for r in accepted_rounds(loop, round_)),
            allocation,
        )
        if loop.planner is not None and made.action == "train":
            made = _planned(loop, loop.planner, folder, missing, made)
        write_proposed(folder / "plan.proposed.yaml", made)
        return {"action": made.action}

    return loop.stage(loop.run.round_stage(round_, "plan"), inputs, work)


def _planned(loop: Loop, planner: Planner, folder: Path, missing: MissingSkillProfile, by_rule: RoundPlan) -> RoundPlan:
    """The planner's plan; where it cannot be used the rule's, which says why."""
    past = round_facts(loop, by_rule.round)
    told = folder / TOLD
    if not told.exists():
        # What is spent moves on: a killed stage asks again in the same words, so that no reply is bought twice.
        write_json(told, {"schema_version": 1, "budget": planner.budget_words(sum(facts.kept for facts in past))})
    view = PlannerView(
        loop.config.plan,
        missing,
        loop.catalogue,
        pool_sizes(loop),
        written_levels(loop),
        past,
        read_json(told)["budget"],
    )
    made, failures = planner.plan(view, by_rule)
    write_failures(folder, failures)
    if made.fallback:
        loop.say(f"round {made.round}: the LLM's plan cannot be used, so the rule planned ({visible(made.fallback)})")
    return made


def approve(loop: Loop, state: State) -> State:
    """The plan is approved as it is, or waits for a person who may edit it."""
    round_ = state["round"]
    proposed = loop.run.round_stage(round_, "plan")
    folder = loop.run.round_stage(round_, "approve")
    wait = loop.config.plan.approve and state["action"] == "train"
    file = folder / APPROVED

    def work(folder: Path) -> Mapping[str, Any]:
        made = read_proposed(proposed / "plan.proposed.yaml")
        if not file.exists():
            by, reason = ("", "") if wait else ("the config", "plan.approve is false")
            write_approval(file, PlanApproval(approved=not wait, by=by, reason=reason, plan=made))
        approval = read_approval(file)
        if not approval.approved:
            raise _WaitingForApproval(file)
        faults = check_edited(made, approval.plan, pool_sizes(loop), loop.catalogue, written_levels(loop))
        if faults:
            raise UserError(f"{file}: the approved plan cannot be followed:\n" + "\n".join(f"  {f}" for f in faults))
        return {"action": approval.plan.action}

    try:
        update = loop.stage(folder, stage_inputs(loop, proposed), work)
    except _WaitingForApproval:
        return {"waiting_for": str(file)}
    return {**update, "waiting_for": ""}


def failed(item_id: str, role: Role, reason: str) -> TeacherFailure:
    """An item whose skills a person's edits took away."""
    return TeacherFailure(item_id=item_id, role=role, kind="unknown_skill", reason=reason)


class _WaitingForApproval(Exception):
    """Leaves the stage undone: a person has not approved the plan or the catalogue yet."""


def gate(loop: Loop, state: State) -> State:
    """Current and candidate adapter answer the gate split; the candidate is accepted or rolled back."""
    round_ = state["round"]
    current = evaluate_split(loop, loop.adapter_files(state["adapter"], state["adapter_round"]), "gate")
    candidate = evaluate_split(loop, loop.adapter_files(state["candidate"], round_), "gate") if round_ else None
    read = [current.folder, *([candidate.folder] if candidate else []), *past_gates(loop, round_)]
    inputs = stage_inputs(loop, loop.run.stage_path("label"), *read)

    def work(folder: Path) -> Mapping[str, Any]:
        if candidate is None:
            decision = baseline(round_, state["adapter"], current.grades, loop.labels)
        else:
            names, grades = (state["adapter"], state["candidate"]), (current.grades, candidate.grades)
            look = gate_look(loop, round_)
            decision = decide(round_, *names, *grades, loop.labels, loop.config.gate, look)
        write_record(folder / "decision.json", decision)
        accepted = decision.decision == "accepted"
        return {"adapter": state["candidate"], "adapter_round": round_} if accepted else {}

    return loop.stage(gate_folder(loop, round_), inputs, work)
