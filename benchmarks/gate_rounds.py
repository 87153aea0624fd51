"""Several rounds on the same gate items: false accepts, power, flattery and the veto, beside the rules others use.

Run: python benchmarks/gate_rounds.py        (one core, some minutes, no model, no network)

Simulated adapters answer simulated items. An item is easy or hard for all of them alike, as far as makes two trainings
of one recipe disagree on as many items as two trainings of the real student do (`retrain_churn.py`: 10.4 % at 16.4 %,
true accuracies 2.4 points apart); our rule is told the default, 2.0. Every round trains a candidate and compares it
with the current adapter on the same items; what is accepted is the current adapter of the next round. The rules are in
`gate_rules.py`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from gate_rules import CONFIG, RULES, SKILLS, Bools, Floats, Pair, fall_of, rise, significant_fall, skill_of, tested
from machine import describe
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

ITEMS = (90, 240, 400, 600)
ACCURACY, CHURN, SEED_SD = 0.164, 0.104, 0.024
"""Measured on the real student: see runs/LOG.md, "how far retrainings differ"."""
START = 0.3
"""Accuracy that simulated runs begin with."""


def likeness() -> float:
    """The correlation of two adapters' answers to an item, on the scale of the normal distribution behind them."""
    cut = norm.ppf(ACCURACY)

    def surplus(rho: float) -> float:
        both = multivariate_normal.cdf([cut, cut], cov=[[1, rho], [rho, 1]])
        return float(2 * (ACCURACY - both) - CHURN)

    return float(brentq(surplus, 0.1, 0.999))


class World:
    """Items whose hardness all adapters share, for many runs at once [n_trials, n_items]."""

    def __init__(self, trials: int, items: int, rho: float, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shape, self.own = (trials, items), np.float32(np.sqrt(1 - rho))
        self.hardness = np.sqrt(rho).astype(np.float32) * self.random.standard_normal(self.shape, dtype=np.float32)

    def train(self, recipe: Floats) -> Floats:
        """The true accuracy of one training of each recipe [n_trials]."""
        return np.clip(recipe + self.random.normal(0, SEED_SD / np.sqrt(2), len(recipe)), 0.01, 0.99)

    def answers(self, true: Floats, first_skill: float = 0.0) -> Bools:
        """Which items adapters of these true accuracies answer right; on the first skill they differ by that much."""
        of_skill = np.clip(true[:, None] + np.where(np.arange(SKILLS) == 0, first_skill, 0.0), 0.01, 0.99)
        cut = norm.ppf(of_skill).astype(np.float32)[:, skill_of(self.shape[1])]
        right: Bools = self.hardness + self.own * self.random.standard_normal(self.shape, dtype=np.float32) < cut
        return right


class Run(NamedTuple):
    """What many runs of a rule came to [n_trials]."""

    accepts: NDArray[np.int64]
    first: Bools
    gained: Floats
    """True accuracy at the end, less that of the start."""


def play(name: str, items: int, rounds: int, gains: Sequence[float], trials: int, rho: float) -> Run:
    """Runs of so many rounds; a candidate's recipe is truly better than the current adapter's by one of the gains."""
    rule = RULES[name]
    world = World(trials, items, rho, seed=1)
    recipe = np.full(trials, START)
    true = world.train(recipe)
    current = world.answers(true)
    start, left = true, np.full(trials, CONFIG.alpha)
    accepts, first = np.zeros(trials, dtype=np.int64), np.zeros(trials, dtype=bool)
    for round_ in range(1, rounds + 1):
        # As `curriculum.looks`, for all trials at once.
        level = left / (rounds - round_ + 1) if name == "ours" else np.full(trials, CONFIG.alpha / rounds)
        gain = world.random.choice(gains, trials)
        its_true = world.train(recipe + gain)
        pair = Pair(current, world.answers(its_true), level)
        kept = rule(pair)
        left -= np.where(kept, 0, tested(pair).used) if name == "ours" else 0
        accepts += kept
        first = first | kept if round_ == 1 else first
        recipe, true = recipe + gain * kept, np.where(kept, its_true, true)
        current = np.where(kept[:, None], pair.after, current)
    return Run(accepts, first, true - start)


def errors(items: int, trials: int, rho: float) -> Table:
    """False accepts, power, and the true accuracy that runs end with beyond that of their start, at one gate size."""
    table = Table(title=f"{items} gate items, {trials:,} runs, percent", title_justify="left")
    heads = ["rule", "false: 1 round", "any of 3", "any of 10", "first of 3: +2", "+5", "+10"]
    for head in [*heads, "3 × +5", "10 × +2", "10 × +5 or −5"]:
        table.add_column(head, justify="left" if head == "rule" else "right")
    for name in RULES:
        false = [100 * np.mean(play(name, items, r, [0.0], trials, rho).accepts > 0) for r in (1, 3, 10)]
        better = {gain: play(name, items, 3, [gain], trials, rho) for gain in (0.02, 0.05, 0.10)}
        seen = [100 * np.mean(run.first) for run in better.values()]
        long = [play(name, items, 10, gains, trials, rho) for gains in ([0.02], [0.05, -0.05])]
        ends = [100 * run.gained.mean() for run in (better[0.05], *long)]
        table.add_row(name, *(f"{v:.1f}" for v in (*false, *seen)), *(f"{v:+.1f}" for v in ends))
    return table


def flattery(trials: int, rho: float) -> Table:
    """How much an accepted adapter's gate accuracy flatters, and what that costs the next candidate."""
    table = Table(title="After an accept by our rule in round 1 of 3, points and percent", title_justify="left")
    heads = [
        "items",
        "true gain",
        "accepted",
        "gate − true accuracy",
        "seen − true gain",
        "next, +5: seen",
        "fresh items",
    ]
    for head in [*heads, "next accepted", "fresh items"]:
        table.add_column(head, justify="right")
    for items in ITEMS:
        for gain in (0.02, 0.05, 0.10):
            old, new = World(trials, items, rho, seed=2), World(trials, items, rho, seed=3)
            base, true, later = (old.train(np.full(trials, START + g)) for g in (0.0, gain, gain + 0.05))
            taken = old.answers(true)
            first = Pair(old.answers(base), taken, np.full(trials, CONFIG.alpha / 3))
            kept = RULES["ours"](first)
            second = Pair(taken, old.answers(later), np.full(trials, CONFIG.alpha / 2))
            # The same two adapters on items that chose neither of them.
            fresh = Pair(new.answers(true), new.answers(later), second.level)
            seen = (taken.mean(axis=1) - true, rise(first) - (true - base), rise(second), rise(fresh))
            rates = [RULES["ours"](pair)[kept].mean() for pair in (second, fresh)]
            table.add_row(
                str(items),
                f"+{100 * gain:.0f}",
                f"{100 * kept.mean():.1f}",
                *(f"{100 * values[kept].mean():+.1f}" for values in seen),
                *(f"{100 * rate:.1f}" for rate in rates),
                end_section=gain == 0.10,
            )
    return table


def vetoes(trials: int, rho: float) -> Table:
    """How often a fall of one skill of nine is caught, and how often a veto is raised though no skill changed."""
    table = Table(title="Candidates with one skill fallen, percent that are vetoed", title_justify="left")
    rules: dict[str, Callable[[Pair], Bools]] = {
        "ours": significant_fall,
        "p ≤ .05": partial(significant_fall, alpha=0.05),
        "any fall": fall_of(0),
        "fall > 5": fall_of(5),
    }
    falls = (0.0, -0.05, -0.10, -0.20)
    table.add_column("items a skill", justify="right")
    for name in rules:
        for fall in falls:
            table.add_column(f"{name} {100 * fall:.0f}" if fall else f"{name} none", justify="right")
    for items in ITEMS:
        cells = []
        for rule in rules.values():
            for fall in falls:
                world = World(trials, items, rho, seed=4)
                before, after = world.train(np.full(trials, START)), world.train(np.full(trials, START))
                pair = Pair(world.answers(before), world.answers(after, fall), np.full(trials, CONFIG.alpha))
                cells.append(f"{100 * rule(pair).mean():.1f}")
        table.add_row(f"{items / SKILLS:.0f}", *cells)
    return table


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    trials = parser.parse_args().trials
    began, rho, console = time.perf_counter(), likeness(), Console(width=150)
    console.print(f"likeness of two adapters' answers {rho:.3f}; runs begin at {START:.0%}")
    for items in ITEMS:
        console.print(errors(items, trials, rho))
    console.print(flattery(trials, rho))
    console.print(vetoes(trials, rho))
    console.print(describe("numpy", "scipy"))
    console.print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
