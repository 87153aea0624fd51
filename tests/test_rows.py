"""The same rows from every kind of file, columns as the config names them, and what spoils one row or all."""

import csv
import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, disable_progress_bars, load_dataset
from pyarrow import parquet

from curriculum.data import UNLABELLED, fingerprint, read_examples
from curriculum.data_config import FileData
from curriculum.errors import DataError
from curriculum.records import Example, QuarantinedRow
from curriculum.rows import read_rows

disable_progress_bars()
ROWS = [
    {"q": 'Who said "é, ∑"?', "a": "Ann", "work": "She did.", "how": "", "topic": "who; quotes", "level": "2"},
    {"q": "Two\nlines, one comma", "a": "007", "work": "", "how": "Like this.", "topic": "", "level": ""},
]
COLUMNS = {"question": "q", "answer": "a", "solutions": ["work", "how"], "skills": "topic", "difficulty": "level"}


def config(path: Path | None, columns: dict[str, Any] | None = None, **other: Any) -> FileData:
    sizes = {"probe": 1, "gate": 1, "final": 1}
    given = {"kind": "file", "path": path, "columns": columns or COLUMNS, "grader": "exact", "splits": sizes}
    return FileData.model_validate(given | other)


def write_csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


WRITERS: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, ROWS))),
    "lines.json": lambda path: path.write_text("\n".join(map(json.dumps, ROWS))),
    "list.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "rows.csv": write_csv,
    "rows.TSV": lambda path: write_csv(path, "\t"),
    "rows.parquet": lambda path: parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "saved": lambda path: Dataset.from_list(ROWS).save_to_disk(path),
    "shuffled": lambda path: Dataset.from_list(ROWS[::-1]).select([1, 0]).save_to_disk(path),
    "splits": lambda path: DatasetDict(
        {"other": Dataset.from_list(ROWS[:1]), "own": Dataset.from_list(ROWS)}
    ).save_to_disk(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    data = config(tmp_path / name, split="own" if name == "splits" else None)
    examples, bad = read_examples(data)
    assert bad == []
    assert [(e.question, e.gold, e.solutions, e.skills, e.difficulty) for e in examples] == [
        ('Who said "é, ∑"?', "Ann", ("She did.",), ("who", "quotes"), 2),
        ("Two\nlines, one comma", "007", ("Like this.",), (UNLABELLED,), None),
    ]
    assert examples[0].source.startswith(f"{name}:")
    assert [e.id for e in read_examples(data.model_copy(update={"max_rows": 1}))[0]] == [examples[0].id]
    assert fingerprint(data) == fingerprint(data)


def read_json(tmp_path: Path, row: object, columns: dict[str, Any]) -> tuple[list[Example], list[QuarantinedRow]]:
    path = tmp_path / "rows.jsonl"
    good = {"m": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    path.write_text(
        "\n".join(
            json.dumps(good | {name: "1" for name in columns.values() if name != "m"} | {"q": "Q"} | r)
            for r in ({}, row)
            if isinstance(r, dict)
        )
    )
    examples, bad = read_examples(config(path, columns, max_bad_share=0.5))
    return examples[1:], bad


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        (4, "4"),
        (51.0, "51"),
        (0.1, "0.1"),
        (-2.50, "-2.5"),
        (1e21, "1" + 21 * "0"),
        (" 4 ", "4"),
        (10, "10"),
        (1e-7, "0.0000001"),
    ],
)
def test_numbers_become_text_as_people_write_them(tmp_path: Path, value: object, gold: str) -> None:
    (example,), _ = read_json(tmp_path, {"a": value, "g": 7}, {"question": "q", "answer": "a", "group": "g"})
    assert (example.gold, example.group) == (gold, "7")


def turns(text: str) -> list[dict[str, str]]:
    """`s:x u:y` → turns."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[part[0]], "content": part[2:]} for part in text.split(" ") if part]


@pytest.mark.parametrize(
    ("messages", "columns", "history", "question", "gold", "solutions"),
    [
        ("u:2+2 a:4", {}, [], "2+2", "4", ()),
        ("s:Be u:hi a:yes u:2+2 a:4", {}, ["Be", "hi", "yes"], "2+2", "4", ()),
        ("u:hi a:yes u:2+2 a:so", {"answer": "a"}, ["hi", "yes"], "2+2", "1", ("so",)),
        ("u:2+2", {"answer": "a"}, [], "2+2", "1", ()),
    ],
)
def test_of_a_conversation_the_last_turns_are_question_and_answer(
    tmp_path: Path,
    messages: str,
    columns: dict[str, str],
    history: list[str],
    question: str,
    gold: str,
    solutions: object,
) -> None:
    (example,), _ = read_json(tmp_path, {"m": turns(messages)}, {"messages": "m", **columns})
    assert [turn.content for turn in example.history] == history
    assert (example.question, example.gold, example.solutions) == (question, gold, solutions)


@pytest.mark.parametrize(
    ("row", "columns", "reason"),
    [
        ({"m": "[]"}, {"messages": "m"}, "`m`: Input should be a valid list"),
        ({"m": []}, {"messages": "m"}, "`m`: expected an optional system turn"),
        ({"m": turns("u:x")}, {"messages": "m"}, "the last one an assistant turn, got user"),
        ({"m": turns("u:x u:y a:z")}, {"messages": "m"}, "user and assistant in turn"),
        ({"m": turns("u:x s:y a:z")}, {"messages": "m"}, "user and assistant in turn"),
        ({"m": turns("u:x t:y a:z")}, {"messages": "m"}, "`m.1.role`: Input should be 'system', 'user' or 'assistant'"),
        ({"m": turns("u:x a:")}, {"messages": "m"}, "`m.1.content`: is empty"),
        ({"m": [{"role": "user", "content": ["x"]}]}, {"messages": "m"}, "`m.0.content`: Input should be"),
        ({"m": turns("u:x a:\x1b[2J")}, {"messages": "m"}, "`m.1.content`: has U+001B"),
        ({"m": turns(3 * f"u:{'x' * 5000} a:{'x' * 5000} ")}, {"messages": "m"}, "in all turns together"),
        ({"q": None}, {"question": "q", "answer": "a"}, "column `q` is missing or null; the row has m, q, a"),
        ({"q": "  "}, {"question": "q", "answer": "a"}, "`q`: is empty"),
        ({"a": ""}, {"question": "q", "answer": "a"}, "`a`: is empty"),
        ({"a": [4]}, {"question": "q", "answer": "a"}, "`a`: Input should be a valid string"),
        ({"a": False}, {"question": "q", "answer": "a"}, "`a`: Input should be a valid string"),
        ({"l": "hard"}, {"question": "q", "answer": "a", "difficulty": "l"}, "`l`: Input should be a valid integer"),
        ({"l": 2.5}, {"question": "q", "answer": "a", "difficulty": "l"}, "`l`: Input should be a valid integer"),
        ({"l": "7"}, {"question": "q", "answer": "a", "difficulty": "l"}, "`l`: Input should be less than"),
        ({"w": {"x": 1}}, {"question": "q", "answer": "a", "solutions": "w"}, "`w.0`: Input should be a valid string"),
        ({"s": "1;2;3;4;5;6"}, {"question": "q", "answer": "a", "skills": "s"}, "`s`: List should have at most 5"),
        ({"s": ["x" * 101]}, {"question": "q", "answer": "a", "skills": "s"}, "`s.0`: is no name of one line"),
    ],
)  # fmt: skip
def test_a_row_is_set_aside_with_the_name_of_its_own_column(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, str], reason: str
) -> None:
    examples, (bad,) = read_json(tmp_path, row, columns)
    assert examples == []
    assert reason in bad.reason and bad.source == "rows.jsonl:2"


def test_bad_rows_of_a_csv_cost_themselves_only_and_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [
        b"q,a",
        b"one,1",
        b'"two',
        b'lines",2',
        b"",
        b"three",
        b'stray"quote,4',
        b'"open,5',
        b"six,6",
        b"\xffseven,7",
    ]
    lines += [
        b'"' + b"x" * 5_000_000 + b'",8',
        b"n\x00ine,9",
        b"ten,10,extra",
        b'"eleven" ,11',
        b"twelve,12",
        b'"never closed,13',
    ]
    path.write_bytes(b"\r\n".join(lines))
    examples, bad = read_examples(config(path, {"question": "q", "answer": "a"}, max_bad_share=0.8))
    assert [e.gold for e in examples] == ["1", "2", "4", "6", "12"]
    assert [(row.source.split(":")[1], row.reason) for row in bad] == [
        ("6", "has 1 fields, the header has 2"),
        ("8", "not CSV: ',' expected after '\"'"),
        ("10", "not UTF-8: byte 0xff at 0"),
        ("11", "`q`: has 5000000 characters, more than 20000"),
        ("12", "`q`: has U+0000, a control character or lone surrogate"),
        ("13", "has 3 fields, the header has 2"),
        ("14", "not CSV: ',' expected after '\"'"),
        ("16", "not CSV: unexpected end of data"),
    ]


def test_bad_rows_of_a_parquet_file_cost_themselves_only(tmp_path: Path) -> None:
    texts = pa.StringArray.from_buffers(4, pa.py_buffer(struct.pack("5i", 0, 1, 2, 3, 4)), pa.py_buffer(b"a\xffcd"))
    parquet.write_table(pa.table({"q": texts, "a": ["1", "2", None, "4"]}), tmp_path / "rows.parquet")
    examples, bad = read_examples(
        config(tmp_path / "rows.parquet", {"question": "q", "answer": "a"}, max_bad_share=0.5)
    )
    assert [e.gold for e in examples] == ["1", "4"]
    assert [b.source for b in bad] == ["rows.parquet:2", "rows.parquet:3"]
    assert "Invalid UTF8" in bad[0].reason and "column `a` is missing or null" in bad[1].reason


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (Decimal("2.50"), "2.5"),
        (Decimal("1" + "0" * 37), "1" + "0" * 37),
        (7, "7"),
        (datetime(2026, 1, 1, tzinfo=UTC), None),
        (b"x", None),
    ],
)
def test_typed_columns_hold_text_or_numbers_or_are_set_aside(tmp_path: Path, value: object, found: str | None) -> None:
    table = pa.table({"q": ["Q", "R"], "a": pa.array([value, value])})
    parquet.write_table(table, tmp_path / "rows.parquet")
    data = config(tmp_path / "rows.parquet", {"question": "q", "answer": "a"}, max_bad_share=1)
    if found is None:
        with pytest.raises(DataError, match=r"got 2 of 2.*\n.*`a`: Input should be a valid string"):
            read_examples(data)
    else:
        assert {e.gold for e in read_examples(data)[0]} == {found}


def test_buffers_that_lie_about_their_lengths_are_not_read(tmp_path: Path) -> None:
    Dataset.from_list([{"q": c, "a": c} for c in "abc"]).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    offsets = struct.pack("4i", 0, 1, 2, 3)
    assert offsets in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(offsets, struct.pack("4i", 0, 1, 99_999_999, 3)))
    examples, bad = read_examples(config(tmp_path / "saved", {"question": "q", "answer": "a"}, max_bad_share=0.9))
    assert [e.gold for e in examples] == ["a"]
    assert [b.source for b in bad] == ["saved:2", "saved:3"]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("x.csv", b"q,b\n1,2\n", {"question": "q", "answer": "a"}, "no column `a`; the data set has q, b"),
        ("x.csv", b"q,a,a\n1,2,3\n", {"question": "q", "answer": "a"}, "column `a` more than once"),
        ("x.csv", b"q;a\n1;2\n", {"question": "q", "answer": "a"}, "the data set has q;a"),
        ("x.csv", b"\xff\xfeq\x00,\x00a\x00", {"question": "q", "answer": "a"}, "expected CSV with a header"),
        ("x.csv", b"", {"question": "q", "answer": "a"}, "got an empty file"),
        ("x.parquet", b"PAR1 not", {"question": "q", "answer": "a"}, "expected a Parquet file"),
        ("x.jsonl", b'{"q": "1", "a": 2}', {"question": "q", "answer": "a", "skills": "s"}, "no row with `s`"),
        ("x.json", b"[1", {"question": "q", "answer": "a"}, "not JSON"),
        ("x.json", b"[1]", {"question": "q", "answer": "a"}, "is int, not a row with columns"),
    ],
)
def test_a_file_that_is_not_what_the_config_says_stops(
    tmp_path: Path, name: str, content: bytes, columns: dict[str, str], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_examples(config(tmp_path / name, columns))
    assert name in str(error.value)


def test_a_folder_that_is_no_saved_data_set_or_has_several_splits_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder saved by `datasets`"):
        read_examples(config(tmp_path))
    WRITERS["splits"](tmp_path / "splits")
    with pytest.raises(DataError, match=r"set data\.split to one of other, own, got None"):
        read_examples(config(tmp_path / "splits"))


def test_a_hub_that_cannot_be_reached_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    data = config(None, hub={"name": "owner/none"})
    with pytest.raises(DataError, match=r"owner/none: expected a data set of the Hub that can be reached, got: Conn"):
        read_examples(data)
    assert fingerprint(data) != fingerprint(config(None, hub={"name": "owner/none", "revision": "x"}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "none").mkdir(parents=True)
    with pytest.raises(DataError, match=r"use data\.path"):
        read_examples(data)


def test_a_streamed_data_set_is_read_no_further_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no network here: the stream is the library's own, over local files of which the second is broken.
    good, broken = tmp_path / "good.jsonl", tmp_path / "broken.jsonl"
    good.write_text("\n".join(json.dumps({"q": str(n), "a": n}) for n in range(3000)))
    broken.write_text("}")
    streamed = load_dataset("json", data_files=[str(good), str(broken)], split="train", streaming=True)
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **options: streamed if options["streaming"] else None)
    data = config(None, {"question": "q", "answer": "a"}, hub={"name": "owner/none"}, max_rows=5)
    assert [e.source for e in read_examples(data)[0]] == [f"owner/none:{n}" for n in range(1, 6)]
    with pytest.raises(DataError, match="owner/none: expected a data set of the Hub that can be reached, got: Arrow"):
        list(read_rows(data))
