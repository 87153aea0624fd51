"""From a model's text to checked values: whatever the provider promises, every reply is validated here.

Finds the JSON object in the text, validates its rows against pydantic models, and keeps the good rows of a
batch. What is wrong with a reply or a row is a `Fault`, which a repair turn can carry back to the model.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curriculum.teacher_records import FailureKind, Reply

MOST_STARTS = 200
"""Places in a text where an object may begin that are tried."""
ONLY = "reply"
"""The id of the one row of a reply that is no batch."""
Row = TypeVar("Row", bound="ReplyRow")


class Fault(NamedTuple):
    """What is wrong with a reply or one of its rows."""

    kind: FailureKind
    reason: str


class Rejected(Exception):
    """Raised by a check of a row that is well formed and cannot be used."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.fault = Fault(kind, reason)


class ReplyRow(BaseModel):
    """What a model is asked to reply; keys it adds are ignored, for they change nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class NamedSkills(ReplyRow):
    """Fine skill names of one question."""

    id: str
    skills: list[str] = Field(min_length=1, max_length=5)


class MergedSkill(ReplyRow):
    """A skill of the catalogue, with the fine names it stands for."""

    name: str = Field(min_length=1, max_length=60)
    description: str = Field(max_length=400)
    members: list[str] = Field(min_length=1)


class MergedSkills(ReplyRow):
    """The catalogue."""

    skills: list[MergedSkill] = Field(min_length=1)


class LabelRow(ReplyRow):
    """Skills and difficulty of one question."""

    id: str
    reason: str = Field(max_length=2000)
    skills: list[str] = Field(min_length=1, max_length=5)
    difficulty: int = Field(ge=1, le=5)


class DiagnosisReply(ReplyRow):
    """What a failed answer shows to be missing."""

    reason: str = Field(max_length=4000)
    error_kind: str = Field(max_length=100)
    missing_skills: list[str] = Field(min_length=1, max_length=3)


class WrittenQuestions(ReplyRow):
    """New questions."""

    design: str = Field(max_length=4000)
    questions: list[str] = Field(min_length=1, max_length=10)


class SolutionReply(ReplyRow):
    """A worked solution and its final answer."""

    solution: str = Field(min_length=1, max_length=20_000)
    answer: str = Field(min_length=1, max_length=500)


class JudgeReply(ReplyRow):
    """A judge's verdict on one answer."""

    id: str
    reason: str = Field(min_length=1, max_length=4000)
    verdict: Literal["correct", "wrong", "unsure"]


class PlannedLevel(ReplyRow):
    """Rows to write at one difficulty."""

    difficulty: int = Field(ge=1, le=5)
    rows: int = Field(ge=0)


class PlannedSkill(ReplyRow):
    """What a plan gives one skill."""

    skill: str
    reason: str = Field(min_length=1, max_length=2000)
    pool_rows: int = Field(ge=0)
    written_rows: list[PlannedLevel]


class PlanReply(ReplyRow):
    """A round's plan."""

    reason: str = Field(min_length=1, max_length=4000)
    skills: list[PlannedSkill] = Field(min_length=1)


class Checked(NamedTuple, Generic[Row]):
    """The good rows of a reply by id, and what is wrong with the rest."""

    rows: dict[str, Row]
    faults: dict[str, Fault]
    tokens: int = 0
    """Of all prompts and replies that it took, as far as the server says."""


def json_schema(
    model: type[ReplyRow], batch: str = "", enums: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """The JSON schema that is sent: every key required, no others, lists of the given names limited to `enums`.

    With `batch` the reply is an object whose key of that name is a list of rows.
    """
    schema = dict(_schema_of(model))
    definitions = schema.pop("$defs", {})

    def strict(part: Any) -> Any:
        if isinstance(part, list):
            return [strict(p) for p in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return strict(definitions[part["$ref"].rpartition("/")[2]])
        made = {k: strict(v) for k, v in part.items() if k not in ("title", "description") or isinstance(v, dict)}
        if made.get("type") == "object":
            made |= {"additionalProperties": False, "required": list(made["properties"])}
            for name, values in (enums or {}).items():
                if name in made["properties"]:
                    slot = made["properties"][name]
                    slot = slot["items"] if slot.get("type") == "array" else slot
                    slot["enum"] = list(values)
        return made

    row = strict(schema)
    if not batch:
        return dict(row)
    rows = {"type": "array", "items": row}
    return {"type": "object", "properties": {batch: rows}, "required": [batch], "additionalProperties": False}


@cache
def _schema_of(model: type[ReplyRow]) -> dict[str, Any]:
    """Pydantic's own schema, which takes longer to make than a request; nobody may change it."""
    return model.model_json_schema()


def check_reply(
    reply: Reply, model: type[Row], batch: str, wanted: Collection[str], check: Callable[[Row], Row]
) -> Checked[Row]:
    """The rows of a reply that can be used, and a fault for every wanted row that cannot.

    Args:
        reply: as it came.
        model: of a row, or of the whole reply when `batch` is empty; then `wanted` is `{ONLY}`.
        batch: the key that holds the rows, each with its `id`.
        wanted: the ids that were asked for; a row of any other is a fault of those that are missing.
        check: returns the row as it is used, or raises `Rejected`.
    """
    whole = _whole_fault(reply)
    top: Any = None
    if whole is None:
        top, whole = find_object(reply.text, batch or next(iter(model.model_fields)))
    if whole is None and batch and not isinstance(top.get(batch), list):
        whole = Fault("schema", f"expected a list under `{batch}`")
    if whole is not None:
        if reply.finish_reason == "length" and whole.kind in ("no_json", "schema"):
            whole = Fault("truncated", "the reply was cut at its token limit before it was complete")
        return Checked({}, dict.fromkeys(wanted, whole))
    if not batch:
        row, fault = _row(top, model, check)
        return Checked({ONLY: row}, {}) if row is not None else Checked({}, {ONLY: fault or _NO_ROW})
    return _batch(top[batch], model, wanted, check)


_NO_ROW = Fault("missing_row", "the reply has no row of this id")


def _batch(given: list[Any], model: type[Row], wanted: Collection[str], check: Callable[[Row], Row]) -> Checked[Row]:
    rows: dict[str, Row] = {}
    faults: dict[str, Fault] = {}
    strays = []
    for each in given:
        id_ = str(each.get("id", "")).strip() if isinstance(each, dict) else ""
        if id_ not in wanted:
            strays.append(id_)
        elif id_ in rows or id_ in faults:
            rows.pop(id_, None)
            faults[id_] = Fault("wrong_ids", f"several rows have the id {id_}")
        else:
            row, fault = _row({**each, "id": id_}, model, check)
            if row is not None:
                rows[id_] = row
            else:
                faults[id_] = fault or _NO_ROW
    missing = _NO_ROW
    if strays:
        missing = Fault("wrong_ids", f"{len(strays)} rows have ids that were not asked for, such as {strays[0][:40]!r}")
    return Checked(rows, faults | {id_: missing for id_ in wanted if id_ not in rows and id_ not in faults})


def _row(value: Any, model: type[Row], check: Callable[[Row], Row]) -> tuple[Row | None, Fault | None]:
    try:
        return check(model.model_validate(value)), None
    except Rejected as rejected:
        return None, rejected.fault
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the reply"
        return None, Fault("schema", f"{where}: {first['msg']}")


def _whole_fault(reply: Reply) -> Fault | None:
    """What makes all of a reply useless before it is read."""
    if reply.refusal or reply.finish_reason == "content_filter":
        return Fault("refusal", " ".join((reply.refusal or "stopped by a content filter").split())[:200])
    if not without_preamble(reply.text):
        if reply.finish_reason == "length":
            return Fault("truncated", "the token limit was reached before any answer")
        return Fault("empty", "the reply is empty")
    return None


def without_preamble(text: str) -> str:
    """The text after a model's reasoning, where it comes with the reply."""
    text = text.strip()
    if text.startswith("<think") or ("</think>" in text and not text.startswith(("{", "```"))):
        mark = "</thinking>" if text.startswith("<thinking>") else "</think>"
        return text.partition(mark)[2].strip()
    return text


def find_object(text: str, key: str) -> tuple[dict[str, Any] | None, Fault | None]:
    """The last JSON object in a text that has the key, else the last one at all: prose, fences and preambles go."""
    text = without_preamble(text)
    found: dict[str, Any] | None = None
    fault = Fault("no_json", "expected one JSON object, found none that is complete")
    at, starts = text.find("{"), 0
    while at >= 0 and starts < MOST_STARTS:
        starts += 1
        end = at + 1
        try:
            value, end = _DECODER.raw_decode(text, at)
            if found is None or key in value or key not in found:
                found = value
        except _DuplicateKeys as error:
            fault = Fault("duplicate_keys", str(error))
        except (ValueError, RecursionError):
            pass
        at = text.find("{", end)
    if found is None or (key not in found and fault.kind == "duplicate_keys"):
        return None, fault
    return found, None


class _DuplicateKeys(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _DuplicateKeys(f"the key {twice[:40]!r} is given twice in one object")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
