"""The losses that in-context approximation is made of: of each row alone, and after demonstrations.

Pure functions around the model that is being trained; what is made of the losses is in `curriculum.in_context`.
"""

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from curriculum.errors import TrainingError
from curriculum.in_context import ica_scores, ica_weights
from curriculum.records import Message
from student.chat_format import Batch, EncodedRow, collate, encode_row
from student.lora import draw_batches, token_losses
from student.subprocess_job import Event

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TIMES_MAX_LENGTH = 4
"""How many times `training.max_length` a row may be long with its demonstrations: there is no backward pass."""


def demonstrated(messages: Sequence[Message], shots: Sequence[tuple[str, str]]) -> list[Message]:
    """The messages with (question, answer) turns before all but the system turn, the last of `shots` at the end."""
    lead = 1 if messages[0].role == "system" else 0
    turns = [
        Message(role=role, content=text)
        for shot in shots
        for role, text in zip(("user", "assistant"), shot, strict=True)
    ]
    return [*messages[:lead], *turns, *messages[lead:]]


def after(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    target: str,
    shots: Sequence[tuple[str, str]],
    limit: int,
) -> tuple[EncodedRow, int]:
    """A row after as many of its demonstrations as fit, the furthest left out first, and how many those are.

    Args:
        tokenizer: of the base.
        messages: the row's prompt.
        target: of the row.
        shots: demonstrations, the nearest first; it stands right before the question.
        limit: most tokens.
    """
    for number in range(len(shots), 0, -1):
        row = encode_row(tokenizer, demonstrated(messages, shots[:number][::-1]), target)
        if len(row.input_ids) <= limit:
            return row, number
    return encode_row(tokenizer, messages, target), 0


def longest(model: Any, max_length: int) -> int:
    """Most tokens of a row with its demonstrations."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(TIMES_MAX_LENGTH * max_length, positions or TIMES_MAX_LENGTH * max_length)


def mean_losses(
    model: Any, rows: Sequence[EncodedRow], batch_tokens: int, pad: int, rank: int = 0, ranks: int = 1
) -> list[float]:
    """The mean loss of each row's target tokens, in nats, in the order given; nothing is learnt.

    Args:
        model: on any device; dropout is off while it computes.
        rows: encoded.
        batch_tokens: most tokens of a batch, padding included; a longer row is a batch of its own.
        pad: a token to pad with.
        rank: of this process; each computes a part, and all get all.
        ranks: processes.
    """
    import torch
    from torch.distributed import all_reduce, is_initialized

    device = next(model.parameters()).device
    means = torch.zeros(len(rows), dtype=torch.float64)
    was_training = model.training
    model.train(False)
    with torch.no_grad():
        batches = draw_batches([len(row.input_ids) for row in rows], batch_tokens, random.Random(0))
        for members in batches[rank::ranks]:
            own = [rows[at] for at in members]
            batch = Batch(*(tensor.to(device) for tensor in collate(own, [1.0] * len(own), pad)))
            sums = torch.zeros(len(own), device=device).index_add_(0, batch.rows, token_losses(model, batch))
            means[members] = (sums.cpu() / torch.tensor([row.target_length for row in own])).double()
    model.train(was_training)
    if is_initialized():
        shared = means.to(device, torch.float32)
        all_reduce(shared)
        means = shared.cpu().double()
    return [float(value) for value in means]


class Shown(NamedTuple):
    """A row after demonstrations."""

    id: str
    nearest: EncodedRow
    demonstrations: int
    """How many of the nearest fit."""
    random: EncodedRow | None
    """After random ones, where these are asked for."""


def encode_shown(tokenizer: "PreTrainedTokenizerBase", row: Event, target: str, limit: int) -> Shown:
    """A row (`id`, `messages`, `nearest`, `random`) after its demonstrations, (question, answer) pairs."""
    messages = [Message.model_validate(m) for m in row["messages"]]
    nearest, number = after(tokenizer, messages, target, row["nearest"], limit)
    by_chance = after(tokenizer, messages, target, row["random"], limit)[0] if row["random"] is not None else None
    return Shown(row["id"], nearest, number, by_chance)


def weigh(
    model: Any, alone: Sequence[EncodedRow], shown: Sequence[Shown], batch_tokens: int, pad: int, rank: int, ranks: int
) -> list[Event]:
    """Scores rows with the model as it is: `id`, `alone`, `shown`, `random`, `demonstrations`, `score`, and `weight`,
    normalised over all of them.

    Raises:
        TrainingError: a loss is no number.
    """

    def losses(rows: Sequence[EncodedRow]) -> list[float]:
        return mean_losses(model, rows, batch_tokens, pad, rank, ranks)

    by_chance = [row.random for row in shown if row.random is not None]
    without, after_nearest = losses(alone), losses([row.nearest for row in shown])
    after_random = losses(by_chance) if by_chance else None
    scores = ica_scores(without, after_nearest, after_random)
    bad = [row.id for row, score in zip(shown, scores, strict=True) if not math.isfinite(score)]
    if bad:
        raise TrainingError(
            f"in-context approximation: expected a loss of every row, got no number for {len(bad)} of {len(scores)}, "
            f"the first of {bad[0]}: the model's numbers overflow. Lower training.learning_rate, or set "
            "training.weights to none"
        )
    return [
        {
            "id": row.id,
            "alone": without[at],
            "shown": after_nearest[at],
            "random": after_random[at] if after_random else None,
            "demonstrations": row.demonstrations,
            "score": scores[at],
            "weight": weight,
        }
        for at, (row, weight) in enumerate(zip(shown, ica_weights(scores), strict=True))
    ]
