"""The gate's test, and how often it is wrong: false accepts, power, the smallest gain it sees.

Takes counts of gained and lost items; returns p-values and probabilities. The null hypothesis is not "the same
student" but "the same recipe trained with another seed": two such trainings truly differ, and a rule that ignores it
accepts seeds.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc

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


def level_used(discordant: int, n: int, level: float, retrain_sd: float) -> float:
    """The chance of accepting a same-recipe retrain at this level, given how many items are discordant.

    At most `level`, and mostly less: few discordant items allow few p-values. Arguments as of `gate_p_value`.
    """
    if discordant == 0:
        return 0.0
    gained = np.arange(discordant // 2, discordant + 1, dtype=np.float64)
    tails = _null_tail(gained, np.full(len(gained), float(discordant)), n, retrain_sd)
    return float(tails[tails <= level].max(initial=0.0))


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
