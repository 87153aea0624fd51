"""Rates of many skills drawn towards each other, so that a skill with five items does not shout.

Takes counts, one pair a skill; returns a shrunk rate with its 95 % interval for each. Shown beside the raw rates, never
in their place: nothing that plans, trains or accepts reads it.
"""

from collections.abc import Sequence

import numpy as np

from curriculum.records import ShrunkRate

# Beta(s μ, s (1 − μ)) over skills: s is how many items the other skills are worth.
_STRENGTHS = np.geomspace(0.05, 5000, 60)


def shrunk_rates(counts: Sequence[tuple[int, int]]) -> list[ShrunkRate | None]:
    """The rate of each skill, given that it is one of several of the same student.

    The skills' true rates are taken to be draws from Beta(s·μ, s·(1 − μ)). μ is the pooled share,
    (Σ right + ½) / (Σ items + 1). A skill's rate is (s·μ + right) / (s + items), between its own and the pooled one,
    averaged over s by the beta-binomial likelihood of all skills times the uniform shrinkage prior. The interval is
    that of the Beta distribution with the same mean and variance; the variance counts that s and μ are estimated, too.
    With the likeliest s alone intervals are far too narrow: nine skills that look alike would have hardly any.

    Args:
        counts: (right, items) of each skill.

    Returns:
        In the order given; `None` for a skill without items, and for all where fewer than two skills have any.

    Raises:
        ValueError: a count is negative, or more are right than there are items.

    Source: Griffin & Krutchkoff 1971, Biometrika 58(3), 593-600 (beta-binomial empirical Bayes); Morris 1983, JASA
    78(381), 47-55, and Kass & Steffey 1989, JASA 84(407), 717-726 (the variance of what is estimated); Daniels 1999,
    Canadian Journal of Statistics 27(3), 567-578 (the prior).
    """
    from scipy.special import betaincinv, betaln

    if faulty := [pair for pair in counts if not 0 <= pair[0] <= pair[1]]:
        raise ValueError(f"expected 0 ≤ right ≤ items of every skill, got {faulty[0]}")
    known = np.array([pair for pair in counts if pair[1]], dtype=np.float64).reshape(-1, 2)
    if len(known) < 2:
        return [None] * len(counts)
    right, items = known.T
    pooled = (right.sum() + 0.5) / (items.sum() + 1)
    s = _STRENGTHS[:, None]
    a, b = s * pooled, s * (1 - pooled)
    likelihood = (betaln(a + right, b + items - right) - betaln(a, b)).sum(axis=1)
    typical = len(items) / (1 / items).sum()
    # The prior's density is typical / (typical + s)²; the grid is even in log s, hence one more s.
    weights = np.exp(likelihood - likelihood.max()) * _STRENGTHS * typical / (typical + _STRENGTHS) ** 2
    weights /= weights.sum()

    own = (s * pooled + right) / (s + items)
    mean = weights @ own
    # Skills that differ say less of μ than as many items of one: each counts items (s + 1) / (s + items).
    pooled_variance = pooled * (1 - pooled) / ((items * (s + 1) / (s + items)).sum(axis=1, keepdims=True) + 1)
    variance = weights @ (
        own * (1 - own) / (s + items + 1) + (s / (s + items)) ** 2 * pooled_variance + (own - mean) ** 2
    )
    strength = np.maximum(mean * (1 - mean) / variance - 1, 1e-3)
    low, high = (betaincinv(strength * mean, strength * (1 - mean), q) for q in (0.025, 0.975))
    made = iter(zip(mean.tolist(), low.tolist(), high.tolist(), (weights @ (s / (s + items))).tolist(), strict=True))
    return [
        None if n == 0 else ShrunkRate(**dict(zip(("rate", "low", "high", "borrowed"), next(made), strict=True)))
        for _, n in counts
    ]
