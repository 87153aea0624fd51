"""Asks a server with vLLM's OpenAI-compatible API: token ids in, token ids out, every sampling field given.

Takes addresses and a key; gives completions. Nothing is left to a server's or a model's defaults. Requests go round
the addresses in turn.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import httpx2
import openai
from openai import OpenAI

from curriculum.errors import StudentError
from curriculum.records import Message, Sampling
from student.address import base_url, connection, open_client
from student.signals import TOP, top_entropy

RETRIES = 4
SEEDS = 2**63


class Completion(NamedTuple):
    """One answer as tokens, the stop token included."""

    tokens: tuple[int, ...]
    stopped: bool
    """Whether it ended by itself, and not at the token limit."""
    log_probability: float | None
    """Of all its tokens together, in nats, when asked for."""
    entropy: float | None
    """At the first token, in nats, when asked for; none where the student said nothing."""


class Client:
    """One model on one or several servers that serve the same."""

    def __init__(self, urls: Sequence[str], key: str, model: str, seconds: float = 600) -> None:
        self.urls = tuple(urls)
        self.model = model
        self._key = key
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._clients = [
            OpenAI(
                base_url=f"{base_url(url)}/v1", api_key=key, max_retries=RETRIES, timeout=seconds,
                http_client=openai.DefaultHttpxClient(**connection(url, limits)),
            )
            for url in urls
        ]  # fmt: skip
        self._turn = count()

    def complete(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        stops: Sequence[int],
        *,
        seed: int = 0,
        samples: int = 1,
        signals: bool = False,
    ) -> list[Completion]:
        """Answers to one prompt.

        Args:
            prompt: token ids.
            sampling: how tokens are drawn, and how many at most.
            stops: tokens that end an answer.
            seed: of this prompt's draws; taken modulo 2**63.
            samples: how many answers.
            signals: whether log-probability and entropy are wanted, both of the model's own distribution, before
                temperature and nucleus.

        Raises:
            StudentError: the server made other tokens of the prompt than were sent.
            openai.OpenAIError: the request failed, after retries.
        """
        reply = self._next().completions.create(
            model=self.model,
            prompt="",
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            n=samples,
            seed=seed % SEEDS,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            logprobs=TOP if signals else None,
            echo=False,
            stop=[],
            stream=False,
            extra_body=_own_fields(prompt, stops),
        )
        for choice in reply.choices:
            if getattr(choice, "prompt_token_ids", None) not in (None, list(prompt)):
                raise StudentError(f"{self.model}: the server answered another prompt than the one it was sent")
        return [_completion(choice, set(stops), signals) for choice in sorted(reply.choices, key=lambda c: c.index)]

    def next_log_probabilities(self, prompt: Sequence[int]) -> list[float]:
        """Log-probabilities in nats of the likeliest tokens after a prompt, at most `TOP`, the likeliest first.

        Raises:
            openai.OpenAIError: the request failed, after retries.
        """
        body = _own_fields(prompt, ()) | {"ignore_eos": True}
        reply = self._next().completions.create(
            model=self.model, prompt="", max_tokens=1, temperature=0.0, top_p=1.0, n=1, logprobs=TOP, extra_body=body
        )
        return _likeliest(reply.choices[0])

    def prompt_log_probabilities(self, prompt: Sequence[int]) -> list[float]:
        """Log-probability in nats of each token of a prompt but the first, computed without the prefix cache."""
        body = _own_fields(prompt, ()) | {"prompt_logprobs": 0}
        reply = self._next().completions.create(
            model=self.model, prompt="", max_tokens=1, temperature=0.0, top_p=1.0, n=1, extra_body=body
        )
        steps: Any = reply.choices[0].prompt_logprobs  # type: ignore[attr-defined]
        return [float(step[str(token)]["logprob"]) for step, token in zip(steps[1:], prompt[1:], strict=True)]

    def tokenize(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The token ids that the server itself makes of chat messages, up to where the answer begins."""
        body = {"model": self.model, "messages": [m.model_dump() for m in messages], "add_generation_prompt": True}
        return tuple(self._post("/tokenize", body)["tokens"])

    def base_model(self) -> str:
        """What the first server calls the model it was started with."""
        names = [model.id for model in self._clients[0].models.list() if getattr(model, "parent", None) is None]
        if not names:
            raise StudentError(f"{self.urls[0]}: expected a server of one model, got one of none")
        return names[0]

    def load_adapter(self, name: str, folder: str) -> None:
        """Loads an adapter on every server, under a name and from a folder that were never used before.

        Raises:
            StudentError: a server refused it.
        """
        for url in self.urls:
            reply = self._request(url, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})
            if reply.status_code != 200:
                raise StudentError(
                    f"{url}: expected to load adapter {name} from {folder}, got {reply.status_code}: "
                    f"{reply.text[:500]}. "
                    "The server needs --enable-lora, --max-lora-rank of at least training.rank, and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
                )

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            client.close()

    def _next(self) -> OpenAI:
        return self._clients[next(self._turn) % len(self._clients)]

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        reply = self._request(self.urls[0], path, body)
        reply.raise_for_status()
        return reply.json()

    def _request(self, url: str, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._key}"}
        with open_client(url, seconds=300) as client:
            return client.post(path, json=dict(body), headers=headers)


def _own_fields(prompt: Sequence[int], stops: Sequence[int]) -> dict[str, Any]:
    """The fields of vLLM's own, at the values that change nothing; and the prompt.

    What is given so is sent as it is: `openai` looks at each token of its own field `prompt`, milliseconds a request.
    """
    return {
        "prompt": list(prompt),
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "length_penalty": 1.0,
        "min_tokens": 0,
        "ignore_eos": False,
        "stop_token_ids": list(stops),
        "include_stop_str_in_output": False,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "add_special_tokens": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def _completion(choice: Any, stops: set[int], signals: bool) -> Completion:
    tokens = tuple(choice.token_ids)
    stopped = choice.finish_reason == "stop"
    if not signals:
        return Completion(tokens, stopped, None, None)
    spoke = bool(tokens) and tokens[0] not in stops
    entropy = top_entropy(_likeliest(choice)) if spoke else None
    return Completion(tokens, stopped, math.fsum(choice.logprobs.token_logprobs), entropy)


def _likeliest(choice: Any) -> list[float]:
    """Log-probabilities of what its first token might have been."""
    return sorted(choice.logprobs.top_logprobs[0].values(), reverse=True)[:TOP]
