"""The rules of allocation that the simulator compares: ours, and simple forms of published ones at their own settings.

Each takes what was seen and returns weights of the next round's rows. Rules that need two measuring points begin
evenly.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
from allocation_worlds import Array, Rule, Seen

from curriculum.allocation import DECAYS, FAILURE_SHARE, LEAST_ROWS, Budget, expected_gain_shares, skill_statuses
from curriculum.learning_curves import CurvePrior, Evidence, LearningCurves, expected_half, fit_curves

CONCAVE = CurvePrior(steepness=((1.0, 1.0),))
UNFITTED = CurvePrior(passes=1)
ALIKE = CurvePrior(
    reach=tuple((u, 1 / 5) for u, _ in CurvePrior().reach),
    half_sd=1e6,
    steepness=tuple((gamma, 1 / 3) for gamma, _ in CurvePrior().steepness),
    flat=1 / 136,
    passes=1,
)
"""Every curve of the grid is as likely."""


def fitted(seen: Seen, continued: bool = False, prior: CurvePrior | None = None) -> LearningCurves:
    """Our learning curves on what was seen."""
    s = seen.setting
    half = expected_half(s.rows, s.rounds, s.skills)
    evidence = Evidence(seen.correct, seen.answers, seen.rows)
    return fit_curves(evidence, half, s.samples, DECAYS if continued else (0.0,), prior or CurvePrior())


def expected_gain(
    seen: Seen,
    uniform_floor: float = 0.0,
    failure_share: float = FAILURE_SHARE,
    even_first: bool = False,
    continued: bool = False,
    one_round: bool = False,
    least: bool = False,
    draw: bool = False,
    prior: CurvePrior | None = None,
) -> Array:
    """Expected-gain allocation as shipped, and its variants."""
    s = seen.setting
    if even_first and not seen.rows.size:
        return np.ones(s.skills)
    curves = fitted(seen, continued, prior)
    if draw:
        curves = _drawn(curves, np.random.default_rng([seen.seed, 3, seen.rows.shape[1]]))
    budget = Budget(s.rows, s.rounds, 1 if one_round else seen.rounds_left)
    low = 0.0
    if least:
        low = np.where(np.array(skill_statuses(curves, s.rows)) == "open", LEAST_ROWS / s.rows, 0.0)
    return expected_gain_shares(curves, seen.failures, budget, uniform_floor, failure_share, low)


def _drawn(curves: LearningCurves, random: np.random.Generator) -> LearningCurves:
    """One curve of each skill drawn from its posterior (Thompson)."""
    flat = curves.posterior.reshape(len(curves.posterior), -1)
    chosen = (random.random((len(flat), 1)) > flat.cumsum(axis=1) / flat.sum(axis=1, keepdims=True)).sum(axis=1)
    one = np.zeros_like(flat)
    one[np.arange(len(flat)), np.minimum(chosen, flat.shape[1] - 1)] = 1
    return LearningCurves(**{**vars(curves), "posterior": one.reshape(curves.posterior.shape)})


def uniform(seen: Seen) -> Array:
    """The same for every skill."""
    return np.ones(seen.setting.skills)


def failures(seen: Seen, uniform_floor: float = 0.0) -> Array:
    """In proportion to failures, what was not parsed included (STAT)."""
    return _floored(seen.failures, uniform_floor)


def learnability(seen: Seen, uniform_floor: float = 0.0) -> Array:
    """In proportion to p(1 − p) of all parsed answers."""
    p = seen.rates[:, -1]
    return _floored(p * (1 - p), uniform_floor)


def item_learnability(seen: Seen) -> Array:
    """p(1 − p) of each item's drawn answers, without bias, averaged; 20 % even."""
    right, n = seen.right[:, :, 1:, -1].sum(axis=2), seen.parsed[:, :, 1:, -1].sum(axis=2)
    known = n >= 2
    spread = np.where(known, right * (n - right) / np.maximum(n * (n - 1), 1), 0).sum(axis=1)
    return _floored(spread / np.maximum(known.sum(axis=1), 1), 0.2)


def absolute_progress(seen: Seen) -> Array:
    """Moving average of the absolute change of accuracy (ALP), 20 % even."""
    progress = np.zeros(seen.setting.skills)
    for change in np.abs(np.diff(seen.rates, axis=1)).T:
        progress = (progress + change) / 2
    return _floored(progress, 0.2)


def tscl(seen: Seen) -> Array:
    """Thompson sampling over the last three changes (TSCL), 10 % even."""
    changes = np.abs(np.diff(seen.rates, axis=1))[:, -3:]
    if not changes.size:
        return uniform(seen)
    random = np.random.default_rng([seen.seed, 4, changes.shape[1]])
    draws = random.integers(changes.shape[1], size=(400, len(changes)))
    best = changes[np.arange(len(changes)), draws].argmax(axis=1)
    return _floored(np.bincount(best, minlength=len(changes)).astype(float), 0.1)


def dump_like(seen: Seen) -> Array:
    """Upper confidence bound on 2 p(1 − p), softmax (DUMP)."""
    p, n = seen.rates[:, -1], np.maximum(seen.answers.sum(axis=1), 1)
    return np.exp((2 * p * (1 - p) + 0.1 * np.sqrt(2 * np.log(n.sum()) / n)) / 0.1)


def sec_like(seen: Seen) -> Array:
    """Temporal difference on 2 √(p(1 − p)), softmax (SEC)."""
    value = np.zeros(seen.setting.skills)
    for p in seen.rates.T:
        value += 0.5 * (2 * np.sqrt(p * (1 - p)) - value)
    return np.exp(value / 0.4)


def skill_it(seen: Seen) -> Array:
    """Exponential weights on the last three losses over a graph of shared labels with errors (Skill-it)."""
    n = seen.setting.skills
    same = seen.clusters[:, None] == seen.clusters
    wrong = np.random.default_rng([seen.seed, 5]).random((n, n)) < 0.05
    graph = np.where((same ^ wrong) & ~np.eye(n, dtype=bool), 0.5, np.eye(n))
    losses = 1 - seen.right.mean(axis=(1, 2))
    return np.exp(0.5 * graph.T @ losses[:, -3:].sum(axis=1))


def drop(seen: Seen) -> Array:
    """Evenly twice, then only skills that gained more than half a standard error and are below 90 %; 10 % even."""
    if seen.rows.shape[1] < 2:
        return uniform(seen)
    first, last = seen.rates[:, 0], seen.rates[:, -1]
    error = np.sqrt((first * (1 - first) + last * (1 - last)) / seen.setting.items)
    return _floored(((last - first > error / 2) & (last < 0.9)).astype(float), 0.1)


def gain_per_row(seen: Seen) -> Array:
    """Gain so far, shrunk towards the mean of skills, per row, times headroom; 20 % even."""
    if not seen.rows.size:
        return uniform(seen)
    first, last = seen.rates[:, 0], seen.rates[:, -1]
    change = last - first
    variance = np.maximum((first * (1 - first) + last * (1 - last)) / seen.setting.items, 1e-4)
    between = max(0.0, float(change.var() - variance.mean()))
    shrunk = change.mean() + between / (between + variance) * (change - change.mean())
    return _floored(np.maximum(shrunk, 0) / np.maximum(seen.rows.sum(axis=1), 1) * (1 - last), 0.2)


def ado_like(seen: Seen) -> Array:
    """In proportion to what each skill's likeliest curve gains from the next even share (ADO)."""
    if not seen.rows.size:
        return uniform(seen)
    curves = fitted(seen, prior=ALIKE)
    flat = curves.posterior.reshape(len(curves.posterior), -1)
    one = np.zeros_like(flat)
    one[np.arange(len(flat)), flat.argmax(axis=1)] = 1
    likeliest = LearningCurves(**{**vars(curves), "posterior": one.reshape(curves.posterior.shape)})
    return _floored(likeliest.gain(np.full(len(flat), seen.setting.rows / len(flat))), 0.0)


def failures_not_flat(seen: Seen) -> Array:
    """Failures times the chance that rows help at all; 10 % by failures alone."""
    mixed = seen.failures * (1 - fitted(seen).flat)
    return 0.9 * mixed / mixed.sum() + 0.1 * seen.failures / seen.failures.sum()


def _floored(weights: Array, even: float) -> Array:
    n = len(weights)
    total = weights.sum()
    return (1 - even) * weights / total + even / n if total > 0 else np.ones(n)


RULES: Mapping[str, Rule] = {
    "expected gain": expected_gain,
    "uniform": uniform,
    "failures (STAT)": failures,
    "p(1−p)": learnability,
    "p(1−p), 20 % even": partial(learnability, uniform_floor=0.2),
    "p(1−p) by item, 20 % even": item_learnability,
    "ALP, 20 % even": absolute_progress,
    "TSCL": tscl,
    "DUMP-like": dump_like,
    "SEC-like": sec_like,
    "Skill-it": skill_it,
    "uniform twice, then drop": drop,
    "gain per row × headroom": gain_per_row,
    "ADO-like": ado_like,
    "failures × P(not flat)": failures_not_flat,
}
VARIANTS: Mapping[str, Rule] = {
    "expected gain": expected_gain,
    "as shipped: 15 % even, 2 rows": partial(expected_gain, uniform_floor=0.15, least=True),
    "failures as shipped: 15 % even": partial(failures, uniform_floor=0.15),
    "p(1−p) as shipped: 15 % even": partial(learnability, uniform_floor=0.15),
    "2 rows at least": partial(expected_gain, least=True),
    "round 1 even": partial(expected_gain, even_first=True),
    "forgetting fitted": partial(expected_gain, continued=True),
    "belief of flat not fitted": partial(expected_gain, prior=UNFITTED),
    "no failure share": partial(expected_gain, failure_share=0.0),
    "failure share 20 %": partial(expected_gain, failure_share=0.2),
    "concave curves only": partial(expected_gain, prior=CONCAVE),
    "plans one round only": partial(expected_gain, one_round=True),
    "Thompson draws": partial(expected_gain, draw=True),
}
