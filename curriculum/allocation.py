"""Four rules that split a round's new rows over skills: evenly, by failures, by learnability, by expected gain.

Takes the probe results of the accepted adapters so far and the rows they were trained on; returns each skill's
share under every rule, with the gain expected of it. Missing is not the same as learnable: the first rule gives every
skill that fails at all the same, the second asks what fails most, the third what is neither always right nor always
wrong, the fourth what a row still buys.
Draws no rows; the plan turns one rule's shares into rows.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from curriculum.config import Config
from curriculum.learning_curves import Array, Evidence, LearningCurves, expected_half, fit_curves
from curriculum.mastery import Mastery, demand, remember
from curriculum.mixture import skill_shares
from curriculum.records import SkillCatalogue
from curriculum.round_records import Allocation, MissingSkillProfile, RuleShares, SkillAllocation, SkillProfile, Status

CHUNKS = 60
"""Parts in which the rows of all remaining rounds are planned."""
LOOK_AHEAD = (1, 3, 9)
"""Chunks a step may give at once: steep curves have no slope at zero."""
FAILURE_SHARE = 0.1
"""Share of the expected-gain rule's rows that follows failures, so that no curve goes unrefuted."""
MOST_SHARES = 5.0
"""No skill gets more than so many even shares."""
LEAST_ROWS = 2
"""Rows for every skill that is not mastered and not parked, where there are enough."""
DECAYS = (0.0, 0.15, 0.3, 0.45)
"""What a continued adapter may forget of its earlier rows each round."""
PARKED_GAIN, PARKED_ACCURACY = 0.02, 0.85
"""A skill is parked when two further even shares are expected to gain less, below this accuracy."""
LEAST_PARSED = 0.5
"""Share of parsed answers below which the base's failures are of format and say nothing of skills."""


class Measurement(NamedTuple):
    """One adapter's probe result, and what it was trained on beyond the adapter measured before it."""

    profile: MissingSkillProfile
    rows: Mapping[str, int]
    """Skill → rows that need it; empty for the base. Negative where a fresh adapter saw fewer than the last one."""


class Budget(NamedTuple):
    """What is there to give."""

    rows_per_round: int
    rounds: int
    """Of the whole run."""
    rounds_left: int
    """This one included."""


def plan_ahead(curves: LearningCurves, rows_per_round: int, rounds_left: int) -> Array:
    """Each skill's part of all rows left, chunk by chunk to where the next few are expected to gain most: [n_skills].

    Equal gains go to the skill with fewer chunks, then to the earlier one.
    """
    kept = (1 - curves.decay) ** np.arange(rounds_left)
    chunk = rows_per_round * rounds_left / CHUNKS * float(kept.mean())
    start = curves.rows * (1 - curves.decay) ** rounds_left
    n = len(start)
    curve = curves.expected(start[:, None] + chunk * np.arange(CHUNKS + max(LOOK_AHEAD) + 1))
    # Rounded, so that equal skills stay equal whatever the order of additions was.
    gains = np.stack([(curve[:, z : CHUNKS + 1 + z] - curve[:, : CHUNKS + 1]) / z for z in LOOK_AHEAD], axis=1).round(
        12
    )
    chunks, left = np.zeros(n, int), CHUNKS
    while left:
        fitting = sum(z <= left for z in LOOK_AHEAD)
        offers = gains[np.arange(n), :fitting, chunks]
        best = np.argwhere(offers == offers.max())
        skill, size = min(best.tolist(), key=lambda at: (chunks[at[0]], at))
        chunks[skill] += LOOK_AHEAD[size]
        left -= LOOK_AHEAD[size]
    return np.asarray(chunks / CHUNKS)


def expected_gain_shares(
    curves: LearningCurves,
    failures: Array,
    budget: Budget,
    uniform_floor: float = 0.0,
    failure_share: float = FAILURE_SHARE,
    least: Array | float = 0.0,
    most: Array | float = 1.0,
) -> Array:
    """Shares by expected gain over the rounds left, a part by failures, a part even: [n_skills], summing to 1.

    Args:
        curves: from `fit_curves`.
        failures: [n_skills] how often each was missing.
        budget: rows and rounds.
        uniform_floor: share of the rows spread evenly.
        failure_share: share of the others that follows failures; even where nothing failed.
        least: smallest share of each skill.
        most: largest share of each skill, beside `MOST_SHARES` even ones.
    """
    n = len(failures)
    by_failures = failures / failures.sum() if failures.any() else np.full(n, 1 / n)
    by_gain = plan_ahead(curves, budget.rows_per_round, budget.rounds_left)
    shares = (1 - failure_share) * by_gain + failure_share * by_failures
    return bounded((1 - uniform_floor) * shares + uniform_floor / n, least, np.minimum(most, MOST_SHARES / n))


def bounded(shares: Array, low: Array | float, high: Array | float) -> Array:
    """The shares scaled by one factor and held between bounds, so that they sum to 1: [n].

    Bounds that leave no such shares give way: upper ones in proportion, lower ones to even shares.
    """
    most: Array = np.minimum(np.broadcast_to(np.asarray(high, float), shares.shape), 1.0)
    least: Array = np.minimum(np.broadcast_to(np.asarray(low, float), shares.shape), most)
    if most.sum() <= 1:
        return np.asarray(most / most.sum()) if most.any() else np.full(len(shares), 1 / len(shares))
    if least.sum() >= 1:
        least = least / least.sum()
    wanted = np.maximum(shares, 1e-12)  # where the cap takes more than the others have, they share alike
    below, above = 0.0, 1 / wanted.min()
    for _ in range(200):
        middle = (below + above) / 2
        if not below < middle < above:
            break
        if np.clip(middle * wanted, least, most).sum() < 1:
            below = middle
        else:
            above = middle
    return np.asarray(np.clip(above * wanted, least, most))


def skill_statuses(curves: LearningCurves, rows_per_round: int) -> list[Status]:
    """Whether each skill is mastered, parked (no gain expected in this form), or open."""
    even = rows_per_round / len(curves.rows)
    further = curves.expected(np.stack([curves.rows, curves.rows + 2 * even], axis=1))
    little = further[:, 1] - further[:, 0] < PARKED_GAIN
    parked = little & (curves.accuracy() < PARKED_ACCURACY) & (curves.rows > 0)
    return [
        "mastered" if is_mastered else "parked" if is_parked else "open"
        for is_mastered, is_parked in zip(curves.mastered(), parked, strict=True)
    ]


def learnability(correct: int, answers: int) -> Fraction:
    """p(1 − p) of a skill's parsed answers; 0 where there are none.

    Source: Rutherford et al. 2024 (Sampling for Learnability, arXiv 2408.15099), for reinforcement learning, where what
    never succeeds teaches nothing. Supervised rows show the answer, so there p = 0 may be the most learnable of all.
    """
    return Fraction(correct * (answers - correct), answers**2) if answers else Fraction(0)


def allocate(
    round_: int,
    config: Config,
    measured: Sequence[Measurement],
    catalogue: SkillCatalogue,
    pool_sizes: Mapping[str, Mapping[int, int]],
    written_levels: Mapping[str, Sequence[int]],
    mastery: Mastery | None = None,
) -> Allocation | None:
    """Every skill's share of a round's new rows under each rule, and what its learning curve says.

    Only skills that can be taught have a share; `None` when there are none. Every rule spreads `plan.uniform_floor`
    evenly, and beside that gives a mastered skill nothing. Does not depend on the order of skills.

    Args:
        round_: the round that is planned, from 1 on.
        config: its `plan`, `training.start` and `rounds` are used.
        measured: the base first, then every accepted adapter; the last one is the current.
        catalogue: the skills of the run.
        pool_sizes: skill → difficulty → items in the pool.
        written_levels: skill → difficulties that the teacher can write.
        mastery: from `remember`; without it these profiles are all that is remembered.
    """
    plan = config.plan
    known = (mastery or remember([m.profile for m in measured], plan)).by_skill
    capacity: dict[str, float] = {}
    for skill in sorted(catalogue.skills, key=lambda s: s.id):
        if skill.writable and plan.write_share > 0 and written_levels.get(skill.id):
            capacity[skill.id] = float("inf")
        elif in_pool := sum(pool_sizes.get(skill.id, {}).values()):
            capacity[skill.id] = in_pool * plan.max_repeats
    if not capacity:
        return None
    latest = {part.skill: part for part in measured[-1].profile.skills}
    floor = plan.uniform_floor
    held = np.array([known[s].mastered for s in capacity])
    failures = {s: demand(known[s], latest[s].missing, plan) for s in capacity}
    unsure = {
        s: 0 if known[s].mastered else learnability(latest[s].counts.correct, parsed(latest[s])) for s in capacity
    }
    missed = {s: demand(known[s], min(latest[s].missing, 1), plan) for s in capacity}
    budget = Budget(plan.rows_per_round, max(config.rounds, round_), max(config.rounds - round_ + 1, 1))
    curves = fit_curves(
        _evidence(measured, list(capacity)),
        expected_half(budget.rows_per_round, budget.rounds, len(capacity)),
        decays=DECAYS if config.training.start == "accepted" else (0.0,),
    )
    statuses = skill_statuses(curves, budget.rows_per_round)
    if len(measured) == 1 and _parse_rate(measured[0].profile) < LEAST_PARSED:
        by_gain = np.full(len(capacity), 1 / len(capacity))
    else:
        least = np.array([LEAST_ROWS / budget.rows_per_round if s == "open" else 0.0 for s in statuses])
        most = np.array(list(capacity.values())) / budget.rows_per_round
        if not held.all():
            least, most = np.where(held, 0.0, least), np.where(held, np.minimum(most, floor / len(held)), most)
        missing = np.array(list(failures.values()), float)
        by_gain = expected_gain_shares(curves, missing, budget, floor, least=least, most=most)
    by_counts = [skill_shares(counts, floor).values() for counts in (missed, failures, unsure)]
    shares = [
        RuleShares(even=float(e), failures=float(f), learnability=float(p), expected_gain=float(g))
        for e, f, p, g in zip(*by_counts, by_gain, strict=True)
    ]
    given = np.array([getattr(share, plan.allocation) for share in shares]) * budget.rows_per_round
    low, high = curves.gain_range(given)
    numbers = zip(curves.rows, curves.flat, curves.gain(given), low, high, strict=True)
    return Allocation(
        round=round_,
        rule=plan.allocation,
        points=len(measured),
        decay=curves.decay,
        skills=tuple(
            SkillAllocation(skill=s, shares=of, status=st, rows=e, flat=min(f, 1.0), gain=g, gain_low=lo, gain_high=hi)
            for s, of, st, (e, f, g, lo, hi) in zip(capacity, shares, statuses, numbers, strict=True)
        ),
    )


def shares_by_rule(allocation: Allocation) -> dict[str, Fraction]:
    """The shares of the allocation's own rule, exactly summing to 1."""
    shares = {part.skill: Fraction(getattr(part.shares, allocation.rule)) for part in allocation.skills}
    total = sum(shares.values())
    return {skill: share / total for skill, share in shares.items()}


def parsed(profile: SkillProfile) -> int:
    """Graded answers in which an answer was found."""
    return profile.counts.correct + profile.counts.wrong


def _evidence(measured: Sequence[Measurement], skills: Sequence[str]) -> Evidence:
    points = [{part.skill: part for part in m.profile.skills} for m in measured]
    return Evidence(
        correct=np.array([[of[s].counts.correct for of in points] for s in skills], float),
        parsed=np.array([[parsed(of[s]) for of in points] for s in skills], float),
        rows=np.array([[m.rows.get(s, 0) for m in measured[1:]] for s in skills], float),
    )


def _parse_rate(profile: MissingSkillProfile) -> float:
    counts = profile.counts
    return (counts.correct + counts.wrong) / counts.graded if counts.graded else 0.0
