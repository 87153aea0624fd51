"""What the signals on candidate rows cost: seconds for 1,000 candidates, beside one training epoch over the same ones.

    python benchmarks/signals.py        (about four minutes on two slow cores)

The candidates are the quickstart's items, and so are the demonstrations, which are others; the student is its base. An
epoch is `student.train_worker.fit` with the quickstart's settings. In-context approximation is two passes over each
row, one of them after three demonstrations; with embeddings it includes those of rows and holdout. Entropy is one pass
over each prompt. All take turns; a load of the model is in none of them. Seconds are medians.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from machine import describe
from quickstart import final_items
from training import SEED, THREADS

from curriculum.extraction import format_target, taught_text
from student import embeddings, first_token
from student.base_model import resolve_base
from student.chat_format import pad_id
from student.in_context import weigh
from student.loading import load_base, native_dtype
from student.lora import add_lora
from student.subprocess_job import Event
from student.train_worker import encode_rows, fit

NEIGHBOURS = 3


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--holdout", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    config, examples, prompts = final_items(None, arguments.rows + arguments.holdout)
    shown = [(e.question, taught_text(e)) for e in examples[arguments.rows :]]
    candidates = list(zip(examples, prompts, strict=True))[: arguments.rows]
    rows: list[Event] = [
        {
            "id": e.id,
            "messages": [m.model_dump() for m in p.messages],
            "targets": [taught_text(e)],
            "target": format_target(e.gold, None),
            "weight": 1.0,
            "nearest": [shown[(at + n) % len(shown)] for n in range(NEIGHBOURS)],
            "random": None,
        }
        for at, (e, p) in enumerate(candidates)
    ]
    training = config.training.model_copy(update={"epochs": 1})
    folder = resolve_base(config.student.base)
    base, tokenizer = load_base(folder, "bfloat16", THREADS)
    frozen = (base, tokenizer)
    embeddings.load_student = first_token.load_student = lambda job: frozen  # type: ignore[attr-defined]
    data = encode_rows(tokenizer, rows, training.max_length)
    asked = [
        {"id": e.id, "messages": [m.model_dump() for m in p.messages]} for e, p in zip(examples, prompts, strict=True)
    ]
    job = {"batch_size": config.student.batch_size}

    def epoch() -> None:
        torch.manual_seed(SEED)
        model = add_lora(load_base(folder, "bfloat16", THREADS)[0], training, "base")
        start[0] = time.perf_counter()
        for _ in fit(model, data._replace(shown=()), training, pad_id(tokenizer), SEED):
            pass

    arms: dict[str, Callable[[], Any]] = {
        "training, one epoch": epoch,
        "entropy of the first answer token": lambda: list(first_token.entropies(job | {"prompts": rows})),
        "embeddings, rows and holdout": lambda: list(embeddings.embed(job | {"prompts": asked})),
        "in-context approximation": lambda: weigh(
            base.eval(), [turns[0] for turns in data.rows], data.shown, training.batch_tokens, pad_id(tokenizer), 0, 1
        ),
    }
    print(describe("torch", "transformers", "peft"))
    alone = sum(len(turns[0].input_ids) for turns in data.rows)
    after = sum(len(row.nearest.input_ids) for row in data.shown)
    print(
        f"{len(rows)} rows, {alone} tokens alone, {after} after {NEIGHBOURS} demonstrations, {native_dtype('bfloat16')}"
    )
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    start = [0.0]
    for _ in range(arguments.repeats):
        for name, arm in arms.items():
            start[0] = time.perf_counter()
            arm()
            seconds[name].append(time.perf_counter() - start[0])
            print(f"  {name}: {seconds[name][-1]:.1f} s", file=sys.stderr)
    whole = median(seconds["training, one epoch"])
    seconds["in-context approximation, with embeddings"] = [
        a + b for a, b in zip(seconds["embeddings, rows and holdout"], seconds["in-context approximation"], strict=True)
    ]
    print(f"{'':<44}s for 1,000 candidates   share of an epoch")
    for name, of in seconds.items():
        print(f"{name:<44}{1000 * median(of) / len(rows):>14.0f}{median(of) / whole:>24.1%}")


if __name__ == "__main__":
    main()
