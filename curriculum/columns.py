"""What the columns of a row say: the project's own names, or the columns that the config names.

Takes one row as plain values; returns the content of an example, or raises `ValueError` with the reason why
the row cannot be used. Texts are checked here for everything that no example may hold.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from curriculum.data_config import Columns
from curriculum.records import Message
from curriculum.rows import MOST_DIGITS, printable, reason

MAX_CHARS = 20_000
"""Of one text, and of all turns of a conversation together."""
MAX_NAME_CHARS = 100
"""Of a skill's name, which is one line of many a table."""
UNLABELLED = "unlabelled"
"""The skill of a row for which neither the data nor the label file names one; its count shows how many there are."""

_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_ORDER = re.compile(r"s?((ua)*)u(a?)")


def is_usable(text: str) -> bool:
    """Whether a text may be taught: not empty or too long, without control characters and lone surrogates."""
    return bool(text.strip()) and len(text) <= MAX_CHARS and not _UNUSABLE.search(text)


def _usable(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    if len(text) > MAX_CHARS:
        raise ValueError(f"has {len(text)} characters, more than {MAX_CHARS}")
    unusable = _UNUSABLE.search(text)
    if unusable:
        raise ValueError(f"has U+{ord(unusable[0]):04X}, a control character or lone surrogate")
    return text


def _one_line(text: str) -> str:
    if len(text) > MAX_NAME_CHARS or "\n" in text or "\r" in text:
        raise ValueError(f"is no name of one line and at most {MAX_NAME_CHARS} characters")
    return text


def _number_as_text(value: object) -> object:
    """Numbers as people write them: `51` for `51.0`; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > MOST_DIGITS:
        raise ValueError(f"is {value}, not a finite number of at most {MOST_DIGITS} digits")
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text_as_number(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r" *[0-9]{1,3}(\.0{1,3})? *", value):
        value = float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, AfterValidator(_usable)]
TextOrNumber = Annotated[Text, BeforeValidator(_number_as_text)]
Skills = Annotated[list[Annotated[TextOrNumber, AfterValidator(_one_line)]], Field(max_length=5)]


class Row(BaseModel):
    """A row of known columns; others are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Own(Row):
    """A row in the project's own columns, and in no others."""

    model_config = ConfigDict(extra="forbid")

    question: Text
    gold: TextOrNumber
    solutions: list[Text] = []
    skills: Skills = []
    difficulty: Annotated[int, BeforeValidator(_text_as_number), Field(ge=1, le=5)] | None = None
    group: TextOrNumber | None = None


class _Turn(Row):
    role: Literal["system", "user", "assistant"]
    content: Text


_Turns = TypeAdapter(list[_Turn])


def from_own(row: Own) -> dict[str, Any]:
    """The content of a row in the project's own columns."""
    return row.model_dump() | {"solutions": tuple(row.solutions), "skills": tuple(row.skills or [UNLABELLED])}


def from_columns(row: object, columns: Columns) -> dict[str, Any]:
    """The content of a row with columns of the user's own.

    A column that may be left out counts as left out where it is null or blank. Of a conversation, the last
    user turn is the question and what comes before it the history; the assistant turn after it is the gold
    answer, or a worked solution where the answer has a column of its own.
    """
    if not isinstance(row, dict):
        raise ValueError(f"is {type(row).__name__}, not a row with columns")
    cells = {name: value.strip() if isinstance(value, str) else value for name, value in row.items()}
    for name in (columns.question, columns.messages, columns.answer):
        if name is not None and cells.get(name) is None:
            raise ValueError(f"column `{name}` is missing or null; the row has {', '.join(map(str, cells))}")
    given = {name: value for name, value in cells.items() if value not in (None, "")}
    content: dict[str, Any] = {"question": cells.get(columns.question or "")}
    history: tuple[Message, ...] = ()
    solutions = [text for name in columns.solution_names for text in _listed(given.get(name, []))]
    if columns.messages is not None:
        history, content["question"], last = _conversation(cells[columns.messages], columns)
        if last is not None and columns.answer is None:
            content["gold"] = last
        elif last is not None:
            solutions.insert(0, last)
    if columns.answer is not None:
        content["gold"] = cells[columns.answer]
    skills = given.get(columns.skills or "", [])
    if isinstance(skills, str):
        skills = [skill.strip() for skill in skills.split(";") if skill.strip()]
    content |= {"solutions": solutions, "skills": _listed(skills)}
    content |= {"difficulty": given.get(columns.difficulty or ""), "group": given.get(columns.group or "")}
    return from_own(Own.model_validate(content)) | {"history": history}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _conversation(value: object, columns: Columns) -> tuple[tuple[Message, ...], str, str | None]:
    """The turns before the last question, the question, and the assistant turn after it if there is one."""
    try:
        turns = _Turns.validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, [columns.messages, *fault["loc"]]))
        raise ValueError(f"`{where}`: {fault['msg'].removeprefix('Value error, ')}") from None
    order = _ORDER.fullmatch("".join(turn.role[0] for turn in turns))
    if order is None or (columns.answer is None and not order[3]):
        raise ValueError(
            f"`{columns.messages}`: expected an optional system turn, then user and assistant in turn, the last one "
            f"an assistant turn, got {', '.join(turn.role for turn in turns[:20])}"
        )
    if sum(len(turn.content) for turn in turns) > MAX_CHARS:
        raise ValueError(f"`{columns.messages}`: has more than {MAX_CHARS} characters in all turns together")
    last = turns.pop().content.strip() if order[3] else None
    question = turns.pop().content.strip()
    return tuple(Message(role=t.role, content=t.content) for t in turns), question, last


def why(error: ValueError, columns: Columns | None) -> str:
    """Why a row cannot be used, with the name its column has in the data set."""
    if not isinstance(error, ValidationError):
        return reason(error)
    first = error.errors()[0]
    field, *rest = [str(part) for part in first["loc"]] or ["row"]
    if columns is not None:
        field = {"gold": columns.answer or columns.messages}.get(field) or getattr(columns, field, None) or field
    where = ".".join([field if isinstance(field, str) else ", ".join(field), *rest])
    if first["type"] == "missing":
        return printable(f"column `{where}` is missing")
    return printable(f"`{where}`: {first['msg'].removeprefix('Value error, ')}")
