"""The planner: a model that gives a round's rows to skills in place of the rule (role `plan`).

It is shown counts, never a text of the data but the names of skills. Whether to train or stop, the floor, replay,
the learning rate and the seed stay the rule's. A plan that breaks a bound goes back once with the fault; if the second
one does, too, the rule plans.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError

from agents.asking import Asker, Question, failed
from agents.ledger import NANO, Ledger, Purpose
from agents.prompting import data_block, resolved, skill_ids
from agents.replies import ONLY, Checked, PlanReply, Rejected
from agents.teacher import PlannerView, RoundFacts
from curriculum.mixture import apportion
from curriculum.plan import Standing, skill_standings, written_by_level
from curriculum.plan_check import check_edited
from curriculum.records import Skill
from curriculum.report_evidence import state_of
from curriculum.report_words import change_words, rate_words
from curriculum.round_records import RoundPlan, SkillPlan, SkillProfile
from curriculum.teacher_records import TeacherFailure

REASON_CHARS = 400
"""Of a model's reason that a plan keeps."""
SHOWN_REASONS = 4
"""Reasons why written rows were thrown away that are shown of a round."""
CHANGES_NAMED = 3
Rows = Mapping[tuple[str, int], int]
"""Skill and difficulty → rows; difficulty 0 stands for the pool."""


class _Bounds(NamedTuple):
    """What a plan may give away, and what it gets beside that."""

    standings: Sequence[Standing]
    rows: int
    written: int
    """Most rows that may be written; those of skills that the pool lacks may be more."""
    floor: Mapping[str, int]
    """Skill → rows it gets whatever the plan says."""


async def ask_plan(asker: Asker, view: PlannerView, by_rule: RoundPlan) -> tuple[RoundPlan, list[TeacherFailure]]:
    """The model's plan of a round, or the rule's with the cause, and then the failure.

    Raises:
        TutelageError: what stops a run, see `ChatClient.ask`.
    """
    checked: Checked[PlanReply] = await asker.ask(plan_question(asker, view, by_rule))
    if ONLY in checked.rows:
        return planned(checked.rows[ONLY], view, by_rule), []
    fault = checked.faults[ONLY]
    failure = failed(f"plan of round {by_rule.round}", "plan", fault)
    return by_rule.model_copy(update={"fallback": f"{fault.kind}: {failure.reason}"}), [failure]


def plan_question(asker: Asker, view: PlannerView, by_rule: RoundPlan) -> Question:
    """Asks for the rows of a round."""
    bounds = _bounds(view)

    def check(reply: PlanReply) -> PlanReply:
        planned(reply, view, by_rule)
        return reply

    text = asker.prompts["plan"].render(
        skills=data_block("skills", "\n".join(_skill_line(s, view) for s in bounds.standings)),
        history=data_block("history", "\n".join(map(_round_lines, view.past)) or "There is no earlier round."),
        budget=view.budget,
        rows=str(bounds.rows),
        written=str(bounds.written),
        floor=str(sum(bounds.floor.values())),
    )
    names = {"skill": [s.skill for s in bounds.standings]}
    return Question(Purpose("plan", by_rule.round), "plan", text, PlanReply, check, enums=names)


def planned(reply: PlanReply, view: PlannerView, by_rule: RoundPlan) -> RoundPlan:
    """The rule's plan with the rows of a reply, over the floor.

    Raises:
        Rejected: an unknown skill, rows that cannot be given, more rows than there are, or the plan that was rejected.
    """
    bounds = _bounds(view)
    own = {part.skill: part for part in _parts(reply, view)}
    given = by_rule.model_copy(update={"skills": tuple(own.values())})
    if given.new_rows == 0:
        raise Rejected("bad_plan", f"expected from 1 to {bounds.rows} rows in all, got 0")
    if given.new_rows > bounds.rows:
        over = given.new_rows - bounds.rows
        raise Rejected(
            "over_budget", f"the rows add up to {given.new_rows}, at most {bounds.rows} may be given: {over} too many"
        )
    written_only = sum(
        sum(own[s.skill].written_rows.values()) for s in bounds.standings if not s.in_pool and s.skill in own
    )
    if given.written_rows > max(bounds.written, written_only):
        raise Rejected(
            "over_budget",
            f"{given.written_rows} rows are to be written, at most {bounds.written} may be: take rows from the pool",
        )
    levels = {s.skill: s.levels for s in bounds.standings}
    faults = check_edited(by_rule, given, view.pool_sizes, view.catalogue, levels)
    if faults:
        raise Rejected("bad_plan", "; ".join(faults))
    parts = [_with_floor(s, own.get(s.skill), bounds.floor.get(s.skill, 0)) for s in bounds.standings]
    total = sum(p.pool_rows + sum(p.written_rows.values()) for p in parts)
    shared = [p.model_copy(update={"share": (p.pool_rows + sum(p.written_rows.values())) / total}) for p in parts]
    made = by_rule.model_copy(
        update={"by": "llm", "reason": _cut(reply.reason), "skills": tuple(shared), "changed": None}
    )
    last = view.past[-1] if view.past else None
    if last is None or last.decision.decision == "accepted":
        return made
    return made.model_copy(update={"changed": _changed(last.plan, made)})


def reply_of(plan: RoundPlan, view: PlannerView) -> PlanReply:
    """What a model must have replied for `planned` to make this plan of it: its rows and reasons, less the floor.

    Raises:
        Rejected: no reply can have led to it.
    """
    bounds = _bounds(view)
    given = {part.skill: part for part in plan.skills}
    parts = []
    for standing in bounds.standings:
        part, floor = given.get(standing.skill), bounds.floor.get(standing.skill, 0)
        if part is None or part.reason == _floor_words(floor):
            continue
        levels = Counter(part.written_rows)
        if not standing.in_pool:
            levels.subtract(written_by_level(standing, floor))
        parts.append(
            {
                "skill": part.skill,
                "reason": part.reason.removesuffix(f" ({_floor_words(floor)})"),
                "pool_rows": part.pool_rows - (floor if standing.in_pool else 0),
                "written_rows": [{"difficulty": level, "rows": rows} for level, rows in levels.items() if rows],
            }
        )
    try:
        return PlanReply.model_validate({"reason": plan.reason, "skills": parts})
    except ValidationError as error:
        raise Rejected("bad_plan", f"no reply gives these rows: {error.errors()[0]['msg']}") from None


def _floor_words(floor: int) -> str:
    return f"{floor} rows by the uniform floor"


def budget_words(ledger: Ledger, kept: int) -> str:
    """What the teacher may still spend, and what a written row cost so far; `kept` rows were written and kept."""
    scale = {"requests": 1, "tokens": 1, "money": NANO}
    spent, limits = ledger.spent, ledger.limits
    parts = [
        f"{used / scale[name]:g} of {limit / scale[name]:g} {name}"
        for name, used, limit in zip(scale, spent, limits, strict=True)
        if limit is not None
    ]
    sentence = "The teacher's budget: " + (f"{', '.join(parts)} are spent." if parts else "no limit.")
    asked = sum(row.requests for row in ledger.spend() if row.skill)
    return sentence + (f" A written row took about {asked / kept:.1f} requests so far." if kept else "")


def _bounds(view: PlannerView) -> _Bounds:
    config = view.config
    standings = skill_standings(
        config, view.profile, view.catalogue, view.pool_sizes, view.written_levels, view.mastery
    )
    teachable = {s.skill: 1 for s in standings if s.teachable}
    floor = apportion(teachable, config.floor_rows)
    written = round(config.write_share * config.rows_per_round)
    written -= sum(floor.get(s.skill, 0) for s in standings if not s.in_pool)
    return _Bounds(standings, config.rows_per_round - config.floor_rows, max(written, 0), floor)


def _parts(reply: PlanReply, view: PlannerView) -> list[SkillPlan]:
    known = skill_ids(view.catalogue)
    parts = []
    for part in reply.skills:
        (skill,) = resolved([part.skill], known)
        levels: Counter[int] = Counter()
        for level in part.written_rows:
            levels[level.difficulty] += level.rows
        rows = {level: count for level, count in sorted(levels.items()) if count}
        parts.append(
            SkillPlan(
                skill=skill, missing=0, share=0, pool_rows=part.pool_rows, written_rows=rows, reason=_cut(part.reason)
            )
        )
    names = [part.skill for part in parts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Rejected("bad_plan", f"given twice: {', '.join(twice)}; give each skill once")
    return parts


def _with_floor(standing: Standing, own: SkillPlan | None, floor: int) -> SkillPlan:
    levels = Counter(own.written_rows if own else {})
    pool = own.pool_rows if own else 0
    if standing.in_pool:
        pool += floor
    else:
        levels.update(written_by_level(standing, floor))
    by_floor = _floor_words(floor)
    return SkillPlan(
        skill=standing.skill,
        missing=standing.missing,
        share=0,
        pool_rows=pool,
        written_rows={level: count for level, count in sorted(levels.items()) if count},
        reason=f"{own.reason} ({by_floor})" if own else by_floor,
    )


def _changed(rejected: RoundPlan, made: RoundPlan) -> str:
    """What a plan after a rollback does differently; raises `Rejected` when that is nothing."""
    before, after = _rows(rejected), _rows(made)
    slower = made.learning_rate != rejected.learning_rate
    if before == after and not slower:
        raise Rejected("bad_plan", "the last round was rolled back, and this plan gives the same rows: give others")
    moved = {
        skill: (_of_skill(before, skill), _of_skill(after, skill))
        for skill in sorted({s for s, _ in (*before, *after)})
    }
    most = sorted((s for s, (a, b) in moved.items() if a != b), key=lambda s: -abs(moved[s][0] - moved[s][1]))
    changes = [f"{skill} {moved[skill][0]} → {moved[skill][1]} rows" for skill in most[:CHANGES_NAMED]]
    if before != after and not changes:
        changes = ["rows from other origins or at other difficulties"]
    if slower:
        changes.append(f"learning rate {rejected.learning_rate:g} → {made.learning_rate:g}")
    return f"{', '.join(changes)}; new seed"


def _rows(plan: RoundPlan) -> Rows:
    cells = {(s.skill, 0): s.pool_rows for s in plan.skills}
    cells |= {(s.skill, level): rows for s in plan.skills for level, rows in s.written_rows.items()}
    return {cell: rows for cell, rows in cells.items() if rows}


def _of_skill(rows: Rows, skill: str) -> int:
    return sum(count for (name, _), count in rows.items() if name == skill)


def _skill_line(standing: Standing, view: PlannerView) -> str:
    skill = next(s for s in view.catalogue.skills if s.id == standing.skill)
    cells = [c for c in view.profile.cells if c.skill == standing.skill]
    overall = next(p for p in view.profile.skills if p.skill == standing.skill)
    by_level = ", ".join(f"d{c.difficulty} {_probe_words(c)}" for c in cells)
    levels = ", ".join(f"d{level}" for level in standing.levels) or "not at all"
    pool = sum(view.pool_sizes.get(standing.skill, {}).values())
    parts = [
        f"{standing.skill}{_described(skill)}: {_probe_words(overall)}",
        *([f"by difficulty: {by_level}"] if by_level else []),
        f"pool {pool}",
        f"can be written: {levels}",
        *([state_of(view.mastery, standing.skill)] if view.mastery else []),
    ]
    return "; ".join(parts)


def _described(skill: Skill) -> str:
    said = " ".join(skill.description.split())[:200]
    return f" ({said})" if said else ""


def _probe_words(part: SkillProfile) -> str:
    return f"right {rate_words(part.accuracy)}, missing {part.missing} times"


def _round_lines(facts: RoundFacts) -> str:
    plan, decision = facts.plan, facts.decision
    lines = [
        f"round {plan.round}: {decision.decision.replace('_', ' ')}; right on the gate {rate_words(decision.before)} → "
        f"{rate_words(decision.after)}, change in points {change_words(decision.change)}",
        f"  why: {decision.reason}",
    ]
    gains = {s.skill: s.change for s in decision.skills}
    for part in plan.skills:
        written = ", ".join(f"{rows} written at d{level}" for level, rows in sorted(part.written_rows.items()))
        given = ", ".join([f"{part.pool_rows} from the pool", *([written] if written else [])])
        lines.append(f"  {part.skill}: {given}; change in points {change_words(gains.get(part.skill))}")
    if plan.written_rows:
        reasons = sorted(facts.dropped.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN_REASONS]
        thrown = "; ".join(f"{rows} {' '.join(reason.split())[:120]}" for reason, rows in reasons)
        lines.append(
            f"  written: {facts.kept} of {plan.written_rows} kept" + (f"; thrown away: {thrown}" if thrown else "")
        )
    return "\n".join(lines)


def _cut(text: str) -> str:
    return " ".join(text.split())[:REASON_CHARS]
