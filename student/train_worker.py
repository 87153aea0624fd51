"""Trains one LoRA adapter, in a process of its own or in several: a plain loop over length-grouped batches.

Takes a model folder, rows with messages, target and weight, and the training config; sends an event per
optimizer step and one at the end; writes the adapter whole or not at all. Deterministic for a seed and a
number of threads.
"""

import math
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curriculum.errors import TrainingError, UserError
from curriculum.loss_curve import divergence_margin, first_loss, last_loss
from curriculum.records import Message
from curriculum.training_config import TrainingConfig
from student.chat_format import Batch, EncodedRow, collate, encode_row, pad_id
from student.lora import (
    add_lora,
    draw_batches,
    learning_rate_factor,
    load_lora,
    save_adapter,
    sum_over_ranks,
    token_losses,
    weighted_loss,
)
from student.subprocess_job import Event, is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TrainingData(NamedTuple):
    """The rows that fit, and the ids of those that are too long."""

    rows: list[tuple[EncodedRow, ...]]
    """Each with what its epochs teach, in turn."""
    weights: list[float]
    dropped: list[str]

    def epoch(self, number: int) -> list[EncodedRow]:
        """The rows as an epoch teaches them; epochs count from 0."""
        return [turns[number % len(turns)] for turns in self.rows]


def train(job: Event, rank: int = 0, ranks: int = 1) -> Iterator[Event]:
    """Trains on a job: `base`, `base_name`, `dtype`, `threads`, `rows`, `training`, `seed`, `start`, `folder`,
    and `steps`, which may be none.

    Where there is a GPU it trains there. Of several processes (`student.data_parallel`) rank 0 writes the adapter.

    Raises:
        TrainingError: no row fits, or the loss diverged or is no number.
        UserError: the adapter cannot be written.
    """
    import torch
    from safetensors import SafetensorError

    from student.loading import here, load_base

    training = TrainingConfig.model_validate(job["training"])
    base, tokenizer = load_base(
        Path(job["base"]), job["dtype"], max(1, job["threads"] // ranks), here(rank), job.get("quantise")
    )
    data = encode_rows(tokenizer, job["rows"], training.max_length)
    torch.manual_seed(job["seed"])
    model = load_lora(base, Path(job["start"])) if job["start"] else add_lora(base, training, job["base_name"])
    if rank > 0:
        torch.manual_seed(job["seed"] + rank)  # the adapter is the same on all; dropout must not be
    losses: list[float] = []
    gradient_norms: list[float] = []
    for event in fit(model, data, training, pad_id(tokenizer), job["seed"], rank, ranks, job["steps"]):
        losses.append(event["loss"])
        gradient_norms.append(event["gradient_norm"])
        yield event
    if rank > 0:
        return
    try:
        _save_whole(model, Path(job["folder"]))
    except (OSError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{job['folder']}: expected to write the adapter, got: {error}. Free some space or mend the folder's "
            "rights, then go on with: tutelage resume RUN"
        ) from None
    taught = [row for members, _ in seeded_batches(data, training, job["seed"], job["steps"]) for row in members]
    yield {
        "steps": len(losses),
        "training_tokens": sum(len(row.input_ids) for row in taught),
        "target_tokens": sum(row.target_length for row in taught),
        "losses": losses,
        "gradient_norms": gradient_norms,
        "dropped": data.dropped,
    }


def encode_rows(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Event], max_length: int) -> TrainingData:
    """Rows (`id`, `messages`, `targets`, `weight`) as token ids; a row is dropped when none of its targets fits."""
    data = TrainingData([], [], [])
    for row in rows:
        messages = [Message.model_validate(m) for m in row["messages"]]
        encoded = [encode_row(tokenizer, messages, target) for target in row["targets"]]
        fitting = tuple(turn for turn in encoded if len(turn.input_ids) <= max_length)
        if fitting:
            data.rows.append(fitting)
            data.weights.append(row["weight"])
        else:
            data.dropped.append(row["id"])
    if not data.rows:
        raise TrainingError(f"expected rows of at most training.max_length ({max_length}) tokens, got none")
    return data


def seeded_batches(
    data: TrainingData, training: TrainingConfig, seed: int, steps: int | None = None
) -> list[tuple[list[EncodedRow], list[float]]]:
    """The batches of all epochs, each with its rows' weights; see `TrainingSettings.steps`."""
    generator = random.Random(seed)
    batches = []
    for number in range(training.epochs):
        rows = data.epoch(number)
        drawn = draw_batches([len(row.input_ids) for row in rows], training.batch_tokens, generator)
        batches += [([rows[i] for i in batch], [data.weights[i] for i in batch]) for batch in drawn]
    return batches if steps is None else list(islice(cycle(batches), steps))


def fit(
    model: Any,
    data: TrainingData,
    training: TrainingConfig,
    pad: int,
    seed: int,
    rank: int = 0,
    ranks: int = 1,
    steps: int | None = None,
) -> Iterator[Event]:
    """Trains the adapter of a model in place; yields `step`, `total`, `loss` and `gradient_norm` after each.

    Every one of `ranks` processes draws the same batches; of the rows of each, which are in order of length, one takes
    every `ranks`-th.
    """
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=training.weight_decay, fused=True)
    batches = seeded_batches(data, training, seed, steps)
    losses: list[float] = []
    model.train()
    for step, (members, weights) in enumerate(batches):
        tokens = sum(row.target_length for row in members)
        own = collate(members[rank::ranks], weights[rank::ranks], pad) if rank < len(members) else None
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * learning_rate_factor(step, len(batches), training.warmup_share)
        loss, norm = _step(model, own, tokens, parameters, optimizer, training.max_grad_norm)
        losses.append(loss)
        stop_if_diverged(losses)
        yield {"step": step + 1, "total": len(batches), "loss": loss, "gradient_norm": norm}


def _step(
    model: Any, batch: Batch | None, tokens: int, parameters: list[Any], optimizer: Any, max_grad_norm: float
) -> tuple[float, float]:
    """One optimizer step; returns the mean loss of all targets, weights aside, and the gradient's norm.

    Args:
        batch: the rows of this process; none where a batch has fewer rows than there are processes.
        tokens: targets of the whole batch.
    """
    import torch
    from torch.distributed import is_initialized

    device = parameters[0].device
    loss = torch.zeros((), device=device)
    if batch is not None:
        batch = Batch(*(tensor.to(device) for tensor in batch))
        losses = token_losses(model, batch)
        weighted_loss(losses, batch, tokens).backward()  # type: ignore[no-untyped-call]
        loss = losses.detach().sum() / tokens
    if is_initialized():
        loss = sum_over_ranks(parameters, loss)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss), float(norm)


def stop_if_diverged(losses: Sequence[float]) -> None:
    """Ends a training that has gone wrong, given its losses so far.

    Raises:
        TrainingError: the last loss is not a number, or the loss has risen far above where it began.
    """
    advice = f"at step {len(losses)}: lower training.learning_rate or training.max_grad_norm"
    if not math.isfinite(losses[-1]):
        raise TrainingError(f"the loss became {losses[-1]} {advice}")
    if divergence_margin(losses) < 0:
        rise = f"{first_loss(losses):.2f} to {last_loss(losses):.2f}"
        raise TrainingError(f"the loss rose from {rise} nats a token {advice}")


def _save_whole(model: Any, folder: Path) -> None:
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_adapter(model, temporary)
    for file in temporary.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
