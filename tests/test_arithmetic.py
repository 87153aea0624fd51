"""Exact values of expressions: by hand, and against Python's fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.arithmetic import MOST_CHARACTERS, exact_value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("985 + 384 * 129", 50521),
        ("7 * 4 - 0 * 0 - 2 - 10", 16),
        ("-( 2 - 5 ) / 2", Fraction(3, 2)),
        ("4.4439 + 1.2537 - 7.8993", Fraction("-2.2017")),
        ("1 / 0", None),
        ("2 ** 9", None),
        ("9 // 2", None),
        ("__import__('os')", None),
        ("True", None),
        ("1 +", None),
        ("", None),
        ("(" * 400 + "1" + ")" * 400, None),
        ("1" * (MOST_CHARACTERS + 1), None),
    ],
)
def test_values(expression: str, value: Fraction | int | None) -> None:
    assert exact_value(expression) == value


@given(
    st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(-50, 50)), max_size=8),
    st.integers(-50, 50),
)
def test_values_are_those_of_fractions(rest: list[tuple[str, int]], first: int) -> None:
    written = " ".join([f"{first}", *(f"{operator} {number}" for operator, number in rest)])
    exact = " ".join([f"Fraction({first})", *(f"{operator} Fraction({number})" for operator, number in rest)])
    try:
        expected = eval(exact)
    except ZeroDivisionError:
        expected = None
    assert exact_value(written) == expected
