"""The nodes that decide: `plan` and `approve` say what a round teaches, `gate` whether its adapter stays.

As in `nodes`: each reads what earlier stages wrote, does one thing, and writes it down.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.earlier_decisions import taken_decision
from agents.evaluation import evaluate_split
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
    read_mastery,
    read_profile,
    round_facts,
    written_levels,
)
from agents.loop import Loop, State, WaitingForApproval, stage_inputs, write_failures
from agents.pool_difficulty import planned_difficulty, pool_difficulty
from agents.proposal import show_proposal
from agents.retention import Retained, replay_first, retained
from agents.teacher import Planner, PlannerView
from curriculum.allocation import allocate
from curriculum.approval import automatic, decision_faults, decision_words, plan_decision
from curriculum.errors import UserError
from curriculum.gate import baseline, decide
from curriculum.plan import make_plan
from curriculum.plan_check import check_edited
from curriculum.plan_file import (
    APPROVED,
    PROPOSED,
    PlanApproval,
    read_approval,
    read_proposed,
    write_approval,
    write_proposed,
)
from curriculum.report_words import visible
from curriculum.retention import retention_parts
from curriculum.round_records import RoundPlan
from curriculum.rundir import read_json, write_json, write_record

TOLD = "told.journal"
"""What a planner is told that changes from minute to minute; gone when its stage is done."""


def plan(loop: Loop, state: State) -> State:
    """The controller decides which rows to reweight and which to have written, or to stop: the rule, or an LLM."""
    round_ = state["round"]
    profiled = loop.run.round_stage(round_, "profile")
    past = [stage for r in range(1, round_) for stage in (loop.run.round_stage(r, "approve"), gate_folder(loop, r))]
    if loop.planner is not None:
        past += [build_folder(loop, r) for r in range(1, round_)]
    read = dict.fromkeys([profiled, *past, *measured_folders(loop, round_)])
    adaptive = loop.config.plan.difficulty == "adaptive"
    measured = pool_difficulty(loop, round_) if adaptive else None
    inputs = stage_inputs(loop, loop.run.stage_path("label"), *read, *(measured.folders if measured else ()))

    def work(folder: Path) -> Mapping[str, Any]:
        missing, mastery = read_profile(loop, round_), read_mastery(loop, round_)
        sizes, levels = pool_sizes(loop), written_levels(loop)
        allocation = allocate(round_, loop.config, measurements(loop, round_), loop.catalogue, sizes, levels, mastery)
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
            mastery,
            replay_first(loop, round_),
        )
        if measured is not None and made.action == "train":
            made = made.model_copy(update={"difficulty": planned_difficulty(loop, made, measured)})
        if loop.planner is not None and made.action == "train":
            made = _planned(loop, loop.planner, folder, made)
        write_proposed(folder / PROPOSED, made)
        return {"action": made.action}

    return loop.stage(loop.run.round_stage(round_, "plan"), inputs, work)


def _planned(loop: Loop, planner: Planner, folder: Path, by_rule: RoundPlan) -> RoundPlan:
    """The planner's plan; where it cannot be used the rule's, which says why."""
    past = round_facts(loop, by_rule.round)
    told = folder / TOLD
    if not told.exists():
        # What is spent moves on: a killed stage asks again in the same words, so that no reply is bought twice.
        write_json(told, {"schema_version": 1, "budget": planner.budget_words(sum(facts.kept for facts in past))})
    view = PlannerView(
        loop.config.plan,
        read_profile(loop, by_rule.round),
        loop.catalogue,
        pool_sizes(loop),
        written_levels(loop),
        past,
        read_json(told)["budget"],
        read_mastery(loop, by_rule.round),
    )
    made, failures = planner.plan(view, by_rule)
    write_failures(folder, failures)
    if made.fallback:
        loop.say(f"round {made.round}: the LLM's plan cannot be used, so the rule planned ({visible(made.fallback)})")
    return made


def approve(loop: Loop, state: State) -> State:
    """The plan is approved as it is, or as another run decided on it, or waits for a person who may edit it."""
    round_ = state["round"]
    proposed = loop.run.round_stage(round_, "plan")
    folder = loop.run.round_stage(round_, "approve")
    wait = loop.config.plan.approve and state["action"] == "train"
    file = folder / APPROVED
    asked_anew = ""

    def work(folder: Path) -> Mapping[str, Any]:
        nonlocal asked_anew
        made = read_proposed(proposed / PROPOSED)
        taken, asked_anew = taken_decision(loop, made)
        if not file.exists():
            undecided = PlanApproval(approved=False, by="", reason="", plan=made)
            write_approval(file, taken or (undecided if wait else automatic(made)))
        approval = read_approval(file)
        if not approval.approved:
            raise WaitingForApproval(file)
        edited = check_edited(made, approval.plan, pool_sizes(loop), loop.catalogue, written_levels(loop))
        faults = [*decision_faults(made, approval), *edited]
        if faults:
            raise UserError(f"{file}: the approved plan cannot be followed:\n" + "\n".join(f"  {f}" for f in faults))
        if decision := plan_decision(made, approval):
            show_proposal(loop, round_)
            loop.say(f"round {round_}: {visible(decision_words(decision))}")
        return {"action": approval.plan.action}

    try:
        update = loop.stage(folder, stage_inputs(loop, proposed), work)
    except WaitingForApproval:
        show_proposal(loop, round_, asked_anew)
        if asked_anew:
            loop.say(f"round {round_}: {visible(asked_anew)}")
        return {"waiting_for": str(file)}
    return {**update, "waiting_for": ""}


def gate(loop: Loop, state: State) -> State:
    """Current and candidate adapter answer the gate split; the candidate is accepted or rolled back."""
    round_ = state["round"]
    current_files = loop.adapter_files(state["adapter"], state["adapter_round"])
    current, candidate, kept = evaluate_split(loop, current_files, "gate"), None, Retained([], [])
    if round_:
        files = loop.adapter_files(state["candidate"], round_)
        candidate = evaluate_split(loop, files, "gate")
        kept = retained(loop, round_, (current_files, files), (current, candidate))
    answered = [current.folder, *([candidate.folder] if candidate else []), *kept.folders]
    inputs = stage_inputs(loop, loop.run.stage_path("label"), *answered, *past_gates(loop, round_))

    def work(folder: Path) -> Mapping[str, Any]:
        if candidate is None:
            decision = baseline(round_, state["adapter"], current.grades, loop.labels)
        else:
            names, grades = (state["adapter"], state["candidate"]), (current.grades, candidate.grades)
            parts, look = retention_parts(kept.parts, loop.config.gate.retrain_sd), gate_look(loop, round_)
            decision = decide(round_, *names, *grades, loop.labels, loop.config.gate, look, parts)
        write_record(folder / "decision.json", decision)
        accepted = decision.decision == "accepted"
        return {"adapter": state["candidate"], "adapter_round": round_} if accepted else {}

    return loop.stage(gate_folder(loop, round_), inputs, work)
