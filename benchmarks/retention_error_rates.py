"""How often the retention set rolls a candidate back wrongly, and how often it catches what was forgotten.

Run: python benchmarks/retention_error_rates.py        (one core, about three minutes, no model, no network)

Simulated candidates against the current adapter: a share of the items is answered right by one of the two only, and the
true difference of two trainings of one recipe is drawn once a candidate, for all parts alike. False alarms: nothing
truly fell, the candidate is a retrain of the same recipe with another seed. Caught: the last part truly fell so far.
The rule (`curriculum.retention`) is told the seed noise of the column "told".
"""

import time
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from curriculum.gate_odds import gate_p_value
from curriculum.retention import RETENTION_ALPHA
from curriculum.statistics import benjamini_hochberg

PARTS = ((60,), (200,), (30, 30, 30), (30,) * 8, (30, 30, 30, 200))
"""Items of each part: named sets and skills."""
NOISE = ((0.0, 0.0), (0.02, 0.02), (0.04, 0.02))
"""Standard deviation of the seed noise there is, and that the rule is told."""
FALLS = (0.05, 0.10, 0.20)
DISCORDANT_SHARE = 0.2
TRIALS = 20_000


def rolled_back(
    sizes: Sequence[int], sd: float, told: float, fall: float, random: np.random.Generator, trials: int = TRIALS
) -> float:
    """The share of candidates that are rolled back when the last part truly fell by `fall`, in shares of 1."""
    noise = random.normal(0, sd, trials)
    counts = [simulate(n, noise - (fall if at == len(sizes) - 1 else 0), random) for at, n in enumerate(sizes)]
    totals = [sum(sizes)] if len(sizes) > 1 else []
    whole = [np.sum(counts, axis=0)] if totals else []
    both = np.stack([*counts, *whole], axis=1).reshape(trials, -1)
    kinds, times = np.unique(both, axis=0, return_counts=True)
    items = (*sizes, *totals)
    fell = [_falls(tuple(int(c) for c in kind), items, told) for kind in kinds]
    return float(times[fell].sum() / trials)


def simulate(n: int, true_gains: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """Items gained and lost for each true gain: [n_trials, 2]."""
    share = max(DISCORDANT_SHARE, float(np.abs(true_gains).max()))
    discordant = random.binomial(n, share, size=true_gains.shape)
    gained = random.binomial(discordant, np.clip(0.5 + true_gains / (2 * share), 0, 1))
    return np.stack([gained, discordant - gained], axis=1)


def _falls(counts: Sequence[int], items: Sequence[int], told: float) -> bool:
    pairs = zip(counts[::2], counts[1::2], items, strict=True)
    adjusted = benjamini_hochberg([_p(lost, gained, n, told) for gained, lost, n in pairs])
    return any(p is not None and p <= RETENTION_ALPHA for p in adjusted)


@cache
def _p(lost: int, gained: int, n: int, told: float) -> float:
    return gate_p_value(lost, gained, n, told)


def main() -> None:
    """Prints the table."""
    began = time.perf_counter()
    random = np.random.default_rng(0)
    table = Table(title=f"Rolled back by the retention set, percent of {TRIALS:,} simulated candidates a cell")
    heads = ("items of the parts", "seed noise, points", "told", "false alarms", *(f"caught −{f:.0%}" for f in FALLS))
    for head in heads:
        table.add_column(head, justify="right")
    for sizes in PARTS:
        for sd, told in NOISE:
            rates = [rolled_back(sizes, sd, told, fall, random) for fall in (0.0, *FALLS)]
            cells = [" + ".join(map(str, sizes)), f"{100 * sd:.0f}", f"{100 * told:.0f}"]
            table.add_row(*cells, *(f"{100 * rate:.1f}" for rate in rates), end_section=sd == NOISE[-1][0])
    console = Console(width=120)
    console.print(table)
    console.print(f"{DISCORDANT_SHARE:.0%} discordant items; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
