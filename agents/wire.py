"""What goes over the wire: the key, the body of a request, and a server's answer read whatever its shape."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agents.ledger import Purpose
from curriculum.errors import UserError
from curriculum.records import Message
from curriculum.teacher_config import Endpoint
from curriculum.teacher_records import Reply

MOST_CHARS = 200_000
"""Of a reply that are kept."""


class Call(NamedTuple):
    """A request for one reply."""

    purpose: Purpose
    messages: Sequence[Message]
    schema_name: str
    schema: Mapping[str, Any]
    prompt_hash: str
    what: str = ""
    """Tells calls apart that would be the same request: a repair, a repeated question."""
    sample: int = 0
    """Several independent replies to one request are several samples."""


def read_key(endpoint: Endpoint) -> str:
    """The endpoint's key from the environment; a word that is none where the config names no variable.

    Raises:
        UserError: the variable is not set, or holds what cannot be a key.
    """
    if endpoint.key_variable is None:
        return "none"
    key = os.environ.get(endpoint.key_variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UserError(
            f"role {endpoint.role}: expected a key in the environment variable {endpoint.key_variable}, got "
            + ("something with characters that no key has" if key else "none")
            + f". Set it: export {endpoint.key_variable}=…"
        )
    return key


def request_body(endpoint: Endpoint, call: Call, seed: int) -> dict[str, Any]:
    """What is sent, but for the key."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": [turn.model_dump() for turn in call.messages],
        endpoint.token_field: endpoint.max_tokens,
    }
    if endpoint.temperature is not None:
        body["temperature"] = endpoint.temperature
    if endpoint.seed:
        body["seed"] = (seed + call.sample) % 2**31
    if endpoint.structured == "json_schema":
        schema = {"name": call.schema_name, "strict": True, "schema": dict(call.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    else:
        if endpoint.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        form = "\n\nReply with one JSON object that follows this JSON schema, and nothing else:\n" + json.dumps(
            call.schema, sort_keys=True
        )
        first = body["messages"][0]
        body["messages"][0] = first | {"content": first["content"] + form}
    return body | endpoint.extra_body


def read_reply(content: bytes, headers: Mapping[str, str], prompt_hash: str) -> Reply:
    """A server's answer, whatever its shape: what is not there is empty, and the caller judges it.

    Raises:
        ValueError: it is no JSON, or has no message.
    """
    try:
        top = json.loads(content.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise ValueError("the server's answer is no JSON") from None
    choice = table(_first(table(top).get("choices")))
    message, usage = table(choice.get("message")), table(table(top).get("usage"))
    if not message:
        raise ValueError("the server's answer has no message")
    return Reply(
        text=_content(message.get("content")),
        finish_reason=_text(choice.get("finish_reason"), 100),
        refusal=_text(message.get("refusal"), 2000),
        model=_text(table(top).get("model"), 200),
        fingerprint=_text(table(top).get("system_fingerprint"), 200),
        request_id=headers.get("x-request-id", "")[:200] or None,
        prompt_hash=prompt_hash,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(table(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0,
        completion_tokens=_count(usage.get("completion_tokens")),
        reasoning_tokens=_count(table(usage.get("completion_tokens_details")).get("reasoning_tokens")) or 0,
        logprob_tokens=_logprob_tokens(table(choice.get("logprobs")).get("content")),
    )


def table(value: Any) -> Mapping[str, Any]:
    """The value when it is a JSON object; an empty one otherwise."""
    return value if isinstance(value, dict) else {}


def _logprob_tokens(value: Any) -> int:
    given = [table(token).get("logprob") for token in value] if isinstance(value, list) else []
    return sum(isinstance(p, int | float) and not isinstance(p, bool) for p in given)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _content(value: Any) -> str:
    """A message's text; some servers send it in parts."""
    parts = value if isinstance(value, list) else [{"text": value}]
    return "".join(_text(table(part).get("text"), MOST_CHARS) or "" for part in parts)[:MOST_CHARS]


def _text(value: Any, most: int) -> str | None:
    return value[:most].encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else None
