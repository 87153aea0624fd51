"""Stages are skipped when done, redone when their inputs or outputs changed, and journals survive a torn line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.errors import RunDirError
from curriculum.records import Message, QuarantinedRow, Rate, canonical_json, content_id
from curriculum.rundir import (
    DONE,
    RunDir,
    append_journal,
    open_journal,
    read_json,
    read_record,
    read_records,
    write_atomic,
    write_records,
)


def row(n: int) -> QuarantinedRow:
    return QuarantinedRow(source=f"file:{n}", reason="because", text="line\u2028separator\nand newline")


def stage(run: RunDir, inputs: dict[str, Any], calls: list[str]) -> Any:
    def work(folder: Path) -> dict[str, Any]:
        calls.append("ran")
        write_atomic(folder / "out.txt", json.dumps(inputs))
        return {"round": 1}

    return run.run_stage(run.stage_path("stage"), inputs, work)


def test_a_done_stage_is_skipped_and_returns_the_same_update(tmp_path: Path) -> None:
    run, calls = RunDir(tmp_path), list[str]()
    assert stage(run, {"a": 1}, calls) == stage(run, {"a": 1}, calls) == {"round": 1}
    assert calls == ["ran"]


def test_changed_inputs_wipe_the_stage_with_its_journals(tmp_path: Path) -> None:
    run, calls = RunDir(tmp_path), list[str]()
    stage(run, {"a": 1}, calls)
    (tmp_path / "stage" / DONE).unlink()
    append_journal(tmp_path / "stage" / "x.journal", row(1))
    stage(run, {"a": 2}, calls)
    assert calls == ["ran", "ran"]
    assert not (tmp_path / "stage" / "x.journal").exists()
    assert (tmp_path / "stage" / "out.txt").read_text() == '{"a": 2}'


def test_an_interrupted_stage_finds_its_journal_and_a_done_one_drops_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    folder = tmp_path / "stage"

    def interrupted(folder: Path) -> dict[str, Any]:
        append_journal(folder / "x.journal", row(1))
        raise KeyboardInterrupt

    def whole(folder: Path) -> dict[str, Any]:
        return {"found": len(open_journal(folder / "x.journal", QuarantinedRow))}

    with pytest.raises(KeyboardInterrupt):
        run.run_stage(folder, {"a": 1}, interrupted)
    assert run.run_stage(folder, {"a": 1}, whole) == {"found": 1}
    assert not (folder / "x.journal").exists()


@pytest.mark.parametrize("damage", ["edit", "remove", "add", "nested"])
def test_a_stage_whose_outputs_changed_is_run_again(tmp_path: Path, damage: str) -> None:
    run, calls = RunDir(tmp_path), list[str]()
    stage(run, {"a": 1}, calls)
    folder = tmp_path / "stage"
    if damage == "edit":
        (folder / "out.txt").write_text("other")
    elif damage == "remove":
        (folder / "out.txt").unlink()
    elif damage == "add":
        (folder / "more.txt").write_text("other")
    else:
        (folder / "inner").mkdir()
        (folder / "inner" / "more.txt").write_text("other")
    stage(run, {"a": 1}, calls)
    assert calls == ["ran", "ran"]
    assert (folder / "out.txt").read_text() == '{"a": 1}'


def test_done_says_nothing_of_time(tmp_path: Path) -> None:
    done = []
    for name in "ab":
        run = RunDir(tmp_path / name)
        stage(run, {"a": 1}, [])
        done.append((tmp_path / name / "stage" / DONE).read_bytes())
    assert done[0] == done[1]


def test_a_torn_last_line_is_cut_off_and_any_other_bad_line_raises(tmp_path: Path) -> None:
    journal = tmp_path / "x.journal"
    for n in range(3):
        append_journal(journal, row(n))
    whole = journal.read_bytes()
    for cut in range(1, len(whole.splitlines()[-1])):
        journal.write_bytes(whole[:-cut])
        assert open_journal(journal, QuarantinedRow) == [row(0), row(1)]
        append_journal(journal, row(2))
        assert journal.read_bytes() == whole
    journal.write_bytes(b'{"source"\n' + whole)
    with pytest.raises(RunDirError, match=":1: expected a QuarantinedRow"):
        open_journal(journal, QuarantinedRow)


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert open_journal(tmp_path / "none.journal", QuarantinedRow) == []


def test_one_process_a_run(tmp_path: Path) -> None:
    with RunDir(tmp_path), pytest.raises(RunDirError, match="another process"), RunDir(tmp_path):
        pass
    with RunDir(tmp_path) as run:
        assert run.path == tmp_path


def test_damaged_documents_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(RunDirError, match=r"x\.json"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(RunDirError, match="QuarantinedRow"):
        read_record(tmp_path / "x.json", QuarantinedRow)
    with pytest.raises(RunDirError, match="No such file"):
        read_records(tmp_path / "none.jsonl", QuarantinedRow)


@given(st.lists(st.text()))
def test_records_survive_the_round_trip(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("records") / "x.jsonl"
    records = [QuarantinedRow(source=str(n), reason=text, text=text) for n, text in enumerate(texts)]
    write_records(path, records)
    assert read_records(path, QuarantinedRow) == records


@given(st.dictionaries(st.text(), st.integers()))
def test_identity_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert content_id(value) == content_id(backwards)
    assert json.loads(canonical_json(value)) == value


def test_records_are_frozen_and_refuse_unknown_keys() -> None:
    with pytest.raises(ValueError, match="frozen"):
        row(1).reason = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra inputs"):
        Message.model_validate({"role": "user", "content": "x", "mood": "good"})
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Rate(n=-1, correct=0, rate=None, low=None, high=None)
