"""A process reward model scores the steps of answers: one of this machine, or one that a server answers for.

Each step is a user's turn; the score is P(+) / (P(+) + P(-)) of the model's next token, after turns that were all
answered `+`. That is the form of RLHFlow's models, which STAT's authors use.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curriculum.errors import StudentError, UserError
from curriculum.records import Message
from curriculum.student_config import RewardConfig
from student.address import connection
from student.base_model import resolve_base
from student.chat_format import encode_prompt
from student.subprocess_job import Event, run_worker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GOOD, BAD = "+", "-"
LIKELIEST = 20
"""Tokens that a server names; a sign that is not among them counts as impossible."""
RETRIES = 4
Turns = tuple[str, Sequence[str]]
"""An answer's id, and the user's turns it was made into; at least one."""


def score_locally(answers: Sequence[Turns], reward: RewardConfig, threads: int, log: Path) -> Iterator[tuple[str, Any]]:
    """The scores of each answer's steps, by a model of this machine in a worker process, as they come.

    Raises:
        UserError: the model cannot be had or used.
        StudentError: the worker died; `OutOfMemory` where memory ran out.
    """
    try:
        base = resolve_base(reward.model, reward.revision)
        listed = [{"id": id_, "turns": list(turns)} for id_, turns in answers]
        job: Event = {"do": "score_steps", "base": str(base), "dtype": reward.dtype, "answers": listed}
        for event in run_worker("student.worker", job | {"threads": threads}, threads=threads, log=log):
            yield event["id"], event["scores"]
    except UserError as error:
        raise UserError(str(error).replace("student.base", "student.reward.model")) from None


def score_steps(job: Event) -> Iterator[Event]:
    """The worker's part: `answers` with `id` and `turns` in, `id` and `scores` out.

    Raises:
        UserError: the model cannot be read, its tokenizer has no token for a sign, or a score is no number.
    """
    import torch

    from student.loading import here, load_base

    model, tokenizer = load_base(Path(job["base"]), job["dtype"], job["threads"], here())
    model.eval()  # type: ignore[no-untyped-call]
    signs = [_sign(tokenizer, sign) for sign in (GOOD, BAD)]
    for answer in job["answers"]:
        prefixes = [list(encode_prompt(tokenizer, turns)) for turns in conversations(answer["turns"])]
        whole = prefixes[-1]
        # What follows a prefix changes nothing of it: one pass gives the scores of all that the longest one contains.
        within = [prefix for prefix in prefixes if whole[: len(prefix)] == prefix]
        passes = [whole] + [prefix for prefix in prefixes if prefix not in within]
        scores: dict[int, float] = {}
        with torch.inference_mode():
            for ids in passes:
                logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0]
                for at, prefix in enumerate(prefixes):
                    if at not in scores and ids[: len(prefix)] == prefix:
                        scores[at] = float(logits[len(prefix) - 1, signs].float().softmax(-1)[0])
        if any(math.isnan(score) for score in scores.values()):
            raise UserError(
                f"student.reward.model {job['base']}: expected scores from 0 to 1, got no number for a step of "
                f"{answer['id']}: its logits overflow. Set student.reward.dtype to float32, or give another model"
            )
        yield {"id": answer["id"], "scores": [scores[at] for at in range(len(prefixes))]}


def conversations(turns: Sequence[str]) -> list[list[Message]]:
    """For each step the messages up to it: every turn before it was answered `+`."""
    messages: list[Message] = []
    made = []
    for turn in turns:
        messages = [*messages, Message(role="user", content=turn)]
        made.append(messages)
        messages = [*messages, Message(role="assistant", content=GOOD)]
    return made


def _sign(tokenizer: "PreTrainedTokenizerBase", sign: str) -> int:
    ids = tokenizer.encode(sign, add_special_tokens=False)
    if len(ids) != 1:
        raise UserError(
            f"student.reward.model {tokenizer.name_or_path}: expected a tokenizer with one token for `{sign}`, got "
            f"{len(ids)}. Give a process reward model that answers + or -"
        )
    return int(ids[0])


def score_served(answers: Sequence[Turns], reward: RewardConfig, key: str) -> Iterator[tuple[str, list[float]]]:
    """The same by a server with an OpenAI-compatible chat API that gives log-probabilities; `key` may be any word.

    Raises:
        StudentError: the server failed, after retries, or names neither sign.
    """
    import openai

    assert reward.base_url is not None
    with openai.OpenAI(
        base_url=reward.base_url, api_key=key, max_retries=RETRIES,
        http_client=openai.DefaultHttpxClient(**connection(reward.base_url)),
    ) as client, ThreadPoolExecutor(reward.concurrency) as pool:  # fmt: skip

        def scores(answer: Turns) -> tuple[str, list[float]]:
            return answer[0], [_served_score(client, reward.model, turns) for turns in conversations(answer[1])]

        try:
            yield from pool.map(scores, answers)
        except openai.OpenAIError as error:
            raise StudentError(
                f"student.reward {reward.base_url}: expected a score, got {type(error).__name__}: {str(error)[:300]}. "
                "Finished answers are kept: mend the server and go on with: tutelage resume RUN"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _served_score(client: Any, model: str, messages: Sequence[Message]) -> float:
    reply = client.chat.completions.create(
        model=model,
        messages=[message.model_dump() for message in messages],
        max_tokens=1,
        temperature=0.0,
        logprobs=True,
        top_logprobs=LIKELIEST,
    )
    try:
        likeliest = reply.choices[0].logprobs.content[0].top_logprobs
        named = {sign: max((t.logprob for t in likeliest if t.token.strip() == sign), default=-math.inf)
                 for sign in (GOOD, BAD)}  # fmt: skip
    except (AttributeError, IndexError, TypeError):
        named = {}
    good, bad = (math.exp(named.get(sign, -math.inf)) for sign in (GOOD, BAD))
    if not good + bad > 0 or not math.isfinite(good + bad):
        raise StudentError(
            f"student.reward.model {model}: expected the log-probability of `+` or `-` among the likeliest "
            f"{LIKELIEST} next tokens, got neither. Give a process reward model that answers + or -, on a server "
            "that gives log-probabilities"
        )
    return good / (good + bad)
