"""What the start of a vLLM server takes, and the switch to another adapter on a CPU, part by part.

    python benchmarks/vllm_start.py        (about five minutes on two slow cores)

Start: the time of each part is read off the server's log while it is written; `apart` is the same server with the
model in a process of its own, as vLLM starts it by itself. Switch: what a run does between two adapters where none
is loaded at run time: the old server stops, the adapter is merged, a server starts for the merged model, and the canary
compares its log-probabilities with the trainer's. The adapter is random, large enough to be told from the base; a
trained one is given with --adapter.
"""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from machine import describe
from quickstart import final_items

from curriculum.config import Config
from curriculum.records import Sampling
from curriculum.student_config import VllmConfig
from curriculum.training_config import TrainingConfig
from student import vllm_server, vllm_student
from student.base_model import resolve_base
from student.interface import AdapterFiles
from student.loading import native_dtype
from student.subprocess_job import Event
from student.vllm_main import installed
from student.vllm_server import Model, Server, environment, start_server
from student.vllm_student import VllmStudent

MARKS = {
    "API server: imports": "non-default args",
    "API server: config": "Using max model len",
    "engine: start and imports": "Initializing a V1 LLM engine",
    "model's process: start and imports": "Starting to load model",
    "weights": "Loading weights took",
    "keys and values": "init engine",
    "engine and API ready": "Application startup complete",
}
"""What a part is called, and what the log says at its end."""
APART = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="instead of the quickstart's")
    parser.add_argument("--adapter", type=Path, help="of that base")
    parser.add_argument("--starts", type=int, default=2, help="of each kind, in turns; the first warms the disk")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    config, _, prompts = final_items(arguments.base, 24)
    base = resolve_base(config.student.base)
    dtype = str(native_dtype(config.student.dtype)).removeprefix("torch.")
    print(describe("torch", "transformers"), installed(), sep=", ")
    model = Model(base, "base", dtype, 1024, False, None)
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, list[dict[str, float]]] = {"ours": [], "apart": []}
        for turn in range(arguments.starts):
            for name, parts in made.items():
                over = APART if name == "apart" else {}
                parts.append(start(model, arguments.threads, Path(folder) / f"{name} {turn}.log", over))
        print("start, seconds" + "".join(f"  {name} {turn + 1}" for name in made for turn in range(arguments.starts)))
        for part in [*MARKS, "whole"]:
            times = "".join(f"{parts.get(part, 0):10.1f}" for of in made.values() for parts in of)
            print(f"{part:<36}{times}")
        adapter = arguments.adapter or random_adapter(base, config, Path(folder) / "adapter")
        switch(config, adapter, prompts, Path(folder))


def start(model: Model, threads: int, log: Path, over: dict[str, str]) -> dict[str, float]:
    """Starts a server and stops it; returns the seconds of each part."""
    times: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            text = log.read_text(errors="replace") if log.exists() else ""
            for part, mark in MARKS.items():
                if part not in times and mark in text:
                    times[part] = time.perf_counter()

    watcher = threading.Thread(target=watch, daemon=True)
    since = time.perf_counter()
    watcher.start()
    vllm_server.environment = lambda *given: environment(*given) | over  # type: ignore[assignment]
    try:
        server = start_server(model, VllmConfig(), threads, log, lambda _: None)
    finally:
        vllm_server.environment = environment
        whole = time.perf_counter() - since
        done.set()
        watcher.join()
    server.stop()
    parts, before = {}, since
    for part, at in sorted(times.items(), key=lambda pair: pair[1]):
        parts[part], before = at - before, at
    return parts | {"whole": whole}


def random_adapter(base: Path, config: Config, folder: Path) -> Path:
    """A LoRA of the quickstart's shape whose weights are drawn, not trained."""
    import torch

    from student.loading import load_base
    from student.lora import add_lora, save_adapter

    torch.manual_seed(0)
    model, _ = load_base(base, "float32", 2)
    lora = add_lora(model, config.training, config.student.base)
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    folder.mkdir()
    save_adapter(lora, folder)
    return folder


class TimedStudent(VllmStudent):
    """A student that notes how long each job of its worker and each stop of its server takes."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def _one_event(self, job: Event, log: Path) -> Event:
        with self.timed(job["do"]):
            return super()._one_event(job, log)

    def _stop_server(self) -> None:
        with self.timed("stop"):
            super()._stop_server()

    @contextmanager
    def timed(self, what: str) -> Any:
        """Adds the seconds of its body."""
        since = time.perf_counter()
        yield
        self.seconds[what] += time.perf_counter() - since


def switch(config: Config, adapter: Path, prompts: Any, folder: Path) -> None:
    """Serves the base, then the adapter, and prints the parts of the second."""
    chosen = config.student.model_copy(update={"engine": "vllm", "vllm": VllmConfig(max_length=1024)})
    sampling = Sampling(max_new_tokens=1)

    def timed_start(*given: Any) -> Server:
        with student.timed("start"):
            return start_server(*given)

    with closing(TimedStudent(chosen, TrainingConfig(), "", lambda _: None)) as student:
        replaced: Callable[..., Server] = timed_start
        vllm_student.start_server = replaced
        try:
            for files in (AdapterFiles("base", None), AdapterFiles("adapter", adapter)):
                student.seconds.clear()
                since = time.perf_counter()
                list(student.answer(prompts[:1], files, sampling, set(), folder / "log"))
                whole = time.perf_counter() - since
                parts = ", ".join(f"{what} {seconds:.1f}" for what, seconds in student.seconds.items())
                print(f"to serve {files.name}: {whole:.1f} s: {parts}")
                if (serving := student.serving()) and serving.canary:
                    print(f"canary on {serving.canary.tokens} tokens: {serving.canary.verdict}")
        finally:
            vllm_student.start_server = start_server


if __name__ == "__main__":
    main()
