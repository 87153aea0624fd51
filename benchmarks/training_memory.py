"""Measures the peak memory of a training on this machine's CPU, and prints it beside the estimate.

    python benchmarks/training_memory.py [--base smollm2-135m] [--tokens 1024] [--dtype float32]

Every batch is full, and half of its tokens are targets, as the estimate assumes. Measured is the resident memory of a
process of its own at its peak, less what it had with the libraries loaded: once as it is, and once with an allocator
that gives freed memory back at once, which is what the estimate counts.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from curriculum.training_config import TrainingConfig
from student.base_model import resolve_base
from student.memory_estimate import TrainingMemory, read_sizes, training_memory

ROW_TOKENS = 128


def resident(what: str) -> int:
    """Bytes of this process's memory now (`VmRSS`) or at its peak (`VmHWM`)."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measure(base: str, tokens: int, dtype: str) -> int:
    """Trains two steps in this process; returns how much memory was taken at the peak."""
    import peft  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    from student.chat_format import EncodedRow
    from student.loading import load_base
    from student.lora import add_lora
    from student.train_worker import TrainingData, fit

    before = resident("VmRSS")
    model, _ = load_base(Path(base), dtype, 2)
    torch.manual_seed(0)
    training = TrainingConfig(batch_tokens=tokens, max_length=ROW_TOKENS, epochs=2)
    row = EncodedRow(tuple(range(10, 10 + ROW_TOKENS)), ROW_TOKENS // 2)
    rows = [(row,)] * (tokens // ROW_TOKENS)
    for _ in fit(add_lora(model, training, base), TrainingData(rows, [1.0] * len(rows), []), training, 0, seed=0):
        pass
    return resident("VmHWM") - before


def compare(base: str, tokens: int, dtype: str, lean: bool) -> tuple[int, TrainingMemory]:
    """The measured peak in bytes, taken in a new process, and the estimate; `lean` gives freed memory back at once."""
    from student.loading import native_dtype

    folder = resolve_base(base)
    command = [sys.executable, __file__, "--base", str(folder), "--tokens", str(tokens), "--dtype", dtype, "--measure"]
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if lean else {})
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    measured = int(json.loads(told.splitlines()[-1]))
    sizes = read_sizes(folder)
    assert sizes is not None
    training = TrainingConfig(batch_tokens=tokens, max_length=ROW_TOKENS)
    return measured, training_memory(sizes, training, native_dtype(dtype).itemsize)


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.base, given.tokens, given.dtype)))
        return
    print(f"{given.base}, {given.tokens} tokens a batch, {given.dtype}")
    for lean in (False, True):
        measured, estimate = compare(given.base, given.tokens, given.dtype, lean)
        what = "freed memory given back" if lean else "as it is"
        print(f"measured, {what}: {measured / 1e6:,.0f} MB, {measured / estimate.total:.2f} of the estimate")
    parts = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in estimate._asdict().items())
    print(f"estimated: {estimate.total / 1e6:,.0f} MB: {parts}")


if __name__ == "__main__":
    main()
