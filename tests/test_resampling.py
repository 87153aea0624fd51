"""Changes of pass rates: paired by item, resampled by item, none where resamples say nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum.records import SkillLabel
from curriculum.resampling import drawn_changes, mean_change
from curriculum.round_records import ItemSignals
from curriculum.statistics import mcnemar_p

DIFFERENCES = st.lists(st.integers(-8, 8).map(lambda eighths: eighths / 8), min_size=1, max_size=13)


def signals(adapter: str, *correct: int, samples: int = 8) -> list[ItemSignals]:
    return [
        ItemSignals(example_id=f"i{n}", adapter=adapter, samples=samples, correct=c, entropy=None)
        for n, c in enumerate(correct)
    ]


def labels(*skills: tuple[str, ...]) -> dict[str, SkillLabel]:
    return {
        f"i{n}": SkillLabel(example_id=f"i{n}", teacher="t", prompt_hash="", skills=s, difficulty=1, reason="")
        for n, s in enumerate(skills)
    }


@given(DIFFERENCES)
def test_a_mean_change_lies_in_its_interval_and_turns_round(differences: list[float]) -> None:
    made, back = mean_change(np.array(differences)), mean_change(-np.array(differences))
    assert made.mean == pytest.approx(np.mean(differences)) and back.mean == pytest.approx(-made.mean)
    assert made.p_value == pytest.approx(back.p_value) and made.p_value is not None and 0 < made.p_value <= 1
    if made.low is not None and made.high is not None:
        assert len(differences) >= 10
        assert made.low <= made.mean <= made.high


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=13))
def test_with_one_answer_an_item_it_is_the_exact_mcnemar_test(differences: list[float]) -> None:
    p_value = mean_change(np.array(differences)).p_value
    assert p_value == pytest.approx(mcnemar_p(differences.count(1.0), differences.count(-1.0)))


@pytest.mark.parametrize("differences", [[0.5] * 9, [0.25] * 20, [0.0] * 20, [1.0, -1.0]])
def test_where_resamples_say_nothing_there_is_no_interval(differences: list[float]) -> None:
    made = mean_change(np.array(differences))
    assert (made.low, made.high) == (None, None)


def test_intervals_hold_the_true_change_mostly() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        before, after = random.beta(1, 2, 18), random.beta(2, 2, 18)
        drawn = random.binomial(8, after) / 8 - random.binomial(8, before) / 8
        made = mean_change(drawn)
        assert made.low is not None and made.high is not None
        held += made.low <= 1 / 2 - 1 / 3 <= made.high
    assert 0.88 < held / 200 <= 1


def test_only_items_with_samples_of_both_count_for_every_skill_they_need() -> None:
    of_item = labels(("add",), ("add", "sort"), ("sort",), ("sort",))
    after = signals("a", 8, 4, 2, 0)[:3] + signals("a", 0, 0, 0, 0, samples=0)[3:]
    made = drawn_changes(signals("base", 0, 4, 4, 8), after, of_item)
    assert [(d.skill, d.items, d.before, d.after, d.change) for d in made] == [
        ("add", 2, 0.25, 0.75, 0.5),
        ("sort", 2, 0.5, 0.375, -0.125),
    ]
    assert all(d.low is None and d.p_value == 1.0 for d in made)


def test_p_values_are_adjusted_for_the_number_of_skills() -> None:
    of_item = labels(*[("add",)] * 12, *[("sort",)] * 12)
    made = drawn_changes(signals("base", *[0] * 24), signals("a", *range(1, 9), *[8] * 4, *[0] * 12), of_item)
    assert [d.p_value for d in made] == [pytest.approx(2 * 2 / 2**12), 1.0]
    assert made[0].low is not None and made[0].low > 0


def test_no_items_in_common_change_nothing() -> None:
    assert drawn_changes([], signals("a", 1), labels(("add",))) == ()
