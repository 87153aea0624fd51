"""Tokens per second of the student's vLLM server and client beside vLLM's own offline engine, in one run, in turns.

    python benchmarks/vllm_throughput.py        (about ten minutes on two slow cores)

Final prompts of the quickstart as token ids, greedy, same base, number format and engine options; other prompts in each
turn, so that no prefix cache knows them. `offline` is `vllm.LLM.generate`, all prompts in one call, in a process that
has the server's environment. `served` is what a run does: the worker's requests to a server of ours. The other arms are
the same server with other threads: `bound` has scheduler and model in two processes, the model's threads bound to the
first cores; `default` leaves the threads to vLLM, which keeps a core free. Each arm answers a few prompts first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import describe
from quickstart import final_items
from transformers import AutoTokenizer

from curriculum.records import Sampling
from curriculum.student_config import VllmConfig
from student import vllm_server
from student.base_model import resolve_base
from student.blanks import blank_answers, prompt_events
from student.chat_format import encode_prompt
from student.interface import AdapterFiles, Prompt
from student.loading import native_dtype
from student.subprocess_job import Worker
from student.vllm_main import installed
from student.vllm_server import Model, environment, start_server

OVER_DEFAULT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "auto"}
BASE = AdapterFiles("base", None)
WARM_UP = 8
"""Prompts an arm answers before it is timed."""


class Turn(NamedTuple):
    """One pass over some prompts: seconds, and the tokens of each answer."""

    seconds: float
    tokens: list[int]

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return sum(self.tokens) / self.seconds


Arm = Callable[[Sequence[Prompt]], Turn]


def main() -> None:
    """Prints a line an arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="instead of the quickstart's")
    parser.add_argument("--prompts", type=int, default=128, help="in each turn")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arms", default="offline,served,bound,default")
    parser.add_argument("--offline", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.offline:
        serve_offline(json.loads(arguments.offline))
        return
    config, _, prompts = final_items(arguments.base, arguments.prompts * arguments.turns + WARM_UP)
    dtype = str(native_dtype(config.student.dtype)).removeprefix("torch.")
    model = Model(resolve_base(config.student.base), "base", dtype, 1024, False, None)
    sampling = Sampling(max_new_tokens=arguments.new_tokens)
    names = arguments.arms.split(",")
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        arms = {
            name: (offline if name == "offline" else served)(name, model, sampling, arguments.threads, folder, stack)
            for name in names
        }
        for arm in arms.values():
            arm(prompts[-WARM_UP:])
        for turn in range(arguments.turns):
            part = prompts[turn * arguments.prompts : (turn + 1) * arguments.prompts]
            for name, arm in arms.items():
                turns[name].append(arm(part))
    print(describe("torch"), installed(), sep=", ")
    print(f"{arguments.prompts} prompts a turn, at most {arguments.new_tokens} tokens each, {dtype}")
    print("arm       tokens/s, each turn             median  tokens  of offline (median of the turns)")
    for name, of in turns.items():
        each = " ".join(f"{turn.rate:7.1f}" for turn in of)
        tokens = sum(sum(turn.tokens) for turn in of)
        share = ""
        if "offline" in turns:
            share = f"{median(t.rate / o.rate for t, o in zip(of, turns['offline'], strict=True)):.1%}"
        print(f"{name:<10}{each:<31}{median(turn.rate for turn in of):>7.1f}{tokens:>8}  {share}")


def served(name: str, model: Model, sampling: Sampling, threads: int, folder: str, stack: ExitStack) -> Arm:
    """A server of ours, asked by a worker as in a run."""
    config = VllmConfig()
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    over = {"served": {}, "default": OVER_DEFAULT, "bound": OVER_DEFAULT | {"VLLM_CPU_OMP_THREADS_BIND": cores}}[name]

    def changed(key: str, threads: int, model: Model) -> dict[str, str]:
        kept = environment(key, threads, model)
        if over:
            kept.pop("OMP_NUM_THREADS", None)
        return kept | over

    vllm_server.environment = changed  # type: ignore[assignment]
    try:
        server = start_server(model, config, threads, Path(folder) / f"{name}.log", print)
    finally:
        vllm_server.environment = environment
    stack.callback(server.stop)
    worker = Worker("student.served_worker", threads)
    stack.callback(worker.close)
    job = {
        "do": "ask", "base": str(model.folder), "dtype": model.dtype, "threads": threads, "urls": [server.url],
        "key": server.key, "model": "base", "sampling": sampling.model_dump(), "finished": [], "signals": False,
        "concurrency": config.concurrency,
    }  # fmt: skip

    def answer(prompts: Sequence[Prompt]) -> Turn:
        asked = prompt_events(blank_answers(prompts, BASE, sampling))
        since = time.perf_counter()
        events = list(worker.run(job | {"prompts": asked}, Path(folder) / "worker.log"))
        return Turn(time.perf_counter() - since, [event["completion_tokens"] for event in events])

    return answer


def offline(name: str, model: Model, sampling: Sampling, threads: int, folder: str, stack: ExitStack) -> Arm:
    """The offline engine of vLLM in a process of its own."""
    from student.served_worker import stop_tokens

    tokenizer = AutoTokenizer.from_pretrained(model.folder, local_files_only=True)
    facts = {
        "model": str(model.folder), "dtype": model.dtype, "max_model_len": model.max_length,
        "max_tokens": sampling.max_new_tokens, "stops": stop_tokens(model.folder, tokenizer),
    }  # fmt: skip
    log = stack.enter_context((Path(folder) / f"{name}.log").open("wb"))
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, __file__, "--offline", json.dumps(facts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment("none", threads, model),
        )
    )
    assert process.stdin is not None and process.stdout is not None
    stack.callback(process.kill)

    def answer(prompts: Sequence[Prompt]) -> Turn:
        ids = [encode_prompt(tokenizer, prompt.messages) for prompt in prompts]
        process.stdin.write(json.dumps(ids).encode() + b"\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        line = process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"the offline engine ended:\n{Path(log.name).read_text()[-3000:]}")
        return Turn(*json.loads(line))

    return answer


def serve_offline(facts: dict[str, Any]) -> None:
    """Reads lists of prompts, writes the seconds and the tokens of the answers; both as lines of JSON."""
    from vllm import LLM, SamplingParams

    config = VllmConfig()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM prints
    engine = LLM(
        model=facts["model"],
        dtype=facts["dtype"],
        max_model_len=facts["max_model_len"],
        max_num_seqs=config.concurrency,
        generation_config="vllm",
        enforce_eager=True,
        kv_cache_memory_bytes=int(config.kv_cache_gib * 2**30),
    )
    sampling = SamplingParams(temperature=0, max_tokens=facts["max_tokens"], stop_token_ids=facts["stops"])
    for line in sys.stdin:
        prompts = [{"prompt_token_ids": ids} for ids in json.loads(line)]
        since = time.perf_counter()
        made = engine.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - since
        print(json.dumps([seconds, [len(answer.outputs[0].token_ids) for answer in made]]), file=replies, flush=True)


if __name__ == "__main__":
    main()
