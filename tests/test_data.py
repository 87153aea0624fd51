import hashlib
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.data import UNLABELLED, fingerprint, read_examples
from curriculum.data_config import FileData, SplitSizes
from curriculum.errors import DataError
from curriculum.records import Example, QuarantinedRow
from curriculum.svamp import join, plain, work_out

REAL = Path(__file__).parents[2] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data sets are not in {REAL}")
SPLITS = SplitSizes(probe=1, gate=1, final=1)
SVAMP_ROW = {
    "ID": "chal-1",
    "Body": "Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each pack",
    "Question": "How much do you have to pay to buy each pack?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": 51.0,
    "Type": "Subtraction",
}
GSM8K_ROW = {
    "question": "Natalia sold clips to 48 of her friends in April, and half as many in May. How many altogether?",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 1000+24 = <<1000+24=1024>>1024.\n#### 1,024",
}
OWN_ROW = {"question": "What is 2 + 2?", "gold": "4"}


def config(path: Path, format_: str, **other: Any) -> FileData:
    return FileData.model_validate({"kind": "file", "path": path, "format": format_, "splits": SPLITS, **other})


def read_svamp(tmp_path: Path, *rows: object, **other: Any) -> tuple[list[Example], list[QuarantinedRow]]:
    path = tmp_path / "svamp.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return read_examples(config(path, "svamp", **other))


def read_lines(tmp_path: Path, format_: str, *rows: object, **other: Any) -> tuple[list[Example], list[QuarantinedRow]]:
    """Writes rows as JSON lines, bytes as they are, and reads them."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows))
    return read_examples(config(path, format_, **{"max_bad_share": 1.0, **other}))


def test_an_svamp_row_becomes_an_example(tmp_path: Path) -> None:
    (example,), bad = read_svamp(tmp_path, SVAMP_ROW)
    assert bad == []
    assert example.question == (
        "Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each pack, "
        "how much do you have to pay to buy each pack?"
    )
    assert (example.gold, example.solutions, example.skills, example.difficulty, example.source) == (
        "51",
        ("76 - 25 = 51",),
        ("Subtraction",),
        1,
        "svamp.json:1",
    )


def test_an_svamp_row_of_two_operations_has_two_steps_and_its_typo_mended(tmp_path: Path) -> None:
    row = SVAMP_ROW | {"Equation": "( 5.0 / ( 4.0 - 2.0 ) )", "Answer": 2.5, "Type": "Common-Divison"}
    (example,), _ = read_svamp(tmp_path, row)
    assert example.solutions == ("4 - 2 = 2\n5 / 2 = 2.5",)
    assert (example.gold, example.skills, example.difficulty) == ("2.5", ("Common-Division",), 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Answer": 52.0}, "`Equation` gives 51, but `Answer` says 52.0"),
        ({"Answer": "51"}, "`Answer`: Input should be a valid number"),
        ({"Answer": True}, "`Answer`: Input should be a valid number"),
        ({"Body": " "}, "`Body`: is empty"),
        ({"Equation": "( 76.0 - 25.0"}, "not understood"),
        ({"Equation": "__import__('os')"}, "not understood"),
        ({"Equation": "( 76.0 ** 25.0 )"}, "not understood"),
        ({"Equation": "( 76.0 / ( 25.0 - 25.0 ) )"}, "divides by zero"),
        ({"Equation": "(" * 15000}, "not understood"),
    ],
)
def test_a_bad_svamp_row_is_set_aside_with_its_reason(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    examples, (bad,) = read_svamp(tmp_path, SVAMP_ROW, SVAMP_ROW | change, max_bad_share=0.5)
    assert len(examples) == 1
    assert bad.source == "svamp.json:2" and reason in bad.reason and len(bad.text) <= 200


def test_variations_of_one_svamp_problem_are_one_group_whatever_the_order(tmp_path: Path) -> None:
    varied = SVAMP_ROW | {"Question": "How much more than the discount do you have to pay for each pack?"}
    other = SVAMP_ROW | {"Body": "Dan had 76 marbles and lost 25 of them.", "Question": "How many marbles are left?"}
    examples, _ = read_svamp(tmp_path, SVAMP_ROW, other, varied)
    assert examples[0].group == examples[2].group != examples[1].group
    backwards, _ = read_svamp(tmp_path, varied, other, SVAMP_ROW)
    assert [e.group for e in backwards] == [e.group for e in reversed(examples)]


@pytest.mark.parametrize(
    ("body", "question", "text"),
    [
        ("He has 3.", "How many are left?", "He has 3. How many are left?"),
        ("If he has 3,", "What is left?", "If he has 3, what is left?"),
        ("If he has 3", "Dan gave how many?", "If he has 3, Dan gave how many?"),
    ],
)
def test_body_and_question_are_joined_as_people_write(body: str, question: str, text: str) -> None:
    assert join(body, question) == text


trees: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 999), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner), max_leaves=6
)


def value_of(tree: Any) -> Fraction:
    if isinstance(tree, int):
        return Fraction(tree)
    left, right = value_of(tree[0]), value_of(tree[2])
    return {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right, "/": lambda: left / right}[
        tree[1]
    ]()


def written(tree: Any) -> str:
    return f"{tree}.0" if isinstance(tree, int) else f"( {written(tree[0])} {tree[1]} {written(tree[2])} )"


@given(trees)
def test_every_bracketed_equation_is_worked_out_exactly(tree: Any) -> None:
    try:
        expected = value_of(tree)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="divides by zero"):
            work_out(written(tree))
        return
    value, steps = work_out(written(tree))
    assert value == expected
    assert len(steps) == sum(written(tree).count(f" {sign} ") for sign in "+-*/")
    assert not steps or steps[-1].endswith(f"= {plain(expected)}")


def test_a_gsm8k_row_becomes_an_example(tmp_path: Path) -> None:
    (example,), bad = read_lines(tmp_path, "gsm8k", GSM8K_ROW)
    assert bad == []
    assert example.gold == "1024"
    assert example.solutions == ("Natalia sold 48/2 = 24 clips in May.\nShe sold 1000+24 = 1024.",)
    assert (example.skills, example.difficulty, example.source) == (("word_problems",), 2, "rows.jsonl:1")


def test_skill_labels_join_by_question_and_unlabelled_questions_are_named_so(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"question2skill": {GSM8K_ROW["question"]: ["division", "addition"]}}))
    other = GSM8K_ROW | {"question": "Another?"}
    examples, _ = read_lines(tmp_path, "gsm8k", GSM8K_ROW, other, skill_labels=labels)
    assert [e.skills for e in examples] == [("division", "addition"), (UNLABELLED,)]
    with pytest.raises(DataError, match="got none of its 1 questions"):
        read_lines(tmp_path, "gsm8k", other, skill_labels=labels)
    labels.write_text(json.dumps({"question2skill": {"q": "division"}}))
    with pytest.raises(DataError, match="a map from question to a list of skills"):
        read_lines(tmp_path, "gsm8k", GSM8K_ROW, skill_labels=labels)


def test_own_rows_carry_what_they_declare(tmp_path: Path) -> None:
    full = OWN_ROW | {"solutions": ["2 + 2 = 4"], "skills": ["sum", "small"], "difficulty": 2, "group": "g"}
    (plain_row, full_row), bad = read_lines(tmp_path, "examples", OWN_ROW, full, grader="exact")
    assert bad == []
    assert (plain_row.skills, plain_row.difficulty, plain_row.grader) == ((UNLABELLED,), None, "exact")
    assert plain_row.group == plain_row.id
    assert (full_row.solutions, full_row.skills, full_row.difficulty, full_row.group) == (
        ("2 + 2 = 4",),
        ("sum", "small"),
        2,
        "g",
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"question": "a", "gold": "b"', "not JSON"),
        (b'{"question": "\xff", "gold": "b"}', "not UTF-8: byte 0xff at 14"),
        (b'["question", "gold"]', "valid dictionary"),
        (b'{"question": "a"}', "column `gold` is missing"),
        (b'{"question": "", "gold": "b"}', "`question`: is empty"),
        (b'{"question": "a", "gold": true}', "`gold`: Input should be a valid string"),
        (b'{"question": "a", "gold": ["4"]}', "`gold`: Input should be a valid string"),
        (b'{"question": "a", "gold": 1e999}', "`gold`: is inf, not a finite number"),
        (b'{"question": "a", "gold": ' + b"9" * 5000 + b"}", "has a number of 5000 digits"),
        (b'{"question": 4, "gold": "b"}', "`question`: Input should be a valid string"),
        (b'{"question": "a", "gold": NaN}', "NaN is no JSON number"),
        (b'{"question": "a\\u0000", "gold": "b"}', "has U+0000, a control"),
        (b'{"question": "a\\u001b[2J", "gold": "b"}', "has U+001B, a control"),
        (b'{"question": "a\\ud800", "gold": "b"}', "`question`: has U+D800"),
        (b'{"question": "a", "gold": "b", "difficulty": 6}', "`difficulty`: "),
        (b'{"question": "a", "gold": "b", "solution": "typo"}', "`solution`: Extra inputs are not permitted"),
        (b'{"question": "a", "gold": "b", "\\ud800": 1}', ""),
        (b'{"question": "a", "gold": "b", "skills": ["1", "2", "3", "4", "5", "6"]}', "`skills`: "),
        (b'{"question": "' + b"x" * 20_001 + b'", "gold": "b"}', "20001 characters, more than 20000"),
        (b'{"question": "' + b"x" * 5_000_000 + b'", "gold": "b"}', "5000000 characters, more than 20000"),
        (b'{"question": "a", "gold": "b", "skills": ["two\\nlines"]}', "`skills.0`: is no name of one line"),
        (b'{"question": "a", "gold": "b", "\\u001b[2J\\u202e": 1}', r"`\x1b[2J\u202e`: Extra inputs"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    examples, (bad,) = read_lines(tmp_path, "examples", OWN_ROW, b"", line)
    assert len(examples) == 1
    assert bad.source == "rows.jsonl:3" and reason in bad.reason and len(bad.text) <= 200
    assert (bad.reason + bad.text).isprintable()


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    examples, bad = read_lines(tmp_path_factory.mktemp("rows"), "examples", OWN_ROW, *lines)
    assert len(examples) + len(bad) == 1 + sum(bool(line.strip()) for line in lines)


def test_too_many_bad_rows_stop_with_the_first_five(tmp_path: Path) -> None:
    rows = [OWN_ROW] * 10 + [{"question": "no gold"}] * 7
    with pytest.raises(DataError, match=r"at most 40.0% .*got 7 of 17") as error:
        read_lines(tmp_path, "examples", *rows, max_bad_share=0.4)
    assert "rows.jsonl:15: column `gold` is missing" in str(error.value)
    assert "rows.jsonl:16" not in str(error.value)
    examples, bad = read_lines(tmp_path, "examples", *rows, max_bad_share=0.5)
    assert (len(examples), len(bad)) == (10, 7)


def test_a_file_without_a_single_usable_row_stops(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got 1 of 1"):
        read_lines(tmp_path, "gsm8k", [GSM8K_ROW])


@pytest.mark.parametrize(
    ("format_", "content", "message"),
    [
        ("svamp", None, "No such file"),
        ("gsm8k", None, "No such file"),
        ("svamp", b"", "not JSON"),
        ("svamp", b"[]", "got an empty file"),
        ("examples", b"\n\n", "got an empty file"),
        ("svamp", b"[" * 100_000, "nested too deeply"),
        ("svamp", b'{"rows": []}', "expected a JSON list of rows, got dict"),
        ("svamp", b"[\xff]", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_what_the_config_says_stops(
    tmp_path: Path, format_: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / "data"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_examples(config(path, format_))
    assert str(path) in str(error.value)


def test_the_fingerprint_follows_the_contents_of_both_files(tmp_path: Path) -> None:
    data, labels, copy = (tmp_path / name for name in ("data", "labels", "copy"))
    for path in (data, copy):
        path.write_text("a")
    labels.write_text("b")
    first = fingerprint(config(data, "gsm8k"))
    assert len(first) == len(hashlib.sha256().hexdigest())
    assert fingerprint(config(copy, "gsm8k")) == first
    assert fingerprint(config(data, "gsm8k", skill_labels=labels)) != first
    data.write_text("c")
    assert fingerprint(config(data, "gsm8k")) != first
    with pytest.raises(DataError, match="No such file"):
        fingerprint(config(tmp_path / "missing", "gsm8k"))


@needs_real_data
def test_the_real_svamp() -> None:
    examples, bad = read_examples(config(REAL / "svamp" / "SVAMP.json", "svamp"))
    # Its gold answer is wrong: 4 - 2 + 3 is not 1.
    assert [(b.source, b.reason) for b in bad] == [("SVAMP.json:680", "`Equation` gives 5, but `Answer` says 1.0")]
    assert len(examples) == len({e.id for e in examples}) == 999
    assert Counter(e.skills[0] for e in examples) == {
        "Subtraction": 531,
        "Addition": 194,
        "Common-Division": 166,
        "Multiplication": 108,
    }
    assert Counter(e.difficulty for e in examples) == {1: 763, 2: 236}
    assert all(e.solutions[0].endswith(f"= {e.gold}") for e in examples if e.solutions)
    assert 90 <= len({e.group for e in examples}) <= 110


@needs_real_data
def test_the_real_gsm8k() -> None:
    labels = REAL / "skills" / "gsm8k_train_skills.json"
    examples, bad = read_examples(config(REAL / "gsm8k" / "train.jsonl", "gsm8k", skill_labels=labels))
    assert bad == [] and len(examples) == 7473
    assert len({e.skills for e in examples}) == 14 and all(e.skills != (UNLABELLED,) for e in examples)
    assert all("<<" not in e.solutions[0] and "####" not in e.solutions[0] for e in examples)
    assert all(e.gold.lstrip("-").replace(".", "", 1).isdigit() for e in examples)
