"""The bench's estimator against hand-made numbers and against simulated trainings with a known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from curriculum.crossed import Right, calibration, difference, planned_detectable, seed_scatter

MEAN, ITEM_SD, WAY_ITEM_SD, GAIN = -0.5, 1.0, 0.5, 0.2


def ways(
    generator: np.random.Generator, trainings: list[int], items: int, seed_sd: float, gain: float = GAIN
) -> list[Right]:
    """A probit world; the second way is better by `gain` on the latent scale."""
    item = generator.normal(0, ITEM_SD, items)
    made = []
    for number, count in enumerate(trainings):
        shared = MEAN + gain * (number == 1) + item + generator.normal(0, WAY_ITEM_SD, items)
        latent = shared + generator.normal(0, seed_sd, (count, 1)) + generator.normal(0, 1, (count, items))
        made.append((latent > 0).astype(float))
    return made


def truth(seed_sd: float, gain: float = GAIN) -> float:
    total = np.sqrt(ITEM_SD**2 + WAY_ITEM_SD**2 + seed_sd**2 + 1)
    return float(norm.cdf((MEAN + gain) / total) - norm.cdf(MEAN / total))


@pytest.mark.parametrize(
    ("trainings", "seed_sd"), [([4, 2, 2], 0.0), ([4, 2, 2], 0.1), ([8, 4], 0.1), ([12, 6, 6], 0.2)]
)
def test_intervals_hold_the_truth_about_95_times_in_100(trainings: list[int], seed_sd: float) -> None:
    generator = np.random.default_rng(7)
    inside = below = 0
    for _ in range(400):
        made = ways(generator, trainings, 200, seed_sd)
        found = difference(made[1], made[0], seed_scatter(made))
        assert found.low is not None and found.high is not None
        inside += found.low <= truth(seed_sd) <= found.high
        below += found.low > truth(seed_sd)
    assert 0.925 <= inside / 400 <= 0.99, "binomial error of 400 draws at 95 %: 1.1 points"
    assert below / 400 <= 0.045


def test_an_interval_over_items_alone_would_be_called_significant_too_often() -> None:
    """Why the seeds are in it: what a paired comparison of two adapters would claim of two equal strategies."""
    generator = np.random.default_rng(11)
    naive = wrong = 0
    for _ in range(300):
        one, other = ways(generator, [4, 4], 1000, 0.15, gain=0.0)
        per_item = other[0] - one[0]
        naive += abs(per_item.mean()) > 1.96 * per_item.std() / np.sqrt(len(per_item))
        wrong += difference(other, one, seed_scatter([one, other])).p_value <= 0.05
    assert naive / 300 > 0.3
    assert wrong / 300 < 0.1


def test_by_hand() -> None:
    way = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], float)
    control = np.array([[0, 1, 0, 0], [0, 0, 0, 1]], float)
    scatter = seed_scatter([way, control])
    # Accuracies 3/4, 2/4 and 1/4, 1/4: squares 2·(1/8)² over 2 degrees of freedom.
    assert scatter.observed == pytest.approx(1 / 64)
    # Residuals of way: ±1/8 six times and ±3/8 twice over; of control: ±1/2 on the items 2 and 4.
    assert scatter.by_items == pytest.approx((6 / 64 + 2 * 9 / 64 + 4 / 4) / 6 / 4)
    assert (scatter.df, scatter.items_df) == (2, 6)
    found = difference(way, control, scatter)
    per_item = np.array([1, 0, 0, 0.5])
    assert found.difference == pytest.approx(0.375)
    assert found.standard_error**2 == pytest.approx(per_item.var(ddof=1) / 4), "a negative seed variance counts as 0"
    assert scatter.true_sd == 0.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 5), st.integers(2, 30))
def test_signs_orders_and_shifts(seed: int, trainings: int, controls: int, items: int) -> None:
    generator = np.random.default_rng(seed)
    way, control = (generator.integers(0, 2, (n, items)).astype(float) for n in (trainings, controls))
    scatter = seed_scatter([way, control])
    one, other = difference(way, control, scatter), difference(control, way, scatter)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.p_value, one.standard_error) == pytest.approx((other.p_value, other.standard_error))
    order = generator.permutation(items)
    shuffled = difference(way[::-1, order], control[:, order], seed_scatter([control[:, order], way[:, order]]))
    assert shuffled.difference == pytest.approx(one.difference)
    assert shuffled.standard_error == pytest.approx(one.standard_error)
    if one.low is not None and one.high is not None:
        assert one.low <= one.difference <= one.high
        assert (one.p_value <= 0.05) == (one.low > 0 or one.high < 0) or one.p_value == pytest.approx(0.05)


def test_more_seeds_more_items_and_less_noise_see_smaller_differences() -> None:
    usual = planned_detectable(4, 8, 10, 1700, 0.2, 0.02)
    assert 0.02 < usual < 0.05
    assert planned_detectable(8, 16, 22, 1700, 0.2, 0.02) < usual
    assert planned_detectable(4, 8, 10, 17000, 0.2, 0.02) < usual
    assert planned_detectable(4, 8, 10, 1700, 0.2, 0.0) < usual
    assert planned_detectable(2, 4, 1, 1700, 0.2, 0.02) > 2 * usual, "one degree of freedom is hardly any"


def test_a_difference_of_the_size_that_is_promised_is_seen_in_about_80_of_100_benches() -> None:
    generator, trainings, items, seed_sd, gain = np.random.default_rng(3), [8, 4, 4], 400, 0.08, 0.23
    sizes, seen = [], 0
    for _ in range(300):
        made = ways(generator, trainings, items, seed_sd, gain)
        found = difference(made[1], made[0], seed_scatter(made))
        sizes.append(found.detectable)
        seen += found.p_value <= 0.05
    assert np.median(sizes) == pytest.approx(truth(seed_sd, gain), rel=0.15), "or the gain is another"
    assert 0.7 < seen / 300 < 0.9


def test_one_training_of_each_way_has_no_interval() -> None:
    with pytest.raises(ValueError, match="expected two trainings of some way"):
        seed_scatter([np.ones((1, 5)), np.ones((1, 5))])


def test_nothing_varies_nothing_is_claimed() -> None:
    same = np.ones((3, 10))
    found = difference(same, same, seed_scatter([same, same]))
    assert (found.low, found.high, found.p_value, found.detectable) == (None, None, 1.0, 0.0)


def test_random_against_random_is_seldom_different() -> None:
    generator = np.random.default_rng(5)
    different = splits = 0
    for _ in range(30):
        even, other = ways(generator, [8, 4], 200, 0.1)
        made = calibration(even, [other])
        assert made.splits == 35
        different, splits = different + made.different, splits + made.splits
    assert 0.01 < different / splits < 0.1


def test_many_trainings_are_halved_by_a_sample_that_is_always_the_same() -> None:
    even = ways(np.random.default_rng(1), [16], 20, 0.1)[0]
    first, again = calibration(even, []), calibration(even, [])
    assert first == again and first.splits == 2000
