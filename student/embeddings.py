"""Where questions lie in the student's own space: the mean hidden state of each, of the base or of an adapter.

A worker's job: takes prompts, sends one unit vector each. No other model is needed, and the space is the one that
the student itself tells questions apart in.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from curriculum.records import Message
from student.chat_format import encode_prompt, pad_id, pad_right
from student.engine_worker import EncodedPrompt, partition
from student.loading import load_student
from student.subprocess_job import Event

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIGITS = 6
"""Decimals of a vector's numbers: float32 has about as many."""


def embed(job: Event) -> Iterator[Event]:
    """The vector of each prompt of a job: `id`, and `vector`, of length 1.

    The mean of the last layer's hidden states over the tokens of the question alone: what all prompts share (system
    prompt, template, and the first token, whose state is far larger than any other) would make them all alike.

    Args:
        job: `base`, `adapter`, `dtype`, `threads`, `batch_size`, `prompts` (each `id` and `messages`).
    """
    model, tokenizer = load_student(job)
    prompts, spans = [], {}
    for prompt in job["prompts"]:
        messages = [Message.model_validate(m) for m in prompt["messages"]]
        ids = encode_prompt(tokenizer, messages)
        prompts.append(EncodedPrompt(prompt["id"], ids))
        spans[prompt["id"]] = slice(*question_span(tokenizer, messages, ids))
    for batch in partition(prompts, job["batch_size"]):
        padded, mask = pad_right([p.input_ids for p in batch], pad_id(tokenizer))
        asked = torch.zeros_like(mask)
        for row, encoded in enumerate(batch):
            asked[row, spans[encoded.id]] = 1
        with torch.inference_mode():
            states = model.base_model(
                input_ids=padded.to(model.device), attention_mask=mask.to(model.device), use_cache=False
            ).last_hidden_state.float()
        # A sum has the direction of the mean, and the direction is all that a vector of length 1 keeps.
        vectors = normalize((states * asked.to(states.device)[..., None]).sum(1), dim=1).cpu()
        for encoded, vector in zip(batch, vectors.tolist(), strict=True):
            yield {"id": encoded.id, "vector": [round(value, DIGITS) for value in vector]}


def question_span(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], ids: Sequence[int]
) -> tuple[int, int]:
    """Which of a prompt's tokens, from and up to, are of its last message: those that an empty one has not.

    All of them where that is empty.
    """
    empty = encode_prompt(tokenizer, [*messages[:-1], messages[-1].model_copy(update={"content": ""})])
    shortest = min(len(ids), len(empty))
    begin = next((at for at in range(shortest) if ids[at] != empty[at]), shortest)
    after = next((at for at in range(shortest - begin) if ids[-1 - at] != empty[-1 - at]), shortest - begin)
    return (begin, len(ids) - after) if begin < len(ids) - after else (0, len(ids))
