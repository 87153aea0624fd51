"""Chat template, completion mask and label shift: the one place, shared by serving and training.

Takes messages and a tokenizer, gives token ids and padded tensors. The loss covers the target and the
end-of-turn token, nothing before and nothing after. Padding is masked by position, never by token id,
because many tokenizers pad with the very token that ends a turn.

Only the template writes control tokens. A message that holds the text of one, such as `<|im_end|>`, gets the
ordinary tokens of that text, so no data set, teacher or student can end a turn or speak as somebody else.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from jinja2.exceptions import TemplateError

from curriculum.errors import UserError
from curriculum.records import Message

BREAK = "\x02"
"""Where a rendered conversation is cut before it is tokenised; data with this control character are quarantined."""

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class EncodedRow(NamedTuple):
    """A conversation as token ids; the first `prompt_length` are the prompt and carry no loss."""

    input_ids: tuple[int, ...]
    prompt_length: int

    @property
    def target_length(self) -> int:
        """Tokens that carry loss."""
        return len(self.input_ids) - self.prompt_length


class Batch(NamedTuple):
    """Rows padded on the right to one length, `rows × tokens`, and what to predict at which position."""

    input_ids: "Tensor"
    attention_mask: "Tensor"
    predicts: "Tensor"
    """`rows × tokens`, true where the *next* token is a target."""
    labels: "Tensor"
    """The target tokens, `predicts` read row by row."""
    weights: "Tensor"
    """The weight of the row each label belongs to."""
    rows: "Tensor"
    """Which of the rows each label belongs to, from 0."""


def prompt_messages(
    system: str, history: Sequence[Message], question: str, shots: Sequence[tuple[str, str]] = ()
) -> tuple[Message, ...]:
    """The messages a student is asked with: system, few-shot (question, answer) turns, history, question.

    A system turn of the history joins the system prompt: templates take one, at the beginning.
    """
    if history and history[0].role == "system":
        system = f"{system}\n\n{history[0].content}".strip()
        history = history[1:]
    turns = [Message(role="system", content=system)] if system else []
    for shot_question, shot_answer in shots:
        turns += [Message(role="user", content=shot_question), Message(role="assistant", content=shot_answer)]
    return (*turns, *history, Message(role="user", content=question))


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids up to where the student begins to answer."""
    return _apply_template(tokenizer, messages, generate=True)


def encode_row(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], target: str) -> EncodedRow:
    """Token ids of a prompt and its target, through the end-of-turn token.

    White space around the target is not taught: next to it a tokenizer may join tokens of prompt and target.

    Raises:
        UserError: with the answer the template gives other ids to the prompt, so it could not be masked.
    """
    prompt = encode_prompt(tokenizer, messages)
    whole = _apply_template(tokenizer, [*messages, Message(role="assistant", content=target.strip())], generate=False)
    if whole[: len(prompt)] != prompt:
        raise UserError(
            f"{tokenizer.name_or_path}: expected a chat template whose text up to the answer is the same with and "
            "without the answer, got two different ones: completion-only loss is not possible. Use another base model"
        )
    end = end_of_turn(tokenizer)
    last = max(at for at, token in enumerate(whole) if token == end)
    return EncodedRow(whole[: last + 1], len(prompt))


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The special token the chat template puts after an answer.

    Raises:
        UserError: there is none, so a student would never learn to stop.
    """
    messages = [Message(role="user", content="x")]
    prompt = encode_prompt(tokenizer, messages)
    whole = _apply_template(tokenizer, [*messages, Message(role="assistant", content="x")], generate=False)
    special = _special_ids(tokenizer)
    for token in whole[len(prompt) :]:
        if token in special:
            return token
    raise UserError(
        f"{tokenizer.name_or_path}: expected a chat template that ends an answer with a special token, got none. "
        "Use an instruction-tuned base model"
    )


def pieces(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[tuple[str, bool]]:
    """The text of token ids in pieces, each with whether it is a special token; a text that looks like one is not."""
    special = _special_ids(tokenizer)
    parts: list[list[int]] = []
    for token in ids:
        if token in special or not parts or parts[-1][-1] in special:
            parts.append([])
        parts[-1].append(token)
    return [(str(tokenizer.decode(p, clean_up_tokenization_spaces=False)), p[0] in special) for p in parts]


def _special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    return {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}


def stop_ids(tokenizer: "PreTrainedTokenizerBase", generation_eos: int | Sequence[int] | None) -> list[int]:
    """Every token that ends an answer: end of turn, end of sequence, and the model's own list."""
    own = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos or ())
    eos = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return sorted({end_of_turn(tokenizer), *eos, *own})


def pad_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """A token to pad with; which one does not matter, since padding is masked by position."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def pad_left(prompts: Sequence[Sequence[int]], pad: int) -> "tuple[Tensor, Tensor]":
    """Token ids and attention mask, `prompts × tokens`, all prompts ending at the last position."""
    import torch

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for at, prompt in enumerate(prompts):
        ids[at, width - len(prompt) :] = torch.tensor(prompt)
        mask[at, width - len(prompt) :] = 1
    return ids, mask


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> "tuple[Tensor, Tensor]":
    """Token ids and attention mask, `rows × tokens`, all rows beginning at the first position."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    return ids, mask


def collate(rows: Sequence[EncodedRow], weights: Sequence[float], pad: int) -> Batch:
    """Rows as tensors; position `t` predicts token `t + 1`, so the last prompt token predicts the first target."""
    import torch

    ids, mask = pad_right([row.input_ids for row in rows], pad)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for at, row in enumerate(rows):
        predicts[at, row.prompt_length - 1 : len(row.input_ids) - 1] = True
    row_weights = torch.tensor(weights, dtype=torch.float32)
    of_row = torch.arange(len(rows))[:, None].expand(ids.shape)[predicts]
    return Batch(ids, mask, predicts, ids.roll(-1, 1)[predicts], row_weights[of_row], of_row)


def _apply_template(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, generate: bool
) -> tuple[int, ...]:
    starts = _control_starts(tokenizer)
    turns = [{"role": m.role, "content": starts.sub(rf"\g<0>{BREAK}", m.content)} for m in messages]
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=generate, tokenize=False)
    except TemplateError as error:
        raise UserError(
            f"{tokenizer.name_or_path}: expected a chat template that takes the roles "
            f"{', '.join(dict.fromkeys(m.role for m in messages))}, got: {error}. Use another base model"
        ) from None
    return tuple(
        token for piece in str(text).split(BREAK) for token in tokenizer(piece, add_special_tokens=False)["input_ids"]
    )


@lru_cache(maxsize=8)
def _control_starts(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    """Matches every first character of a special token's text.

    A text that is cut after it is whole in no piece, so no algorithm of a tokenizer can take it for the token.
    A special token of one character cannot be cut; it is left alone.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts = sorted(re.escape(text) for text in special if len(text) > 1)
    return re.compile(f"(?=(?:{'|'.join(texts)})).", re.DOTALL) if texts else re.compile("(?!)")
