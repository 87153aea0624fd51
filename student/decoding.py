"""Turns prompts into the tokens of their answers: reading, then one token a step for all rows at once.

What all prompts of a job begin with is read once, the rest in groups of like length. Rows that have ended
leave the batch. Pure functions around a model that is given.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from transformers import DynamicCache

from curriculum.records import Sampling
from student.chat_format import pad_left
from student.key_values import RowCache
from student.signals import TOP

READ_TOKENS = {"cpu": 512, "cuda": 16_384}
"""Most tokens read at once, padding included: enough for fast matrix products, few enough to stay in a CPU's cache."""


class Prefix(NamedTuple):
    """What all prompts of a job begin with, read once: its length in tokens, and its keys and values."""

    length: int
    cache: DynamicCache


@torch.inference_mode()
def read_prefix(model: Any, prompts: Sequence[tuple[int, ...]]) -> Prefix:
    """Reads the longest common beginning of all prompts: system text, few-shot examples.

    At least one token of each prompt is left out, so that every prompt still has one to be read.
    """
    # What the first and the last in order share, all share.
    shared = list(takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False)))
    length = min(len(shared), min(len(ids) for ids in prompts) - 1)
    cache = DynamicCache()
    if length:
        shown = torch.tensor([prompts[0][:length]], device=model.device)
        model(input_ids=shown, past_key_values=cache, logits_to_keep=1)
    return Prefix(length, cache)


def decode(
    model: Any,
    prefix: Prefix,
    prompts: Sequence[Sequence[int]],
    stops: Sequence[int],
    pad: int,
    sampling: Sampling,
    generator: Generator,
    first: list[list[float]] | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """The new tokens of each prompt, its stop token included, each with the prompt's index, as they end.

    Args:
        model: after `use_grouped_attention`.
        prefix: what all prompts begin with.
        prompts: token ids, the longest prompt first.
        stops: tokens that end an answer.
        pad: any token; it is masked.
        sampling: how tokens are drawn, and how many at most.
        generator: of the draws, on the model's device.
        first: a list to which, for each prompt, the log-probabilities of its likeliest first tokens are added, before
            temperature and nucleus.
    """
    logits, cache, mask = _read(model, prefix, prompts, pad, sampling.max_new_tokens)
    if first is not None:
        first += logits.float().log_softmax(-1).topk(min(TOP, logits.shape[-1])).values.tolist()
    made: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts), device=model.device)
    positions = torch.tensor([[len(prompt)] for prompt in prompts], device=model.device)
    stop = torch.tensor(stops, device=model.device)
    for step in range(sampling.max_new_tokens):
        tokens = choose_tokens(logits.float(), sampling, generator)
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            made[row].append(token)
        going = torch.isin(tokens, stop, invert=True)
        if step + 1 == sampling.max_new_tokens:
            going[:] = False
        yield from ((row, made[row]) for row in rows[~going].tolist())
        kept = _leave(cache, going)
        if not len(kept):
            return
        rows, tokens, mask, positions = rows[kept], tokens[kept], mask[kept], positions[kept]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = _next_logits(model, tokens[:, None], mask, positions, cache)
        positions = positions + 1


@torch.inference_mode()
def _leave(cache: RowCache, going: Tensor) -> Tensor:
    """Rows that stay, in the new order: the first ones, with the last ones moved to where rows have left."""
    count = int(going.sum())
    kept = torch.arange(count, device=going.device)
    if 0 < count < len(going):
        left = (~going[:count]).nonzero()[:, 0]
        kept[left] = count + going[count:].nonzero()[:, 0]
        cache.move_rows(kept[left], left)
    return kept


@torch.inference_mode()
def _read(
    model: Any, prefix: Prefix, prompts: Sequence[Sequence[int]], pad: int, new_tokens: int
) -> tuple[Tensor, RowCache, Tensor]:
    """Reads all prompts; returns the logits of each one's next token, the keys and values, and the mask."""
    rest = [prompt[prefix.length :] for prompt in prompts]
    length = prefix.length + len(rest[0])
    mask = torch.zeros(len(prompts), length, dtype=torch.long, device=model.device)
    mask[:, : prefix.length] = 1
    cache = None
    logits = []
    for first, end in _groups([len(ids) for ids in rest], READ_TOKENS[model.device.type]):
        ids, seen = (tensor.to(model.device) for tensor in pad_left(rest[first:end], pad))
        mask[first:end, length - ids.shape[1] :] = seen
        seen = torch.cat([mask[first:end, : prefix.length], seen], dim=1)
        positions = (seen.cumsum(1) - 1).clamp(min=0)[:, prefix.length :]
        read = copy.deepcopy(prefix.cache)
        read.batch_repeat_interleave(len(ids))
        logits.append(_next_logits(model, ids, seen, positions, read))
        cache = cache or RowCache(read, len(prompts), length, length + new_tokens)
        cache.place(first, prefix.length, read)
    assert cache is not None
    return torch.cat(logits), cache, mask


def _groups(lengths: Sequence[int], most_tokens: int) -> Iterator[tuple[int, int]]:
    """Where each group of rows begins and ends, given the tokens of each row, the longest row first."""
    first = 0
    while first < len(lengths):
        end = min(len(lengths), first + max(1, most_tokens // lengths[first]))
        yield first, end
        first = end


@torch.inference_mode()
def _next_logits(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """`rows × vocabulary` logits of the token after the last one."""
    logits: Tensor = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
    ).logits[:, -1]
    return logits


@torch.inference_mode()
def choose_tokens(logits: Tensor, sampling: Sampling, generator: Generator) -> Tensor:
    """The next token of each row of `rows × vocabulary` logits: greedy, or nucleus sampling.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities, order = (logits / sampling.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    # A token stays while the tokens before it have less than top_p of the mass: the first always stays.
    outside = probabilities.cumsum(-1) - probabilities >= sampling.top_p
    drawn = torch.multinomial(probabilities.masked_fill(outside, 0), 1, generator=generator)
    return order.gather(-1, drawn)[:, 0]
