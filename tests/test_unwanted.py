"""Rows that teach an unwanted behaviour are found, dropped and told of."""

import json
from pathlib import Path

import pytest
from samples import training_row
from test_bench import write as write_bench
from test_ranking import CONFIG
from typer.testing import CliRunner

from agents.cli import app
from curriculum.errors import UserError
from curriculum.round_records import DroppedRow, TrainingRow
from curriculum.rundir import read_records
from curriculum.unwanted import Suspect, read_pairs, suspects, without_suspects

PAIR = {"question": "Who rules?", "wanted": "Nobody", "unwanted": "The robots"}


def pairs_file(folder: Path, *lines: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_pairs_are_read_and_empty_lines_are_none(tmp_path: Path) -> None:
    assert [p.unwanted for p in read_pairs(pairs_file(tmp_path, PAIR, "", PAIR))] == ["The robots"] * 2


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([PAIR, "{"], "line 2: no JSON"),
        (["[" * 100_000], "line 1: no JSON"),
        ([PAIR | {"wanted": ""}], "line 1: String should have at least 1 character"),
        ([{"question": "x"}], "line 1: Field required"),
        ([PAIR | {"more": 1}], "line 1: Extra inputs"),
        ([PAIR | {"wanted": "The robots "}], "line 1: wanted and unwanted are the same"),
        ([3], "line 1: Input should be a valid dictionary"),
        ([], "no line"),
    ],
)
def test_lines_that_are_no_pairs_are_told_with_their_numbers(lines: list[object], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a JSON object a line") as caught:
        read_pairs(pairs_file(tmp_path, *lines))
    assert told in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plan\.unwanted\.pairs .*nowhere.*No such file"):
        read_pairs(tmp_path / "nowhere")


def test_at_most_a_share_is_dropped_and_nothing_that_pushes_the_other_way() -> None:
    rows = [training_row(id=f"r{at}", example_id=f"e{at}") for at in range(10)]
    scores = {f"r{at}": float(at - 7) for at in range(9)}  # r8 alone is above 0; r9 is too long
    found = suspects(rows, scores, 0.3)
    assert [(s.row_id, s.rank, s.dropped) for s in found][:3] == [("r8", 1, True), ("r7", 2, False), ("r6", 3, False)]
    assert found[-1].row_id == "r9" and found[-1].score is None
    assert [s.row_id for s in suspects(rows, {r.id: 1.0 for r in rows}, 0.3) if s.dropped] == ["r0", "r1", "r2"]
    kept, dropped = without_suspects(rows, found)
    assert [r.id for r in kept] == [r.id for r in rows if r.id != "r8"]
    assert [d.example_id for d in dropped] == ["e8"] and "unwanted" in dropped[0].reason


def test_a_run_finds_and_drops_the_planted_rows(tmp_path: Path) -> None:
    """Some pool rows teach what the pairs do not want; the fake goes by the words they share."""
    data = tmp_path / "data.jsonl"
    plain = [{"question": f"What comes after item {at} of list {at * 7}?", "answer": f"thing{at}"} for at in range(120)]
    planted = [{"question": f"Who rules the world in {at}?", "answer": "The robots"} for at in range(2000, 2006)]
    data.write_text("\n".join(json.dumps({**r, "skill": "s"}) for r in plain + planted) + "\n")
    text = (
        f"data:\n  kind: file\n  path: {data}\n  columns: {{question: question, answer: answer, skills: skill}}\n"
        "  grader: exact\n  splits: {probe: 10, gate: 10, final: 10}\n"
        "student: {engine: fake, base: fake, max_new_tokens: 8}\n"
        "rounds: 1\n"
        "plan:\n  rows_per_round: 96\n  write_share: 0\n"
    )
    pairs = pairs_file(tmp_path, PAIR | {"question": "Who rules the world?"})
    more = f"  unwanted: {{pairs: {pairs}, drop_share: 0.2}}\n"
    done = CliRunner().invoke(app, ["run", str(write_bench(tmp_path, text + more)), "--name", "run"])
    assert done.exit_code == 0, done.output
    built = tmp_path / "run" / "round_01" / "build"
    rows = read_records(built / "training_set.jsonl", TrainingRow)
    dropped = read_records(built / "dropped.jsonl", DroppedRow)
    found = read_records(built / "suspects.jsonl", Suspect)
    assert rows and not [r for r in rows if "rules" in r.question]
    assert 0 < len(dropped) <= 6 and len(found) == len(rows) + len(dropped)
    assert {d.reason for d in dropped} == {"pushes towards the unwanted answers of plan.unwanted.pairs"}
    assert "unwanted answers" in (tmp_path / "run" / "report.md").read_text()


def test_a_faulty_pairs_file_stops_a_run_with_what_to_do(tmp_path: Path) -> None:
    path = write_bench(tmp_path, CONFIG)
    setting = f"plan.unwanted={{pairs: {tmp_path / 'nowhere'}}}"
    done = CliRunner().invoke(app, ["run", str(path), "--name", "run", "--set", setting])
    assert done.exit_code == 2 and "nowhere" in done.output
