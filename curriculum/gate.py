"""The gate: whether a candidate adapter replaces the current one, on the same gate items.

Takes the grades of both and says accepted or rolled back, with the evidence and the odds of being wrong.
The null hypothesis is not "the same student" but "the same recipe trained with another seed": two such
trainings truly differ, and a rule that ignores it accepts seeds. Evaluates and trains nothing.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

from curriculum.config import GateConfig
from curriculum.errors import StudentError
from curriculum.looks import Look, next_look
from curriculum.records import Change, Grade, SkillLabel, Verdict
from curriculum.round_records import GateDecision, GateSkill
from curriculum.statistics import benjamini_hochberg, mcnemar_p, paired_change, wilson

MAX_FAILED_SHARE = 0.1
"""Largest share of gate items our own faults may take out of a comparison."""

REGRESSION_ALPHA = 0.05
"""A skill that falls with an adjusted p-value at or below this rolls the candidate back."""

LEAST_TESTED = 6
"""Items that a skill at one difficulty needs for a test: 2 / 2⁶ is the first two-sided p-value below 0.05."""

Floats = NDArray[np.float64]


def gate_p_value(gained: int, lost: int, n: int, retrain_sd: float) -> float:
    """Chance that a same-recipe retrain gains at least `gained` of the `gained + lost` discordant items.

    With q = (gained + lost) / n the discordant share and δ ~ Normal(0, `retrain_sd`²) the true difference
    of two trainings, each discordant item is a gain with probability 1/2 + δ / (2q), clipped to [0, 1].
    The p-value is the exact binomial tail averaged over δ. `retrain_sd` (in shares of 1) of 0 gives the
    one-sided exact sign test.

    Source: McNemar 1947, Psychometrika 12(2), 153-157, conditional on the discordant items; the random
    seed effect is added here.
    """
    if gained + lost == 0:
        return 1.0
    return float(_null_tail(np.array([gained]), np.array([gained + lost]), n, retrain_sd)[0])


def false_accept_rate(
    n: int, discordant_share: float, alpha: float, retrain_sd: float, true_sd: float | None = None
) -> float:
    """Probability that a retrain of the same recipe with another seed is accepted.

    Args:
        n: gate items.
        discordant_share: share of items that only one of the two adapters answers right, in [0, 1].
        alpha: the rule's level.
        retrain_sd: the seed noise the rule assumes, in shares of 1.
        true_sd: the seed noise there really is; none means that the assumption holds. The rule keeps to
            `alpha` only then: noise it was not told of is accepted more often.
    """
    if discordant_share == 0:
        return 0.0
    gains, weights = _seed_differences(retrain_sd if true_sd is None else true_sd, n, discordant_share)
    return float(weights @ power(gains, n, discordant_share, alpha, retrain_sd))


def detectable_gain(
    n: int, discordant_share: float, alpha: float, retrain_sd: float, power_wanted: float = 0.8
) -> float | None:
    """Smallest true gain, in shares of 1, that is accepted with probability `power_wanted`.

    `None` when no gain is: even with every discordant item gained the items are too few.
    """
    from scipy.optimize import brentq

    def shortfall(gain: float) -> float:
        return float(power(np.array([gain]), n, discordant_share, alpha, retrain_sd)[0]) - power_wanted

    if discordant_share == 0 or shortfall(discordant_share) < 0:
        return None
    return float(brentq(shortfall, 0.0, discordant_share, xtol=1e-6))


def power(gains: Floats, n: int, discordant_share: float, alpha: float, retrain_sd: float) -> Floats:
    """Probability of acceptance for each true gain, in shares of 1 [n_gains], the veto of skills apart.

    The number of discordant items is itself random: Binomial(n, `discordant_share`), a share above 0.
    """
    rule = _critical(n, discordant_share, alpha, retrain_sd)
    theta = np.clip(0.5 + gains / (2 * discordant_share), 0.0, 1.0)
    accepted: Floats = _upper_tail(rule.needed, rule.discordant, theta[:, None]) @ rule.weights
    return accepted


class _Critical(NamedTuple):
    """For each likely number of discordant items [n_counts]: its probability, and the gains needed."""

    discordant: Floats
    weights: Floats
    needed: Floats


@lru_cache(maxsize=256)
def _critical(n: int, discordant_share: float, alpha: float, retrain_sd: float) -> _Critical:
    from scipy.stats import binom

    first, last = binom.ppf((1e-5, 1 - 1e-5), n, discordant_share)
    discordant = np.arange(first, last + 1)
    weights = binom.pmf(discordant, n, discordant_share)
    # Bisection, all counts at once: half of them gained is never enough; d + 1 stands for "nothing is".
    low, high = np.floor(discordant / 2), discordant + 1
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        enough = _null_tail(middle, discordant, n, retrain_sd) <= alpha
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return _Critical(discordant, weights / weights.sum(), high)


def _null_tail(gained: Floats, discordant: Floats, n: int, retrain_sd: float) -> Floats:
    """P(W ≥ `gained`) under the null hypothesis, for each pair [n_counts]."""
    share = np.maximum(discordant, 1) / n
    differences, weights = _seed_differences(retrain_sd, n, share.min())
    theta = np.clip(0.5 + differences / (2 * share[:, None]), 0.0, 1.0)
    tails: Floats = _upper_tail(gained[:, None], discordant[:, None], theta) @ weights
    return tails


def _seed_differences(sd: float, n: int, discordant_share: float) -> tuple[Floats, Floats]:
    """Nodes and weights to average over a true difference ~ Normal(0, `sd`²) by the trapezoid rule [n_nodes]."""
    if sd == 0:
        return np.zeros(1), np.ones(1)
    # The binomial tail bends over a width of sqrt(share / n): nodes no further apart than it make the rule
    # exact to about 1e-8, since both factors are smooth.
    spacing = min(0.25, np.sqrt(discordant_share / n) / sd)
    half = np.ceil(6.0 / spacing)
    z = np.arange(-half, half + 1) * spacing
    density = np.exp(-(z**2) / 2)
    return sd * z, density / density.sum()


def _upper_tail(gained: Floats, discordant: Floats, theta: Floats) -> Floats:
    """P(Binomial(`discordant`, `theta`) ≥ `gained`), broadcast."""
    tail: Floats = np.where(gained > discordant, 0.0, betainc(gained, discordant - gained + 1, theta))
    return tail


def skill_changes(
    before: Mapping[str, bool], after: Mapping[str, bool], labels: Mapping[str, SkillLabel], by_difficulty: bool = False
) -> tuple[GateSkill, ...]:
    """Each skill before and after on the items both answered, sorted by skill; or each skill at each difficulty.

    Args:
        before: example id → whether it was answered right.
        after: the same for the candidate; no items at all leaves `after` and `change` without data.
        labels: example id → label. An item counts for every skill it needs.
        by_difficulty: a row for each skill and difficulty. Those of fewer than six items have no p-value and burden the
            others with none: whatever is gained or lost there, an exact test has p > 0.05.
    """
    items: dict[tuple[str, int], set[str]] = {}
    for id_ in before:
        for skill in labels[id_].skills:
            items.setdefault((skill, labels[id_].difficulty if by_difficulty else 0), set()).add(id_)
    rows = []
    for cell, ids in sorted(items.items()):
        old = {id_: before[id_] for id_ in ids}
        new = {id_: after[id_] for id_ in ids if id_ in after}
        rows.append((cell, wilson(sum(old.values()), len(old)), wilson(sum(new.values()), len(new)), old, new))
    changes = [paired_change(old, new) for *_, old, new in rows]
    least = LEAST_TESTED if by_difficulty else 1
    p_values = benjamini_hochberg([mcnemar_p(c.gained, c.lost) if c.n >= least else None for c in changes])
    return tuple(
        GateSkill(skill=skill, difficulty=difficulty or None, before=old_rate, after=new_rate, change=change, p_value=p)
        for ((skill, difficulty), old_rate, new_rate, *_), change, p in zip(rows, changes, p_values, strict=True)
    )


def answered_right(grades: Sequence[Grade]) -> dict[str, bool]:
    """Example id → whether it was answered right; items whose verdict is `failed` are left out."""
    return {g.example_id: g.verdict is Verdict.CORRECT for g in grades if g.verdict is not Verdict.FAILED}


def baseline(round_: int, current: str, grades: Sequence[Grade], labels: Mapping[str, SkillLabel]) -> GateDecision:
    """The decision of round 0: nothing is compared, the student's rates on the gate split are recorded."""
    return _without_candidate(round_, "baseline", "the student before any teaching", current, grades, labels)


def stopped(
    round_: int, current: str, grades: Sequence[Grade], labels: Mapping[str, SkillLabel], reason: str
) -> GateDecision:
    """The decision of a round whose plan stops the run: nothing was trained, the current adapter stays."""
    return _without_candidate(round_, "stopped", reason, current, grades, labels)


def _without_candidate(
    round_: int,
    decision: Literal["baseline", "stopped"],
    reason: str,
    current: str,
    grades: Sequence[Grade],
    labels: Mapping[str, SkillLabel],
) -> GateDecision:
    right = answered_right(grades)
    _check_graded(round_, len(right), len(grades))
    return GateDecision(
        round=round_,
        decision=decision,
        reason=reason,
        current=current,
        candidate=None,
        before=wilson(sum(right.values()), len(right)),
        after=None,
        change=None,
        p_value=None,
        rule="no candidate, nothing to decide",
        false_accept_rate=None,
        detectable_gain=None,
        skills=skill_changes(right, {}, labels),
    )


def decide(
    round_: int,
    current: str,
    candidate: str,
    before: Sequence[Grade],
    after: Sequence[Grade],
    labels: Mapping[str, SkillLabel],
    config: GateConfig,
    look: Look | None = None,
) -> GateDecision:
    """Accepts the candidate or rolls it back; undecided means that the current adapter stays.

    Args:
        before: grades of the current adapter's answers to the gate items, one an item.
        after: the same for the candidate.
        labels: example id → label, for every gate item.
        look: the level of this round's test; none: the first and only one of its run.

    Raises:
        StudentError: more than a tenth of the items have no verdict in one of the two.
    """
    old, new = answered_right(before), answered_right(after)
    both = sorted(old.keys() & new.keys())
    _check_graded(round_, len(both), len({g.example_id for g in (*before, *after)}))
    old, new = {id_: old[id_] for id_ in both}, {id_: new[id_] for id_ in both}
    change = paired_change(old, new)
    p_value = gate_p_value(change.gained, change.lost, change.n, config.retrain_sd)
    skills = skill_changes(old, new, labels)
    fallen = [s for s in skills if _fell(s)]
    look = look or next_look(round_, round_, config, ())
    accepted = p_value <= look.level and not fallen
    setting = (change.n, (change.gained + change.lost) / change.n, look.level, config.retrain_sd)
    return GateDecision(
        round=round_,
        decision="accepted" if accepted else "rolled_back",
        reason=_reason(change, p_value, look.level, fallen),
        current=current,
        candidate=candidate,
        before=wilson(sum(old.values()), len(old)),
        after=wilson(sum(new.values()), len(new)),
        change=change,
        p_value=p_value,
        level=look.level,
        last_round=look.last_round,
        rule=_rule(round_, change.n, config, look),
        false_accept_rate=false_accept_rate(*setting),
        detectable_gain=detectable_gain(*setting),
        skills=skills,
    )


def _check_graded(round_: int, graded: int, asked: int) -> None:
    if graded < (1 - MAX_FAILED_SHARE) * asked or graded == 0:
        raise StudentError(
            f"gate of round {round_}: expected verdicts on at least {1 - MAX_FAILED_SHARE:.0%} of {asked} items, got "
            f"{graded}; the other answers or their grading failed on our side. See the reasons in the grades, "
            "mend the cause, and resume"
        )


def _fell(skill: GateSkill) -> bool:
    significant = skill.p_value is not None and skill.p_value <= REGRESSION_ALPHA
    return significant and skill.change.lost > skill.change.gained


def _reason(change: Change, p_value: float, level: float, fallen: Sequence[GateSkill]) -> str:
    counts = f"gained {change.gained} and lost {change.lost} of {change.n} items"
    verdict = f"p = {p_value:.2g}, at most {level:.2g}"
    if p_value > level:
        verdict = f"p = {p_value:.2g}, above {level:.2g}: undecided, so the current adapter stays"
    falls = [
        f"skill {s.skill} fell significantly (gained {s.change.gained}, lost {s.change.lost} of {s.change.n}, "
        f"adjusted p = {s.p_value:.2g})"
        for s in fallen
    ]
    return "; ".join([f"{counts}, {verdict}", *falls])


def _rule(round_: int, n: int, config: GateConfig, look: Look) -> str:
    words = (
        f"Accept when the exact one-sided test on the discordant of {n} gate items has p ≤ {look.level:.2g} for a "
        f"retrain of the same recipe with another seed, whose true accuracy differs by a standard deviation of "
        f"{100 * config.retrain_sd:g} points, and no skill falls with an adjusted p ≤ {REGRESSION_ALPHA:g}."
    )
    if look.last_round == 1:
        return words
    if config.alpha_per == "round":
        most = min(1.0, config.alpha * look.last_round)
        return f"{words} All {look.last_round} rounds together accept such a retrain with probability up to {most:.0%}."
    return (
        f"{words} That is round {round_}'s part of gate.alpha {config.alpha:g}: the chance of accepting such a retrain "
        f"in any of the rounds planned, up to round {look.last_round}."
    )
