from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import allocation

from curriculum.config import Config
from curriculum.mastery import Mastery
from curriculum.plan import PastRound, make_plan
from curriculum.plan_check import check_edited
from curriculum.records import Skill, SkillCatalogue
from curriculum.round_records import (
    Allocation,
    MissingSkillProfile,
    RoundPlan,
    SkillPlan,
    SkillProfile,
    VerdictCounts,
)
from curriculum.statistics import wilson

SKILLS = ("add", "count", "sort")
LEVELS = dict.fromkeys(SKILLS, (1, 2, 3))
POOL = {s: {1: 10, 2: 10} for s in SKILLS}


def config(**plan: object) -> Config:
    levels = [{"difficulty": 1}]
    sizes = {"probe": 10, "gate": 10, "final": 10}
    data = {"kind": "reasoning_gym", "tasks": dict.fromkeys(SKILLS, levels), "per_task": 100, "splits": sizes}
    return Config.model_validate({"data": data, "plan": {"rows_per_round": 100, "allocation": "failures", **plan}})


def catalogue(*writable: str) -> SkillCatalogue:
    return SkillCatalogue(teacher="t", skills=tuple(Skill(id=s, name=s, writable=s in writable) for s in SKILLS))


def profile(answers: Mapping[str, tuple[int, int]], difficulty: int = 2) -> MissingSkillProfile:
    """Skill → (missing, right) answers, all at one difficulty; every wrong answer is diagnosed."""

    def part(skill: str, at: int | None) -> SkillProfile:
        missing, right = answers.get(skill, (0, 0))
        counts = VerdictCounts(correct=right, wrong=missing)
        return SkillProfile(
            skill=skill, difficulty=at, counts=counts, missing=missing, accuracy=wilson(right, missing + right)
        )

    return MissingSkillProfile(
        round=1,
        adapter="base",
        overall=wilson(0, 0),
        counts=VerdictCounts(),
        skills=tuple(part(s, None) for s in SKILLS),
        cells=tuple(part(s, difficulty) for s in SKILLS if s in answers),
    )


MIXED = profile({"add": (15, 5), "count": (5, 15), "sort": (1, 39)})


def planned(
    of: MissingSkillProfile = MIXED,
    settings: Config | None = None,
    *,
    skills: SkillCatalogue | None = None,
    pool: Mapping[str, Mapping[int, int]] = POOL,
    levels: Mapping[str, Sequence[int]] = LEVELS,
    history: Sequence[PastRound] = (),
    accepted_rows: int = 0,
    by: Allocation | None = None,
    mastery: Mastery | None = None,
    replay_first: Sequence[str] = (),
) -> RoundPlan:
    round_ = len(history) + 1
    return make_plan(
        round_,
        settings or config(),
        of,
        skills or catalogue(*SKILLS),
        pool,
        history,
        levels,
        accepted_rows,
        by,
        mastery,
        replay_first,
    )


def after_rollbacks(n: int, **same: object) -> list[RoundPlan]:
    """The first plan and those that follow `n` rollbacks of it in a row."""
    history: list[PastRound] = []
    plans = [planned(history=history, **same)]  # type: ignore[arg-type]
    for _ in range(n):
        history.append(PastRound(plans[-1], accepted=False))
        plans.append(planned(history=history, **same))  # type: ignore[arg-type]
    return plans


def rows(plan: RoundPlan) -> dict[str, int]:
    return {s.skill: s.pool_rows + sum(s.written_rows.values()) for s in plan.skills}


def written(plan: RoundPlan) -> dict[str, dict[int, int]]:
    return {s.skill: s.written_rows for s in plan.skills}


# Rows


def test_rows_follow_failures_and_a_mastered_skill_keeps_the_floor() -> None:
    plan = planned(settings=config(uniform_floor=0.15))
    assert plan.action == "train"
    # 85 % by failures, 15 : 5 : mastered, and 5 % of floor each.
    assert rows(plan) == {"add": 69, "count": 26, "sort": 5}
    assert [s.share for s in plan.skills] == [pytest.approx(x) for x in (0.6875, 0.2625, 0.05)]
    assert [s.missing for s in plan.skills] == [15, 5, 1]


def test_every_missing_skill_gets_the_same_and_what_fails_nowhere_the_floor() -> None:
    assert Config.model_validate(config().model_dump(exclude={"plan": {"allocation"}})).plan.allocation == "even"
    for by in (None, allocation("even", add=0.475, count=0.475, sort=0.05)):
        plan = planned(settings=config(uniform_floor=0.15, allocation="even"), by=by)
        assert rows(plan) == {"add": 48, "count": 47, "sort": 5}
        assert "42.5 % of the rows by even split, 5.0 % by the uniform floor" in plan.skills[0].reason


def test_reasons_carry_the_numbers() -> None:
    add, _, sort = (s.reason for s in planned(settings=config(uniform_floor=0.12)).skills)
    assert add == (
        "missing in 15 failed probe answers, right in 5 of 20; "
        "66.0 % of the rows by failures, 4.0 % by the uniform floor"
    )
    assert sort == "mastered, right in 39 of 40 probe answers; 4.0 % of the rows by the uniform floor"


@given(
    st.dictionaries(st.sampled_from(SKILLS), st.tuples(st.integers(0, 20), st.integers(0, 20))),
    st.sets(st.sampled_from(SKILLS)),
    st.sets(st.sampled_from(SKILLS)),
    st.integers(1, 200),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_budgets_add_up_and_only_order_what_can_be_had(
    answers: dict[str, tuple[int, int]], writable: set[str], pooled: set[str], budget: int, share: float, floor: float
) -> None:
    settings = config(rows_per_round=budget, write_share=share, uniform_floor=floor)
    pool = {s: POOL[s] for s in pooled}
    plan = planned(profile(answers), settings, skills=catalogue(*writable), pool=pool)
    if plan.action == "stop":
        assert plan.stop_reason and not plan.skills and plan.new_rows == 0
        return
    assert plan.new_rows == budget
    assert sum(s.share for s in plan.skills) == pytest.approx(1)
    assert check_edited(plan, plan, pool, catalogue(*writable), LEVELS) == []
    if share == 0:
        assert plan.written_rows == 0
    either = [s for s in plan.skills if s.skill in writable & pooled]
    if any(s.pool_rows and s.written_rows for s in either):
        assert plan.written_rows == round(share * budget), "a skill that can be both drawn and written evens it out"


@given(st.integers(0, 18), st.integers(1, 20), st.integers(0, 20), st.floats(0, 1), st.integers(1, 100))
def test_more_failures_of_a_skill_never_lower_its_share_or_rows(
    missing: int, more: int, other: int, floor: float, budget: int
) -> None:
    settings = config(uniform_floor=floor, rows_per_round=budget)

    def of(failures: int) -> RoundPlan:
        return planned(profile({"add": (failures, 1), "count": (other, 5), "sort": (3, 3)}), settings)

    before, after = of(missing), of(missing + more)
    assert after.skills[0].share >= before.skills[0].share
    assert rows(after)["add"] >= rows(before)["add"]


def test_a_skill_without_pool_rows_is_all_written() -> None:
    plan = planned(pool={s: POOL[s] for s in ("count", "sort")}, settings=config(write_share=0.75))
    add = plan.skills[0]
    assert (add.pool_rows, sum(add.written_rows.values()), plan.written_rows) == (0, 69, 75)
    assert add.reason.endswith("all written, the pool has none")


def test_a_skill_that_can_be_neither_drawn_nor_written_leaves_its_share_to_the_others() -> None:
    plan = planned(skills=catalogue("count", "sort"), pool={s: POOL[s] for s in ("count", "sort")})
    add = plan.skills[0]
    assert (add.share, add.pool_rows, add.written_rows) == (0, 0, {})
    assert "no rows: the pool has none and none may be written" in add.reason
    assert plan.new_rows == 100


def test_a_skill_without_probe_answers_gets_the_floor() -> None:
    plan = planned(profile({"add": (5, 5), "count": (5, 5)}), config(uniform_floor=0.3))
    assert rows(plan) == {"add": 45, "count": 45, "sort": 10}
    assert "no probe answers need it" in plan.skills[2].reason


def test_without_failures_rows_are_even_and_by_the_floor() -> None:
    plan = planned(profile({}), config(rows_per_round=99))
    assert set(rows(plan).values()) == {33}
    assert all("33.3 % of the rows by the uniform floor" in s.reason for s in plan.skills)


def test_written_rows_go_to_the_levels_where_the_skill_was_missing() -> None:
    assert set(written(planned(profile({"add": (9, 1)}, difficulty=2)))["add"]) == {2}
    assert set(written(planned(profile({"add": (9, 1)}, difficulty=5)))["add"]) == {3}, "the nearest level"
    assert set(written(planned(profile({"add": (9, 1)}), config(uniform_floor=0.5)))["sort"]) == {1, 2, 3}, (
        "evenly where nothing is known"
    )


def test_rows_follow_the_shares_of_the_rule_that_the_config_names() -> None:
    settings = config(allocation="expected_gain", uniform_floor=0.15)
    plan = planned(settings=settings, by=allocation("expected_gain", add=0.05, count=0.25, sort=0.7))
    assert rows(plan) == {"add": 5, "count": 25, "sort": 70}
    assert [s.share for s in plan.skills] == pytest.approx([0.05, 0.25, 0.7])
    assert plan.skills[1].reason.endswith("20.0 % of the rows by expected gain, 5.0 % by the uniform floor")
    assert plan.skills[0].reason.endswith("5.0 % of the rows by the uniform floor")


def test_shares_by_failures_are_those_without_an_allocation() -> None:
    assert planned(by=allocation("failures", add=0, count=0, sort=1)) == planned()


def test_the_third_rollback_spreads_rows_evenly_whatever_the_rule() -> None:
    by_gain = allocation("expected_gain", add=0.05, count=0.25, sort=0.7)
    plans = after_rollbacks(3, settings=config(patience=9, allocation="expected_gain"), by=by_gain)
    assert sorted(rows(plans[-1]).values()) == [33, 33, 34]
    assert rows(plans[-2]) == rows(plans[0])


@pytest.mark.parametrize(("cap", "expected"), [(None, 70), (50, 50), (100, 70), (0, 0)])
def test_replay_takes_the_accepted_rows_up_to_the_cap(cap: int | None, expected: int) -> None:
    assert planned(settings=config(replay_rows=cap), accepted_rows=70).replay_rows == expected


# Rollbacks


def test_each_rollback_changes_what_it_names_and_keeps_the_earlier_changes() -> None:
    first, easier, slower, even, slower_still = after_rollbacks(4, settings=config(patience=9))
    assert first.changed is None
    assert easier.changed == "written rows one difficulty level easier than the failures; new seed"
    assert (set(written(first)["add"]), set(written(easier)["add"])) == ({2}, {1})
    assert rows(easier) == rows(first)
    assert slower.changed == "learning rate halved from 0.0005 to 0.00025; new seed"
    assert (slower.learning_rate, written(slower)) == (easier.learning_rate / 2, written(easier))
    assert even.changed == "rows spread evenly over the skills; new seed"
    assert sorted(rows(even).values()) == [33, 33, 34]
    assert even.learning_rate == slower.learning_rate
    assert slower_still.changed == "learning rate halved from 0.00025 to 0.000125; new seed"
    assert len({p.seed for p in (first, easier, slower, even, slower_still)}) == 5


@pytest.mark.parametrize(
    "same", [{"of": profile({"add": (9, 1)}, difficulty=1), "levels": {"add": (1,)}}, {"levels": {}}]
)
def test_where_nothing_can_be_easier_the_learning_rate_is_halved(same: dict[str, object]) -> None:
    first, second = after_rollbacks(1, **same)
    assert second.changed == "learning rate halved from 0.0005 to 0.00025; new seed"
    assert second.learning_rate == first.learning_rate / 2


def test_a_change_that_a_person_already_made_is_not_named_again() -> None:
    _, easier = after_rollbacks(1)
    again = planned(history=[PastRound(easier, accepted=False)])
    assert again.changed is not None and again.changed.startswith("learning rate halved")


@given(
    st.dictionaries(st.sampled_from(SKILLS), st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1),
    st.integers(1, 5),
    st.sets(st.sampled_from(SKILLS)),
    st.integers(1, 60),
)
def test_a_plan_after_a_rollback_differs_in_what_it_names(
    answers: dict[str, tuple[int, int]], difficulty: int, writable: set[str], budget: int
) -> None:
    settings = config(patience=9, rows_per_round=budget)
    plans = after_rollbacks(5, of=profile(answers, difficulty), settings=settings, skills=catalogue(*writable))
    for rejected, plan in pairwise(plans):
        assert plan.changed is not None and plan.seed != rejected.seed and plan.new_rows == budget
        if "easier" in plan.changed:
            mean = [sum(d * n for s in p.skills for d, n in s.written_rows.items()) for p in (rejected, plan)]
            assert mean[1] < mean[0]
        elif "evenly" in plan.changed:
            assert rows(plan) != rows(rejected) and max(rows(plan).values()) - min(rows(plan).values()) <= 1
        else:
            assert plan.learning_rate == rejected.learning_rate / 2


def test_after_an_accepted_round_the_rule_starts_again_with_the_learning_rate_that_worked() -> None:
    first, _, slower = after_rollbacks(2)
    history = [PastRound(first, accepted=False), PastRound(slower, accepted=True)]
    plan = planned(history=history)
    assert (plan.changed, plan.learning_rate, written(plan)) == (None, slower.learning_rate, written(first))


# Stopping


def test_rollbacks_in_a_row_stop_the_run() -> None:
    *going, last = after_rollbacks(3, settings=config(patience=3))
    assert {p.action for p in going} == {"train"}
    assert (last.action, last.stop_reason) == ("stop", "3 rollbacks in a row; plan.patience is 3")


def test_an_accepted_round_between_two_rollbacks_does_not_stop_the_run() -> None:
    past = planned()
    history = [PastRound(past, accepted) for accepted in (False, True, False)]
    assert planned(settings=config(patience=2), history=history).action == "train"


def test_a_run_with_every_measured_skill_mastered_stops() -> None:
    plan = planned(profile({"add": (1, 19), "count": (0, 5)}))
    assert (plan.action, plan.new_rows) == ("stop", 0)
    assert plan.stop_reason == "all 2 skills measured on the probe are right in 95.0 % or more"


def test_a_run_with_nothing_to_teach_stops() -> None:
    plan = planned(settings=config(write_share=0), pool={})
    assert plan.stop_reason == "nothing to teach: no skill has pool rows or can be written; plan.write_share is 0"


# Edited plans


def edited(plan: RoundPlan, **changes: object) -> RoundPlan:
    return RoundPlan.model_validate(plan.model_dump() | changes)


def part(skill: str, pool_rows: int = 0, written_rows: dict[int, int] | None = None) -> SkillPlan:
    return SkillPlan(
        skill=skill, missing=0, share=0, pool_rows=pool_rows, written_rows=written_rows or {}, reason="by hand"
    )


def faults(plan: RoundPlan) -> list[str]:
    return check_edited(planned(), plan, {"add": {1: 3}, "count": {}}, catalogue("add"), {"add": (1, 2)})


def test_a_plan_edited_within_what_can_be_had_is_taken() -> None:
    assert faults(edited(planned(), skills=[part("add", 7, {1: 3, 5: 0}).model_dump()])) == []
    assert faults(edited(planned(), action="stop", skills=[])) == []


def test_all_faults_of_an_edited_plan_are_told_at_once() -> None:
    parts = [
        part("add", 1, {5: 2, 1: -1}),
        part("add", 1),
        part("count", 4, {1: 1}),
        part("jump", 1),
    ]
    assert faults(edited(planned(), round=3, skills=[p.model_dump() for p in parts])) == [
        "round: expected 1, got 3",
        "skill 'add' is given 2 times",
        "skill 'add': 2 written rows at difficulty 5, but the teacher writes difficulties 1, 2 only",
        "skill 'add': expected 0 or more written rows at difficulty 1, got -1",
        "skill 'count': 4 pool rows, but the pool has none of it",
        "skill 'count': 1 written rows at difficulty 1, but the teacher writes none of it",
        "skill 'jump' is not in the catalogue; known: add, count, sort",
    ]


def test_a_plan_that_trains_nothing_is_refused() -> None:
    assert faults(edited(planned(), skills=[])) == [
        "nothing to train: no skill has pool rows or written rows; set `action: stop` to end the run"
    ]
