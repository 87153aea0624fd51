"""The curves say what the answers show, no more, and keep to their grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curriculum.learning_curves import (
    Array,
    CurvePrior,
    Evidence,
    LearningCurves,
    expected_half,
    fit_curves,
)

ANSWERS = 100.0


def evidence(rates: list[list[float]], rows: list[list[float]], answers: float = ANSWERS) -> Evidence:
    """Noise-free answers: each skill's accuracies at its measuring points, and the rows between."""
    correct = answers * np.array(rates)
    return Evidence(correct, np.full_like(correct, answers), np.array(rows, float).reshape(len(rates), -1))


def fitted(*rates: list[float], rows: float = 50.0, half: float = 50.0, **more: object) -> LearningCurves:
    each = [[rows] * (len(rates[0]) - 1)] * len(rates)
    return fit_curves(evidence(list(rates), each), half, **more)  # type: ignore[arg-type]


def gains(curves: LearningCurves, rows: float = 50.0) -> Array:
    return curves.gain(np.full(len(curves.rows), rows))


def test_half_is_between_a_hundred_rows_and_half_of_an_even_share() -> None:
    assert expected_half(480, 5, 20) == pytest.approx((100 * 60) ** 0.5)


def test_a_skill_that_rose_is_expected_to_rise_and_one_that_did_not_is_not() -> None:
    curves = fitted([0.1, 0.3, 0.45], [0.1, 0.1, 0.1])
    rising, still = gains(curves)
    assert rising > 0.05 > 0.02 > still > 0
    assert curves.flat[0] < 0.01 < curves.flat[1]
    assert curves.accuracy() == pytest.approx([0.45, 0.1], abs=0.03)


def test_more_answers_narrow_the_range() -> None:
    rates, rows = [[0.1, 0.3, 0.5]], [[50.0, 50.0]]
    few, many = (fit_curves(evidence(rates, rows, n), 50.0).gain_range(np.array([50.0])) for n in (10, 1000))
    assert many[1] - many[0] < few[1] - few[0]


def test_the_skills_of_a_run_teach_what_a_low_start_means() -> None:
    """The belief of being flat is fitted to all skills of a band of start levels."""
    gone, unknown = [0.03, 0.03, 0.03, 0.03], [0.03, 0.03, 0.03, 0.03]
    among_the_flat = fitted(*[gone] * 8, unknown)
    among_the_rising = fitted(*[[0.03, 0.3, 0.5, 0.6]] * 8, unknown)
    assert among_the_flat.flat[-1] > among_the_rising.flat[-1]


def test_fewer_answers_than_five_say_nothing() -> None:
    few = Evidence(np.array([[4.0, 0.0]]), np.array([[4.0, 4.0]]), np.array([[50.0]]))
    none = Evidence(np.zeros((1, 2)), np.zeros((1, 2)), np.array([[50.0]]))
    assert np.array_equal(fit_curves(few, 50.0).posterior, fit_curves(none, 50.0).posterior)


def test_a_flat_start_and_no_rows_leave_the_prior_of_shapes() -> None:
    prior = CurvePrior()
    assert fitted([0.3]).flat == pytest.approx([prior.flat])


def test_what_was_gained_and_lost_again_is_forgetting() -> None:
    up_and_down = evidence([[0.1, 0.6, 0.3, 0.15]] * 3, [[100, 0, 0]] * 3)
    kept = evidence([[0.1, 0.6, 0.6, 0.6]] * 3, [[100, 0, 0]] * 3)
    decays = (0.0, 0.15, 0.45)
    assert fit_curves(up_and_down, 50.0, decays=decays).decay > 0
    assert fit_curves(kept, 50.0, decays=decays).decay == 0


def test_mastered_needs_certainty() -> None:
    high = fit_curves(evidence([[0.95], [0.95], [0.8]], []), 50.0)
    assert high.mastered().tolist() == [True, True, False]
    unsure = Evidence(np.array([[5.0]]), np.array([[5.0]]), np.zeros((1, 0)))
    assert not fit_curves(unsure, 50.0).mastered().any()


COUNTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=3)


@settings(max_examples=40)
@given(st.lists(COUNTS, min_size=1, max_size=5), st.floats(0, 500), st.sampled_from([0, 4]))
def test_a_posterior_is_a_distribution_and_its_range_brackets_what_is_likely(
    counts: list[list[tuple[int, int]]], rows: float, samples: int
) -> None:
    both = np.array(counts, float)
    seen = Evidence(both[:, :, 0], both.sum(axis=2), np.full((len(counts), 2), 20.0))
    curves = fit_curves(seen, 50.0, samples)
    assert curves.posterior.sum(axis=(1, 2)) == pytest.approx(np.ones(len(counts)))
    new = np.full(len(counts), rows)
    low, high = curves.gain_range(new)
    assert (low <= high).all() and (low >= 0).all() and (high <= 1).all()
    assert (curves.gain(new) >= -1e-12).all() and (curves.gain(new) <= 1).all()
    assert (curves.gain(new + 10) >= curves.gain(new) - 1e-12).all(), "more rows never lose"
    assert ((curves.flat >= 0) & (curves.flat <= 1 + 1e-9)).all()


@settings(max_examples=20)
@given(st.permutations(range(4)))
def test_the_order_of_skills_is_irrelevant(order: list[int]) -> None:
    rates = np.array([[0.0, 0.1], [0.1, 0.4], [0.5, 0.5], [0.1, 0.4]])
    one = fitted(*rates.tolist())
    other = fitted(*rates[order].tolist())
    assert other.posterior == pytest.approx(one.posterior[order], abs=1e-12)
