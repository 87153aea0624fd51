"""The gate: whether a candidate adapter replaces the current one, on the same gate items.

Takes the grades of both and says accepted or rolled back, with the evidence and the odds of being wrong, which
`gate_odds` computes. Evaluates and trains nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from curriculum.config import GateConfig
from curriculum.errors import StudentError
from curriculum.gate_odds import detectable_gain, false_accept_rate, gate_p_value, level_used
from curriculum.looks import Look, next_look
from curriculum.records import Change, Grade, SkillLabel, Verdict
from curriculum.retention import RETENTION_ALPHA
from curriculum.round_records import GateDecision, GateSkill, RetentionPart
from curriculum.statistics import benjamini_hochberg, mcnemar_p, paired_change, wilson

MAX_FAILED_SHARE = 0.1
"""Largest share of gate items our own faults may take out of a comparison."""

REGRESSION_ALPHA = 0.1
"""A skill that falls with an adjusted p-value at or below this rolls the candidate back.

The p-value is two-sided and only falls count: that a veto is raised though no skill changed has at most half of this
chance. `benchmarks/gate_rounds.py` measures it.
"""

LEAST_TESTED = 6
"""Items that a skill at one difficulty needs for a test: 2 / 2⁶ is the first two-sided p-value below 0.05."""


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
    retention: Sequence[RetentionPart] = (),
) -> GateDecision:
    """Accepts the candidate or rolls it back; undecided means that the current adapter stays.

    Args:
        before: grades of the current adapter's answers to the gate items, one an item.
        after: the same for the candidate.
        labels: example id → label, for every gate item.
        look: the level of this round's test; none: the first and only one of its run.
        retention: from `retention_parts`; one that fell rolls the candidate back.

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
    forgotten = [part for part in retention if part.fell]
    accepted = p_value <= look.level and not fallen and not forgotten
    setting = (change.n, (change.gained + change.lost) / change.n, look.level, config.retrain_sd)
    return GateDecision(
        round=round_,
        decision="accepted" if accepted else "rolled_back",
        reason=_reason(change, p_value, look.level, fallen, forgotten),
        current=current,
        candidate=candidate,
        before=wilson(sum(old.values()), len(old)),
        after=wilson(sum(new.values()), len(new)),
        change=change,
        p_value=p_value,
        level=look.level,
        level_used=level_used(change.gained + change.lost, change.n, look.level, config.retrain_sd),
        last_round=look.last_round,
        rule=_rule(round_, change.n, config, look, bool(retention)),
        false_accept_rate=false_accept_rate(*setting),
        detectable_gain=detectable_gain(*setting),
        skills=skills,
        retention=tuple(retention),
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


def _reason(
    change: Change, p_value: float, level: float, fallen: Sequence[GateSkill], forgotten: Sequence[RetentionPart]
) -> str:
    counts = f"gained {change.gained} and lost {change.lost} of {change.n} items"
    verdict = f"p = {p_value:.2g}, at most {level:.2g}"
    if p_value > level:
        verdict = f"p = {p_value:.2g}, above {level:.2g}: undecided, so the current adapter stays"
    falls = [
        f"skill {s.skill} fell significantly (gained {s.change.gained}, lost {s.change.lost} of {s.change.n}, "
        f"adjusted p = {s.p_value:.2g})"
        for s in fallen
    ]
    falls += [
        f"of the retention set, {'' if p.kind == 'all' else f'{p.kind} '}{p.name} fell significantly (gained "
        f"{p.change.gained}, lost {p.change.lost} of {p.change.n}, adjusted one-sided p = {p.p_value:.2g})"
        for p in forgotten
    ]
    return "; ".join([f"{counts}, {verdict}", *falls])


def _rule(round_: int, n: int, config: GateConfig, look: Look, retention: bool) -> str:
    kept = f", and no part of the retention set falls with an adjusted one-sided p ≤ {RETENTION_ALPHA:g}"
    words = (
        f"Accept when the exact one-sided test on the discordant of {n} gate items has p ≤ {look.level:.2g} for a "
        f"retrain of the same recipe with another seed, whose true accuracy differs by a standard deviation of "
        f"{100 * config.retrain_sd:g} points, and no skill falls with an adjusted p ≤ {REGRESSION_ALPHA:g}"
        f"{kept if retention else ''}."
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
