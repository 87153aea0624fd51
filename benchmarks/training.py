"""LoRA training: tokens per second of `student.train_worker.fit` beside TRL's `SFTTrainer`, in one run, in turns.

    pip install -e ".[bench]"; python benchmarks/training.py        (about five minutes on two slow cores)

Every arm trains a fresh LoRA of the same shape on the same rows (generated from the quickstart's tasks), base,
optimizer settings and threads, one epoch. Ours fills batches up to `batch_tokens`; TRL gets as many rows a batch as
make as many tokens on average. A token is one of a row's own, padding aside: what counts is rows trained. "TRL" has its defaults
but float32 where the CPU has no bf16 instructions; "TRL as it comes" has bf16 all the same, for a few steps. "TRL, best
flags" groups by length, computes the loss of the completion only, drops checkpointing and uses the fused optimizer;
its loss path never makes all logits anyway. The share of the matmul rate counts the operations a plain pass
over those tokens needs, adapters and output layer included.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import describe

from curriculum.config import TrainingConfig, load_config
from curriculum.extraction import format_target
from curriculum.generator import generate_examples
from curriculum.prompts import load_prompt
from student.base_model import resolve_base
from student.chat_format import encode_row, pad_id, prompt_messages
from student.subprocess_job import worker_environment

THREADS = 2
ROWS = 84
REPEATS = 2
STEPS_IN_BF16 = 1
SEED = 0
MATMUL = 1024


class Run(NamedTuple):
    """One training: seconds, tokens of rows, target tokens, and the loss of each step."""

    seconds: float
    tokens: int
    losses: list[float]


def main() -> None:
    """Prints the table."""
    import torch
    from transformers.utils import logging

    from student.loading import native_dtype
    from student.train_worker import encode_rows

    logging.set_verbosity_error()
    config = load_config(Path("runs/configs/quickstart.yaml"), [])
    base = resolve_base(config.student.base)
    system = load_prompt(config.student.prompt).text
    examples = sorted(generate_examples(config.data, SEED)[0], key=lambda e: e.id)[:ROWS]
    rows = [
        {
            "id": e.id,
            "messages": [m.model_dump() for m in prompt_messages(system, (), e.question)],
            "target": format_target(e.gold, None),
            "weight": 1.0,
        }
        for e in examples
    ]
    print(describe("torch", "transformers", "peft", "trl"))
