"""How a run's alpha is spent over its rounds, which all look at the same gate items.

Takes the rounds planned and the decisions so far, and returns the level of the next test, so that alpha is the chance
of a false accept in all rounds together. What both ways cost is in `benchmarks/gate_rounds.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from curriculum.config import GateConfig
from curriculum.round_records import GateDecision


class Look(NamedTuple):
    """One round's test of a candidate."""

    level: float
    """A candidate is accepted with a p-value up to this."""
    last_round: int
    """The last round that was planned, and shares the alpha."""


def next_look(round_: int, rounds: int, config: GateConfig, past: Sequence[GateDecision]) -> Look:
    """The level of a round's test.

    With `alpha_per: run` it is an even part of what is left of alpha for this round and the planned ones after it. A
    round that was rolled back has used up what a retrain could reach at its level with that many discordant items; one
    that was accepted has used nothing. So the chance that any round accepts a retrain of its current adapter's recipe
    is at most alpha: until the first such accept only real gains were accepted. Rounds that are added once all planned
    ones are done share a new alpha.

    Args:
        round_: from 1.
        rounds: the last round planned now.
        config: its alpha.
        past: the decisions of the rounds 1 … `round_` − 1, in that order.

    Source: Tian & Ramdas 2021, Statistical Methods in Medical Research 30(4), 976-993 (online fallback), after Wiens &
    Dmitrienko 2005, Journal of Biopharmaceutical Statistics 15(6), 929-942.
    """
    last = max(rounds, round_)
    if config.alpha_per == "round":
        return Look(config.alpha, last)
    left, planned = config.alpha, 0
    for decision in past:
        if decision.round > planned:
            left = config.alpha
        planned = decision.last_round or decision.round
        if decision.decision != "accepted":
            left -= config.alpha if decision.level_used is None else decision.level_used
    if round_ > planned:
        left = config.alpha
    return Look(max(0.0, left) / (last - round_ + 1), last)
