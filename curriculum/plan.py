"""The plan of a round: how many rows each skill gets, drawn from the pool or written, or why the run stops.

Takes the missing-skill profile, the history of approved plans, and what the pool and the teacher can give;
returns a `RoundPlan`. Every skill that is missing gets the same share, over a uniform floor; other rules are in
`allocation`. Draws no rows and calls no one; `plan_check` says whether a person's plan can be followed.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple, Protocol

from curriculum.allocation import shares_by_rule
from curriculum.config import Config
from curriculum.mastery import Mastery, SkillMastery, at_target, demand, remember
from curriculum.mixture import apportion, skill_shares
from curriculum.plan_config import PlanConfig
from curriculum.records import Rate, Skill, SkillCatalogue, content_id
from curriculum.round_records import Allocation, MissingSkillProfile, RoundPlan, Rule, SkillPlan


class PastRound(NamedTuple):
    """An earlier round: the plan it followed, and whether its adapter was accepted."""

    plan: RoundPlan
    accepted: bool


class Standing(NamedTuple):
    """Where one skill stands, and what can be given for it."""

    skill: str
    missing: int
    accuracy: Rate
    mastery: SkillMastery
    at_target: bool
    """Whether this round's answers reach `plan.target_rate`, however few they are."""
    asked_without_gold: int
    in_pool: bool
    levels: tuple[int, ...]
    """Difficulties that can be written, easiest first; empty when none may be."""
    missing_at: dict[int, int]
    """Missing counts of the cells, each at the nearest level that can be written."""

    @property
    def teachable(self) -> bool:
        """Whether rows of it can be given at all."""
        return self.in_pool or bool(self.levels)


class _Draft(Protocol):
    """Makes the plan of this round with a learning rate and, after rollbacks, with easier or even rows."""

    def __call__(self, learning_rate: float, easier: bool = False, even: bool = False) -> RoundPlan: ...


def make_plan(
    round_: int,
    config: Config,
    profile: MissingSkillProfile,
    catalogue: SkillCatalogue,
    pool_sizes: Mapping[str, Mapping[int, int]],
    history: Sequence[PastRound],
    written_levels: Mapping[str, Sequence[int]],
    accepted_rows: int,
    allocation: Allocation | None = None,
    mastery: Mastery | None = None,
    replay_first: Sequence[str] = (),
) -> RoundPlan:
    """Plans a round, or stops: on too many rollbacks in a row, nothing to teach, or every skill at the target.

    The new rows add up to `plan.rows_per_round`, or to `plan.draws_per_failure` for each time a skill that can be
    taught was missing where that is less; with nothing missing to the former. About `plan.write_share` of them are
    written, as nearly as the skills allow: one without pool rows is all written, one that cannot be written is all
    drawn, and at a share of 0 nothing is written. The learning rate goes on from the last plan. Every round has its own
    seed.

    Args:
        round_: from 1 on.
        config: its `plan`, `training` and `seed` are used.
        profile: the probe result of the current adapter, with an entry for every skill of the catalogue.
        catalogue: the skills of the run.
        pool_sizes: skill → difficulty → items in the pool.
        history: every earlier round that trained, oldest first.
        written_levels: skill → difficulties that the teacher can write.
        accepted_rows: rows of earlier accepted rounds, for replay.
        allocation: from `allocate`; needed where `plan.allocation` is `learnability` or `expected_gain`.
        mastery: from `remember`; without it this profile is all that is remembered.
        replay_first: skills whose rows are replayed before others.
    """
    standings = skill_standings(config.plan, profile, catalogue, pool_sizes, written_levels, mastery)
    rollbacks = rollbacks_in_a_row(history)
    learning_rate = history[-1].plan.learning_rate if history else config.training.learning_rate
    base = RoundPlan(
        round=round_,
        action="train",
        replay_rows=accepted_rows if config.plan.replay_rows is None else min(accepted_rows, config.plan.replay_rows),
        replay_first=tuple(replay_first),
        learning_rate=learning_rate,
        epochs=config.training.epochs,
        seed=int(content_id([config.seed, round_], 8), 16),
    )
    settings = _with_draws(config.plan, standings)
    stop = _stop_reason(settings, standings, rollbacks)
    if stop:
        return base.model_copy(update={"action": "stop", "stop_reason": stop, "replay_rows": 0, "replay_first": ()})
    draft = partial(_draft, base, settings, standings, allocation)
    return _after_rollback(rollbacks, history[-1].plan, draft) if rollbacks else draft(learning_rate)


def rollbacks_in_a_row(history: Sequence[PastRound]) -> int:
    """How many of the last rounds were rolled back, one after another."""
    return next((i for i, past in enumerate(reversed(history)) if past.accepted), len(history))


def skill_standings(
    config: PlanConfig,
    profile: MissingSkillProfile,
    catalogue: SkillCatalogue,
    pool_sizes: Mapping[str, Mapping[int, int]],
    written_levels: Mapping[str, Sequence[int]],
    mastery: Mastery | None = None,
) -> list[Standing]:
    """Where each skill stands, sorted by id; arguments as in `make_plan`."""
    known = (mastery or remember([profile], config)).by_skill
    return [
        _standing(skill, known[skill.id], profile, config, pool_sizes, written_levels)
        for skill in sorted(catalogue.skills, key=lambda s: s.id)
    ]


def _standing(
    skill: Skill,
    mastery: SkillMastery,
    profile: MissingSkillProfile,
    config: PlanConfig,
    pool_sizes: Mapping[str, Mapping[int, int]],
    written_levels: Mapping[str, Sequence[int]],
) -> Standing:
    overall = next(part for part in profile.skills if part.skill == skill.id)
    may_write = skill.writable and config.write_share > 0
    levels = tuple(sorted(written_levels.get(skill.id, ()))) if may_write else ()
    missing_at = dict.fromkeys(levels, 0)
    for cell in profile.cells:
        if levels and cell.skill == skill.id and cell.difficulty is not None:
            missing_at[_nearest(cell.difficulty, levels)] += cell.missing
    return Standing(
        skill=skill.id,
        missing=overall.missing,
        accuracy=overall.accuracy,
        mastery=mastery,
        at_target=at_target(overall, config),
        asked_without_gold=overall.without_gold.items if overall.without_gold else 0,
        in_pool=sum(pool_sizes.get(skill.id, {}).values()) > 0,
        levels=levels,
        missing_at=missing_at,
    )


def _nearest(difficulty: int, levels: Sequence[int]) -> int:
    """The level nearest to a difficulty, the easier of two."""
    return min(levels, key=lambda level: (abs(level - difficulty), level))


def _stop_reason(config: PlanConfig, standings: Sequence[Standing], rollbacks: int) -> str | None:
    if rollbacks >= config.patience:
        return f"{rollbacks} rollbacks in a row; plan.patience is {config.patience}"
    teachable = [s for s in standings if s.teachable]
    if not teachable:
        return f"nothing to teach: no skill has pool rows or can be written; plan.write_share is {config.write_share:g}"
    measured = [s for s in teachable if s.accuracy.n]
    if measured and all(s.at_target for s in measured):
        return f"all {len(measured)} skills measured on the probe are right in {_percent(config.target_rate)} or more"
    return None


def _with_draws(config: PlanConfig, standings: Sequence[Standing]) -> PlanConfig:
    """The settings with the rows that k draws for each missing skill of each failure come to, `rows_per_round` at most.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), stage 3a, where k is 5 and the rows are cut to 9,500.
    """
    missing = sum(s.missing for s in standings if s.teachable)
    if config.draws_per_failure is None or not missing:
        return config
    rows = min(config.rows_per_round, config.draws_per_failure * missing)
    return config.model_copy(update={"rows_per_round": rows})


def _draft(
    base: RoundPlan,
    config: PlanConfig,
    standings: Sequence[Standing],
    allocation: Allocation | None,
    learning_rate: float,
    easier: bool = False,
    even: bool = False,
) -> RoundPlan:
    uniform_floor = 1.0 if even else config.uniform_floor
    most = 1 if config.allocation == "even" else sum(s.missing for s in standings)
    demands = {s.skill: demand(s.mastery, min(s.missing, most), config) for s in standings if s.teachable}
    if even or allocation is None or allocation.rule in ("even", "failures"):
        shares = skill_shares(demands, uniform_floor)
        demanded = {skill for skill, failures in demands.items() if failures}
    else:
        shares = shares_by_rule(allocation)
        demanded = set(shares)
    rows = apportion(shares, config.rows_per_round)
    written = _written(standings, rows, config)
    by_floor = Fraction(uniform_floor) / len(shares)
    parts = []
    for s in standings:
        share = shares.get(s.skill, Fraction(0))
        levels = written_by_level(s, written.get(s.skill, 0), easier)
        parts.append(
            SkillPlan(
                skill=s.skill,
                missing=s.missing,
                share=float(share),
                pool_rows=rows.get(s.skill, 0) - sum(levels.values()),
                written_rows=levels,
                reason=_reason(s, share, by_floor if s.skill in demanded else share, config.allocation),
            )
        )
    return base.model_copy(update={"skills": tuple(parts), "learning_rate": learning_rate})


def _written(standings: Sequence[Standing], rows: Mapping[str, int], config: PlanConfig) -> dict[str, int]:
    """How many of each skill's rows are written, so that the total is as near `write_share` as can be."""
    write_only = {s.skill: rows[s.skill] for s in standings if s.levels and not s.in_pool}
    either = {s.skill: rows[s.skill] for s in standings if s.levels and s.in_pool}
    wanted = config.written_rows - sum(write_only.values())
    return write_only | apportion(either, min(max(wanted, 0), sum(either.values())))


def written_by_level(standing: Standing, rows: int, easier: bool = False) -> dict[int, int]:
    """A skill's written rows by difficulty: where it was missing, or evenly; `easier` moves each one level down."""
    weights = standing.missing_at if any(standing.missing_at.values()) else dict.fromkeys(standing.levels, 1)
    if easier:
        moved = dict.fromkeys(standing.levels, 0)
        for below, level in zip((standing.levels[:1] + standing.levels), standing.levels, strict=False):
            moved[below] += weights[level]
        weights = moved
    return {level: count for level, count in apportion(weights, rows).items() if count}


def _reason(standing: Standing, share: Fraction, by_floor: Fraction, rule: Rule) -> str:
    right, n = standing.accuracy.correct, standing.accuracy.n
    if not standing.teachable:
        rows = "no rows: the pool has none and none may be written"
    elif round(share - by_floor, 3):  # what is not printed as 0.0 %
        by = "even split" if rule == "even" else rule.replace("_", " ")
        rows = f"{_percent(share - by_floor)} of the rows by {by}, {_percent(by_floor)} by the uniform floor"
    else:
        rows = f"{_percent(share)} of the rows by the uniform floor"
    if standing.levels and not standing.in_pool:
        rows += "; all written, the pool has none"
    if standing.mastery.mastered:
        return f"mastered, right in {right} of {n} probe answers; {rows}"
    slipped = "slipped, " if standing.mastery.state == "slipped" else ""
    unjudged = f"{standing.asked_without_gold} asked without a gold answer" if standing.asked_without_gold else ""
    answers = f"right in {right} of {n}" if n else "" if unjudged else "no probe answers need it"
    answers = ", ".join(part for part in (answers, unjudged) if part)
    return f"{slipped}missing in {standing.missing} failed probe answers, {answers}; {rows}"


def _after_rollback(rollbacks: int, rejected: RoundPlan, draft: _Draft) -> RoundPlan:
    """The first rollback in a row makes written rows easier, the second halves the learning rate, the third
    spreads rows evenly; each is kept. One that would change nothing gives way to a halved learning rate.
    """
    learning_rate = rejected.learning_rate
    even = rollbacks >= 3
    plan = draft(learning_rate, easier=True, even=even)
    if rollbacks == 1 and _levels(plan) not in (_levels(draft(learning_rate)), _levels(rejected)):
        changed = "written rows one difficulty level easier than the failures"
    elif rollbacks == 3 and _rows(plan) not in (_rows(draft(learning_rate)), _rows(rejected)):
        changed = "rows spread evenly over the skills"
    else:
        plan = draft(learning_rate / 2, easier=True, even=even)
        changed = f"learning rate halved from {learning_rate:g} to {learning_rate / 2:g}"
    if plan.replay_rows and set(plan.replay_first) - set(rejected.replay_first):
        changed += f"; replay first of {', '.join(plan.replay_first)}"
    return plan.model_copy(update={"changed": f"{changed}; new seed"})


def _levels(plan: RoundPlan) -> dict[tuple[str, int], int]:
    return {(s.skill, level): rows for s in plan.skills for level, rows in s.written_rows.items() if rows}


def _rows(plan: RoundPlan) -> dict[str, int]:
    return {s.skill: s.pool_rows + sum(s.written_rows.values()) for s in plan.skills}


def _percent(share: Fraction | float) -> str:
    return f"{100 * float(share):.1f} %"
