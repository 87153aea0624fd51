"""Rules for accepting a candidate, the shipped one and those of others, applied to many simulated evaluations at once.

- `ours`: as shipped, alpha 5 % for all rounds, what is not used is given back;
- `even parts`: alpha over the rounds, with nothing given back; `5 % a round`: without regard to other rounds;
- `any rise` (autoresearch); `any rise of 100`: looked at on the first hundred items; `+5 points` or more;
- `rise, no skill −5`: any rise, where no skill fell by more than five points (Soup).
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curriculum.config import GateConfig
from curriculum.gate import REGRESSION_ALPHA
from curriculum.gate_odds import gate_p_value
from curriculum.statistics import mcnemar_p

SKILLS = 9
CONFIG = GateConfig()
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Pair(NamedTuple):
    """Current adapter and candidate on the gate items [n_trials, n_items], and the level of the shipped rule's test."""

    before: Bools
    after: Bools
    level: Floats


def skill_of(items: int) -> NDArray[np.int64]:
    """The skill of each item [n_items]."""
    return np.arange(items) % SKILLS


@cache
def tails(discordant: int, n: int) -> Floats:
    """The shipped test's p-values for 0 … `discordant` gained of so many discordant items, then 2s [n + 1]."""
    values = [gate_p_value(gained, discordant - gained, n, CONFIG.retrain_sd) for gained in range(discordant + 1)]
    return np.array(values + [2.0] * (n - discordant))


class Tested(NamedTuple):
    """The shipped test of each trial."""

    p_values: Floats
    used: Floats
    """What a retrain could reach at the level: see `curriculum.gate_odds.level_used`."""


def tested(pair: Pair) -> Tested:
    """Tests each trial at its level."""
    gained, discordant = (pair.after & ~pair.before).sum(axis=1), (pair.after ^ pair.before).sum(axis=1)
    kinds, place = np.unique(discordant, return_inverse=True)
    table = np.stack([tails(int(d), pair.before.shape[1]) for d in kinds])[place]
    reached = np.where(table <= pair.level[:, None], table, 0.0).max(axis=1)
    return Tested(table[np.arange(len(table)), gained], reached)


def rise(pair: Pair) -> Floats:
    """How much higher the candidate's accuracy is on the gate items [n_trials]."""
    return pair.after.mean(axis=1) - pair.before.mean(axis=1)


def by_skill(pair: Pair) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items gained and lost of each skill [n_trials, SKILLS]."""
    member = np.eye(SKILLS, dtype=np.float32)[skill_of(pair.before.shape[1])]
    changed = pair.after & ~pair.before, pair.before & ~pair.after
    gained, lost = ((of.astype(np.float32) @ member).round().astype(np.int64) for of in changed)
    return gained, lost


def significant_fall(pair: Pair, alpha: float = REGRESSION_ALPHA) -> Bools:
    """The shipped veto: a skill fell, exact McNemar test, Benjamini–Hochberg over the skills [n_trials]."""
    gained, lost = by_skill(pair)
    most = int(max(gained.max(), lost.max())) + 1
    table = np.array([[mcnemar_p(g, b) for b in range(most)] for g in range(most)])
    p = table[gained, lost]
    order = np.argsort(p, axis=1)
    ranked = np.take_along_axis(p, order, axis=1) * SKILLS / np.arange(1, SKILLS + 1)
    adjusted = np.minimum.accumulate(ranked[:, ::-1], axis=1)[:, ::-1]
    fell = np.take_along_axis(lost > gained, order, axis=1)
    return ((adjusted <= alpha) & fell).any(axis=1)


def fall_of(points: float) -> Callable[[Pair], Bools]:
    """Whether a skill fell by more than so many points on its gate items."""

    def fell(pair: Pair) -> Bools:
        gained, lost = by_skill(pair)
        return ((gained - lost) / np.bincount(skill_of(pair.before.shape[1])) < -points / 100).any(axis=1)

    return fell


RULES: dict[str, Callable[[Pair], Bools]] = {
    "ours": lambda pair: (tested(pair).p_values <= pair.level) & ~significant_fall(pair),
    "even parts": lambda pair: (tested(pair).p_values <= pair.level) & ~significant_fall(pair),
    "5 % a round": lambda pair: (tested(pair).p_values <= CONFIG.alpha) & ~significant_fall(pair),
    "any rise": lambda pair: rise(pair) > 0,
    "any rise of 100": lambda pair: rise(Pair(pair.before[:, :100], pair.after[:, :100], pair.level)) > 0,
    "+5 points": lambda pair: rise(pair) >= 0.05 - 1e-9,
    "rise, no skill −5": lambda pair: (rise(pair) > 0) & ~fall_of(5)(pair),
}
