import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curriculum.extraction import (
    MAX_TAIL,
    answer_kind,
    extract_cut,
    extract_lenient,
    extract_strict,
    format_target,
)
from curriculum.numerals import find_number, parse_number
from curriculum.records import Example

CASES = Path(__file__).parent / "cases"
KINDS = ("number", "expression", "letter", "text")
MEGABYTE = 1 << 20


def cases(name):
    rows = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(row, id=f"{row['kind']}:{row['text'][:40]!r}") for row in rows]


@pytest.mark.parametrize("row", cases("extraction"))
def test_a_finished_text_is_read_as_the_table_says(row):
    assert extract_strict(row["text"]) == row["strict"]
    assert extract_lenient(row["text"], row["kind"]) == row["lenient"]


@pytest.mark.parametrize("row", cases("extraction_cut"))
def test_a_cut_text_gives_only_a_complete_marked_answer(row):
    assert extract_cut(row["text"], row["kind"]) == row["found"]


def test_the_target_ends_with_the_answer_line_and_is_read_back():
    assert format_target("7", None) == "Answer: 7"
    assert format_target("7", "3 + 4 = 7") == "3 + 4 = 7\nAnswer: 7"
    assert extract_strict(format_target("7", "3 + 4 = 7")) == "7"


@pytest.mark.parametrize(
    ("grader", "metadata", "kind"),
    [
        ("numeric", {}, "number"),
        ("math", {}, "expression"),
        ("choice", {}, "letter"),
        ("exact", {}, "text"),
        ("reasoning_gym", {"answer_kind": "number"}, "number"),
        ("reasoning_gym", {"answer_kind": "text"}, "text"),
    ],
)
def test_the_kind_of_answer_follows_the_grader(grader, metadata, kind):
    assert answer_kind(Example.make(question="q", gold="1", grader=grader, source="t", metadata=metadata)) == kind


@given(st.text(), st.sampled_from(KINDS))
@example("Answer: \ud800", "text")
@example("\\frac{٣}{٤} ٣/٤ ²", "number")
def test_no_text_makes_extraction_raise(text, kind):
    for found in (extract_strict(text), extract_lenient(text, kind), extract_cut(text, kind)):
        assert found != ""


PIECES = ["Answer: ", "answer is ", "\\boxed{", "}", "#### ", "=", "$", "\n", ". ", "1", "2,345", "/", "-", "B", "**"]
MARKUP = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
BRACKETS = ["[", "{", "(", "\\boxed{", "\\(", "\\frac{1}{", "$"]
HEAPS = [*BRACKETS, "x=", "9", "9,999,", "9 ", "9/", "-", "Answer:", "answer is ", "*", " ", ".", "\n", "A "]


@given(MARKUP, st.sampled_from(KINDS))
def test_no_heap_of_marks_makes_extraction_raise(text, kind):
    for found in (extract_lenient(text, kind), extract_cut(text, kind)):
        assert found != ""


@given(MARKUP)
def test_a_finished_answer_line_is_read_whatever_stands_above_it(above):
    assert extract_lenient(f"{above}\nAnswer: 41", "number") == "41"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", HEAPS)
def test_megabytes_are_read_by_their_end_only(unit, kind):
    text = unit * (MEGABYTE // len(unit))
    assert extract_strict(text) is None
    assert extract_lenient(text + "\nAnswer: A 7", kind) == {"number": "7", "letter": "A"}.get(kind, "A 7")
    for found in (extract_lenient(text, kind), extract_cut(text, kind)):
        assert found is None or len(found) <= MAX_TAIL


def test_an_answer_line_longer_than_what_is_looked_at_is_not_found():
    assert extract_strict("Answer: " + "9" * MAX_TAIL) is None
    assert extract_strict("Answer: " + "9" * (MAX_TAIL - 8)) is not None


def test_a_number_too_long_to_compare_is_no_number():
    assert parse_number("1" * 50) == int("1" * 50)
    assert parse_number("1" * 51) is None
    assert parse_number("1e50") == 10**50
    assert parse_number("1e51") is None
    assert parse_number("1/0") is None


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**6))
def test_a_fraction_is_found_and_read_exactly(value):
    assert parse_number(str(value)) == value
    assert parse_number(find_number(f"so it is {value} in all", last=True)) == value


@given(st.integers(-(10**15), 10**15))
def test_a_number_is_the_same_with_separators_spaces_and_a_full_stop(value):
    for written in (f"{value:,}", f" {value} ", f"{value}.", f"{value:,}.00", f"${value:,}", f"{value} apples"):
        assert parse_number(written) == value
        assert parse_number(find_number(f"It is {written}", last=True)) == value
