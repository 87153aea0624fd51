"""How a document differs from the same document made again: which numbers agree, and every value that does not.

Takes two texts of JSON, JSON lines or YAML. Numbers that are not whole may differ by rounding. A file that says the
same but is written otherwise (a key given twice, of which readers take one) is a difference, too.
"""

import json
import math
from collections.abc import Collection, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from curriculum.records import canonical_json

ROUNDING = 1e-9
"""Relative difference of two numbers that counts as none: another processor adds in another order."""
MOST_SHOWN = 80
MOST_YAML, MOST_DEPTH = 8 << 20, 100
"""Characters, and brackets that are open at once: the library's time grows with the square of these."""


class Difference(NamedTuple):
    """A value that is not what its records give."""

    file: str
    field: str
    expected: str
    got: str


class Compared(NamedTuple):
    """Two documents side by side."""

    agree: int
    """Numbers that are the same in both."""
    taken: int
    """Numbers that could not be made again, and were taken as they are."""
    differences: list[Difference]


def compare_files(name: str, made: Path, recorded: Path, taken: Collection[str] = ()) -> Compared:
    """Compares a file that was made again with the recorded one; of the fields `taken`, numbers are only counted.

    Raises:
        ValueError: the recorded file is not of its kind.
    """
    one, other = parse_document(made), parse_document(recorded)
    found = compare_values(name, one, other, taken)
    if not found.differences and made.read_bytes() != recorded.read_bytes() and not _as_written(recorded, other):
        found.differences.append(Difference(name, "", "the form that runs write", "other text with the same values"))
    return found


def compare_values(name: str, made: Any, recorded: Any, taken: Collection[str] = ()) -> Compared:
    """The same for two values; `taken` names fields, whatever is in them."""
    agree = held = 0
    differences = []
    for field, is_taken, expected, got in _leaves("", False, made, recorded, taken):
        if is_taken and _is_number(got):
            held += 1
        elif _same(expected, got):
            agree += _is_number(got)
        else:
            differences.append(Difference(name, field, shown(expected), shown(got)))
    return Compared(agree, held, differences)


def count_numbers(path: Path) -> int:
    """How many numbers a document has, versions of its format aside; 0 where it is no document."""
    if path.suffix not in (".json", ".jsonl", ".yaml"):
        return 0
    value = parse_document(path)
    return sum(_is_number(got) for _, _, _, got in _leaves("", False, value, value, ()))


def parse_document(path: Path) -> Any:
    """JSON, JSON lines as a list, or YAML without aliases, by the file's ending; other files as text.

    Raises:
        ValueError: it is not what its ending says.
    """
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line]
        return safe_yaml(text) if path.suffix == ".yaml" else text
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not {path.suffix}: {type(error).__name__}") from None


def safe_yaml(text: str) -> Any:
    """YAML without aliases: a few lines with them can stand for more values than there is memory.

    Raises:
        ValueError: it has one, is nested too deeply, or is no YAML.
    """
    depth = accumulate((char in "[{") - (char in "]}") for char in text)
    if len(text) > MOST_YAML or max(depth, default=0) > MOST_DEPTH:
        raise ValueError("expected a plain YAML document, got a huge or deeply nested one")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("expected YAML without aliases")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML: {type(error).__name__}") from None


def shown(value: object) -> str:
    """The beginning of a value, as JSON."""
    if value is _NOTHING:
        return "nothing"
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


class _Nothing:
    """Where one of the two has no such field."""


_NOTHING = _Nothing()


def _leaves(
    field: str, held: bool, one: Any, other: Any, taken: Collection[str]
) -> Iterator[tuple[str, bool, Any, Any]]:
    """Path, whether it is in a field that is taken, and both values, wherever the two branch no further together."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            pair = one.get(name, _NOTHING), other.get(name, _NOTHING)
            if name != "schema_version" or not _same(*pair):
                yield from _leaves(f"{field}.{name}" if field else str(name), held or name in taken, *pair, taken)
    elif isinstance(one, list) and isinstance(other, list):
        for at in range(max(len(one), len(other))):
            pair = (one[at] if at < len(one) else _NOTHING), (other[at] if at < len(other) else _NOTHING)
            yield from _leaves(f"{field}[{at}]", held, *pair, taken)
    else:
        yield field, held, one, other


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: Any, other: Any) -> bool:
    if _is_number(one) and _is_number(other):
        whole = isinstance(one, int) and isinstance(other, int)
        return bool(one == other if whole else math.isclose(one, other, rel_tol=ROUNDING, abs_tol=1e-12))
    return type(one) is type(other) and bool(one == other)


def _as_written(path: Path, value: Any) -> bool:
    """Whether a file is what this program writes for its values."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    if path.suffix == ".json":
        return text == json.dumps(value, indent=1, sort_keys=True) + "\n"
    if path.suffix == ".jsonl":
        return text == "".join(canonical_json(line) + "\n" for line in value)
    return path.suffix == ".yaml" and text == yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
