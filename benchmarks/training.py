"""LoRA training: tokens per second of `student.train_worker.fit` beside TRL's `SFTTrainer`, in one run, in turns.

    pip install -e ".[bench]"; python benchmarks/training.py        (about five minutes on two slow cores)

Every arm trains a fresh LoRA of the same shape on the same rows (generated from the quickstart's tasks) with the same
base, optimizer settings and threads, one epoch. Ours fills batches up to `batch_tokens`; TRL gets as many rows a
batch as make as many tokens on average. Tokens are the rows' own, padding aside: what counts is rows trained.

"TRL, defaults" has everything as it comes but float32, for CPUs without bf16 instructions; `--bf16` adds one step of
it in bf16, its real default. "TRL, best flags" groups by length, computes the loss of the answers only, keeps all
activations and uses the fused optimizer; TRL's loss path makes no full logits in any case.

The share of the matmul rate counts the operations that a plain pass over the rows needs, adapters and the output
layer at targets included. CPU time is that of all threads: on a shared machine it says more than the clock.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import describe
from quickstart import final_items

from curriculum.config import Config
from curriculum.extraction import taught_texts
from curriculum.training_config import TrainingConfig
from student.base_model import resolve_base
from student.chat_format import pad_id
from student.subprocess_job import Event, worker_environment

THREADS = 2
SEED = 0
MATMUL = 1024


class Run(NamedTuple):
    """One training: seconds by the clock and of CPU time, rows trained, the loss of each step."""

    wall: float
    cpu: float
    rows: int
    losses: list[float]


def main() -> None:
    """Prints the table."""
    from transformers.utils import logging

    from student.loading import load_base, native_dtype
    from student.train_worker import encode_rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=84)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="also TRL in bf16, for one step")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    config, rows = quickstart_rows(arguments.rows)
    folder = resolve_base(config.student.base)
    model, tokenizer = load_base(folder, "bfloat16", THREADS)
    data = encode_rows(tokenizer, rows, config.training.max_length)
    lengths = [len(row.input_ids) for (row,) in data.rows]
    batch_rows = round(config.training.batch_tokens * len(lengths) / sum(lengths))
    # TRL's trainer cannot be interrupted and resumed cheaply, so whole trainings take turns.
    arms: dict[str, Callable[[], Run]] = {
        "ours": lambda: ours(folder, data, config.training, pad_id(tokenizer)),
        "TRL, best flags": lambda: trl(folder, rows, config.training, batch_rows, best=True),
        "TRL, defaults": lambda: trl(folder, rows, config.training, batch_rows),
    }
    print(describe("torch", "transformers", "peft", "trl"))
    print(f"{len(rows)} rows, {sum(lengths)} tokens, {batch_rows} rows a batch for TRL, {native_dtype('bfloat16')}")
    peaks, runs = [], {name: [] for name in arms}
    for _ in range(arguments.repeats):
        for name, arm in arms.items():
            peaks.append(matmul_rate())
            runs[name].append(arm())
            print(f"  {name}: {runs[name][-1].wall:.0f} s, CPU {runs[name][-1].cpu:.0f} s", file=sys.stderr)
    if arguments.bf16:
        runs["TRL, bf16"] = [trl(folder, rows[:batch_rows], config.training, batch_rows, bf16=True)]
    work, peak = operations(model, data, config.training) / len(rows), median(peaks)
    spread = f"{min(peaks) / 1e9:.0f}–{max(peaks) / 1e9:.0f}"
    print(f"matmul of {MATMUL}, float32: {peak / 1e9:.0f} GFLOP a CPU second ({spread})")
    print("arm                   tokens/s  tokens/CPU s  ours is, by clock  by CPU time  share of matmul rate")
    mean = sum(lengths) / len(lengths)
    wall = {name: median(mean * run.rows / run.wall for run in of) for name, of in runs.items()}
    cpu = {name: median(mean * run.rows / run.cpu for run in of) for name, of in runs.items()}
    for name in runs:
        print(
            f"{name:<22}{wall[name]:>8.1f}{cpu[name]:>14.1f}{wall['ours'] / wall[name]:>17.2f} ×"
            f"{cpu['ours'] / cpu[name]:>11.2f} ×{work / mean * cpu[name] / peak:>20.0%}"
        )
    for name, of in runs.items():
        print(f"losses of {name}: {' '.join(f'{loss:.2f}' for loss in of[0].losses)}")


def quickstart_rows(count: int) -> tuple[Config, list[Event]]:
    """The quickstart's config, and rows to train on of its tasks."""
    config, examples, prompts = final_items(None, count)
    rows: list[Event] = [
        {
            "id": e.id,
            "messages": [m.model_dump() for m in prompt.messages],
            "targets": taught_texts(e),
            "weight": 1.0,
        }
        for e, prompt in zip(examples, prompts, strict=True)
    ]
    return config, rows


def ours(folder: Path, data: Any, training: TrainingConfig, pad: int) -> Run:
    """A training by the library."""
    import torch

    from student.loading import load_base
    from student.lora import add_lora
    from student.train_worker import fit

    base, _ = load_base(folder, "bfloat16", THREADS)
    torch.manual_seed(SEED)
    model = add_lora(base, training, "base")
    wall, cpu = time.perf_counter(), time.process_time()
    losses = [event["loss"] for event in fit(model, data, training.model_copy(update={"epochs": 1}), pad, SEED)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(wall, cpu, len(data.rows), losses)


def trl(
    folder: Path, rows: list[Event], training: TrainingConfig, batch_rows: int, best: bool = False, bf16: bool = False
) -> Run:
    """A training by TRL."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from student.loading import load_base

    answers = [[{"role": "assistant", "content": row["targets"][0]}] for row in rows]
    if best:
        columns = {"prompt": [row["messages"] for row in rows], "completion": answers}
        flags = {
            "train_sampling_strategy": "group_by_length",
            "completion_only_loss": True,
            "gradient_checkpointing": False,
            "optim": "adamw_torch_fused",
            "dataloader_pin_memory": False,
        }
    else:
        columns = {"messages": [row["messages"] + answer for row, answer in zip(rows, answers, strict=True)]}
        flags = {}
    base, tokenizer = load_base(folder, "bfloat16", THREADS)
    with tempfile.TemporaryDirectory() as output:
        settings = SFTConfig(
            output_dir=output,
            per_device_train_batch_size=batch_rows,
            num_train_epochs=1,
            learning_rate=training.learning_rate,
            warmup_steps=round(training.warmup_share * len(rows) / batch_rows),
            max_grad_norm=training.max_grad_norm,
            max_length=training.max_length,
            seed=SEED,
            bf16=bf16,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **flags,
        )
        adapter = LoraConfig(
            r=training.rank, lora_alpha=training.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        trainer = SFTTrainer(
            base, settings, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer, peft_config=adapter
        )
        wall, cpu = time.perf_counter(), time.process_time()
        with open(os.devnull, "w") as nowhere:  # it prints each loss
            stdout, sys.stdout = sys.stdout, nowhere
            trainer.train()
            sys.stdout = stdout
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(wall, cpu, len(rows), [entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


def matmul_rate() -> float:
    """Operations a second of CPU time of a large matrix product in float32, the best of some."""
    import torch

    one, other = torch.rand(2, MATMUL, MATMUL)
    seconds = []
    for _ in range(10):
        since = time.process_time()
        one @ other
        seconds.append(time.process_time() - since)
    return 2 * MATMUL**3 / min(seconds)


def operations(model: Any, data: Any, training: TrainingConfig) -> float:
    """Multiplications and additions of an epoch: two a weight and token forward, and two backward for what came in.

    A LoRA weight has two more for its own gradient. Attention has four a pair of positions and width forward,
    twice that backward. The output layer sees the targets alone.
    """
    from torch.nn import Linear

    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, Linear) and m is not head]
    frozen = sum(m.weight.numel() for m in layers)
    adapters = sum(training.rank * (m.in_features + m.out_features) for m in layers)
    tokens = sum(len(row.input_ids) for (row,) in data.rows)
    targets = sum(row.target_length for (row,) in data.rows)
    pairs = sum(len(row.input_ids) ** 2 for (row,) in data.rows)
    attention = 12 * pairs * model.config.hidden_size * model.config.num_hidden_layers
    return tokens * (4 * frozen + 6 * adapters) + 4 * targets * head.weight.numel() + attention


if __name__ == "__main__":
    if "GOMP_SPINCOUNT" not in os.environ:  # it must be set before OpenMP is loaded; all arms get what a worker gets
        os.execve(sys.executable, [sys.executable, *sys.argv], worker_environment(THREADS))
    main()
