"""Levels of a run's tests: together never more than alpha until a seed is accepted."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gate import ONE_SKILL, C, W, grades

from curriculum.config import GateConfig
from curriculum.gate import decide
from curriculum.gate_odds import level_used
from curriculum.looks import Look, next_look
from curriculum.round_records import GateDecision

CONFIG = GateConfig()


def decisions(
    accepted: Sequence[bool], rounds: Sequence[int], config: GateConfig = CONFIG
) -> tuple[list[GateDecision], list[Look]]:
    """The decisions of rounds that were accepted or not, with the last round planned at each, and their looks."""
    made: list[GateDecision] = []
    looks = []
    before = grades([C] * 10 + [W] * 90, "base")
    for round_, (kept, last) in enumerate(zip(accepted, rounds, strict=True), 1):
        look = next_look(round_, last, config, made)
        after = grades([C] * 60 + [W] * 40 if kept else [W] * 5 + [C] * 11 + [W] * 84, "a")
        made.append(decide(round_, "base", "a", before, after, ONE_SKILL, config, look))
        looks.append(look)
    return made, looks


def test_a_rollback_uses_its_part_up_as_far_as_it_could_and_an_accept_nothing() -> None:
    made, looks = decisions([True, False, False], [3, 3, 3])
    assert [d.decision for d in made] == ["accepted", "rolled_back", "rolled_back"]
    used = made[1].level_used
    assert used is not None and used == level_used(11, 100, 0.025, CONFIG.retrain_sd) and 0 < used < 0.025
    assert [look.level for look in looks] == pytest.approx([0.05 / 3, 0.025, 0.05 - used])
    assert [(d.level, d.last_round) for d in made] == [(look.level, 3) for look in looks]


def test_a_round_in_which_no_retrain_could_be_accepted_uses_nothing() -> None:
    same = grades([C] * 10 + [W] * 90, "base")
    made = decide(1, "base", "a", same, same, ONE_SKILL, CONFIG, next_look(1, 2, CONFIG, []))
    assert next_look(2, 2, CONFIG, [made]).level == CONFIG.alpha


def test_the_quickstart_decides_as_it_did_when_each_round_had_all_of_alpha() -> None:
    made: list[GateDecision] = []
    for round_, (gained, lost) in enumerate([(17, 4), (8, 6), (15, 7)], 1):
        before = grades([W] * gained + [C] * lost + [W] * (90 - gained - lost), "base")
        after = grades([C] * gained + [W] * (90 - gained), "a")
        made.append(decide(round_, "base", "a", before, after, ONE_SKILL, CONFIG, next_look(round_, 3, CONFIG, made)))
    assert [d.decision for d in made] == ["accepted", "rolled_back", "rolled_back"]
    assert [d.p_value for d in made] == [pytest.approx(p, abs=1e-4) for p in (0.0061, 0.4058, 0.0809)]
    assert [d.level for d in made] == [pytest.approx(level, abs=1e-4) for level in (0.0167, 0.025, 0.0377)]


def test_one_round_has_all_of_alpha() -> None:
    assert next_look(1, 1, CONFIG, []) == Look(0.05, 1)
    (made,), _ = decisions([False], [1])
    assert "gate.alpha" not in made.rule


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(0, 4))
def test_what_rollbacks_used_and_the_next_test_have_never_exceeds_alpha(accepted: list[bool], more: int) -> None:
    rounds = len(accepted) + more
    made, looks = decisions(accepted, [rounds] * len(accepted))
    used = 0.0
    for kept, look, decision in zip(accepted, looks, made, strict=True):
        assert look.level > 0 and used + look.level <= CONFIG.alpha + 1e-12
        assert look.level >= CONFIG.alpha / rounds - 1e-12, "no level is below an even part"
        used += 0 if kept else decision.level_used or 0.0
    assert next_look(len(made) + 1, len(made) + 1, CONFIG, made).level > 0


def test_rounds_added_afterwards_share_a_new_alpha() -> None:
    made, looks = decisions([False] * 5, [3, 3, 3, 5, 5])
    assert looks[2].level < 0.05 and looks[3] == Look(pytest.approx(0.025), 5)
    assert looks[4].level == pytest.approx(0.05 - (made[3].level_used or 0))


def test_rounds_added_before_the_end_share_what_is_left() -> None:
    made, looks = decisions([False] * 2, [2, 4])
    assert looks[1].level == pytest.approx((0.05 - (made[0].level_used or 0)) / 3)


def test_alpha_can_be_for_each_round() -> None:
    config = GateConfig(alpha_per="round")
    made, looks = decisions([False] * 4, [4] * 4, config)
    assert [look.level for look in looks] == [0.05] * 4
    assert "up to 20%" in made[0].rule
    assert "round 2's part of gate.alpha 0.05" in decisions([False] * 2, [4] * 2)[0][1].rule


def test_decisions_of_before_levels_were_kept_count_as_alpha_each() -> None:
    made, _ = decisions([False], [3])
    old = made[0].model_copy(update={"level_used": None})
    assert next_look(2, 3, CONFIG, [old]).level == 0
    unplanned = old.model_copy(update={"last_round": None})
    assert next_look(2, 3, CONFIG, [unplanned]).level == pytest.approx(0.025), "what was planned is not known"


def test_a_later_round_needs_more_evidence_than_the_only_one() -> None:
    before, after = grades([C] * 5 + [W] * 95, "base"), grades([W] + [C] * 14 + [W] * 85, "a")
    alone = decide(1, "base", "a", before, after, ONE_SKILL, CONFIG)
    look = next_look(1, 10, CONFIG, [])
    one_of_ten = decide(1, "base", "a", before, after, ONE_SKILL, CONFIG, look)
    assert alone.p_value == one_of_ten.p_value
    assert (alone.decision, one_of_ten.decision) == ("accepted", "rolled_back")
    assert "above 0.005" in one_of_ten.reason
    assert (
        one_of_ten.detectable_gain is None
        or alone.detectable_gain is None
        or (one_of_ten.detectable_gain > alone.detectable_gain)
    )
