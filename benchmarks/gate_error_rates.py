"""How often the gate is wrong: false accepts of a same-recipe retrain, and power, against simpler rules.

Run: python benchmarks/gate_error_rates.py        (one core, under a minute, no model, no network)

Each simulated pair of adapters has a true difference of accuracy; a share of the gate items is answered
right by one of the two only. Rules: ours; "sign test", the same test for a student that is retrained
without any seed noise; "any rise", accept whatever answers more items right. Printed for ours: simulation
/ formula (`curriculum.gate_odds`), so that the two check each other. Power is for a true gain of just that size;
seed noise is the standard deviation between two trainings of one recipe, which our rule is told.
"""

import os
import platform
import time
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from curriculum.gate_odds import detectable_gain, false_accept_rate, gate_p_value, power

ITEMS = (128, 240, 400, 600)
SEED_NOISE = (0.0, 0.01, 0.02, 0.03)
GAINS = (0.02, 0.05, 0.10)
DISCORDANT_SHARE = 0.2
ALPHA = 0.05
TRIALS = 100_000


class Outcomes(NamedTuple):
    """Simulated gate evaluations: items gained and lost [n_trials]."""

    gained: NDArray[np.int64]
    lost: NDArray[np.int64]


def simulate(n: int, true_gains: NDArray[np.float64], random: np.random.Generator) -> Outcomes:
    """Draws one gate evaluation for each true gain: every item is gained, lost, or the same for both."""
    gained_share = np.clip((DISCORDANT_SHARE + true_gains) / 2, 0, DISCORDANT_SHARE)
    discordant = random.binomial(n, DISCORDANT_SHARE, size=true_gains.shape)
    gained = random.binomial(discordant, gained_share / DISCORDANT_SHARE)
    return Outcomes(gained, discordant - gained)


@cache
def accepted(gained: int, lost: int, n: int, retrain_sd: float) -> bool:
    """What our rule says, the veto of single skills apart."""
    return gate_p_value(gained, lost, n, retrain_sd) <= ALPHA


def share_accepted(outcomes: Outcomes, n: int, retrain_sd: float) -> float:
    """The share of simulated evaluations that our rule accepts."""
    pairs, counts = np.unique(np.stack(outcomes), axis=1, return_counts=True)
    kept = [accepted(int(g), int(b), n, retrain_sd) for g, b in pairs.T]
    return float(counts[kept].sum() / counts.sum())


def main() -> None:
    """Prints the table."""
    began = time.perf_counter()
    random = np.random.default_rng(0)
    table = Table(
        title=f"{ALPHA:.0%} level, {DISCORDANT_SHARE:.0%} discordant items, {TRIALS:,} simulated pairs a cell, percent",
        caption="ours: simulation / formula; 80 %: smallest true gain accepted four times in five, in points",
    )
    powers = (f"power +{100 * g:.0f}" for g in GAINS)
    for head in ("items", "seed noise, points", "false accepts: any rise", "sign test", "ours", *powers, "80 %"):
        table.add_column(head, justify="right")
    for n in ITEMS:
        for sd in SEED_NOISE:
            table.add_row(*cells(n, sd, random), end_section=sd == SEED_NOISE[-1])
    console = Console(width=140)
    console.print(table)
    console.print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy {np.__version__}"
    )
    console.print(f"{time.perf_counter() - began:.0f} s")


def cells(n: int, sd: float, random: np.random.Generator) -> list[str]:
    """One row of the table: a gate size and a seed noise."""
    retrains = simulate(n, random.normal(0, sd, TRIALS), random)
    any_rise = float(np.mean(retrains.gained > retrains.lost))
    row = [str(n), f"{100 * sd:.0f}", f"{100 * any_rise:.1f}", f"{100 * share_accepted(retrains, n, 0.0):.1f}"]
    formula = false_accept_rate(n, DISCORDANT_SHARE, ALPHA, sd)
    row.append(f"{100 * share_accepted(retrains, n, sd):.1f} / {100 * formula:.1f}")
    for gain in GAINS:
        better = simulate(n, np.full(TRIALS, gain), random)
        formula = float(power(np.array([gain]), n, DISCORDANT_SHARE, ALPHA, sd)[0])
        row.append(f"{100 * share_accepted(better, n, sd):.1f} / {100 * formula:.1f}")
    smallest = detectable_gain(n, DISCORDANT_SHARE, ALPHA, sd)
    return [*row, "–" if smallest is None else f"{100 * smallest:.1f}"]


if __name__ == "__main__":
    main()
