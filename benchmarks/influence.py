"""Influence scores: seconds and peak memory, as a ratio of one training epoch over the same candidates.

    python benchmarks/influence.py            (five to ten minutes on two slow cores)

Candidates are rows of the quickstart's tasks, the student is its base with a LoRA of the config's shape. Arms, in
turns: one training epoch (`student.train_worker.fit`); PRISM's scores of all candidates (`student.ranking_worker`),
with and without its target direction of `--pairs` pairs; the same by gradients one row at a time, which is what
autograd gives by itself; and one checkpoint of LESS with its warm-up. The goals: 1.3 epochs at most, and three times
faster than batch-one gradients. CPU time is that of all threads: on a shared machine it says more than the clock.
Peak memory is that of a process of its own for each arm, with what the base takes; scaled figures are for 1,000.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import describe
from training import quickstart_rows

from curriculum.config import Config
from curriculum.plan_config import LessConfig
from student.base_model import resolve_base
from student.subprocess_job import Event, worker_environment

THREADS = 2
SEED = 0


class Run(NamedTuple):
    """Seconds by the clock and of CPU time, and the process's peak in MB."""

    wall: float
    cpu: float
    peak: float


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--one-by-one", type=int, default=40, help="candidates of the batch-one arm; scaled")
    parser.add_argument("--arms", default=",".join(ARMS))
    arguments = parser.parse_args()
    config, rows = quickstart_rows(arguments.candidates)
    folder = resolve_base(config.student.base)
    print(describe("torch", "transformers", "peft"))
    print(
        f"{len(rows)} candidates, {arguments.pairs} pairs, LoRA of rank {config.training.rank}, {config.student.base}"
    )
    counts = {name: arguments.one_by_one if name == "batch-one gradients" else len(rows) for name in ARMS}
    runs: dict[str, list[Run]] = {name: [] for name in arguments.arms.split(",")}
    for _ in range(arguments.repeats):
        for name, of in runs.items():
            process = get_context("spawn").Pool(1)
            of.append(process.apply(measure, (name, folder, config, rows[: counts[name]], arguments.pairs)))
            process.close()
            process.join()
            print(f"  {name}: {of[-1].wall:.0f} s, CPU {of[-1].cpu:.0f} s, {of[-1].peak:.0f} MB", file=sys.stderr)
    scaled = {
        name: Run(
            median(run.wall for run in of) * 1000 / counts[name],
            median(run.cpu for run in of) * 1000 / counts[name],
            max(run.peak for run in of),
        )
        for name, of in runs.items()
    }
    epoch = scaled["training epoch"]
    print(
        "arm                        s per 1,000  CPU s per 1,000  epochs, by clock  by CPU time  peak MB  of training's"
    )
    for name, run in scaled.items():
        print(
            f"{name:<27}{run.wall:>11.0f}{run.cpu:>17.0f}{run.wall / epoch.wall:>18.2f}{run.cpu / epoch.cpu:>13.2f}"
            f"{run.peak:>9.0f}{run.peak / epoch.peak:>15.2f}"
        )


def measure(name: str, folder: Path, config: Config, rows: list[Event], pairs: int) -> Run:
    """One arm, in this process; loading the base is not timed."""
    import torch

    from student.chat_format import pad_id
    from student.loading import load_base
    from student.lora import add_lora
    from student.ranking_worker import Failure, Work
    from student.train_worker import encode_rows

    base, tokenizer = load_base(folder, config.student.dtype, THREADS)
    data = encode_rows(tokenizer, rows, config.training.max_length)
    torch.manual_seed(SEED)
    model = add_lora(base, config.training.model_copy(update={"epochs": 1}), "base")
    wrong = [row | {"targets": ["Answer: 0"]} for row in rows[:pairs]]
    others = encode_rows(tokenizer, wrong, config.training.max_length).epoch(0)
    candidates = data.epoch(0)
    failures = [Failure(right, other, ("s",)) for right, other in zip(candidates, others, strict=False)]
    work = Work(model, [r["id"] for r in rows], candidates, failures, config.training, pad_id(tokenizer), SEED)
    wall, cpu = time.perf_counter(), time.process_time()
    ARMS[name](work, data)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def epoch(work: Any, data: Any) -> None:
    """One training epoch over the candidates."""
    from student.train_worker import fit

    one = work.training.model_copy(update={"epochs": 1})
    for _ in fit(work.model, data, one, work.pad, SEED):
        pass


def prism(work: Any, _: Any) -> None:
    """PRISM, its target direction included."""
    from student.ranking_worker import prism

    for _ in prism(work, "pi"):
        pass


def candidates_only(work: Any, _: Any) -> None:
    """PRISM's candidates alone, with a direction that was there before."""
    import torch

    from student.influence import dot_products, lora_matrices

    work.model.eval()
    torch.manual_seed(SEED)
    direction = {name: torch.randn_like(matrix.weight) for name, matrix in lora_matrices(work.model).items()}
    for batch in work.candidate_batches():
        dot_products(work.model, work.batch([work.candidates[at] for at in batch]), direction)


def one_by_one(work: Any, _: Any) -> None:
    """The same by autograd, a row at a time."""
    import torch

    from student.influence import lora_matrices, row_losses

    work.model.eval()
    matrices = lora_matrices(work.model)
    torch.manual_seed(SEED)
    direction = [torch.randn_like(matrix.weight) for matrix in matrices.values()]
    weights = [matrix.weight for matrix in matrices.values()]
    for row in work.candidates:
        gradients = torch.autograd.grad(row_losses(work.model, work.batch([row]))[0], weights)
        sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))


def less(work: Any, _: Any) -> None:
    """One checkpoint of LESS: a warm-up of one epoch on a twentieth, validation gradients, and all candidates."""
    from student.ranking_worker import less

    for _ in less(work, LessConfig(epochs=1)):
        pass


ARMS: dict[str, Callable[[Any, Any], None]] = {
    "training epoch": epoch,
    "PRISM": prism,
    "candidates alone": candidates_only,
    "batch-one gradients": one_by_one,
    "LESS of one checkpoint": less,
}


if __name__ == "__main__":
    if "GOMP_SPINCOUNT" not in os.environ:  # it must be set before OpenMP is loaded; all arms get what a worker gets
        os.execve(sys.executable, [sys.executable, *sys.argv], worker_environment(THREADS))
    main()
