"""How unsure a student is where its answer begins: the entropy of the first token.

The same estimate for every engine: from the likeliest tokens, of which a server names no more than twenty.
"""

import math
from collections.abc import Sequence

TOP = 20
"""Most alternatives a vLLM server gives the log-probabilities of, by its default."""


def top_entropy(log_probabilities: Sequence[float]) -> float:
    """Entropy in nats of a distribution of which only the likeliest are known; the rest counts as one alternative.

    −Σ p·ln p − m·ln m with m = 1 − Σ p. It is too low by at most m·ln(number of the rest).
    """
    shares = [math.exp(value) for value in log_probabilities]
    rest = max(0.0, 1.0 - math.fsum(shares))
    return max(0.0, -math.fsum(p * math.log(p) for p in (*shares, rest) if p > 0))
