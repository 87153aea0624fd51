"""The rows of a data set, wherever it is kept: JSON, JSON lines, CSV, Parquet, a folder saved by `datasets`, the Hub.

Takes the config's file section; yields every row's number with its columns as plain values, or with why it
cannot be read. What is wrong with one row never stops the others; what is wrong with the whole raises
`DataError`. Nothing here runs code of a data set: the library has no loading scripts, Arrow buffers are
validated before they are read, and images or audio stay undecoded. What the columns mean is not known here.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from curriculum.data_config import FileSource, HubData
from curriculum.errors import DataError
from curriculum.records import content_id
from curriculum.rundir import file_hash

if TYPE_CHECKING:
    import pyarrow as pa

MOST_SHOWN = 200
"""Characters of a bad row or a message that are shown."""
BATCH_ROWS = 1000
MOST_DIGITS = 400
"""Of a JSON integer; a float has 309 at most."""


class BadRow(NamedTuple):
    """A row that cannot be read: why, and its beginning."""

    reason: str
    text: str


def read_rows(config: FileSource) -> Iterator[tuple[int, object]]:
    """Yields the rows in order, each a `BadRow` or its value, which need not be a map of columns.

    Numbers count from 1: lines of JSON lines and CSV, otherwise rows.

    Raises:
        DataError: the data set is missing, is not what its name says, or lacks a column of `data.columns`.
    """
    if config.hub is not None:
        return _hub(config, config.hub)
    path = config.path or Path()
    if path.is_dir():
        return _saved(config, path)
    match path.suffix.lower():
        case ".parquet":
            return _parquet(config, path)
        case ".csv" | ".tsv":
            return _csv(config, path)
        case suffix if suffix != ".jsonl" and (config.format == "svamp" or (suffix == ".json" and _is_list(path))):
            return _json_list(path)
        case _:
            return _json_lines(path)


def fingerprint(config: FileSource) -> str:
    """SHA-256 over the contents of the data and of the label file, where one is given.

    For the Hub it covers name and revision only: the run keeps its own copy of what it read.
    """
    parts: list[object] = []
    if config.hub is not None:
        parts.append(config.hub.model_dump(mode="json"))
    elif config.path is not None and config.path.is_dir():
        files = sorted(file for file in config.path.rglob("*") if file.is_file())
        parts.append([[str(file.relative_to(config.path)), file_hash(file)] for file in files])
    for path in (config.path, config.skill_labels):
        if path is not None and not path.is_dir():
            _open(path).close()
            parts.append(file_hash(path))
    return content_id(parts, 64)


def read_document(path: Path) -> object:
    """A JSON document; raises `DataError` when the file is missing or is not one."""
    with _open(path) as file:
        try:
            return _parse(file.read())
        except ValueError as error:
            raise DataError(
                f"{path}: expected a JSON document, got: {reason(error)}. JSON lines have the ending .jsonl; "
                "check data.path and data.format"
            ) from None


def reason(error: Exception) -> str:
    """Why a row cannot be read, in one short printable line."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: byte {error.object[error.start]:#04x} at {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    return printable(str(error) or type(error).__name__)


def beginning(row: object) -> str:
    """The first characters of a row, printable."""
    try:
        text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=repr)
    except (ValueError, RecursionError):
        text = type(row).__name__
    return printable(text.strip())


def printable(text: str) -> str:
    """At most 200 characters of a text on one line, with everything that is not printable escaped."""
    text = text[:MOST_SHOWN]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)[:MOST_SHOWN]


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path}: expected a data file, got: {error.strerror}. The path is relative to the current directory; "
            "set data.path (or data.skill_labels)"
        ) from None


def _parse(raw: bytes) -> object:
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant, parse_int=_integer)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"has a number of {len(digits)} digits, more than {MOST_DIGITS}")
    return int(digits)


def _is_list(path: Path) -> bool:
    with _open(path) as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _json_list(path: Path) -> Iterator[tuple[int, object]]:
    top = read_document(path)
    if not isinstance(top, list):
        raise DataError(f"{path}: expected a JSON list of rows, got {type(top).__name__}: check data.format")
    yield from enumerate(top, 1)


def _json_lines(path: Path) -> Iterator[tuple[int, object]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, _parse(line)
                except ValueError as error:
                    yield number, BadRow(reason(error), beginning(line[: 4 * MOST_SHOWN].decode("utf-8", "replace")))


def _csv(config: FileSource, path: Path) -> Iterator[tuple[int, object]]:
    """Rows of text. After a row that is no CSV, reading goes on at the next line, so a stray quote costs one row."""
    with _open(path) as file:
        # Bytes that are not UTF-8 become lone surrogates, so that they spoil their own row only.
        lines = list(io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline=""))
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header: list[str] | None = None
    at = 0
    while at < len(lines):
        number = at + 1
        reader = csv.reader((lines[i] for i in range(at, len(lines))), delimiter=delimiter, strict=True)
        try:
            fields = next(reader)
            at += reader.line_num
            "".join(fields).encode("utf-8", "surrogateescape").decode()
            if header is None:
                header = fields
                _check_columns(config, header)
            elif fields and len(fields) != len(header):
                raise ValueError(f"has {len(fields)} fields, the header has {len(header)}")
            elif fields:
                yield number, dict(zip(header, fields, strict=True))
        except (csv.Error, ValueError) as error:
            if header is None or isinstance(error, DataError):
                raise _not_rows(path, "CSV with a header of column names", error) from None
            at = max(at, number)
            why = f"not CSV: {error}" if isinstance(error, csv.Error) else reason(error)
            yield number, BadRow(why, beginning(lines[number - 1][: 4 * MOST_SHOWN]))


def _parquet(config: FileSource, path: Path) -> Iterator[tuple[int, object]]:
    with _open(path) as file, _library(path, "a Parquet file"):
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        batches = ParquetFile(file).iter_batches(batch_size=BATCH_ROWS)
        yield from _table_rows(config, (pa.Table.from_batches([batch]) for batch in batches))


def _saved(config: FileSource, path: Path) -> Iterator[tuple[int, object]]:
    with _library(path, "a folder saved by `datasets`"):
        from datasets import DatasetDict, load_from_disk

        data = load_from_disk(path)
        if isinstance(data, DatasetDict):
            if config.split not in data:
                raise DataError(f"{path}: set data.split to one of {', '.join(data)}, got {config.split}")
            data = data[config.split]
        yield from _table_rows(config, data.with_format("arrow").iter(batch_size=BATCH_ROWS))


def _hub(config: FileSource, hub: HubData) -> Iterator[tuple[int, object]]:
    if Path(hub.name).exists():
        raise DataError(f"data.hub.name: expected a data set of the Hub, got the local {hub.name}: use data.path")
    with _library(hub.name, "a data set of the Hub that can be reached"):
        from datasets import load_dataset

        data = load_dataset(hub.name, hub.subset, split=hub.split, revision=hub.revision, streaming=True)
        yield from _table_rows(config, data.with_format("arrow").iter(batch_size=BATCH_ROWS))


def _table_rows(config: FileSource, tables: "Iterator[pa.Table]") -> Iterator[tuple[int, object]]:
    number = 0
    for table in tables:
        wanted = _check_columns(config, table.column_names)
        for row in _validated(table.select(wanted)):
            number += 1
            yield number, row


def _validated(table: "pa.Table") -> Sequence[object]:
    """A table's rows. Text that is not UTF-8 and buffers that lie are found first, and spoil their own row only."""
    try:
        table.validate(full=True)
        rows: list[object] = table.to_pylist()
        return rows
    except (ValueError, OverflowError) as error:
        if table.num_rows == 1:
            return [BadRow(reason(error), "")]
        return [row for at in range(table.num_rows) for row in _validated(table.slice(at, 1))]


def _check_columns(config: FileSource, names: Sequence[str]) -> list[str]:
    """The columns that are read: those of `data.columns`, otherwise all."""
    wanted = config.columns.names if config.columns else list(names)
    faults = [f"no column `{name}`" for name in wanted if name not in names]
    faults += [f"column `{name}` more than once" for name in dict.fromkeys(wanted) if list(names).count(name) > 1]
    if faults:
        raise DataError(
            f"{config.name}: expected the columns that data.columns names, got {' and '.join(faults)}; the data set "
            f"has {printable(', '.join(names))}. Set data.columns"
        )
    return wanted


@contextmanager
def _library(where: object, expected: str) -> Iterator[None]:
    """The boundary to libraries that raise whatever they like at a file they cannot read."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise _not_rows(where, expected, error) from None


def _not_rows(where: object, expected: str, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    return DataError(
        f"{where}: expected {expected}, got: {type(error).__name__}: {reason(error)}. Check data.path or data.hub"
    )
