import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.records import Rate
from curriculum.statistics import benjamini_hochberg, mcnemar_p, paired_change, wilson

ANSWERS = st.dictionaries(st.integers(0, 30).map(str), st.booleans())


def test_no_items_have_no_rate() -> None:
    assert wilson(0, 0) == Rate(n=0, correct=0, rate=None, low=None, high=None)


def test_wilson_gives_the_textbook_interval() -> None:
    rate = wilson(81, 263)  # Newcombe 1998, table I
    assert (rate.low, rate.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError):
        wilson(correct, n)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate(counts: tuple[int, int]) -> None:
    rate = wilson(*counts)
    assert rate.rate is not None and rate.low is not None and rate.high is not None
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert rate.low < rate.high


def test_a_change_counts_only_items_common_to_both() -> None:
    change = paired_change({"a": True, "b": False, "c": False}, {"a": False, "b": True, "d": True})
    assert (change.n, change.gained, change.lost, change.change) == (2, 1, 1, 0.0)


def test_no_common_items_have_no_change() -> None:
    change = paired_change({"a": True}, {"b": True})
    assert (change.n, change.change, change.low, change.high) == (0, None, None, None)


def test_paired_interval_gives_the_published_one() -> None:
    # Agresti & Min 2005: approval of the prime minister, 1600 people, 150 and 86 changed their mind.
    before = {str(i): i < 944 for i in range(1600)}
    after = {str(i): i < 794 or 944 <= i < 1030 for i in range(1600)}
    change = paired_change(before, after)
    assert (change.gained, change.lost) == (86, 150)
    assert (change.low, change.high) == (pytest.approx(-0.0587, abs=2e-4), pytest.approx(-0.0212, abs=2e-4))


@given(ANSWERS, ANSWERS)
def test_a_change_is_inside_its_interval_and_turns_round_with_it(
    before: dict[str, bool], after: dict[str, bool]
) -> None:
    change, back = paired_change(before, after), paired_change(after, before)
    if change.change is None or change.low is None or change.high is None:
        assert not before.keys() & after.keys()
    else:
        assert -1 <= change.low <= change.change <= change.high <= 1
        assert change.low < change.high, "an interval of no width claims certainty"
        assert (back.low, back.high) == (pytest.approx(-change.high), pytest.approx(-change.low))


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (7, 1, 18 / 256)]
)
def test_mcnemar_is_the_exact_two_sided_binomial_test(gained: int, lost: int, p: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(p)


def test_benjamini_hochberg_leaves_untested_skills_out() -> None:
    assert benjamini_hochberg([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.04),
        pytest.approx(0.04),
    ]
    assert benjamini_hochberg([None, None]) == [None, None]
    assert benjamini_hochberg([]) == []


@given(st.lists(st.none() | st.floats(0, 1), max_size=12))
def test_adjusted_p_values_never_fall(p_values: list[float | None]) -> None:
    adjusted = benjamini_hochberg(p_values)
    assert len(adjusted) == len(p_values)
    for raw, new in zip(p_values, adjusted, strict=True):
        assert new is None if raw is None else new is not None and raw <= new + 1e-12 and new <= 1


def test_importing_it_does_not_load_scipy() -> None:
    code = "import sys, curriculum.statistics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
