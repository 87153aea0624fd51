"""The nearest of a set of vectors, by cosine. Takes plain arrays; knows nothing of what they stand for."""

from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""`items × dimensions`."""

ROWS_AT_ONCE = 1024
"""Queries whose cosines are in memory at a time."""


def nearest(queries: Vectors, items: Vectors, k: int, excluded: Sequence[Set[int]] = ()) -> list[list[int]]:
    """For each query the positions of the `k` items with the largest cosine, the largest first, ties by position.

    Exact; a vector of zeros has the cosine 0 with all. Fewer than `k` where there are not so many.

    Args:
        queries: `queries × dimensions`.
        items: `items × dimensions`.
        k: at least 1.
        excluded: for each query the positions of items that it may not get; empty for none at all.
    """
    units = _units(items)
    found: list[list[int]] = []
    for at in range(0, len(queries), ROWS_AT_ONCE):
        cosines = _units(queries[at : at + ROWS_AT_ONCE]) @ units.T
        for row, of_query in enumerate(cosines, at):
            barred = sorted(excluded[row]) if excluded else []
            of_query[barred] = -np.inf
            order = np.argsort(-of_query, kind="stable")[: min(k, len(items) - len(barred))]
            found.append(order.tolist())
    return found


def _units(vectors: Vectors) -> NDArray[np.float64]:
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units: NDArray[np.float64] = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0)
    return units
