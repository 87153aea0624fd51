"""What a run would start, and the memory that training and answering take, for `tutelage forecast`.

From the config, the base's `config.json` and a look at this machine: nothing is loaded, sent or spent.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from agents.session import chosen_engine
from curriculum.config import Config
from curriculum.data_config import FileSource, GeneratorData
from curriculum.forecast_config import ModelSizes
from student.address import socket_url
from student.base_model import SMOLLM2, find_base
from student.data_parallel import command
from student.memory_estimate import (
    TARGET_SHARE,
    ServingMemory,
    TrainingMemory,
    batch_tokens,
    less_memory,
    read_sizes,
    scoring_memory,
    serving_memory,
    training_memory,
    weight_count,
)
from student.vllm_server import Model, loaded_rank, options, sleeps
from student.vllm_student import BASE_MODEL

PROMPT_TOKENS = 128
"""Of a question with its system prompt, as assumed."""
STEP_TOKENS = 8192
"""The most that vLLM reads in one pass, by its own default for large GPUs (`max_num_batched_tokens`)."""
GRADED_APART = {"math", "python", "reasoning_gym", "regex"}
"""Graders that run in a process of their own."""


class Footprint(NamedTuple):
    """Estimates in bytes, and what there is; none where the base's sizes are not known."""

    training: TrainingMemory | None
    """Of each process."""
    answering: ServingMemory | None
    training_limit: int
    """Of one GPU where there is one, else of this machine, for each process that trains."""
    answering_limit: int
    gpus: int | None
    """None when no GPU is seen or configured, a number only when they are seen."""


def base_sizes(config: Config) -> ModelSizes | None:
    """Sizes of the base from its own `config.json`, else from the config."""
    folder = find_base(config.student.base) or _in_cache(config.student.base, config.student.revision)
    return (read_sizes(folder) if folder else None) or config.forecast.base_sizes


def _in_cache(model: str, revision: str | None) -> Path | None:
    """Where the Hub's cache has the base; asks nobody."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json", revision=revision)
    except HFValidationError:  # a path, not a name
        return None
    return Path(found).parent if isinstance(found, str) else None


def footprint(config: Config) -> Footprint:
    """Estimates the memory of training and of answering, each by itself: they take turns."""
    student, training, sizes = config.student, config.training, base_sizes(config)
    seen = gpu_bytes()
    configured = config.forecast.gpu_memory_gib
    gpu = int(configured * 2**30) if configured else min(seen, default=None)
    memory = ram_bytes()
    if sizes is None or student.engine == "fake":
        return Footprint(None, None, gpu or memory, memory, len(seen) or None)
    trained = training_memory(sizes, training, _width(config, gpu))
    vllm = student.vllm
    if chosen_engine(config).student.engine == "vllm":
        rank = loaded_rank(vllm, training.rank, gpu is not None)
        answering = serving_memory(
            sizes,
            rank or 0,
            _width(config, gpu),
            answers=vllm.concurrency,
            tokens=PROMPT_TOKENS + student.max_new_tokens,
            step_tokens=STEP_TOKENS,
            gpus=vllm.tensor_parallel,
        )
        limit = int(gpu * vllm.gpu_memory) if gpu else memory
    else:
        tokens, step = PROMPT_TOKENS + student.max_new_tokens, student.batch_size * PROMPT_TOKENS
        width = _width(config, gpu)  # the engine transformers computes where training does
        answering, limit = serving_memory(sizes, training.rank, width, student.batch_size, tokens, step), gpu or memory
    return Footprint(trained, answering, gpu or memory // training.processes, limit, len(seen) or None)


def _width(config: Config, gpu: int | None) -> int:
    """Bytes of a number of the base; a CPU without bf16 instructions computes in float32."""
    return 2 if gpu and config.student.dtype == "bfloat16" else 4


def gpu_bytes() -> list[int]:
    """The memory of each GPU that nvidia-smi sees; nothing without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
        return [int(line) * 2**20 for line in told.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def ram_bytes() -> int:
    """This machine's memory, or what this process's group may have of it."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # another kind of group, or `max`
            continue
    return min(limits)


def commands(config: Config) -> list[tuple[str, str]]:
    """What for, and the command, of each process that the run starts; what is known only then is in capitals."""
    student, found = config.student, []
    if student.engine != "fake":
        if student.base == SMOLLM2 and find_base(SMOLLM2) is None:
            found.append(("convert the base, once", ["python", "-P", "-m", "student.convert_worker", "PID"]))
        vllm, several = chosen_engine(config).student.engine == "vllm", config.training.processes > 1
        if vllm and not student.vllm.urls:
            found.append(("serve", _server(config)))
        if vllm:
            found.append(("ask the server", ["python", "-P", "-m", "student.served_worker", "PID"]))
        what = " and ".join(w for w, here in (("answer", not vllm), ("train", not several)) if here) or "encode"
        found.append((what, ["python", "-P", "-m", "student.worker", "PID"]))
        if several:
            found.append(("train", command(config.training.processes, Path("RUN/ROUND/train/.draft.ranks"), "python")))
    graders = {s.grader if isinstance(s, FileSource) else "reasoning_gym" for s in config.sources}
    for grader in sorted(graders & GRADED_APART):
        found.append((f"grade ({grader})", ["python", "-I", "-B", "curriculum/grading_worker.py", grader, "LIMITS"]))
    found += [(f"tell {t}", ["python", "-P", "-m", "agents.tracking", t, "RUN", "FOLDER"]) for t in config.trackers]
    return [(what, shlex.join(words)) for what, words in found]


def _server(config: Config) -> list[str]:
    gpu = bool(config.forecast.gpu_memory_gib or gpu_bytes())
    student = config.student
    folder = find_base(student.base) or Path(student.base)
    rank = loaded_rank(student.vllm, config.training.rank, gpu)
    asleep = sleeps(student.vllm, rank, gpu)
    model = Model(folder, BASE_MODEL, student.dtype, student.vllm.max_length, gpu, rank, asleep)
    words = options(model, student.vllm, socket_url(Path("SOCKET")) if asleep else "http://127.0.0.1:PORT")
    guard = ["python", "-P", "-m", "student.vllm_guard", "PID"]
    return [*guard, "python", "-P", "-m", "student.vllm_main", "serve", *words]


def rows(config: Config, made: Footprint) -> list[tuple[str, str]]:
    """Lines of the forecast's table."""
    if config.student.engine == "fake":
        return []
    if made.training is None or made.answering is None:
        unknown = f"unknown: {config.student.base} is not here. Give forecast.base_sizes, from its config.json"
        return [("memory", unknown), *reward_row(config)]
    t, a, training = made.training, made.answering, config.training
    served = chosen_engine(config).student.engine == "vllm"
    together = config.student.vllm.concurrency if served else config.student.batch_size
    on = f", on each of {config.student.vllm.tensor_parallel} GPUs" if config.student.vllm.tensor_parallel > 1 else ""
    each = f", each of {training.processes} processes" if training.processes > 1 else ""
    return [
        (
            "memory to train",
            f"{_gib(t.total)}{each}: weights {_gib(t.weights)}, adapter and gradients {_gib(t.adapter)}, optimizer "
            f"{_gib(t.optimizer)}, activations {_gib(t.activations)} for a batch of {batch_tokens(training):,} tokens, "
            f"{TARGET_SHARE:.0%} of them targets; {_gib(made.training_limit)} there",
        ),
        (
            "memory to answer",
            f"{_gib(a.total)}{on}: weights {_gib(a.weights)}, adapter {_gib(a.adapter)}, activations "
            f"{_gib(a.activations)}, KV cache {_gib(a.key_values)} for {together} answers with "
            f"prompts of {PROMPT_TOKENS} tokens; {_gib(made.answering_limit)} there",
        ),
        *scoring_row(config, made),
        *reward_row(config),
    ]


def scoring_row(config: Config, made: Footprint) -> list[tuple[str, str]]:
    """The line of a ranking by LESS, which holds a direction of each skill; else of batches larger than training's."""
    sizes, plan, training = base_sizes(config), config.plan, config.training
    if sizes is None or made.training is None:
        return []
    of = training, _width(config, made.training_limit if config.forecast.gpu_memory_gib or gpu_bytes() else None)
    if plan.rank == "less":
        skills = len(config.data.tasks) if isinstance(config.data, GeneratorData) else 1
        total, more = (less_memory(sizes, *of, n, plan.less.dimensions) for n in (skills, skills + 1))
        known = f"{skills} skills" if isinstance(config.data, GeneratorData) else "one skill"
        return [("memory to rank (LESS)", f"{_gib(total)} with {known}, {_gib(more - total)} for each skill more")]
    if training.scored_tokens <= training.batch_tokens or (plan.rank != "prism" and training.weights != "ica"):
        return []
    many = f"{training.scored_tokens:,} tokens (training.scoring_batch_tokens)"
    return [("memory to score rows", f"at most {_gib(scoring_memory(sizes, *of))} for a batch of {many}")]


def reward_row(config: Config) -> list[tuple[str, str]]:
    """The line of a process reward model that is loaded here, when the student's worker has ended."""
    reward = config.student.reward
    if reward is None or reward.base_url is not None:
        return []
    folder = Path(reward.model) if Path(reward.model).is_dir() else _in_cache(reward.model, reward.revision)
    sizes = read_sizes(folder) if folder else None
    if sizes is None:
        return [("memory to score steps", f"unknown: {reward.model} is not here; 2 bytes a weight in bfloat16")]
    width = 2 if reward.dtype == "bfloat16" else 4
    return [("memory to score steps", f"{_gib(width * weight_count(sizes))} of weights, and a batch of answers")]


def warnings(config: Config, made: Footprint) -> list[str]:
    """What does not fit."""
    found = []
    if made.training and made.training.total > made.training_limit:
        found.append(
            f"training is estimated at {_gib(made.training.total)} of memory, and there are "
            f"{_gib(made.training_limit)}. Lower training.batch_tokens or training.max_length, or take a smaller base."
        )
    if made.answering and made.answering.total > made.answering_limit:
        found.append(
            f"answering is estimated at {_gib(made.answering.total)} of memory, and there are "
            f"{_gib(made.answering_limit)}. Lower student.batch_size (or student.vllm.concurrency), "
            "or take a smaller base."
        )
    if made.gpus is not None and config.training.processes > made.gpus:
        found.append(f"training.processes is {config.training.processes}, but GPUs are {made.gpus}: give at most that.")
    return found


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB" if size < 10 * 2**30 else f"{size / 2**30:.0f} GiB"
