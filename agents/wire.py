"""What goes over the wire: the body of a request, and a server's answer read whatever its shape."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agents.ledger import Purpose
from curriculum.records import Message
from curriculum.teacher_config import Endpoint
from curriculum.teacher_records import Reply


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
        text=_text(message.get("content")) or "",
        finish_reason=_text(choice.get("finish_reason")),
        refusal=_text(message.get("refusal")),
        model=_text(table(top).get("model")),
        fingerprint=_text(table(top).get("system_fingerprint")),
        request_id=headers.get("x-request-id", "")[:200] or None,
        prompt_hash=prompt_hash,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        cached_tokens=_count(table(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0,
        completion_tokens=_count(usage.get("completion_tokens")),
        reasoning_tokens=_count(table(usage.get("completion_tokens_details")).get("reasoning_tokens")) or 0,
    )


def table(value: Any) -> Mapping[str, Any]:
    """The value when it is a JSON object; an empty one otherwise."""
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _text(value: Any) -> str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else None
