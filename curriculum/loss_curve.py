"""How the loss of a training goes: its beginning, its end, and how far it is from having diverged.

Takes the losses of the optimizer steps so far, in nats a target token; the trainer stops by these numbers and
the report shows them.
"""

from collections.abc import Sequence
from statistics import fmean

SMOOTHED_STEPS = 10
"""Steps over which the loss is averaged."""
DIVERGED_NATS = 2.0
"""A training whose smoothed loss is this far above that of its first steps has diverged."""


def first_loss(losses: Sequence[float]) -> float:
    """The mean loss of the first steps; at least one is needed."""
    return fmean(losses[:SMOOTHED_STEPS])


def last_loss(losses: Sequence[float]) -> float:
    """The mean loss of the last steps; at least one is needed."""
    return fmean(losses[-SMOOTHED_STEPS:])


def divergence_margin(losses: Sequence[float]) -> float:
    """How many nats the smoothed loss may still rise before the training is stopped; negative once it has diverged."""
    return DIVERGED_NATS - (last_loss(losses) - first_loss(losses))
