"""A person's decision on a proposed plan: whether it is complete, what it changed, and what another run recorded.

Pure functions over plans and approvals; files of plans are in `plan_file`.
"""

from collections.abc import Mapping
from math import isfinite

from pydantic import Field

from curriculum.plan_file import PlanApproval
from curriculum.records import Part, Record
from curriculum.round_records import RoundPlan, SkillPlan

AUTOMATIC = "the config"
"""Who approves a plan that waits for nobody."""


class PlanDecision(Part):
    """Who approved a round's plan and why, for its report."""

    by: str
    reason: str
    changed: tuple[str, ...] = Field(description="what differs from the proposed plan, in words; empty: nothing")
    taken_from: str | None = Field(description="the run in which it was decided on the same proposed plan")


class RecordedDecision(Record):
    """A decision that another run recorded, with what it was made on."""

    run: str
    labels: str = Field(description="hash of the labelled examples, which fix the rows that can be drawn")
    proposed: RoundPlan
    approval: PlanApproval


def automatic(plan: RoundPlan) -> PlanApproval:
    """The approval of a plan that waits for nobody."""
    return PlanApproval(approved=True, by=AUTOMATIC, reason="plan.approve is false", plan=plan)


def plan_decision(proposed: RoundPlan, approval: PlanApproval) -> PlanDecision | None:
    """The decision for the report; none where nobody decided."""
    if approval.by == AUTOMATIC:
        return None
    changed = tuple(plan_changes(proposed, approval.plan))
    return PlanDecision(by=approval.by, reason=approval.reason, changed=changed, taken_from=approval.taken_from)


def decision_faults(proposed: RoundPlan, approval: PlanApproval) -> list[str]:
    """What a decision lacks: a name, a reason, a number that can be trained with; empty when it is complete."""
    faults = name_faults(approval.by, approval.reason)
    if approval.by == AUTOMATIC and (changed := plan_changes(proposed, approval.plan)):
        faults.append(f"by: expected the name of who changed the plan ({'; '.join(changed)}), got {AUTOMATIC!r}")
    if not isfinite(approval.plan.learning_rate):
        faults.append(f"plan.learning_rate: expected a finite number, got {approval.plan.learning_rate}")
    return faults


def name_faults(by: str, reason: str) -> list[str]:
    """A decision needs who made it, and why."""
    faults = [] if by.strip() else ["by: expected the name of who approves, got nothing"]
    return faults + ([] if reason.strip() else ["reason: expected why it is approved, got nothing"])


def plan_changes(before: RoundPlan, after: RoundPlan) -> list[str]:
    """How a plan differs from another, one phrase a change; empty when they are the same."""
    changes = [
        f"{name.replace('_', ' ')} {_said(was)} → {_said(now)}"
        for name in RoundPlan.model_fields
        if name != "skills" and (was := getattr(before, name)) != (now := getattr(after, name))
    ]
    old, new = ({part.skill: part for part in plan.skills} for plan in (before, after))
    changes += [f"{skill} left out" for skill in sorted(old.keys() - new.keys())]
    changes += [f"{skill} added: {_rows_said(new[skill])}" for skill in sorted(new.keys() - old.keys())]
    for skill in sorted(old.keys() & new.keys()):
        changes += [f"{skill}: {change}" for change in _skill_changes(old[skill], new[skill])]
    if old.keys() == new.keys() and list(old) != list(new):
        changes.append("the order of the skills")
    return changes


def _skill_changes(old: SkillPlan, new: SkillPlan) -> list[str]:
    changes = []
    if old.pool_rows != new.pool_rows:
        changes.append(f"pool rows {old.pool_rows} → {new.pool_rows}")
    if _without_zeros(old.written_rows) != _without_zeros(new.written_rows):
        changes.append(f"written rows {levels_said(old.written_rows)} → {levels_said(new.written_rows)}")
    if old.share != new.share:
        changes.append(f"share {100 * old.share:.1f} % → {100 * new.share:.1f} %")
    if old.reason != new.reason:
        changes.append("the reason was rewritten")
    if old.missing != new.missing:
        changes.append(f"missing {old.missing} → {new.missing}")
    return changes


def _without_zeros(rows: Mapping[int, int]) -> dict[int, int]:
    return {level: count for level, count in rows.items() if count}


def levels_said(rows: Mapping[int, int]) -> str:
    """`4 × d1, 2 × d3`: rows by difficulty."""
    return ", ".join(f"{count} × d{level}" for level, count in sorted(rows.items()) if count) or "none"


def _rows_said(part: SkillPlan) -> str:
    return f"{part.pool_rows} pool rows, written {levels_said(part.written_rows)}"


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def decision_words(decision: PlanDecision | None) -> str:
    """Who approved a plan, why, and what was changed; empty where nobody decided."""
    if decision is None:
        return ""
    changed = f"Changed: {'; '.join(decision.changed)}." if decision.changed else "Nothing was changed."
    taken = f" The decision was made in the run {decision.taken_from}, on the same plan." if decision.taken_from else ""
    return f"Approved by {decision.by}: {decision.reason.rstrip('.')}. {changed}{taken}"
