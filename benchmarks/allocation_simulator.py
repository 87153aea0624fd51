"""Which rule of allocation teaches most: ours beside others, on simulated students whose best plan is known.

Run: python benchmarks/allocation_simulator.py [--seeds 100] [--curves FOLDER] [--variants] [--sensitivity]
(two processes, about five minutes of CPU without options; no model, no network)

Prints, for each kind of world and each rule, the mean accuracy after the last round and the regret against an oracle
that knows the true curves, in points ± standard error; then expected gain minus uniform, minus failures and minus the
best other rule, in pairs of the same world. `--variants` adds expected gain with one part changed and the rules as the
config ships them, `--sensitivity` other sizes. FOLDER is `results/finetune_results` of a clone of
github.com/r-three/dataefficiency: with it four more worlds have published learning curves in place of simulated ones
(they are not shipped with this repository).
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from allocation_rules import RULES, VARIANTS
from allocation_worlds import PUBLISHED, UNLEARNABLE, Array, Rule, Setting, best_plan, draw_world, follow
from rich.console import Console
from rich.table import Table

SMALL: Mapping[str, Mapping[str, float]] = {
    "as above": {},
    "one adaptive round (17 skills, 2 rounds, 30 items)": {"skills": 17, "rounds": 2, "items": 30},
    "3 rounds": {"rounds": 3},
    "8 items, 1 sample": {"items": 8, "samples": 1},
    "60 items": {"items": 60},
    "no samples": {"samples": 0},
    "10 rounds": {"rounds": 10},
    "120 rows": {"rows": 120},
    "quickstart: 9 skills, 3 rounds, 150 rows, 8 items, no samples": {
        "skills": 9, "rounds": 3, "rows": 150, "items": 8, "samples": 0,
    },
}  # fmt: skip


def trial(setting: Setting, rules: Mapping[str, Rule], curves: Path | None, seed: int) -> list[float]:
    """The scores, 0 to 1, of the oracle and of every rule in the world of a seed."""
    world = draw_world(setting, seed, curves)
    return [best_plan(world), *(world.score(follow(world, rule, seed)) for rule in rules.values())]


def scores(
    pool: ProcessPoolExecutor, setting: Setting, rules: Mapping[str, Rule], curves: Path | None, seeds: Sequence[int]
) -> Array:
    """[n_seeds, 1 + n_rules] in points, the oracle first."""
    return 100 * np.array(list(pool.map(partial(trial, setting, rules, curves), seeds, chunksize=2)))


def with_error(values: Array) -> str:
    """Mean ± standard error."""
    return f"{values.mean():.2f} ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--curves", type=Path)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--sensitivity", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    kinds = [*UNLEARNABLE, *(PUBLISHED if options.curves else ())]
    rules = {**RULES, **(VARIANTS if options.variants else {})}
    console = Console(width=40 + 18 * len(kinds))
    beaten = 0
    with ProcessPoolExecutor(2) as pool:
        columns = {}
        for kind in kinds:
            setting = Setting(kind, rows=PUBLISHED.get(kind, 480))
            columns[kind] = scores(pool, setting, rules, options.curves, seeds)
            beaten += int((columns[kind][:, 1:] > columns[kind][:, :1] + 1e-9).sum())
        console.print(regrets(columns, list(rules), options.seeds))
        console.print(differences(columns, list(rules)))
        if options.sensitivity:
            console.print(sensitivity(pool, seeds[: max(2, options.seeds * 2 // 5)]))
    console.print(f"plans that beat the oracle: {beaten}")
    console.print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy {np.__version__}"
    )
    console.print(f"{time.perf_counter() - began:.0f} s")


def regrets(columns: Mapping[str, Array], names: Sequence[str], n: int) -> Table:
    """Accuracy / regret of every rule in every world."""
    table = Table(title=f"accuracy, % / regret ± standard error, points; {n} seeds", title_justify="left")
    table.add_column("rule")
    for kind in columns:
        table.add_column(kind, justify="right")
    table.add_row("oracle", *(f"{of[:, 0].mean():.1f}" for of in columns.values()), end_section=True)
    for place, name in enumerate(names, 1):
        cells = [f"{of[:, place].mean():.1f} / {with_error(of[:, 0] - of[:, place])}" for of in columns.values()]
        table.add_row(name, *cells)
    return table


def differences(columns: Mapping[str, Array], names: Sequence[str]) -> Table:
    """Expected gain minus uniform, minus failures, and minus the best other rule of that world, paired."""
    table = Table(title="expected gain minus …, points, paired", title_justify="left")
    for head in ("world", "uniform", "failures (STAT)", "best other rule", ""):
        table.add_column(head)
    mine, others = names.index("expected gain") + 1, range(2, 1 + len(RULES))
    for kind, of in columns.items():
        best = max(others, key=lambda place: of[:, place].mean())
        pairs = [with_error(of[:, mine] - of[:, names.index(name) + 1]) for name in ("uniform", "failures (STAT)")]
        table.add_row(kind, *pairs, with_error(of[:, mine] - of[:, best]), names[best - 1])
    return table


def sensitivity(pool: ProcessPoolExecutor, seeds: Sequence[int]) -> Table:
    """Mean regret over the simulated worlds at other sizes."""
    chosen = ("uniform", "failures (STAT)", "uniform twice, then drop", "ADO-like", "expected gain")
    rules = {name: RULES[name] for name in chosen}
    rules["as shipped"] = VARIANTS["as shipped: 15 % even, 2 rows"]
    table = Table(title=f"mean regret over the simulated worlds, points; {len(seeds)} seeds", title_justify="left")
    for head in ("changed", *rules, "expected gain − failures, all learnable"):
        table.add_column(head)
    for name, sizes in SMALL.items():
        made = {kind: scores(pool, Setting(kind)._replace(**sizes), rules, None, seeds) for kind in UNLEARNABLE}
        mean = np.mean([of[:, :1] - of[:, 1:] for of in made.values()], axis=(0, 1))
        places = {rule: 1 + place for place, rule in enumerate(rules)}
        against = made["all"][:, places["expected gain"]] - made["all"][:, places["failures (STAT)"]]
        table.add_row(name, *(f"{value:.2f}" for value in mean), with_error(against))
    return table


if __name__ == "__main__":
    main()
