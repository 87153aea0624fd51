"""Answers prompts with transformers, in a process of its own: the student as it is served on a CPU.

Takes a model folder, an adapter, ready messages and sampling; sends one event per answer as each batch is
done. The adapter is merged into the weights, which is faster than keeping it apart. The partition into
batches depends on the prompts alone, so an interrupted evaluation goes on to the very same answers.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curriculum.errors import StudentError
from curriculum.records import Message, Sampling
from student.chat_format import encode_prompt, pad_id, pad_left, stop_ids
from student.subprocess_job import Event, is_out_of_memory

if TYPE_CHECKING:
    from torch import Generator, Tensor


class EncodedPrompt(NamedTuple):
    """A prompt as token ids, under the id of its answer."""

    id: str
    input_ids: tuple[int, ...]


def answer(job: Event) -> Iterator[Event]:
    """Answers the prompts of a job whose answer id is not in `finished`.

    Args:
        job: `base`, `adapter`, `dtype`, `threads`, `prompts`, `sampling`, `batch_size`, `finished`.

    Raises:
        StudentError: memory ran out.
    """
    import torch

    from student.loading import load_base

    model, tokenizer = load_base(Path(job["base"]), job["dtype"], job["threads"])
    if job["adapter"]:
        model = _merge(model, job["adapter"])
    model.train(False)
    sampling = Sampling.model_validate(job["sampling"])
    stops = stop_ids(tokenizer, model.generation_config.eos_token_id)
    finished = set(job["finished"])
    prompts = [
        EncodedPrompt(prompt["id"], encode_prompt(tokenizer, [Message.model_validate(m) for m in prompt["messages"]]))
        for prompt in job["prompts"]
    ]
    prefix = read_prefix(model, [p.input_ids for p in prompts])
    for index, batch in enumerate(partition(prompts, job["batch_size"])):
        wanted = [prompt for prompt in batch if prompt.id not in finished]
        if not wanted:
            continue
        generator = torch.Generator().manual_seed(sampling.seed * 1_000_003 + index)
        try:
            texts = decode(model, prefix, [p.input_ids for p in batch], stops, pad_id(tokenizer), sampling, generator)
        except Exception as error:
            if is_out_of_memory(error):
                raise StudentError(f"memory ran out while answering: lower student.batch_size ({error})") from None
            logging.exception("batch %d failed", index)
            yield from (_failure(prompt, repr(error)) for prompt in wanted)
            continue
        for prompt, tokens in zip(batch, texts, strict=True):
            if prompt.id not in finished:
                yield _answer(prompt, tokens, stops, tokenizer)


def partition(prompts: Sequence[EncodedPrompt], batch_size: int) -> list[list[EncodedPrompt]]:
    """Batches of prompts of like length, the longest first: whatever a batch costs, later ones cost less."""
    ordered = sorted(prompts, key=lambda p: (-len(p.input_ids), p.id))
    return [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]


class Prefix(NamedTuple):
    """What all prompts of a job begin with, read once: its length in tokens, and its keys and values."""

    length: int
    cache: Any


def read_prefix(model: Any, prompts: Sequence[tuple[int, ...]]) -> Prefix:
    """Reads the longest common beginning of all prompts: system text, few-shot examples.

    At least one token of each prompt is left out, so that every prompt still has one to be read.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    # What the first and the last in order share, all share.
    shared = list(takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False)))
    length = min(len(shared), min(len(ids) for ids in prompts) - 1)
    if length:
        with torch.inference_mode():
            model(input_ids=torch.tensor([prompts[0][:length]]), past_key_values=cache, logits_to_keep=1)
    return Prefix(length, cache)


def decode(
    model: Any,
    prefix: Prefix,
    prompts: Sequence[Sequence[int]],
    stops: Sequence[int],
    pad: int,
    sampling: Sampling,
    generator: "Generator",
) -> list[list[int]]:
    """The new tokens of each prompt, its stop token included; rows that stopped leave the batch."""
    import torch

    made: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts))
    stop = torch.tensor(stops)
    ids, mask = pad_left([p[prefix.length :] for p in prompts], pad)
    mask = torch.cat([mask.new_ones(len(prompts), prefix.length), mask], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix.length :]
    with torch.inference_mode():
        cache = copy.deepcopy(prefix.cache)
        if prefix.length:
            cache.batch_repeat_interleave(len(prompts))
        for _ in range(sampling.max_new_tokens):
            logits = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            ).logits[:, -1]
            tokens = choose_tokens(logits.float(), sampling, generator)
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                made[row].append(token)
            going = torch.isin(tokens, stop, invert=True).nonzero()[:, 0]
            if not len(going):
                break
            if len(going) < len(rows):
                cache.batch_select_indices(going)
                rows, tokens, mask, positions = rows[going], tokens[going], mask[going], positions[going]
            ids, positions = tokens[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return made


def choose_tokens(logits: "Tensor", sampling: Sampling, generator: "Generator") -> "Tensor":
    """The next token of each row of `rows × vocabulary` logits: greedy, or nucleus sampling.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    import torch

    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities, order = (logits / sampling.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    # A token stays while the tokens before it have less than top_p of the mass: the first always stays.
    outside = probabilities.cumsum(-1) - probabilities >= sampling.top_p
    drawn = torch.multinomial(probabilities.masked_fill(outside, 0), 1, generator=generator)
    chosen: Tensor = order.gather(-1, drawn)[:, 0]
    return chosen


def _merge(model: Any, adapter: str) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter, local_files_only=True).merge_and_unload()


def _answer(prompt: EncodedPrompt, tokens: list[int], stops: Sequence[int], tokenizer: Any) -> Event:
    stopped = tokens[-1] in stops
    return {
        "id": prompt.id,
        "text": tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=True),
        "finish_reason": "stop" if stopped else "length",
        "prompt_tokens": len(prompt.input_ids),
        "completion_tokens": len(tokens),
        "error": None,
    }


def _failure(prompt: EncodedPrompt, reason: str) -> Event:
    return {
        "id": prompt.id,
        "text": "",
        "finish_reason": "error",
        "prompt_tokens": len(prompt.input_ids),
        "completion_tokens": 0,
        "error": reason,
    }
