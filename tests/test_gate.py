"""The gate: its exact test, its error rates, and what it decides."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from samples import grade
from scipy.stats import binomtest

from curriculum.config import GateConfig
from curriculum.errors import StudentError
from curriculum.gate import baseline, decide, skill_changes, stopped
from curriculum.gate_odds import detectable_gain, false_accept_rate, gate_p_value, level_used, power
from curriculum.records import Grade, SkillLabel, Verdict

counts = st.integers(0, 60)
noises = st.sampled_from([0.0, 0.005, 0.02, 0.05, 0.2])
C, W, F = Verdict.CORRECT, Verdict.WRONG, Verdict.FAILED


def grades(verdicts: Sequence[Verdict], adapter: str) -> list[Grade]:
    return [grade(f"i{n}", adapter, verdict) for n, verdict in enumerate(verdicts)]


def labels(skills: Sequence[tuple[str, ...]]) -> dict[str, SkillLabel]:
    return {
        f"i{n}": SkillLabel(example_id=f"i{n}", teacher="t", prompt_hash="", skills=s, difficulty=1, reason="")
        for n, s in enumerate(skills)
    }


ONE_SKILL = labels([("add",)] * 100)


@given(counts, counts, st.integers(0, 300))
def test_without_seed_noise_it_is_the_exact_sign_test(gained: int, lost: int, same: int) -> None:
    assume(gained + lost > 0)
    expected = binomtest(gained, gained + lost, alternative="greater").pvalue
    assert gate_p_value(gained, lost, gained + lost + same, 0.0) == pytest.approx(expected, abs=1e-12)


@given(counts, counts, st.integers(0, 300), noises)
def test_more_gained_never_raises_p(gained: int, lost: int, same: int, noise: float) -> None:
    assume(gained + lost > 0 and lost > 0)
    n = gained + lost + same
    assert gate_p_value(gained + 1, lost - 1, n, noise) <= gate_p_value(gained, lost, n, noise) + 1e-12


@given(counts, counts, st.integers(0, 300), noises)
def test_gains_and_losses_are_treated_alike(gained: int, lost: int, same: int, noise: float) -> None:
    assume(gained > 0)
    n = gained + lost + same
    # P(W ≥ g) and P(W ≥ d − g + 1) = P(losses ≤ g − 1 seen from the other side) sum to 1 under a symmetric null.
    assert gate_p_value(gained, lost, n, noise) + gate_p_value(lost + 1, gained - 1, n, noise) == pytest.approx(1)


@given(counts, counts, st.integers(0, 300), noises)
def test_seed_noise_never_makes_a_gain_more_convincing(gained: int, lost: int, same: int, noise: float) -> None:
    assume(gained > lost)
    n = gained + lost + same
    quiet = gate_p_value(gained, lost, n, 0.0)
    assume(quiet < 0.1)
    assert gate_p_value(gained, lost, n, noise) >= quiet - 1e-9


def test_p_value_agrees_with_a_simulated_null() -> None:
    random = np.random.default_rng(0)
    n, discordant, noise = 400, 80, 0.02
    chance = np.clip(0.5 + random.normal(0, noise, 400_000) / (2 * discordant / n), 0, 1)
    simulated = np.mean(random.binomial(discordant, chance) >= 50)
    assert gate_p_value(50, 30, n, noise) == pytest.approx(simulated, abs=0.001)


def test_nothing_discordant_is_no_evidence() -> None:
    assert gate_p_value(0, 0, 100, 0.02) == 1.0


@given(
    st.integers(10, 700), st.floats(0.02, 0.6), st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([0.0, 0.02, 0.2])
)
def test_false_accepts_stay_within_alpha(n: int, share: float, alpha: float, noise: float) -> None:
    assert 0 <= false_accept_rate(n, share, alpha, noise) <= alpha


@given(st.integers(0, 60), st.integers(0, 300), st.sampled_from([0.001, 0.0167, 0.05]), noises)
def test_a_level_is_used_up_to_the_last_p_value_below_it(
    discordant: int, same: int, level: float, noise: float
) -> None:
    n = discordant + same
    used = level_used(discordant, n, level, noise)
    p_values = [gate_p_value(g, discordant - g, n, noise) for g in range(discordant + 1)]
    assert used == pytest.approx(max((p for p in p_values if p <= level), default=0.0))


def test_unmodelled_seed_noise_is_accepted_too_often() -> None:
    assert false_accept_rate(400, 0.2, 0.05, 0.0, true_sd=0.03) > 0.14
    assert false_accept_rate(400, 0.2, 0.05, 0.03, true_sd=0.0) < 0.005
    assert false_accept_rate(400, 0.0, 0.05, 0.02) == 0


@pytest.mark.parametrize(("n", "expected"), [(128, 0.29), (250, 0.50), (400, 0.69), (600, 0.85)])
def test_power_for_five_points(n: int, expected: float) -> None:
    assert power(np.array([0.05]), n, 0.2, 0.05, 0.0)[0] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_detectable_gain_has_the_power_asked_for(noise: float) -> None:
    gain = detectable_gain(400, 0.2, 0.05, noise)
    assert gain is not None
    assert power(np.array([gain]), 400, 0.2, 0.05, noise)[0] == pytest.approx(0.8, abs=1e-3)
    assert detectable_gain(800, 0.2, 0.05, noise) < gain


def test_too_few_items_detect_nothing() -> None:
    assert detectable_gain(20, 0.1, 0.05, 0.02) is None
    assert detectable_gain(400, 0.0, 0.05, 0.02) is None


def test_a_clear_gain_is_accepted() -> None:
    before, after = grades([C] * 10 + [W] * 90, "base"), grades([C] * 50 + [W] * 50, "a")
    made = decide(1, "base", "a", before, after, ONE_SKILL, GateConfig())
    assert made.decision == "accepted"
    assert made.change is not None and (made.change.gained, made.change.lost) == (40, 0)
    assert made.p_value is not None and made.p_value <= 0.05
    assert made.false_accept_rate is not None and made.false_accept_rate <= 0.05
    assert "100 gate items" in made.rule and "2 points" in made.rule


def test_undecided_keeps_the_current_adapter() -> None:
    before, after = grades([C] * 10 + [W] * 90, "base"), grades([C] * 12 + [W] * 88, "a")
    made = decide(1, "base", "a", before, after, ONE_SKILL, GateConfig())
    assert made.decision == "rolled_back"
    assert "undecided" in made.reason


def test_the_same_answers_are_rolled_back() -> None:
    same = grades([C] * 10 + [W] * 90, "base")
    made = decide(1, "base", "a", same, same, ONE_SKILL, GateConfig())
    assert (made.decision, made.p_value, made.detectable_gain) == ("rolled_back", 1.0, None)


def test_a_rise_within_seed_noise_is_rolled_back() -> None:
    before, after = grades([C] * 5 + [W] * 95, "base"), grades([W] + [C] * 12 + [W] * 87, "a")
    quiet = decide(1, "base", "a", before, after, ONE_SKILL, GateConfig(retrain_sd=0.0))
    noisy = decide(1, "base", "a", before, after, ONE_SKILL, GateConfig(retrain_sd=0.05))
    assert (quiet.decision, noisy.decision) == ("accepted", "rolled_back")


def test_a_fallen_skill_is_named_and_rolls_back() -> None:
    by_item = labels([("add",)] * 80 + [("sort",)] * 20)
    before, after = grades([W] * 80 + [C] * 20, "base"), grades([C] * 80 + [W] * 20, "a")
    made = decide(2, "base", "a", before, after, by_item, GateConfig())
    assert made.decision == "rolled_back"
    assert "skill sort fell" in made.reason and "skill add" not in made.reason


@pytest.mark.parametrize(("lost", "vetoed"), [(5, False), (6, True)])
def test_a_skill_falls_at_five_percent_of_falls(lost: int, vetoed: bool) -> None:
    # Two skills: the two-sided p of 2 / 2^lost is doubled, 0.125 and 0.0625.
    by_item = labels([("add",)] * 80 + [("sort",)] * 20)
    before, after = grades([W] * 80 + [C] * 20, "base"), grades([W] * 80 + [W] * lost + [C] * (20 - lost), "a")
    made = decide(2, "base", "a", before, after, by_item, GateConfig())
    assert ("skill sort fell" in made.reason) == vetoed
    (sort,) = (s for s in made.skills if s.skill == "sort")
    assert sort.p_value == pytest.approx(2 * 2 / 2**lost)


def test_items_that_failed_in_either_leave_the_comparison() -> None:
    before = grades([F, C] + [W] * 98, "base")
    after = grades([C, F] + [C] * 98, "a")
    made = decide(1, "base", "a", before, after, ONE_SKILL, GateConfig())
    assert (made.before.n, made.after and made.after.n, made.change and made.change.n) == (98, 98, 98)


def test_too_many_failed_items_decide_nothing() -> None:
    before, after = grades([C] * 100, "base"), grades([F] * 11 + [C] * 89, "a")
    with pytest.raises(StudentError, match="of 100 items, got 89"):
        decide(3, "base", "a", before, after, ONE_SKILL, GateConfig())


def test_an_item_counts_for_each_of_its_skills() -> None:
    made = skill_changes({"i0": True, "i1": False}, {"i0": True, "i1": True}, labels([("add", "sort"), ("sort",)]))
    assert [(s.skill, s.before.n, s.after.correct) for s in made] == [("add", 1, 1), ("sort", 2, 2)]


def test_baseline_and_stop_have_rates_and_no_candidate() -> None:
    answered = grades([C] * 10 + [W] * 90, "base")
    first, last = baseline(0, "base", answered, ONE_SKILL), stopped(4, "base", answered, ONE_SKILL, "all mastered")
    assert (first.decision, last.decision, last.reason) == ("baseline", "stopped", "all mastered")
    assert (first.before.correct, first.after, first.change, first.p_value) == (10, None, None, None)
    assert first.skills[0].after.rate is None
    assert first.skills[0].p_value is None


def test_p_values_are_adjusted_for_the_number_of_skills() -> None:
    by_item = labels([("add",)] * 6 + [("sort",)] * 6)
    before = {f"i{n}": False for n in range(12)}
    after = {f"i{n}": n < 6 for n in range(12)}
    add, sort = skill_changes(before, after, by_item)
    assert add.p_value == pytest.approx(2 * 2 / 2**6)  # 2 / 2^6 alone, doubled for two skills
    assert sort.p_value == 1.0


def test_cells_too_small_for_any_test_burden_no_other() -> None:
    by_item = {
        id_: label.model_copy(update={"difficulty": 1 if n < 6 else 2})
        for n, (id_, label) in enumerate(labels([("add",)] * 11).items())
    }
    before, after = dict.fromkeys(by_item, False), dict.fromkeys(by_item, True)
    easy, hard = skill_changes(before, after, by_item, by_difficulty=True)
    assert (easy.skill, easy.difficulty, easy.before.n, easy.p_value) == ("add", 1, 6, pytest.approx(2 / 2**6))
    assert (hard.difficulty, hard.change.gained, hard.p_value) == (2, 5, None)
    (whole,) = skill_changes(before, after, by_item)
    assert whole.difficulty is None and "difficulty" not in whole.model_dump()
