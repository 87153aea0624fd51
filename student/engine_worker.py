"""Answers prompts with transformers, in a process of its own: on a GPU where there is one, else on the CPU.

Takes a model folder, an adapter, ready messages and sampling; sends one event per answer as it ends.
The adapter is merged into the weights, which is faster than keeping it apart. The partition into
batches depends on the prompts alone, so an interrupted evaluation goes on to the very same answers.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from curriculum.records import Message, Sampling
from student.chat_format import encode_prompt, pad_id, stop_ids
from student.decoding import decode, read_prefix
from student.key_values import use_grouped_attention
from student.loading import here, load_base
from student.signals import top_entropy
from student.subprocess_job import Event, is_out_of_memory, sample_ids


class EncodedPrompt(NamedTuple):
    """A prompt as token ids, under the id of its answer."""

    id: str
    input_ids: tuple[int, ...]


def answer(job: Event) -> Iterator[Event]:
    """Answers the prompts of a job whose answer id is not in `finished`.

    Args:
        job: `base`, `adapter`, `dtype`, `threads`, `prompts`, `sampling`, `batch_size`, `finished`, `signals`. A prompt
            of which several samples are wanted is read once for each.

    Raises:
        UserError: the model is of a kind that this engine cannot serve.
    """
    model, tokenizer = load_base(Path(job["base"]), job["dtype"], job["threads"], here(), job.get("quantise"))
    if job["adapter"]:
        model = _with_adapter(model, job["adapter"])
    model.train(False)
    use_grouped_attention(model)
    sampling = Sampling.model_validate(job["sampling"])
    stops = stop_ids(tokenizer, model.generation_config.eos_token_id)
    finished = set(job["finished"])
    prompts = [
        EncodedPrompt(id_, ids)
        for prompt in job["prompts"]
        for ids in [encode_prompt(tokenizer, [Message.model_validate(m) for m in prompt["messages"]])]
        for id_ in sample_ids(prompt)
    ]
    prefix = read_prefix(model, [p.input_ids for p in prompts])
    for index, batch in enumerate(partition(prompts, job["batch_size"])):
        missing = {row: prompt for row, prompt in enumerate(batch) if prompt.id not in finished}
        if not missing:
            continue
        generator = torch.Generator(model.device).manual_seed(sampling.seed * 1_000_003 + index)
        ids = [p.input_ids for p in batch]
        first: list[list[float]] | None = [] if job.get("signals") else None
        try:
            for row, tokens in decode(model, prefix, ids, stops, pad_id(tokenizer), sampling, generator, first):
                if row in missing:
                    # A student that said nothing was unsure of nothing: its first token ended the turn.
                    entropy = top_entropy(first[row]) if first and tokens[0] not in stops else None
                    yield _answer(missing.pop(row), tokens, stops, tokenizer) | {"entropy": entropy}
        except Exception as error:
            if is_out_of_memory(error):
                raise
            logging.exception("batch %d failed", index)
            yield from (_failure(prompt, repr(error)) for prompt in missing.values())


def partition(prompts: Sequence[EncodedPrompt], batch_size: int) -> list[list[EncodedPrompt]]:
    """Batches of prompts of like length, the longest first: whatever a batch costs, later ones cost less."""
    ordered = sorted(prompts, key=lambda p: (-len(p.input_ids), p.id))
    return [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]


def _with_adapter(model: Any, adapter: str) -> Any:
    """The model with an adapter: merged, or beside weights of 4 bits, which would round it."""
    from peft import PeftModel

    taught = PeftModel.from_pretrained(model, adapter, local_files_only=True)
    return taught.get_base_model() if getattr(model, "is_quantized", False) else taught.merge_and_unload()


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
