"""Trains one LoRA adapter, in a process of its own or in several: a plain loop over length-grouped batches.

Takes a model folder, rows with messages, target and weight, and the training config; sends an event per
optimizer step and one at the end; writes the adapter whole or not at all. Deterministic for a seed and a
number of threads.
"""

import math
import random
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from curriculum.errors import TrainingError
from curriculum.in_context import batch_weights, mean_weights, refresh_steps
from curriculum.loss_curve import divergence_margin, first_loss, last_loss
from curriculum.records import Message
from curriculum.training_config import TrainingConfig
from student.chat_format import Batch, EncodedRow, collate, encode_row, pad_id
from student.in_context import TIMES_MAX_LENGTH, Shown, encode_shown, longest, weigh
from student.lora import (
    add_lora,
    dft_factors,
    draw_batches,
    learning_rate_factor,
    load_lora,
    save_adapter,
    sum_over_ranks,
    token_losses,
    weighted_loss,
    whole_adapter,
)
from student.phases import clock, places_of_phases, share_steps
from student.subprocess_job import Event

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class TrainingData(NamedTuple):
    """The rows that fit, and the ids of those that are too long."""

    rows: list[tuple[EncodedRow, ...]]
    """Each with what its epochs teach, in turn."""
    weights: list[float]
    dropped: list[str]
    dft: Sequence[bool] = ()
    """Whether each gets the loss DFT; none does where this is empty."""
    shown: Sequence[Shown] = ()
    """Each after demonstrations, where rows are weighed."""
    phases: Sequence[int] = ()
    """Which phase teaches each, from 0; all are of one where this is empty."""

    def epoch(self, number: int) -> list[EncodedRow]:
        """The rows as an epoch teaches them; epochs count from 0."""
        return [turns[number % len(turns)] for turns in self.rows]

    def phase(self, place: int) -> int:
        """Which phase teaches the row at a place."""
        return self.phases[place] if self.phases else 0


def train(job: Event, rank: int = 0, ranks: int = 1) -> Iterator[Event]:
    """Trains on a job: `base`, `base_name`, `dtype`, `threads`, `rows`, `training`, `seed`, `start`, `folder`,
    and `steps`, which may be none.

    Where there is a GPU it trains there. Of several processes (`student.data_parallel`) rank 0 writes the adapter.

    Raises:
        TrainingError: no row fits, or the loss diverged or is no number.
        UserError: the adapter cannot be written.
    """
    import torch

    from student.loading import load_job_base

    training = TrainingConfig.model_validate(job["training"])
    base, tokenizer = load_job_base(job, rank, ranks)
    data = encode_rows(tokenizer, job["rows"], training.max_length, longest(base, training.max_length))
    torch.manual_seed(job["seed"])
    model = load_lora(base, Path(job["start"])) if job["start"] else add_lora(base, training, job["base_name"])
    if rank > 0:
        torch.manual_seed(job["seed"] + rank)  # the adapter is the same on all; dropout must not be
    losses: list[float] = []
    gradient_norms: list[float] = []
    probabilities: list[float] = []
    for event in fit(model, data, training, pad_id(tokenizer), job["seed"], rank, ranks, job["steps"]):
        if "step" in event:
            losses.append(event["loss"])
            gradient_norms.append(event["gradient_norm"])
            probabilities += [] if event["probability"] is None else [event["probability"]]
        yield event
    if rank > 0:
        return
    with whole_adapter(Path(job["folder"])) as temporary:
        save_adapter(model, temporary)
    batches = seeded_batches(data, training, job["seed"], job["steps"])
    taught = [row for members, _ in batches for row in members]
    told = [steps for at, steps in clock([data.phase(places[0]) for _, places in batches]) if at == 0]
    yield {
        "steps": len(losses),
        "training_tokens": sum(len(row.input_ids) for row in taught),
        "target_tokens": sum(row.target_length for row in taught),
        "losses": losses,
        "gradient_norms": gradient_norms,
        "probabilities": probabilities,
        "phase_steps": told if len(told) > 1 else [],
        "dropped": data.dropped,
    }


def encode_rows(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Event], max_length: int, longest_shown: int | None = None
) -> TrainingData:
    """Rows (`id`, `messages`, `targets`, `weight`, `phase`, and what their loss is made of: `dft`, `nearest`, `random`)
    as token ids; a row is dropped when none of its targets fits.

    Args:
        tokenizer: of the base.
        rows: as the caller's job has them.
        max_length: most tokens of a row.
        longest_shown: most tokens of a row with its demonstrations; with less, fewer of them are shown.
    """
    kept, weights, dft, shown, phases, dropped = [], [], [], [], [], []
    for row in rows:
        messages = [Message.model_validate(m) for m in row["messages"]]
        encoded = [(encode_row(tokenizer, messages, target), target) for target in row["targets"]]
        fitting = [(turn, target) for turn, target in encoded if len(turn.input_ids) <= max_length]
        if not fitting:
            dropped.append(row["id"])
            continue
        kept.append(tuple(turn for turn, _ in fitting))
        weights.append(row["weight"])
        dft.append(row.get("dft", False))
        phases.append(row.get("phase", 0))
        if row.get("nearest") is not None:
            shown.append(encode_shown(tokenizer, row, fitting[0][1], longest_shown or TIMES_MAX_LENGTH * max_length))
    if not kept:
        raise TrainingError(f"expected rows of at most training.max_length ({max_length}) tokens, got none")
    return TrainingData(kept, weights, dropped, dft, shown, phases)


def seeded_batches(
    data: TrainingData, training: TrainingConfig, seed: int, steps: int | None = None
) -> list[tuple[list[EncodedRow], list[int]]]:
    """The batches of all epochs, each with its rows' places in the data; see `TrainingSettings.steps`.

    Each phase has all its epochs before the next one begins, and of given steps its share.
    """
    generator = random.Random(seed)
    parts = []
    for places in places_of_phases(data.phases, len(data.rows)):
        batches = []
        for number in range(training.epochs):
            rows = data.epoch(number)
            lengths = [len(rows[at].input_ids) for at in places]
            drawn = [[places[i] for i in batch] for batch in draw_batches(lengths, training.batch_tokens, generator)]
            batches += [([rows[at] for at in batch], batch) for batch in drawn]
        parts.append(batches)
    counts = share_steps([len(batches) for batches in parts], steps)
    return [batch for batches, count in zip(parts, counts, strict=True) for batch in islice(cycle(batches), count)]


def fit(
    model: Any,
    data: TrainingData,
    training: TrainingConfig,
    pad: int,
    seed: int,
    rank: int = 0,
    ranks: int = 1,
    steps: int | None = None,
    optimizer: Any = None,
) -> Iterator[Event]:
    """Trains the adapter of a model in place; yields `step`, `total`, `loss` and `gradient_norm` after each.

    Where rows are to be weighed it does so before the first step, and again where `training.ica.refresh` says; each
    time it yields `refresh`, counted from 0, `at`, the steps done, `seconds`, and `rows`: see `in_context.weigh`. Steps
    with rows of the loss DFT tell the mean `probability` of these rows' targets; it is none in others.
    The optimizer is made here, unless the caller wants to look into it.

    A phase trains as if it were a training of its own that goes on from the weights before it: the learning rate warms
    up and decays anew, and the optimizer remembers no earlier gradient.

    Every one of `ranks` processes draws the same batches; of the rows of each, which are in order of length, one takes
    every `ranks`-th.
    """
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer or adam(model, training)
    batches = seeded_batches(data, training, seed, steps)
    clocked = clock([data.phase(places[0]) for _, places in batches])
    losses: list[float] = []
    has_dft = any(data.dft)
    weights = [[data.weights[at] for at in places] for _, places in batches]
    scored_at = refresh_steps(len(batches), training.ica.refresh) if data.shown else []
    model.train()
    for step, ((members, places), (at_step, of_steps)) in enumerate(zip(batches, clocked, strict=True)):
        if step and at_step == 0:
            losses.clear()
            optimizer.state.clear()
        if step in scored_at:
            since = time.monotonic()
            alone = [turns[0] for turns in data.rows]
            weighed = weigh(model, alone, data.shown, training.scored_tokens, pad, rank, ranks)
            until = next((at for at in scored_at if at > step), len(batches))
            coming = [at for _, at in batches[step:until]]
            weights[step:until] = _weights_until(data, training.ica.normalise, weighed, coming)
            seconds = time.monotonic() - since
            yield {"refresh": scored_at.index(step), "at": step, "rows": weighed, "seconds": seconds}
        tokens = sum(row.target_length for row in members)
        own, dft = None, None
        if rank < len(members):
            mine = slice(rank, None, ranks)
            own = collate(members[mine], weights[step][mine], pad)
            dft = torch.tensor([data.dft[at] for at in places[mine]]) if has_dft else None
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * learning_rate_factor(at_step, of_steps, training.warmup_share)
        done = _step(model, own, dft, tokens, parameters, optimizer, training.max_grad_norm)
        losses.append(done["loss"])
        stop_if_diverged(losses, may_rise=has_dft)
        yield {"step": step + 1, "total": len(batches)} | done


def _weights_until(
    data: TrainingData, normalise: Literal["set", "batch"], weighed: Sequence[Event], coming: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The weights of the coming batches' rows, by their scores and their own; `weighed` is told what they are."""
    made = batch_weights([row["score"] for row in weighed], coming, normalise)
    if normalise == "batch":
        for row, weight in zip(weighed, mean_weights(len(weighed), coming, made), strict=True):
            row["weight"] = weight
    return [
        [data.weights[at] * weight for at, weight in zip(batch, of_batch, strict=True)]
        for batch, of_batch in zip(coming, made, strict=True)
    ]


def adam(model: Any, training: TrainingConfig) -> Any:
    """The optimizer of an adapter's weights."""
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=training.weight_decay, fused=True)


def _step(
    model: Any,
    batch: Batch | None,
    dft: "Tensor | None",
    tokens: int,
    parameters: list[Any],
    optimizer: Any,
    max_grad_norm: float,
) -> Event:
    """One optimizer step: `loss`, the mean cross entropy of all targets, weights aside, `gradient_norm`, and the mean
    `probability` of this process's targets that are taught by DFT.

    Args:
        batch: the rows of this process; none where a batch has fewer rows than there are processes.
        dft: whether each of these rows is taught by DFT; none where no row is.
        tokens: targets of the whole batch.
    """
    import torch
    from torch.distributed import is_initialized

    device = parameters[0].device
    loss = torch.zeros((), device=device)
    probability = None
    if batch is not None:
        batch = Batch(*(tensor.to(device) for tensor in batch))
        losses = token_losses(model, batch)
        counted = losses
        if dft is not None and dft.any():
            taught_so = dft.to(device)[batch.rows]
            counted = losses * dft_factors(losses, taught_so)
            probability = float(torch.exp(-losses.detach()[taught_so]).mean())
        weighted_loss(counted, batch, tokens).backward()  # type: ignore[no-untyped-call]
        loss = losses.detach().sum() / tokens
    if is_initialized():
        loss = sum_over_ranks(parameters, loss)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": float(loss), "gradient_norm": float(norm), "probability": probability}


def stop_if_diverged(losses: Sequence[float], may_rise: bool = False) -> None:
    """Ends a training that has gone wrong, given its losses so far.

    Where a row is taught by DFT the loss `may_rise`: its gradient is −∇p, so targets that the student finds unlikely
    are given up, and their cross entropy, which is what is watched here, has no bound. The gate judges the adapter.

    Raises:
        TrainingError: the last loss is not a number, or the loss has risen far above where it began.
    """
    advice = f"at step {len(losses)}: lower training.learning_rate or training.max_grad_norm"
    if not math.isfinite(losses[-1]):
        raise TrainingError(f"the loss became {losses[-1]} {advice}")
    if not may_rise and divergence_margin(losses) < 0:
        rise = f"{first_loss(losses):.2f} to {last_loss(losses):.2f}"
        raise TrainingError(f"the loss rose from {rise} nats a token {advice}")
