"""How often a bench's 95 % intervals hold the truth, and what they see, on simulated trainings whose truth is known.

    python benchmarks/bench_coverage.py        (one core, a minute or two, no model, no network)

Items, strategy × item, trainings and the rest are normal on a probit scale, so the true difference has a closed form:
with all variances summed to v a strategy answers Φ(mean / √v) right. Beside the bench's interval (seeds and items both
vary, see `curriculum.crossed`) stands the one over items alone, of the first training of either, which is what a paired
comparison of two adapters claims. `sees` is the median of what the interval says it sees with 80 % power.
"""

import argparse
import time
from math import sqrt

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from curriculum.crossed import Right, difference, seed_scatter

MEAN, ITEM_SD, STRATEGY_ITEM_SD, REST_SD, GAIN = -0.5, 1.0, 0.5, 1.0, 0.1
SEED_SD = (0.0, 0.06, 0.12)
"""On the probit scale; the table says what they are in points."""
SEEDS = (2, 3, 4, 6)
STRATEGIES = 4
"""With uniform, which has twice the trainings."""


def world(random: np.random.Generator, seeds: int, items: int, seed_sd: float) -> list[Right]:
    """Which items each training answers right: uniform and uniform_again together, a better strategy, then others."""
    item = random.normal(0, ITEM_SD, items)
    ways = []
    for number in range(STRATEGIES):
        trainings = 2 * seeds if number == 0 else seeds
        mean = MEAN + GAIN * (number == 1) + item + random.normal(0, STRATEGY_ITEM_SD, items)
        latent = mean + random.normal(0, seed_sd, (trainings, 1)) + random.normal(0, REST_SD, (trainings, items))
        ways.append((latent > 0).astype(float))
    return ways


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--items", type=int, default=400)
    arguments = parser.parse_args()
    since, items = time.perf_counter(), arguments.items
    table = Table(title=f"{STRATEGIES} strategies, {items} items, {arguments.trials} simulated benches a row", box=None)
    for head in ("seeds", "seed sd, points", "true gain, points", "held, %", "items alone, %", "half width", "sees"):
        table.add_column(head, justify="right")
    for seeds in SEEDS:
        for seed_sd in SEED_SD:
            scale = sqrt(ITEM_SD**2 + STRATEGY_ITEM_SD**2 + REST_SD**2 + seed_sd**2)
            truth = norm.cdf((MEAN + GAIN) / scale) - norm.cdf(MEAN / scale)
            random = np.random.default_rng([seeds, round(100 * seed_sd)])
            held = naive = 0
            widths, sees = [], []
            for _ in range(arguments.trials):
                ways = world(random, seeds, items, seed_sd)
                found = difference(ways[1], ways[0], seed_scatter(ways))
                assert found.low is not None and found.high is not None
                held += found.low <= truth <= found.high
                widths.append((found.high - found.low) / 2)
                sees.append(found.detectable)
                per_item = ways[1][0] - ways[0][0]
                naive += abs(per_item.mean() - truth) <= 1.96 * per_item.std(ddof=1) / sqrt(items)
            points = seed_sd / scale * norm.pdf(MEAN / scale)
            cells = [f"{100 * x:.1f}" for x in (points, truth, held / arguments.trials, naive / arguments.trials)]
            table.add_row(str(seeds), *cells, f"{100 * np.median(widths):.1f}", f"{100 * np.median(sees):.1f}")
    Console().print(table)
    print(f"{time.perf_counter() - since:.0f} s")


if __name__ == "__main__":
    main()
