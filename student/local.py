"""The real student: a model of this machine that answers and is trained in worker processes.

Implements `student.interface.Student` from the config. Nothing of torch is loaded here; each call is a job
of a worker process, and a job that fails takes nothing with it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from pathlib import Path

import numpy as np

from curriculum.errors import OutOfMemory, TrainingError, UserError
from curriculum.extraction import has_solution
from curriculum.neighbours import Vectors
from curriculum.records import Sampling, StudentAnswer
from curriculum.round_records import TrainingRow
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.base_model import base_hash, resolve_base
from student.blanks import blank_answers, prompt_events
from student.chat_format import prompt_messages
from student.interface import (
    AdapterFiles,
    Encoded,
    Influence,
    MergeResult,
    Piece,
    Progress,
    Prompt,
    Scaled,
    Shots,
    Target,
    TrainingResult,
    TrainingSettings,
    Weighed,
)
from student.subprocess_job import Event, Worker


class LocalStudent:
    """A base model on this machine, with the adapters it is given."""

    def __init__(self, config: StudentConfig, training: TrainingConfig, system_prompt: str) -> None:
        self.base_name = config.base
        self._config = config
        self._training = training
        self._system_prompt = system_prompt
        self._worker = Worker("student.worker", config.threads)

    @cached_property
    def _base(self) -> Path:
        return resolve_base(self._config.base, self._config.revision)

    @cached_property
    def _base_hash(self) -> str:
        return base_hash(self._base)

    def base_hash(self) -> str:
        """Hash of the base model's config, tokenizer, template and weight files."""
        return self._base_hash

    def check(self, log: Path) -> None:
        """Loads config and tokenizer, and encodes a row with the system prompt.

        Raises:
            UserError: they cannot be read, or the chat template does not serve.
        """
        row = {"messages": [m.model_dump() for m in prompt_messages(self._system_prompt, (), "x")], "target": "y"}
        for _ in self._worker.run(self._job("check") | row, log):
            pass

    def encode(self, rows: Sequence[tuple[Prompt, str]], show: bool, log: Path) -> Iterator[Encoded]:
        """Prompts with their targets as they are read, in the order given; with their texts when `show` is set.

        Raises:
            UserError: the base model cannot be had, or its chat template does not serve for a row.
        """
        plain = [{"messages": [m.model_dump() for m in p.messages], "target": target} for p, target in rows]
        for event in self._worker.run(self._job("encode") | {"rows": plain, "show": show}, log):
            prompt, target = (tuple(Piece(*piece) for piece in event[part]) for part in ("prompt", "target"))
            yield Encoded(event["prompt_tokens"], event["target_tokens"], prompt, target)

    def answer(
        self,
        prompts: Sequence[Prompt],
        adapter: AdapterFiles,
        sampling: Sampling,
        finished: Set[str],
        log: Path,
        samples: int | None = None,
    ) -> Iterator[StudentAnswer]:
        """Answers every prompt whose answer id is not in `finished`, batch by batch, the longest prompts first.

        Raises:
            UserError: the base model cannot be had or used.
            StudentError: the worker died.
            OutOfMemory: with what to lower.
        """
        blanks = blank_answers(prompts, adapter, sampling, samples)
        if blanks.keys() <= finished:
            return
        job = self._job("answer") | {
            "adapter": str(adapter.folder) if adapter.folder else None,
            "prompts": prompt_events(blanks),
            "sampling": sampling.model_dump(),
            "batch_size": self._config.batch_size,
            "finished": sorted(finished),
            "signals": samples is not None,
        }
        for event in self._inferred(job, log, "answering"):
            blank, _ = blanks[event.pop("id")]
            yield StudentAnswer.model_validate(blank.model_dump() | event)

    def embed(self, prompts: Sequence[Prompt], adapter: AdapterFiles, log: Path) -> Vectors:
        """The mean hidden state of each prompt's question, of length 1; see `student.embeddings`.

        Raises:
            UserError: the base model cannot be had or used.
            StudentError: the worker died.
            OutOfMemory: with what to lower.
        """
        job = self._job("embed") | {
            "adapter": str(adapter.folder) if adapter.folder else None,
            "batch_size": self._config.batch_size,
            "prompts": [{"id": at, "messages": [m.model_dump() for m in p.messages]} for at, p in enumerate(prompts)],
        }
        vectors = {event["id"]: event["vector"] for event in self._inferred(job, log, "embedding")}
        return np.array([vectors[at] for at in range(len(prompts))], np.float32)

    def influence(
        self,
        candidates: Sequence[tuple[Prompt, Sequence[str]]],
        targets: Sequence[Target],
        how: Influence,
        adapter: AdapterFiles,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> dict[str, float]:
        """How far training on each candidate would help with the targets, by id; see `student.ranking_worker`.

        Raises:
            UserError: no target or candidate fits, the warm-up of LESS diverged, or this base has no gradients of
                single rows.
            StudentError: the worker died.
            OutOfMemory: with what to lower.
        """
        job = self._job("influence") | {
            "base_name": self.base_name,
            "adapter": str(adapter.folder) if adapter.folder else None,
            "training": self._training.model_dump(),
            "seed": how.seed,
            "method": how.method,
            "weight": how.weight,
            "less": how.less.model_dump(),
            "candidates": [
                {"id": prompt.example_id, "messages": _plain(prompt), "targets": list(texts)}
                for prompt, texts in candidates
            ],
            "failures": [
                {"messages": _plain(t.prompt), "right": t.right, "wrong": t.wrong, "skills": t.skills} for t in targets
            ],
        }
        scores: dict[str, float] = {}
        try:
            for event in self._worker.run(job, log):
                if "scores" in event:
                    scores = event["scores"]
                else:
                    progress(Progress(event["done"], event["total"], how.method))
        except TrainingError as error:
            raise UserError(f"plan.rank {how.method}: {error}") from None
        except OutOfMemory as error:
            advice = self._advice("training", self._training.memory_keys)
            raise OutOfMemory(f"memory ran out while ranking rows: {error}\n{advice}, or rank at random") from None
        return scores

    def first_token_entropies(
        self, rows: Sequence[tuple[Prompt, str]], adapter: AdapterFiles, log: Path, exact: bool = True
    ) -> list[float]:
        """The entropy of each answer's first token; see `student.first_token`.

        Raises:
            UserError: the base model cannot be had or used.
            StudentError: the worker died.
            OutOfMemory: with what to lower.
        """
        job = self._job("entropies") | {
            "adapter": str(adapter.folder) if adapter.folder else None,
            "batch_size": self._config.batch_size,
            "prompts": [
                {"id": at, "messages": [m.model_dump() for m in p.messages], "target": target}
                for at, (p, target) in enumerate(rows)
            ],
            "exact": exact,
        }
        found = {event["id"]: event["entropy"] for event in self._inferred(job, log, "measuring entropies")}
        return [found[at] for at in range(len(rows))]

    def _inferred(self, job: Event, log: Path, doing: str) -> Iterator[Event]:
        """A job's events, with advice where memory runs out."""
        try:
            yield from self._worker.run(job, log)
        except OutOfMemory as error:
            keys = {"batch_size": self._config.batch_size, "max_new_tokens": self._config.max_new_tokens}
            raise OutOfMemory(
                f"memory ran out while {doing}: {error}\n{self._advice('student', keys)}. They are the run's "
                "identity: start a new run with --set KEY=VALUE. If other programs took the memory: tutelage resume RUN"
            ) from None

    def serving(self) -> None:
        """Nothing: the adapter's own files are read for each job, no server stands between."""
        return None

    def train(
        self,
        rows: Sequence[TrainingRow],
        settings: TrainingSettings,
        folder: Path,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> TrainingResult:
        """Trains a LoRA adapter on the base; `folder` appears when it is complete.

        Raises:
            UserError: the base model cannot be had or used.
            TrainingError: the loss diverged or became NaN, memory ran out, or the worker died.
        """
        training = (settings.training or self._training).model_copy(
            update={"learning_rate": settings.learning_rate, "epochs": settings.epochs}
        )
        job = self._job("train" if training.processes == 1 else "train_parallel") | {
            "base_name": self.base_name,
            "rows": [
                self._row(row)
                | {"dft": training.has_dft(row), "phase": int(settings.two_phase and has_solution(row.target))}
                | _shots(settings.shots, row)
                for row in rows
            ],
            "training": training.model_dump(),
            "seed": settings.seed,
            "steps": settings.steps,
            "start": str(settings.start) if settings.start else None,
            "folder": str(folder.absolute()),
            "log": str(log.absolute()),
        }
        result: Event = {}
        weighed: list[Weighed] = []
        scoring_seconds = 0.0
        try:
            for event in self._worker.run(job, log, failure=TrainingError):
                if "step" in event:
                    progress(Progress(event["step"], event["total"], f"loss {event['loss']:.2f}"))
                elif "refresh" in event:
                    at = {"refresh": event["refresh"], "step": event["at"]}
                    weighed += [Weighed(**at, row_id=row.pop("id"), **row) for row in event["rows"]]
                    scoring_seconds += event["seconds"]
                else:
                    result = event
        except OutOfMemory as error:
            raise TrainingError(
                f"memory ran out in training: {error}\n{self._advice('training', training.memory_keys)}. If other "
                "programs took the memory: tutelage resume RUN"
            ) from None
        return TrainingResult(
            steps=result["steps"],
            training_tokens=result["training_tokens"],
            target_tokens=result["target_tokens"],
            losses=tuple(result["losses"]),
            dropped=tuple(result["dropped"]),
            gradient_norms=tuple(result["gradient_norms"]),
            weighed=tuple(weighed),
            scoring_seconds=scoring_seconds,
            probabilities=tuple(result["probabilities"]),
            phase_steps=tuple(result["phase_steps"]),
        )

    def merge(self, parts: Sequence[Scaled], limit: int | None, folder: Path, log: Path) -> MergeResult:
        """The mean of adapters' updates, each scaled with depth, as an adapter; see `student.merging`.

        Raises:
            StudentError: the adapters are not of one base and recipe, or the worker died.
            UserError: the adapter cannot be written.
        """
        job = self._job("merge_adapters") | {"limit": limit, "folder": str(folder.absolute())}
        job["parts"] = [{"folder": str(part.folder.absolute()), "a": part.a} for part in parts]
        (event,) = self._worker.run(job, log)
        return MergeResult(**event)

    def close(self) -> None:
        """Ends the worker process."""
        self._worker.close()

    def _advice(self, section: str, keys: Mapping[str, int]) -> str:
        """What to lower, with its values."""
        lower = ", ".join(f"{section}.{key} (now {value})" for key, value in keys.items())
        wide = "" if self._config.dtype == "bfloat16" else ", take student.dtype bfloat16"
        return f"Lower {lower}{wide}, or give a smaller student.base"

    def base_job(self) -> Event:
        """What every job of a worker is told: base, number format and threads."""
        job = {"base": str(self._base), "dtype": self._config.dtype, "threads": self._config.threads}
        return job | {"quantise": self._config.quantise}

    def _job(self, do: str) -> Event:
        return self.base_job() | {"do": do}

    def _row(self, row: TrainingRow) -> Event:
        messages = prompt_messages(self._system_prompt, row.history, row.question)
        return {
            "id": row.id,
            "messages": [m.model_dump() for m in messages],
            "targets": row.targets,
            "weight": row.weight,
        }


def _plain(prompt: Prompt) -> list[Event]:
    return [m.model_dump() for m in prompt.messages]


def _shots(shots: Mapping[str, Shots] | None, row: TrainingRow) -> Event:
    return shots[row.id]._asdict() if shots else {}
