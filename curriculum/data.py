"""Examples read from a file: SVAMP, GSM8K, or the project's own JSON lines.

Takes the config's file section; returns examples with gold answers, declared skills, difficulty and worked
solutions, and every row that cannot be used with the reason. Too many of those, or a file that is not what
the config says, raise `DataError`. JSON lines are read one at a time; nothing here grades or splits.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from curriculum.config import FileData
from curriculum.errors import DataError
from curriculum.records import Example, QuarantinedRow, content_id
from curriculum.rundir import file_hash
from curriculum.svamp import group_variations, join, plain, work_out

MAX_CHARS = 20_000
ALL_SKILLS = "word_problems"
"""The one skill of a GSM8K file that comes without skill labels."""
UNLABELLED = "unlabelled"
"""The skill of a row for which neither the data nor the label file names one; its count shows how many there are."""

_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_MARKS = re.compile(r"<<[^<>]*>>")


def _usable(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    if len(text) > MAX_CHARS:
        raise ValueError(f"has {len(text)} characters, more than {MAX_CHARS}")
    unusable = _UNUSABLE.search(text)
    if unusable:
        raise ValueError(f"has U+{ord(unusable[0]):04X}, a control character or lone surrogate")
    return text


Text = Annotated[str, AfterValidator(_usable)]
Skills = Annotated[list[Text], Field(max_length=5)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Svamp(_Row):
    Body: Text
    Question: Text
    Equation: Text
    Answer: float = Field(allow_inf_nan=False)
    Type: Text


class _Gsm8k(_Row):
    question: Text
    answer: Text


class _Own(_Row):
    model_config = ConfigDict(extra="forbid")

    question: Text
    gold: Text
    solutions: list[Text] = []
    skills: Skills = []
    difficulty: int | None = Field(default=None, ge=1, le=5)
    group: Text | None = None


def read_examples(config: FileData) -> tuple[list[Example], list[QuarantinedRow]]:
    """Reads the file; returns the examples and the rows that cannot be used, both in file order.

    Raises:
        DataError: a file is missing, empty or not what the config says, or more than `max_bad_share` of the
            rows cannot be used.
    """
    labels = _read_labels(config.skill_labels) if config.skill_labels else None
    examples: list[Example] = []
    bad: list[QuarantinedRow] = []
    for number, raw in _json_list(config.path) if config.format == "svamp" else _lines(config.path):
        source = f"{config.path.name}:{number}"
        try:
            row = _parse(raw) if isinstance(raw, bytes) else raw
            examples.append(_example(row, source, config, labels))
        except ValueError as error:
            bad.append(QuarantinedRow(source=source, reason=_reason(error), text=_beginning(raw)))
    _check_share(config, len(examples), bad)
    if labels and all(e.skills == (UNLABELLED,) for e in examples):
        raise DataError(
            f"{config.skill_labels}: expected skills of the questions in {config.path}, got none of its "
            f"{len(examples)} questions: give the label file of this data set, or set data.skill_labels to null"
        )
    return (group_variations(examples) if config.format == "svamp" else examples), bad


def fingerprint(config: FileData) -> str:
    """SHA-256 over the contents of the data file and of the label file, where one is given."""
    files = [config.path, *([config.skill_labels] if config.skill_labels else [])]
    for path in files:
        _open(path).close()
    return content_id([file_hash(path) for path in files], 64)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path}: expected a data file, got: {error.strerror}. The path is relative to the current directory; "
            "set data.path (or data.skill_labels)"
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with _open(path) as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _json_list(path: Path) -> Iterator[tuple[int, object]]:
    top = _document(path)
    if not isinstance(top, list):
        raise DataError(f"{path}: expected a JSON list of rows, got {type(top).__name__}: check data.format")
    yield from enumerate(top, 1)


def _document(path: Path) -> object:
    with _open(path) as file:
        try:
            return _parse(file.read())
        except ValueError as error:
            raise DataError(f"{path}: expected a JSON document, got: {_reason(error)}. Check data.format") from None


def _read_labels(path: Path) -> dict[str, list[str]]:
    top = _document(path)
    labels = top.get("question2skill") if isinstance(top, dict) else None
    try:
        return TypeAdapter(dict[str, Skills]).validate_python(labels, strict=True)
    except ValidationError as error:
        raise DataError(
            f"{path}: expected `question2skill`, a map from question to a list of skills, got: {_reason(error)}"
        ) from None


def _parse(raw: bytes) -> object:
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte {error.object[error.start]:#04x} at {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part)[:40] for part in first["loc"]) or "row"
        if first["type"] == "missing":
            return f"column `{where}` is missing"
        return f"`{where}`: {first['msg'].removeprefix('Value error, ')}"
    return str(error)


def _beginning(raw: object) -> str:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else json.dumps(raw, ensure_ascii=True)
    return text.strip()[:200]


def _check_share(config: FileData, good: int, bad: Sequence[QuarantinedRow]) -> None:
    rows = good + len(bad)
    if rows == 0:
        raise DataError(f"{config.path}: expected rows of format `{config.format}`, got an empty file: set data.path")
    if good == 0 or len(bad) > config.max_bad_share * rows:
        reasons = "".join(f"\n  {row.source}: {row.reason}" for row in bad[:5])
        raise DataError(
            f"{config.path}: expected at most {config.max_bad_share:.1%} unusable rows of format `{config.format}`, "
            f"got {len(bad)} of {rows}; the first of them:{reasons}\n"
            "Mend the rows, check data.format, or raise data.max_bad_share"
        )


def _example(row: object, source: str, config: FileData, labels: Mapping[str, list[str]] | None) -> Example:
    if config.format == "svamp":
        content = _from_svamp(_Svamp.model_validate(row))
    elif config.format == "gsm8k":
        content = _from_gsm8k(_Gsm8k.model_validate(row))
    else:
        own = _Own.model_validate(row)
        content = own.model_dump() | {"solutions": tuple(own.solutions), "skills": tuple(own.skills or [UNLABELLED])}
    if labels is not None:
        content["skills"] = tuple(labels.get(content["question"]) or [UNLABELLED])
    return Example.make(**content, grader=config.grader, source=source)


def _from_svamp(row: _Svamp) -> dict[str, Any]:
    """The content of an SVAMP row; its worked solution is templated from the equation."""
    value, steps = work_out(row.Equation)
    # The answers are floats: thirds and the like are rounded.
    if abs(value - Fraction(row.Answer)) > Fraction(1, 10**6):
        raise ValueError(f"`Equation` gives {plain(value)}, but `Answer` says {row.Answer}")
    return {
        "question": join(row.Body.strip(), row.Question.strip()),
        "gold": plain(Fraction(repr(row.Answer))),
        "solutions": ("\n".join(steps),) if steps else (),
        "skills": (row.Type.replace("Common-Divison", "Common-Division"),),
        "difficulty": min(5, max(1, len(steps))),
    }


def _from_gsm8k(row: _Gsm8k) -> dict[str, Any]:
    """The content of a GSM8K row; its difficulty is the number of lines of the solution, 5 at most."""
    solution, mark, gold = row.answer.rpartition("####")
    if not mark or not gold.strip():
        raise ValueError("`answer` does not end with `#### ` and the result")
    worked = _MARKS.sub("", solution).strip()
    return {
        "question": row.question.strip(),
        "gold": re.sub(r"(?<=\d),(?=\d{3})", "", gold.strip()),
        "solutions": (worked,) if worked else (),
        "skills": (ALL_SKILLS,),
        "difficulty": min(5, max(1, len(worked.splitlines()))),
    }
