"""Rates, paired changes and their evidence: 95 % intervals, an exact test, a correction for many looks.

Takes counts and verdicts as plain numbers and mappings; returns `Rate`, `Change` and p-values. Where there
are no data the answer is `None`. Decides nothing: what an interval means for an adapter is the gate's affair.
"""

from collections.abc import Mapping, Sequence
from math import sqrt

from curriculum.records import Change, Rate

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % point: the half width of a 95 % interval in standard errors."""


def wilson(correct: int, n: int) -> Rate:
    """The share `correct / n` with its 95 % score interval; all `None` when `n` is 0.

    Raises:
        ValueError: `correct` is negative or above `n`.

    Source: Wilson 1927, JASA 22(158), 209-212; as in Newcombe 1998, Statistics in Medicine 17, 857-872.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"expected 0 to {n} right answers of {n}, got {correct}")
    if n == 0:
        return Rate(n=0, correct=0, rate=None, low=None, high=None)
    low, high = score_interval(correct / n, n)
    return Rate(n=n, correct=correct, rate=correct / n, low=low, high=high)


def score_interval(rate: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share of `n` items; see `wilson`."""
    # In the order of scipy's proportion_ci, to the last bit; that one first computes a test nobody asked for.
    whole = 2 * (n + Z95**2)
    centre = (2 * n * rate + Z95**2) / whole
    half_width = Z95 / whole * sqrt(4 * n * rate * (1 - rate) + Z95**2)
    return 0.0 if rate == 0 else centre - half_width, 1.0 if rate == 1 else centre + half_width


def paired_change(before: Mapping[str, bool], after: Mapping[str, bool]) -> Change:
    """The change in the share of right answers on the items both mappings hold, with its 95 % interval.

    Args:
        before: item id → whether it was answered right.
        after: the same after the change.

    Returns:
        The change after − before, in shares of 1; all `None` when no item is common to both.

    Source: Agresti & Min 2005, Statistics in Medicine 24(5), 729-740: the Wald interval for paired
    proportions after adding one half to each cell of the 2 × 2 table.
    """
    common = before.keys() & after.keys()
    n = len(common)
    gained = sum(after[id_] and not before[id_] for id_ in common)
    lost = sum(before[id_] and not after[id_] for id_ in common)
    if n == 0:
        return Change(n=0, gained=0, lost=0, change=None, low=None, high=None)
    centre = (gained - lost) / (n + 2)
    half_width = Z95 * sqrt((gained + lost + 1) / (n + 2) ** 2 - centre**2 / (n + 2))
    return Change(
        n=n,
        gained=gained,
        lost=lost,
        change=(gained - lost) / n,
        low=max(-1.0, centre - half_width),
        high=min(1.0, centre + half_width),
    )


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided exact p-value that items are as likely gained as lost; 1 when none changed.

    Exact and not mid-p: skills have few discordant items, where mid-p may exceed its level, and the correction for the
    number of skills and the gate's error rates both rest on p-values that never do. The price is power.

    Source: McNemar 1947, Psychometrika 12(2), 153-157, with the exact binomial distribution; Fagerland, Lydersen &
    Laake 2013, BMC Medical Research Methodology 13:91, on both.
    """
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue)


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for the number of tests made, in the order given; `None` (no test) stays `None`.

    Source: Benjamini & Hochberg 1995, JRSS B 57(1), 289-300.
    """
    tested = [p for p in p_values if p is not None]
    if not tested:
        return list(p_values)
    from scipy.stats import false_discovery_control

    adjusted = iter(float(p) for p in false_discovery_control(tested, method="bh"))
    return [None if p is None else next(adjusted) for p in p_values]
