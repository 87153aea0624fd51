"""Answers per second of the student's engine beside `model.generate` used plainly, in one run, in turns.

    python benchmarks/answering.py        (a few minutes on two slow cores)

Prompts of the quickstart's tasks, greedy, same base, number format, threads and batch size. Plainly means: batches in
the order of the data, padded on the left. The engine's own steps are those of `student.engine_worker`: batches of like
length, what all prompts begin with read once, rows leave when they end. Prefill is the time to one token a prompt. CPU
time is that of all threads: on a machine shared with others it says more than the clock.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import describe
from quickstart import final_items

from curriculum.records import Sampling
from student.base_model import resolve_base
from student.chat_format import encode_prompt, pad_id, pad_left, stop_ids
from student.subprocess_job import worker_environment

THREADS = 2


class Run(NamedTuple):
    """One pass over the prompts: seconds by the clock and of CPU time, and the new tokens of each prompt."""

    wall: float
    cpu: float
    answers: list[list[int]]


def main() -> None:
    """Prints the table."""
    from peft import PeftModel

    from student.key_values import use_grouped_attention
    from student.loading import load_base

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--adapter", type=Path, help="of the quickstart's base, merged: one that ends its answers")
    arguments = parser.parse_args()
    config, _, items = final_items(None, arguments.prompts)
    model, tokenizer = load_base(resolve_base(config.student.base), "bfloat16", THREADS)
    if arguments.adapter:
        model = PeftModel.from_pretrained(model, arguments.adapter).merge_and_unload()
    model.train(False)
    prompts = [encode_prompt(tokenizer, item.messages) for item in items]
    stops = stop_ids(tokenizer, model.generation_config.eos_token_id)
    arms: dict[str, Callable[[int], Run]] = {
        "plain": lambda tokens: plainly(model, prompts, arguments.batch, tokens, stops, pad_id(tokenizer)),
        "ours": lambda tokens: ours(model, prompts, arguments.batch, tokens, stops, pad_id(tokenizer)),
    }
    plain_attention = model.config._attn_implementation
    whole: dict[str, list[Run]] = {name: [] for name in arms}
    prefill: dict[str, list[Run]] = {name: [] for name in arms}
    for _ in range(arguments.repeats):
        for name, arm in arms.items():
            model.set_attn_implementation(plain_attention)
            if name == "ours":
                use_grouped_attention(model)
            prefill[name].append(arm(1))
            whole[name].append(arm(arguments.new_tokens))
    answered, expected = whole["ours"][0].answers, whole["plain"][0].answers
    same = sum(a == b for a, b in zip(answered, expected, strict=True))
    lengths = [len(answer) for answer in answered]
    print(describe("torch", "transformers"))
    print(
        f"{len(prompts)} prompts of {sum(map(len, prompts)) / len(prompts):.0f} tokens, answers of "
        f"{sum(lengths) / len(lengths):.1f} (at most {arguments.new_tokens}), batches of {arguments.batch}, "
        f"{model.dtype}"
    )
    print("arm      answers/s  answers/CPU s  prefill's share of CPU time")
    rates = {}
    for name, of in whole.items():
        wall, cpu = (median(values) for values in zip(*((run.wall, run.cpu) for run in of), strict=True))
        rates[name] = len(prompts) / wall, len(prompts) / cpu
        share = median(run.cpu for run in prefill[name]) / cpu
        print(f"{name:<8}{rates[name][0]:>10.2f}{rates[name][1]:>15.2f}{share:>29.0%}")
    clock, cpu = (one / other for one, other in zip(rates["ours"], rates["plain"], strict=True))
    print(f"ours is {clock:.2f} × by the clock, {cpu:.2f} × by CPU time; {same} of {len(prompts)} answers are the same")


def plainly(model: Any, prompts: list[Any], batch: int, new_tokens: int, stops: list[int], pad: int) -> Run:
    """All prompts through `generate`."""
    import torch

    wall, cpu, answers = time.perf_counter(), time.process_time(), []
    with torch.inference_mode():
        for first in range(0, len(prompts), batch):
            ids, mask = pad_left(prompts[first : first + batch], pad)
            made = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=pad,
            )
            answers += [until_stop(row, stops) for row in made[:, ids.shape[1] :].tolist()]
    return Run(time.perf_counter() - wall, time.process_time() - cpu, answers)


def ours(model: Any, prompts: list[Any], batch: int, new_tokens: int, stops: list[int], pad: int) -> Run:
    """All prompts through the engine's steps."""
    import torch

    from student.decoding import decode, read_prefix
    from student.engine_worker import EncodedPrompt, partition

    wall, cpu, answers = time.perf_counter(), time.process_time(), {}
    prefix = read_prefix(model, prompts)
    sampling = Sampling(max_new_tokens=new_tokens)
    for part in partition([EncodedPrompt(f"{at:06d}", ids) for at, ids in enumerate(prompts)], batch):
        ids = [prompt.input_ids for prompt in part]
        for row, tokens in decode(model, prefix, ids, stops, pad, sampling, torch.Generator()):
            answers[int(part[row].id)] = tokens
    return Run(time.perf_counter() - wall, time.process_time() - cpu, [answers[at] for at in range(len(prompts))])


def until_stop(tokens: list[int], stops: list[int]) -> list[int]:
    """The tokens through the first that ends an answer."""
    end = next((at for at, token in enumerate(tokens) if token in stops), len(tokens) - 1)
    return tokens[: end + 1]


if __name__ == "__main__":
    if "GOMP_SPINCOUNT" not in os.environ:  # it must be set before OpenMP is loaded; both arms get what a worker gets
        os.execve(sys.executable, [sys.executable, *sys.argv], worker_environment(THREADS))
    main()
