"""How unsure a student is of an answer: the entropy at its first token, exact or of the likeliest tokens.

A worker's job: one forward pass over each prompt, and the beginning of an answer, with no label in it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from curriculum.errors import UserError
from curriculum.extraction import ANSWER_MARK
from curriculum.records import Message
from student.chat_format import EncodedRow, encode_row, pad_id, pad_right
from student.engine_worker import EncodedPrompt, partition
from student.loading import load_student
from student.signals import TOP, top_entropy
from student.subprocess_job import Event

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def entropies(job: Event) -> Iterator[Event]:
    """Of each prompt of a job: `id` and `entropy`, in nats.

    The student is made to begin with `Answer:`, and what is measured is its first token after that. What stands before
    it is the prompt, the mark and, for tokenizers that read a space before a digit as a token of its own, that space:
    the shape of the gold answer says which, its content is not read.

    Args:
        job: `base`, `adapter`, `dtype`, `threads`, `batch_size`, `prompts` (each `id`, `messages`, and `target`: the
            answer line), and `exact`: over the whole vocabulary, or as a server would have it (`signals.top_entropy`).

    Raises:
        UserError: an entropy is no number.

    Source: Goncharov et al. 2025 (arXiv 2506.21220): h = −Σ p·ln p of the first answer token.
    """
    model, tokenizer = load_student(job)
    prompts = begun_answers(tokenizer, job["prompts"])
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for batch in partition(prompts, job["batch_size"]):
        ids, mask = pad_right([p.input_ids for p in batch], pad_id(tokenizer))
        ends = torch.tensor([len(p.input_ids) - 1 for p in batch])
        hook = head.register_forward_pre_hook(lambda _, inputs, ends=ends: (inputs[0][range(len(ends)), ends],))
        try:
            with torch.inference_mode():
                logits = model(
                    input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
                ).logits
        finally:
            hook.remove()
        for prompt, made in zip(batch, (entropy if job["exact"] else likeliest_entropy)(logits), strict=True):
            value = float(made)
            if math.isnan(value):
                raise UserError(
                    f"expected an entropy of {prompt.id}, got no number: the student's logits overflow. Set "
                    "student.dtype to float32, or take another adapter or base"
                )
            yield {"id": prompt.id, "entropy": value}


def begun_answers(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Event]) -> list[EncodedPrompt]:
    """Prompts (`id`, `messages`, `target`) as tokens up to where the answer's first token is to come."""
    made = []
    for prompt in prompts:
        row = encode_row(tokenizer, [Message.model_validate(m) for m in prompt["messages"]], prompt["target"])
        made.append(EncodedPrompt(prompt["id"], row.input_ids[: answer_begin(tokenizer, row)]))
    return made


def likeliest_entropy(logits: "Tensor") -> list[float]:
    """What `signals.top_entropy` makes of the 20 likeliest tokens of each row of logits, in nats."""
    shares = torch.log_softmax(logits.double(), -1)
    return [top_entropy(row) for row in shares.topk(min(TOP, logits.shape[-1])).values.tolist()]


def entropy(logits: "Tensor") -> "Tensor":
    """−Σ p·ln p over the last dimension, in nats, from 0 to the logarithm of its size; NaN where a logit is."""
    shares = torch.softmax(logits.double(), -1)
    made: Tensor = torch.special.entr(shares).sum(-1).clamp(0.0, math.log(logits.shape[-1]))
    return made


def answer_begin(tokenizer: "PreTrainedTokenizerBase", row: EncodedRow) -> int:
    """The place of the first token of a row's answer, after `Answer:`."""
    target = list(row.input_ids[row.prompt_length :])
    for number in range(1, len(target) + 1):
        if len(str(tokenizer.decode(target[:number])).strip()) > len(ANSWER_MARK):
            return row.prompt_length + number - 1
    return row.prompt_length
