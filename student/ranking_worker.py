"""Scores candidates by their influence on failures: the worker's job behind `plan.rank: prism` and `less`.

Both take the adapter whose failures they are, or a fresh seeded one where that is the base: its A is random and its B
zero, so gradients are those of B alone, a random projection of the base's own. LESS trains it a little first. Nothing
is written: candidates are scored as they are read, and LESS's checkpoints live as long as they are looked at.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curriculum.errors import TrainingError, UserError
from curriculum.plan_config import LessConfig
from curriculum.records import Message
from curriculum.training_config import TrainingConfig
from student.chat_format import Batch, EncodedRow, collate, encode_row, pad_id
from student.gradient_similarity import Projection, adam_moments, cosines, validation_directions
from student.influence import dot_products, preference_direction
from student.lora import add_lora, draw_batches, learning_rate_factor, load_lora
from student.memory_estimate import VALIDATION_ROWS
from student.subprocess_job import Event
from student.train_worker import TrainingData, adam, encode_rows, fit

if TYPE_CHECKING:
    from torch import Tensor


class Failure(NamedTuple):
    """A failed question with its right answer and, for PRISM, the wrong one."""

    right: EncodedRow
    wrong: EncodedRow | None
    skills: tuple[str, ...]


class Work(NamedTuple):
    """A model with its adapter, and what it is asked about."""

    model: Any
    ids: list[str]
    candidates: list[EncodedRow]
    failures: list[Failure]
    training: TrainingConfig
    pad: int
    seed: int

    def batch(self, rows: Sequence[EncodedRow]) -> Batch:
        """Rows as tensors where the model is."""
        made = collate(rows, [1.0] * len(rows), self.pad)
        return Batch(*(tensor.to(self.model.device) for tensor in made))

    def candidate_batches(self) -> list[list[int]]:
        """Positions of candidates, every one once."""
        lengths = [len(row.input_ids) for row in self.candidates]
        return draw_batches(lengths, self.training.scored_tokens, random.Random(self.seed))


def influence(job: Event) -> Iterator[Event]:
    """Scores the candidates of a job; yields `done` and `total` as they are read, and at the end `scores`, by id.

    A candidate is taught with the first of its targets that fits; one of which none does has no score.

    Args:
        job: `base`, `base_name`, `dtype`, `threads`, `quantise`, `adapter` (or none), `training`, `seed`, `method`
            (`prism` or `less`), `weight`, `less`, `candidates` (each `id`, `messages`, `targets`), and `failures` (each
            `messages`, `right`, `wrong` or none, `skills`).

    Raises:
        UserError: no failure fits into `training.max_length`.
        TrainingError: no candidate does, the loss of a warm-up diverged, or a score is no number.
    """
    import torch

    from student.loading import load_job_base

    training = TrainingConfig.model_validate(job["training"])
    base, tokenizer = load_job_base(job)
    data = encode_rows(tokenizer, [{"weight": 1.0} | row for row in job["candidates"]], training.max_length)
    torch.manual_seed(job["seed"])
    model = load_lora(base, Path(job["adapter"])) if job["adapter"] else add_lora(base, training, job["base_name"])
    dropped = set(data.dropped)
    work = Work(
        model=model.to(base.device),
        ids=[row["id"] for row in job["candidates"] if row["id"] not in dropped],
        candidates=data.epoch(0),
        failures=_encoded(tokenizer, job["failures"], training.max_length),
        training=training,
        pad=pad_id(tokenizer),
        seed=job["seed"],
    )
    config = LessConfig.model_validate(job["less"])
    for event in prism(work, job["weight"]) if job["method"] == "prism" else less(work, config):
        _require_numbers(event.get("scores", {}))
        yield event


def _require_numbers(scores: Mapping[str, float]) -> None:
    """Refuses scores that are infinite or none: they would be taken for those of rows that are too long."""
    bad = [id_ for id_, score in scores.items() if not math.isfinite(score)]
    if bad:
        raise TrainingError(
            f"expected a number as the score of every row, got {len(bad)} of {len(scores)} that are none, the first of "
            f"{bad[0]}: the adapter's weights or this base's gradients overflow. Set plan.rank to random or embed_sel, "
            "and no plan.unwanted"
        )


def _encoded(tokenizer: Any, failures: Sequence[Event], max_length: int) -> list[Failure]:
    fitting = []
    for failure in failures:
        messages = [Message.model_validate(m) for m in failure["messages"]]
        texts = (failure["right"], failure["wrong"])
        right, wrong = (None if text is None else encode_row(tokenizer, messages, text) for text in texts)
        if right is not None and all(len(row.input_ids) <= max_length for row in (right, wrong) if row is not None):
            fitting.append(Failure(right, wrong, tuple(failure["skills"])))
    if not fitting:
        raise UserError(
            f"expected failures of at most training.max_length ({max_length}) tokens to rank rows by, got none: raise "
            "it, or set plan.rank to random"
        )
    return fitting


def prism(work: Work, weight: Any) -> Iterator[Event]:
    """One direction from the pairs, and each candidate's dot product with it; the events of `influence`."""
    work.model.eval()
    pairs = [(f.right, f.wrong) for f in work.failures if f.wrong is not None]
    lengths = [2 * max(len(right.input_ids), len(wrong.input_ids)) for right, wrong in pairs]
    drawn = draw_batches(lengths, work.training.scored_tokens, random.Random(work.seed))
    batches = (work.batch([row for at in batch for row in pairs[at]]) for batch in drawn)
    direction = preference_direction(work.model, batches, weight)
    scores: dict[str, float] = {}
    for batch in work.candidate_batches():
        made = dot_products(work.model, work.batch([work.candidates[at] for at in batch]), direction)
        scores |= dict(zip((work.ids[at] for at in batch), made.tolist(), strict=True))
        yield {"done": len(scores), "total": len(work.ids)}
    yield {"scores": scores}


def less(work: Work, config: LessConfig) -> Iterator[Event]:
    """Warms up, and adds after each epoch each candidate's cosines with each skill's failures, by learning rate."""
    import torch

    size = max(1, round(config.warm_up_share * len(work.candidates)))
    sample = random.Random(work.seed).sample(range(len(work.candidates)), size)
    rows = TrainingData([(work.candidates[at],) for at in sample], [1.0] * size, [])
    training = work.training.model_copy(update={"epochs": config.epochs})
    skills = sorted({skill for failure in work.failures for skill in failure.skills})
    totals = torch.zeros(len(work.candidates), len(skills))
    optimizer, rates, done = adam(work.model, training), list[float](), 0
    weights = 0.0
    for event in fit(work.model, rows, training, work.pad, work.seed, optimizer=optimizer):
        rates.append(learning_rate_factor(event["step"] - 1, event["total"], training.warmup_share))
        if event["step"] * config.epochs % event["total"]:
            continue  # all epochs have as many batches: their rows are the same
        weight, rates = sum(rates) / len(rates), []
        weights += weight
        work.model.eval()
        for batch, made in _cosines(work, config, skills, adam_moments(work.model, optimizer)):
            totals[batch] += weight * made.cpu()
            done += len(batch)
            yield {"done": done, "total": config.epochs * len(work.ids)}
        work.model.train()
    best = (totals / weights).max(dim=1).values
    yield {"scores": dict(zip(work.ids, best.tolist(), strict=True))}


def _cosines(
    work: Work, config: LessConfig, skills: Sequence[str], moments: Any
) -> "Iterator[tuple[list[int], Tensor]]":
    """At one checkpoint: positions of candidates, and their mean cosines with the failures of each skill."""
    projection = None if config.dimensions is None else Projection(config.dimensions, work.seed)
    of_skill = {skill: at for at, skill in enumerate(skills)}
    chunks = [work.failures[at : at + VALIDATION_ROWS] for at in range(0, len(work.failures), VALIDATION_ROWS)]
    validation = (
        (work.batch([f.right for f in chunk]), [[of_skill[s] for s in f.skills] for f in chunk]) for chunk in chunks
    )
    directions = validation_directions(work.model, validation, len(skills), projection)
    for batch in work.candidate_batches():
        rows = work.batch([work.candidates[at] for at in batch])
        yield batch, cosines(work.model, rows, moments, directions, projection)
