"""What the role `plan` will be asked in a run, with stand-ins for the counts it is shown."""

from agents.planning import SHOWN_REASONS, plan_question
from agents.teacher import PlannerView, RoundFacts
from agents.teacher_work import FAULT_CHARS, End, Work
from curriculum.mastery import remember
from curriculum.records import Change
from curriculum.round_records import (
    GateDecision,
    GateSkill,
    MissingSkillProfile,
    RoundPlan,
    SkillPlan,
    SkillProfile,
    VerdictCounts,
)
from curriculum.statistics import wilson

LEVELS = (1, 2, 3, 4, 5)
GAINED = Change(n=100, gained=50, lost=50, change=-0.123, low=-0.123, high=-0.123)


def plan_work(end: End) -> Work:
    """A request a round; at the dear end every skill is measured at every level, and every round is shown."""
    if end.config.plan.by == "rule":
        return Work()
    views = [_view(end, end.known.rounds + at if end.most else 0) for at in range(end.rounds)]
    return end.step(
        len(views),
        lambda i: plan_question(end.teacher.asker, views[i], _plan(end, i + 1)),
        groups=len(views),
    )


def _plan(end: End, round_: int) -> RoundPlan:
    rows = end.config.plan.rows_per_round
    parts = [
        SkillPlan(
            skill=skill.id,
            missing=rows,
            share=0,
            pool_rows=rows,
            written_rows=dict.fromkeys(LEVELS, rows) if end.most else {},
            reason="",
        )
        for skill in end.catalogue.skills
    ]
    settings = end.config.training
    return RoundPlan(
        round=round_,
        action="train",
        skills=tuple(parts),
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        seed=0,
    )


def _view(end: End, past: int) -> PlannerView:
    """What the planner is shown, with so many rounds behind it."""
    skills, n = end.catalogue.skills, max(1, len(end.probe))
    counts, rate = VerdictCounts(correct=n, wrong=n), wilson(n, 2 * n)

    def profile(skill: str, level: int | None) -> SkillProfile:
        return SkillProfile(skill=skill, difficulty=level, counts=counts, missing=n, accuracy=rate)

    cells = tuple(profile(s.id, level) for s in skills for level in LEVELS) if end.most else ()
    seen = MissingSkillProfile(
        round=0, adapter="", overall=rate, counts=counts, skills=tuple(profile(s.id, None) for s in skills), cells=cells
    )
    sizes = {s.id: dict.fromkeys(LEVELS, len(end.pool)) for s in skills}
    gained = tuple(GateSkill(skill=s.id, before=rate, after=rate, change=GAINED, p_value=None) for s in skills)
    decision = GateDecision(
        round=1,
        decision="rolled_back",
        reason="x" * FAULT_CHARS,
        current="",
        candidate="",
        before=rate,
        after=rate,
        change=GAINED,
        p_value=None,
        rule="",
        false_accept_rate=None,
        detectable_gain=None,
        skills=gained,
    )
    thrown = {f"{n} {'x' * 120}": n for n in range(SHOWN_REASONS)}
    facts = [RoundFacts(_plan(end, n + 1), decision, end.config.plan.rows_per_round, thrown) for n in range(past)]
    levels = {s.id: LEVELS for s in skills}
    budget = end.teacher.budget_words(0) + ("x" * FAULT_CHARS if end.most else "")
    return PlannerView(
        end.config.plan, seen, end.catalogue, sizes, levels, facts, budget, remember([seen], end.config.plan)
    )
