"""Bayesian learning curves: what each skill has gained from its rows so far, and what more rows may still buy.

Takes right and parsed probe answers of every skill at each measuring point, with the rows that were trained in
between; returns a posterior over a grid of curves for each skill. A curve is flat or rises from its start level:
p(E) = p₀ + u (1 − p₀) E^γ / (E^γ + h^γ), with E the effective rows, u the share of the headroom that can be
reached, h the rows to half of it and γ the steepness. Milliseconds; asks nobody and decides nothing.

The family of curves and its prior were set after 100 published curves of fine-tuning
(github.com/r-three/dataefficiency, arXiv 2512.24991) and are broad.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST_ANSWERS = 5
"""Parsed answers below which a measuring point says nothing of a skill."""
MASTERED_RATE, MASTERED_CHANCE = 0.9, 0.8
"""A skill is mastered when this accuracy is reached with this probability."""


class CurvePrior(NamedTuple):
    """The grid of curves and what is believed of it before any answer."""

    levels: tuple[float, ...] = (
        *(0.005, 0.015, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3),
        *(0.36, 0.42, 0.5, 0.58, 0.66, 0.74, 0.82, 0.9, 0.96),
    )
    """Accuracies before any training, all as likely."""
    reach: tuple[tuple[float, float], ...] = ((0.1, 0.05), (0.25, 0.1), (0.45, 0.25), (0.65, 0.25), (0.9, 0.35))
    """Shares of the headroom that rows can gain, each with its probability."""
    half: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
    """Rows to half of that, as multiples of `expected_half`."""
    half_sd: float = 1.4
    """Standard deviation of their logarithm."""
    steepness: tuple[tuple[float, float], ...] = ((1.0, 0.5), (1.5, 0.25), (2.5, 0.25))
    """1 is concave; above, a curve starts slowly. Each with its probability."""
    flat: float = 0.2
    """Probability that a skill gains nothing from these rows."""
    flat_skills: float = 4.0
    """How many skills that belief is worth against what the run's own skills show."""
    bands: tuple[float, ...] = (0.1, 0.35)
    """Start levels at which the belief of being flat changes: each band has its own."""
    passes: int = 6
    """Times the belief of being flat is fitted to the skills; 1 leaves it as it is."""


DEFAULT_PRIOR = CurvePrior()


class Evidence(NamedTuple):
    """What the probe said of every skill, in one order of skills; float arrays of counts."""

    correct: Array
    """[n_skills, n_points] right answers, point 0 before any training."""
    parsed: Array
    """[n_skills, n_points] graded answers in which an answer was found."""
    rows: Array
    """[n_skills, n_points − 1] rows trained between a point and the next."""


@dataclass(frozen=True)
class LearningCurves:
    """The posterior of every skill's curve."""

    posterior: Array
    """[n_skills, n_levels, 1 + n_shapes] probabilities; the first shape is flat."""
    levels: Array
    """[n_levels]"""
    reach: Array
    """[n_shapes]"""
    half: Array
    """[n_shapes] rows"""
    steepness: Array
    """[n_shapes]"""
    rows: Array
    """[n_skills] effective rows so far."""
    decay: float
    """Share of the effective rows that is forgotten in each later round."""
    log_evidence: float

    @property
    def flat(self) -> Array:
        """[n_skills] probability that rows in this form gain nothing. Conservative: slow curves take much of it."""
        return np.asarray(self.posterior[:, :, 0].sum(axis=1))

    def expected(self, rows: Array) -> Array:
        """Mean accuracy above the start at so many effective rows [n_skills, n]; the same shape."""
        pairs, place = np.unique(np.stack([self.half, self.steepness]), axis=1, return_inverse=True)
        gain = np.einsum("klj,l->kj", self.posterior[:, :, 1:], 1 - self.levels) * self.reach
        weights = np.zeros((len(gain), pairs.shape[1]))
        np.add.at(weights.T, place.ravel(), gain.T)
        return np.asarray(np.einsum("knj,kj->kn", _rise(rows, pairs[0], pairs[1]), weights))

    def gain(self, new_rows: Array) -> Array:
        """[n_skills] expected change of accuracy when the next round trains so many more rows of each."""
        after = self.rows * (1 - self.decay) + new_rows
        both = self.expected(np.stack([self.rows, after], axis=1))
        return np.asarray(both[:, 1] - both[:, 0])

    def gain_range(self, new_rows: Array, mass: float = 0.8) -> tuple[Array, Array]:
        """The central range of that change with so much probability: two arrays [n_skills]."""
        after = self.rows * (1 - self.decay) + new_rows
        low, high = np.empty(len(after)), np.empty(len(after))
        for skill, posterior in enumerate(self.posterior):
            rises = _rise(np.array([self.rows[skill], after[skill]]), self.half, self.steepness)
            change = np.outer(1 - self.levels, self.reach * (rises[1] - rises[0]))
            values = np.append(change.ravel(), 0.0)
            chances = np.append(posterior[:, 1:].ravel(), posterior[:, 0].sum())
            order = np.argsort(values, kind="stable")
            below = np.cumsum(chances[order]) / chances.sum()
            at = np.searchsorted(below, [(1 - mass) / 2, (1 + mass) / 2])
            low[skill], high[skill] = values[order][np.minimum(at, len(values) - 1)]
        return low, high

    def accuracy(self) -> Array:
        """[n_skills] mean accuracy at the rows trained so far."""
        return np.asarray((self.posterior * self._now()).sum(axis=(1, 2)))

    def mastered(self) -> Array:
        """[n_skills] whether accuracy is `MASTERED_RATE` or more with probability `MASTERED_CHANCE`."""
        chance = (self.posterior * (self._now() >= MASTERED_RATE)).sum(axis=(1, 2))
        return np.asarray(chance >= MASTERED_CHANCE)

    def _now(self) -> Array:
        return _curves(self.levels, self.reach, _rise(self.rows, self.half, self.steepness), 1.0)


def expected_half(rows_per_round: int, rounds: int, n_skills: int) -> float:
    """Rows to half of what can be gained, as believed beforehand: the geometric mean of 100 rows and half of a
    skill's even share of all rounds' rows.
    """
    return float(np.sqrt(100 * rows_per_round * rounds / (2 * n_skills)))


def fit_curves(
    evidence: Evidence,
    half: float,
    samples: int = 0,
    decays: Sequence[float] = (0.0,),
    prior: CurvePrior = DEFAULT_PRIOR,
) -> LearningCurves:
    """The posterior of every skill's curve, given all answers so far.

    The belief of being flat is fitted to the skills themselves once something was trained, apart for low, middle and
    high starts: the run learns whether "starts at zero" means "stays there". A skill without answers keeps the prior.

    Args:
        evidence: at least one skill and one measuring point.
        half: from `expected_half`.
        samples: drawn answers to each item beside the greedy one; they are alike, so each counts less.
        decays: shares of the effective rows that a later round may undo. Only 0 where each adapter is trained
            afresh on all rows; otherwise the one with the most evidence is taken, others than 0 at a price of two nats.
        prior: the grid.
    """
    fits = [_fit(evidence, half, samples, decay, prior) for decay in decays]
    return max(fits, key=lambda fit: fit.log_evidence - 2 * (fit.decay > 0))


def _fit(evidence: Evidence, half: float, samples: int, decay: float, prior: CurvePrior) -> LearningCurves:
    levels = np.array(prior.levels)
    shapes = [
        (u, half * h, gamma, up * hp * gp)
        for u, up in prior.reach
        for h, hp in zip(prior.half, _log_normal(prior), strict=True)
        for gamma, gp in prior.steepness
    ]
    reach, halves, steepness, chance = np.array(shapes).T
    rows = np.zeros(len(evidence.correct))
    log_likelihood = np.zeros((len(rows), len(levels), 1 + len(shapes)))
    # Samples of one item are alike (correlation one half), and the same items at every point sharpen differences.
    weight = 1.3 / (1 + samples / 2)
    for point in range(evidence.correct.shape[1]):
        if point:
            rows = (1 - decay) * rows + evidence.rows[:, point - 1]
        counted = evidence.parsed[:, point] >= LEAST_ANSWERS
        right = np.where(counted, evidence.correct[:, point], 0)[:, None, None]
        wrong = np.where(counted, evidence.parsed[:, point] - evidence.correct[:, point], 0)[:, None, None]
        start = 0.4 + 0.6 * (1 - decay) ** point  # a continued adapter also loses some of what the base could do
        # Before any training all shapes are the same curve: one column stands for all.
        p = _curves(levels, reach, _rise(rows, halves, steepness), start) if point else levels[None, :, None]
        p = np.clip(p, 0.001, 0.999)
        log_likelihood += weight * (right * np.log(p) + wrong * np.log(1 - p))
    top = log_likelihood.max(axis=(1, 2), keepdims=True)
    posterior, evidence_each = _posterior(
        np.exp(log_likelihood - top), levels, chance, bool(evidence.rows.any()), prior
    )
    total = float((np.log(evidence_each) + top[:, 0, 0]).sum())
    return LearningCurves(posterior, levels, reach, halves, steepness, rows, decay, total)


def _posterior(
    likelihood: Array, levels: Array, chance: Array, trained: bool, prior: CurvePrior
) -> tuple[Array, Array]:
    """Posterior and evidence of every skill, with the belief of being flat fitted to all of them."""
    band = np.searchsorted(np.array(prior.bands), levels, side="right")
    flat = np.full(len(prior.bands) + 1, prior.flat)
    posterior, total = likelihood, np.ones(len(likelihood))
    for _ in range(prior.passes if trained else 1):
        start_flat = flat[band][:, None]
        before = np.concatenate([start_flat, (1 - start_flat) * chance], axis=1) / len(levels)
        posterior = likelihood * before
        total = posterior.sum(axis=(1, 2))
        posterior = posterior / total[:, None, None]
        if trained:
            of_level = posterior.sum(axis=0)
            mass = np.bincount(band, of_level.sum(axis=1), len(flat))
            flat_mass = np.bincount(band, of_level[:, 0], len(flat))
            flat = (prior.flat_skills * prior.flat + flat_mass) / (prior.flat_skills + mass)
    return posterior, total


def _log_normal(prior: CurvePrior) -> Array:
    density = np.exp(-(np.log(np.array(prior.half)) ** 2) / (2 * prior.half_sd**2))
    return np.asarray(density / density.sum())


def _rise(rows: Array, half: Array, steepness: Array) -> Array:
    """Share of the reachable gain at so many rows [...], by shape: [..., n_shapes]."""
    with np.errstate(divide="ignore", over="ignore"):  # no rows: infinitely far from half of the gain
        return np.asarray(1 / (1 + (half / rows[..., None]) ** steepness))


def _curves(levels: Array, reach: Array, rise: Array, start: float) -> Array:
    """Accuracy by skill, level and shape, the flat one first: [n_skills, n_levels, 1 + n_shapes]."""
    rising = levels[:, None] * start + (1 - levels)[:, None] * (reach * rise)[:, None, :]
    flat = np.broadcast_to(levels[:, None], (len(rise), len(levels), 1))
    return np.concatenate([flat, rising], axis=2)
