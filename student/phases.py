"""The phases of a training: which rows each teaches, and how many steps it has.

Source: Goncharov et al. 2025 (arXiv 2506.21220): answers alone first, then worked solutions, from the weights that the
first phase left.
"""

from collections.abc import Sequence
from itertools import groupby

from curriculum.mixture import apportion


def places_of_phases(phases: Sequence[int], rows: int) -> list[list[int]]:
    """The places of the rows of each phase that has any, in the order they are taught.

    Args:
        phases: which phase teaches each of the `rows`; all are of one where this is empty.
        rows: how many there are.
    """
    of = list(phases) or [0] * rows
    return [[at for at, phase in enumerate(of) if phase == one] for one in sorted(set(of))]


def share_steps(batches: Sequence[int], steps: int | None) -> list[int]:
    """Steps of each phase: as many as it has batches or, where `steps` are given, its share of these, at least one.

    Args:
        batches: of each phase, none of which is empty.
        steps: in all; with fewer than there are phases some phase gets none.
    """
    if steps is None:
        return list(batches)
    by_phase = apportion({str(at): count for at, count in enumerate(batches)}, steps)
    shares = [by_phase[str(at)] for at in range(len(batches))]
    while 0 in shares and steps >= len(batches):
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return shares


def clock(phases: Sequence[int]) -> list[tuple[int, int]]:
    """For each step of a training the step inside its phase, from 0, and how many its phase has.

    Args:
        phases: of each step, in order.
    """
    counts = [len(list(of)) for _, of in groupby(phases)]
    return [(at, count) for count in counts for at in range(count)]
