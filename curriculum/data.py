"""Rows become examples: SVAMP, GSM8K, the project's own columns, or those that the config names.

Takes the config's file section; returns examples with gold answers, declared skills, difficulty and worked
solutions, and every row that cannot be used with the reason. Too many of those, or a data set that is not
what the config says, raise `DataError`. Nothing here grades or splits; where rows come from is in `rows`.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from curriculum.columns import UNLABELLED, Own, Row, Skills, Text, from_columns, from_own, why
from curriculum.data_config import FileData, FileSource
from curriculum.errors import DataError
from curriculum.records import Example, QuarantinedRow
from curriculum.rows import BadRow, beginning, fingerprint, read_document, read_rows
from curriculum.svamp import group_variations, join, plain, work_out

__all__ = ["ALL_SKILLS", "UNLABELLED", "fingerprint", "read_examples", "read_labels"]

ALL_SKILLS = "word_problems"
"""The one skill of a GSM8K file that comes without skill labels."""

_MARKS = re.compile(r"<<[^<>]*>>")


class _Svamp(Row):
    Body: Text
    Question: Text
    Equation: Text
    Answer: float = Field(allow_inf_nan=False)
    Type: Text


class _Gsm8k(Row):
    question: Text
    answer: Text


def read_examples(config: FileSource) -> tuple[list[Example], list[QuarantinedRow]]:
    """Reads the data set; returns the examples and the rows that cannot be used, both in its order.

    Raises:
        DataError: a file is missing, empty or not what the config says, or more than `max_bad_share` of the
            rows cannot be used.
    """
    labels = read_labels(config.skill_labels) if config.skill_labels else None
    examples: list[Example] = []
    bad: list[QuarantinedRow] = []
    unseen = set(config.columns.names if config.columns else ())
    name = config.name
    for number, row in islice(read_rows(config), config.max_rows):
        source = f"{name}:{number}"
        unseen.difference_update(row if isinstance(row, dict) else ())
        try:
            if isinstance(row, BadRow):
                bad.append(QuarantinedRow(source=source, reason=row.reason, text=row.text))
            else:
                examples.append(_example(row, source, config, labels))
        except ValueError as error:
            bad.append(QuarantinedRow(source=source, reason=why(error, config.columns), text=beginning(row)))
    _check_share(config, len(examples), bad)
    if unseen:
        raise DataError(
            f"{config.name}: expected the columns that data.columns names, got no row with "
            f"{' or '.join(f'`{column}`' for column in sorted(unseen))}. Set data.columns"
        )
    if labels and all(e.skills == (UNLABELLED,) for e in examples):
        raise DataError(
            f"{config.skill_labels}: expected skills of the questions in {config.name}, got none of its "
            f"{len(examples)} questions: give the label file of this data set, or set data.skill_labels to null"
        )
    return (group_variations(examples) if config.format == "svamp" else examples), bad


def read_labels(path: Path) -> dict[str, list[str]]:
    """A file of recorded labels: question → its skills, at most five.

    Raises:
        DataError: the file is missing, or is not one.
    """
    top = read_document(path)
    labels = top.get("question2skill") if isinstance(top, dict) else None
    try:
        return TypeAdapter(dict[str, Skills]).validate_python(labels, strict=True)
    except ValidationError as error:
        raise DataError(
            f"{path}: expected `question2skill`, a map from question to a list of skills, got: {why(error, None)}"
        ) from None


def _check_share(config: FileSource, good: int, bad: Sequence[QuarantinedRow]) -> None:
    rows, where = good + len(bad), config.path or config.name
    if rows == 0:
        raise DataError(
            f"{config.path or config.name}: expected rows of {_kind(config)}, got an empty file: set data.path"
        )
    if good == 0 or len(bad) > config.max_bad_share * rows:
        reasons = "".join(f"\n  {row.source}: {row.reason}" for row in bad[:5])
        raise DataError(
            f"{where}: expected at most {config.max_bad_share:.1%} unusable rows of {_kind(config)}, "
            f"got {len(bad)} of {rows}; the first of them:{reasons}\n"
            f"Mend the rows, check data.{'format' if config.format else 'columns'}, or raise data.max_bad_share"
        )


def _kind(config: FileSource) -> str:
    return f"format `{config.format}`" if config.format else "the columns of data.columns"


def _example(row: object, source: str, config: FileSource, labels: Mapping[str, list[str]] | None) -> Example:
    silent = _without_gold(row, config)
    if silent is not None:
        row = silent
    if config.format == "svamp":
        content = _from_svamp(_Svamp.model_validate(row))
    elif config.format == "gsm8k":
        content = _from_gsm8k(_Gsm8k.model_validate(row))
    elif config.columns is None:
        content = from_own(Own.model_validate(row))
    else:
        content = from_columns(row, config.columns)
    if silent is not None:
        content["gold"] = ""
    if labels is not None:
        content["skills"] = tuple(labels.get(content["question"]) or [UNLABELLED])
    return Example.make(**content, grader=config.grader, source=source)


def _without_gold(row: object, config: FileSource) -> dict[str, Any] | None:
    """A row that may have no gold answer and has none, with a stand-in for it so that all else is checked."""
    if not (isinstance(config, FileData) and config.probe_without_gold and isinstance(row, dict)):
        return None
    column = (config.columns.answer if config.columns else None) or "gold"
    value = row.get(column)
    blank = value is None or (isinstance(value, str) and not value.strip())
    return {**row, column: "none"} if blank else None


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
