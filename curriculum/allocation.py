"""Three rules that split a round's new rows over skills: by failures, by learnability, by expected gain.

Takes what the probe said of every skill so far and the rows trained in between; returns each skill's share
under every rule, with the gain expected of it. Missing is not the same as learnable: the first rule asks what
fails, the second what is neither always right nor always wrong, the third what a row still buys.
Draws no rows; the plan turns one rule's shares into rows.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from curriculum.learning_curves import Array, LearningCurves
from curriculum.round_records import Status

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
"""Share of parsed answers below which the base says nothing of skills."""


class SkillEvidence(NamedTuple):
    """What is known of one skill."""

    skill: str
    missing: int
    """How often the latest probe missed it."""
    points: tuple["Point", ...]
    """The base first, then every accepted adapter; the last one is the current."""
    rows: tuple[int, ...]
    """Rows that need the skill, trained between one point and the next."""
    capacity: int | None = None
    """New rows that can be had of it; `None`: any number."""


class Point(NamedTuple):
    """One adapter's probe answers that need a skill."""

    correct: int
    parsed: int
    """In which an answer was found."""
    graded: int


class Budget(NamedTuple):
    """What is there to give."""

    rows_per_round: int
    rounds: int
    """Of the whole run."""
    rounds_left: int
    """This one included."""


def learnability(correct: int, answers: int) -> Fraction:
    """p(1 − p) of a skill's parsed answers; 0 where there are none.

    Source: Rutherford et al. 2024 (Sampling for Learnability, arXiv 2408.15099). A statement about reinforcement
    learning, where what never succeeds teaches nothing; supervised rows show the answer.
    """
    return Fraction(correct * (answers - correct), answers**2) if answers else Fraction(0)


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
    gains = np.stack([(curve[:, z : CHUNKS + 1 + z] - curve[:, : CHUNKS + 1]) / z for z in LOOK_AHEAD], axis=1).round(12)
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
    high = np.broadcast_to(np.asarray(high, float), shares.shape)
    low = np.minimum(np.broadcast_to(np.asarray(low, float), shares.shape), high)
    if high.sum() <= 1:
        return np.asarray(high / high.sum()) if high.any() else np.full(len(shares), 1 / len(shares))
    if low.sum() >= 1:
        low = low / low.sum()
    wanted = np.maximum(shares, 1e-12)  # where the cap takes more than the others have, they share alike
    below, above = 0.0, 1 / wanted.min()
    for _ in range(200):
        middle = (below + above) / 2
        if not below < middle < above:
            break
        if np.clip(middle * wanted, low, high).sum() < 1:
            below = middle
        else:
            above = middle
    return np.asarray(np.clip(above * wanted, low, high))


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


