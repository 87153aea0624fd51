"""What every method on candidate rows takes: seconds and memory, as ratios of one training epoch over the same rows.

    python benchmarks/methods.py                          (about five minutes on two quiet cores; all arms)
    python benchmarks/methods.py --candidates 300 --pairs 30 --one-by-one 60 --repeats 3        (for figures to keep)
    python benchmarks/methods.py --arms "training epoch,PRISM"
    python benchmarks/methods.py --candidates 400 --scoring-batch-tokens 12800 --repeats 3      (on a GPU with room)

Candidates are rows of the quickstart's tasks, the student is its base, with a LoRA of the config's shape. Arms take
turns, each in a process of its own, so that its peak memory is its own; a load of the model is in no time, and in
every peak. Seconds are scaled to 1,000 candidates, medians of the repeats. CPU time is that of all threads: on a
shared machine it says more than the clock, and the load there is printed with the machine. On a GPU the clock is what
counts, and peak memory is the GPU's; each arm begins with a pass that is not timed.

The goals for influence: 1.3 epochs at most, and three times faster than gradients of one row at a time.
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
from curriculum.extraction import format_target
from curriculum.plan_config import LessConfig
from curriculum.records import Sampling
from student.base_model import resolve_base
from student.subprocess_job import Event, worker_environment

THREADS = 2
SEED = 0
SAMPLES = 4
"""Answers drawn to each candidate for a pass rate."""
NEIGHBOURS = 3
EPOCH, ONE_BY_ONE = "training epoch", "batch-one gradients"


class Run(NamedTuple):
    """Seconds by the clock and of CPU time, and the process's peak in MB."""

    wall: float
    cpu: float
    peak: float


class Given(NamedTuple):
    """What an arm works on, in its own process."""

    base: Any
    tokenizer: Any
    config: Config
    rows: list[Event]
    work: Any
    """`student.ranking_worker.Work`, where an arm wants an adapter."""
    data: Any


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one-by-one", type=int, default=20, help="candidates of the batch-one arm; scaled")
    parser.add_argument("--batch-tokens", type=int, help="in place of the quickstart's training.batch_tokens")
    parser.add_argument("--scoring-batch-tokens", type=int, help="where rows are scored and not taught")
    parser.add_argument("--arms", default=",".join(ARMS), help="some of: " + ", ".join(ARMS))
    arguments = parser.parse_args()
    wanted = [name.strip() for name in arguments.arms.split(",")]
    if unknown := [name for name in wanted if name not in ARMS]:
        parser.error(f"--arms: expected some of {', '.join(ARMS)}, got {', '.join(unknown)}")
    config, rows = quickstart_rows(arguments.candidates)
    sizes = {"batch_tokens": arguments.batch_tokens, "scoring_batch_tokens": arguments.scoring_batch_tokens}
    training = config.training.model_copy(update={key: value for key, value in sizes.items() if value})
    config = config.model_copy(update={"training": training})
    folder = resolve_base(config.student.base)
    print(describe("torch", "transformers", "peft"), flush=True)
    counts = {name: min(arguments.one_by_one, len(rows)) if name == ONE_BY_ONE else len(rows) for name in ARMS}
    runs: dict[str, list[Run]] = {name: [] for name in wanted}
    for _ in range(arguments.repeats):
        for name, of in runs.items():
            process = get_context("spawn").Pool(1)
            of.append(process.apply(measure, (name, folder, config, rows[: counts[name]], arguments.pairs)))
            process.close()
            process.join()
            print(f"  {name}: {of[-1].wall:.1f} s, CPU {of[-1].cpu:.1f} s, {of[-1].peak:.0f} MB", file=sys.stderr)
    print(
        f"{len(rows)} candidates, {arguments.pairs} pairs, {counts[ONE_BY_ONE]} one by one, {arguments.repeats} turns, "
        f"LoRA of rank {config.training.rank}, {config.student.base}, batches of {training.batch_tokens} tokens "
        f"({training.scored_tokens} to score); load at the end {os.getloadavg()[0]:.1f}"
    )
    print_table({name: scaled(of, counts[name]) for name, of in runs.items()})


def scaled(runs: list[Run], count: int) -> Run:
    """For 1,000 candidates."""
    wall, cpu = (median(run[at] for run in runs) * 1000 / count for at in (0, 1))
    return Run(wall, cpu, max(run.peak for run in runs))


def print_table(runs: dict[str, Run]) -> None:
    """A line an arm; ratios where the training epoch is among them."""
    print("arm                          s/1,000  CPU s/1,000  epochs, clock  epochs, CPU  peak MB  of training's")
    epoch = runs.get(EPOCH)
    for name, run in runs.items():
        ratios = [run[at] / epoch[at] if epoch else float("nan") for at in (0, 1, 2)]
        print(
            f"{name:<28}{run.wall:>8.0f}{run.cpu:>13.0f}{ratios[0]:>15.2f}{ratios[1]:>13.2f}{run.peak:>9.0f}"
            f"{ratios[2]:>15.2f}"
        )
    if ONE_BY_ONE in runs and "PRISM's candidates" in runs:
        one, batched = runs[ONE_BY_ONE], runs["PRISM's candidates"]
        print(
            f"batch-one over candidates alone: {one.cpu / batched.cpu:.2f} by CPU time, {one.wall / batched.wall:.2f}"
        )


def measure(name: str, folder: Path, config: Config, rows: list[Event], pairs: int) -> Run:
    """One arm, in this process; loading the base is not timed."""
    import torch

    from student import embeddings, engine_worker, first_token
    from student.chat_format import pad_id
    from student.influence import row_losses
    from student.loading import here, load_base
    from student.lora import add_lora
    from student.ranking_worker import Failure, Work
    from student.train_worker import encode_rows

    base, tokenizer = load_base(folder, config.student.dtype, THREADS, here())
    for module in (embeddings, engine_worker, first_token):
        module.load_student = lambda job: (base.eval(), tokenizer)  # type: ignore[attr-defined]
    limit = config.training.max_length
    shown = [(row["messages"][-1]["content"], row["targets"][0]) for row in rows]
    others = {row["id"]: [shown[(at + 1 + n) % len(rows)] for n in range(NEIGHBOURS)] for at, row in enumerate(rows)}
    given = [row | {"nearest": others[row["id"]], "random": None} if name == ICA else row for row in rows]
    data = encode_rows(tokenizer, given, limit)
    work = None
    if ARMS[name] in ADAPTED:
        torch.manual_seed(SEED)
        model = add_lora(base, config.training.model_copy(update={"epochs": 1}), "base")
        wrong = encode_rows(tokenizer, [row | {"targets": ["Answer: 0"]} for row in rows[:pairs]], limit).epoch(0)
        candidates = data.epoch(0)
        failures = [Failure(right, other, ("s",)) for right, other in zip(candidates, wrong, strict=False)]
        work = Work(
            model.to(base.device),
            [r["id"] for r in rows],
            candidates,
            failures,
            config.training,
            pad_id(tokenizer),
            SEED,
        )
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        if work is not None:
            row_losses(work.model, work.batch(work.candidates[:1])).sum().backward()
            work.model.zero_grad()
        torch.cuda.reset_peak_memory_stats()
    wall, cpu = time.perf_counter(), time.process_time()
    ARMS[name](Given(base, tokenizer, config, rows, work, data))
    if on_gpu:
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    return Run(wall, cpu, peak)


def epoch(given: Given) -> None:
    """One training epoch over the candidates."""
    from student.train_worker import fit

    one = given.config.training.model_copy(update={"epochs": 1})
    for _ in fit(given.work.model, given.data, one, given.work.pad, SEED):
        pass


def prism(given: Given) -> None:
    """PRISM, its target direction included."""
    from student.ranking_worker import prism

    for _ in prism(given.work, "pi"):
        pass


def _direction(model: Any) -> dict[str, Any]:
    import torch

    from student.influence import lora_matrices

    model.eval()
    torch.manual_seed(SEED)
    return {name: torch.randn_like(matrix.weight) for name, matrix in lora_matrices(model).items()}


def candidates_only(given: Given) -> None:
    """PRISM's candidates alone, with a direction that was there before: one backward pass a batch."""
    from student.influence import dot_products

    work = given.work
    direction = _direction(work.model)
    for batch in work.candidate_batches():
        dot_products(work.model, work.batch([work.candidates[at] for at in batch]), direction)


def one_by_one(given: Given) -> None:
    """The same by autograd, a row at a time."""
    import torch

    from student.influence import lora_matrices, row_losses

    work = given.work
    direction = list(_direction(work.model).values())
    weights = [matrix.weight for matrix in lora_matrices(work.model).values()]
    for row in work.candidates:
        gradients = torch.autograd.grad(row_losses(work.model, work.batch([row]))[0], weights)
        sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))


def less(given: Given) -> None:
    """One checkpoint of LESS: a warm-up of one epoch on a twentieth, validation gradients, and all candidates."""
    from student.ranking_worker import less

    for _ in less(given.work, LessConfig(epochs=1)):
        pass


def embed_sel(given: Given) -> None:
    """An embedding of each question."""
    from student.embeddings import embed

    list(embed({"prompts": given.rows, "batch_size": given.config.student.batch_size}))


def ica(given: Given) -> None:
    """One scoring of in-context approximation: each row alone and after three others, and their embeddings."""
    from student.chat_format import pad_id
    from student.in_context import weigh

    embed_sel(given)
    rows, tokens, pad = (
        [turns[0] for turns in given.data.rows],
        given.config.training.scored_tokens,
        pad_id(given.tokenizer),
    )
    weigh(given.base.eval(), rows, given.data.shown, tokens, pad, 0, 1)


def entropy(given: Given) -> None:
    """The entropy of each answer's first token."""
    from student.first_token import entropies

    asked = [row | {"target": format_target(row["targets"][0].rpartition(": ")[2], None)} for row in given.rows]
    list(entropies({"prompts": asked, "batch_size": given.config.student.batch_size, "exact": True}))


def pass_rate(given: Given) -> None:
    """Four drawn answers to each candidate."""
    from student.engine_worker import answer

    student = given.config.student
    prompts = [row | {"more": [f"{row['id']}-{n}" for n in range(1, SAMPLES)]} for row in given.rows]
    sampling = Sampling(max_new_tokens=student.max_new_tokens, temperature=1.0, top_p=1.0, seed=SEED).model_dump()
    job = {"prompts": prompts, "sampling": sampling, "batch_size": student.batch_size, "finished": [], "signals": True}
    list(answer(job))


ICA = "ICA of one scoring"
ARMS: dict[str, Callable[[Given], None]] = {
    EPOCH: epoch,
    "PRISM": prism,
    "PRISM's candidates": candidates_only,
    ONE_BY_ONE: one_by_one,
    "LESS of one checkpoint": less,
    "embed_sel": embed_sel,
    ICA: ica,
    "entropy": entropy,
    f"pass rate of {SAMPLES} answers": pass_rate,
}
ADAPTED = (epoch, prism, candidates_only, one_by_one, less)
"""Arms that want an adapter on the base; for the others the base is as it is."""


if __name__ == "__main__":
    if "GOMP_SPINCOUNT" not in os.environ:  # it must be set before OpenMP is loaded; all arms get what a worker gets
        os.execve(sys.executable, [sys.executable, *sys.argv], worker_environment(THREADS))
    main()
