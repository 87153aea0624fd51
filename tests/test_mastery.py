"""What is remembered of skills: when they become mastered, when that is tested again, and what a slip does."""

import json
from io import StringIO
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binom
from test_extra import config_of, loop_of
from test_plan import LEVELS, POOL, SKILLS, catalogue, config, planned, profile, rows

from agents.graph import run_plain
from agents.history import read_mastery, read_profile
from agents.reporting import write_pages
from curriculum.allocation import Measurement, allocate
from curriculum.mastery import Mastery, SkillMastery, demand, remember
from curriculum.report import RunReport, Timings
from curriculum.report_evidence import state_words
from curriculum.report_text import render_terminal
from curriculum.round_records import ConsistencyCounts, MissingSkillProfile, VerdictCounts
from curriculum.rundir import read_record
from curriculum.statistics import wilson

PLAN = config().plan


def rounds(*answers: tuple[int, int], adapters: str = "abcdefghijklmnop") -> list[MissingSkillProfile]:
    """Profiles of rounds 0, 1, … with these (right, asked) answers to `add`, each of another adapter."""
    return [
        profile({"add": (asked - right, right)}).model_copy(update={"round": at, "adapter": adapters[at]})
        for at, (right, asked) in enumerate(answers)
    ]


def add(*answers: tuple[int, int], adapters: str = "abcdefghijklmnop") -> SkillMastery:
    return remember(rounds(*answers, adapters=adapters), PLAN).by_skill["add"]


@pytest.mark.parametrize(
    ("right", "asked", "state"),
    [
        (0, 0, "unmeasured"),
        (8, 8, "missing"),  # right in all, and yet little is known: the interval begins at 68 %
        (9, 9, "mastered"),
        (18, 19, "missing"),  # 94.7 %
        (19, 20, "mastered"),
        (36, 40, "missing"),
        (38, 40, "mastered"),
    ],
)
def test_a_skill_becomes_mastered_at_the_target_and_with_enough_answers(right, asked, state):
    assert add((right, asked)).state == state


@pytest.mark.parametrize(
    ("right", "asked", "state"),
    [(20, 20, "retested"), (18, 20, "retested"), (17, 20, "slipped"), (8, 9, "retested"), (7, 9, "slipped")],
)
def test_staying_needs_less_than_entering(right, asked, state):
    """18 of 20 would not enter; it stays, for the interval still reaches 95 %."""
    assert add((20, 20), (right, asked)).state == state


def test_re_tests_are_after_1_2_4_rounds_and_nothing_between_them_counts():
    good, bad = (20, 20), (10, 20)
    # Mastered in round 0; re-tests in rounds 1, 3, 7: what is answered between is not looked at.
    states = [add(*[good, good, bad, good, bad, bad, bad, good, bad][: n + 1]) for n in range(9)]
    assert [s.state for s in states] == ["mastered", *["retested"] * 8]
    assert [s.due for s in states] == [1, 3, 3, 7, 7, 7, 7, 15, 15]
    assert [s.retests for s in states] == [0, 1, 1, 2, 2, 2, 2, 3, 3]
    assert (states[-1].since, states[-1].accuracy.correct) == (0, 10)
    slipped = add(good, good, good, bad)
    assert (slipped.state, slipped.since, slipped.due, slipped.slips) == ("slipped", 3, None, 1)


def test_a_re_test_is_put_off_until_there_is_another_adapter_and_enough_answers():
    good, bad = (20, 20), (10, 20)
    assert add(good, bad, adapters="aab").state == "mastered"  # rolled back: the same answers again
    assert add(good, good, bad, adapters="aab").state == "slipped"
    assert add(good, (0, 4), (0, 0)).state == "mastered"
    assert add(good, (0, 4), (0, 5)).state == "slipped"


def test_a_slipped_skill_stays_so_until_it_is_mastered_again():
    good, bad = (20, 20), (10, 20)
    again = add(good, bad, (18, 20), good)
    assert add(good, bad, (18, 20)).state == "slipped"
    assert (again.state, again.since, again.due, again.retests, again.slips) == ("mastered", 3, 4, 0, 1)


def test_learning_begins_with_a_sure_rise_and_ends_where_it_began():
    assert [add(*[(2, 20), (4, 20), (7, 20), (4, 20), (2, 20)][: n + 1]).state for n in range(5)] == [
        "missing",
        "missing",  # 20 % (8–42) may still be 10 %
        "learning",  # 35 % (18–57)
        "learning",
        "missing",
    ]


def test_items_without_a_gold_answer_that_are_difficult_keep_a_skill_from_being_mastered():
    (of,) = rounds((20, 20))
    for difficult, state in ((1, "mastered"), (2, "missing")):
        asked = ConsistencyCounts(items=20, difficult=difficult, undecided=0)
        parts = [s.model_copy(update={"without_gold": asked}) if s.skill == "add" else s for s in of.skills]
        assert remember([of.model_copy(update={"skills": tuple(parts)})], PLAN).by_skill["add"].state == state


@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=1, max_size=12))
def test_what_is_remembered_follows_from_the_profiles_alone_and_never_flaps_on_the_same_answers(answers):
    seen = rounds(*[(min(pair), max(pair)) for pair in answers])
    made = remember(seen, PLAN)
    assert Mastery.model_validate_json(made.model_dump_json()) == made
    last = seen[-1]
    same = last.model_copy(update={"round": last.round + 1, "adapter": last.adapter})
    again = remember([*seen, same], PLAN)
    states = {skill: part.state for skill, part in made.by_skill.items()}
    assert {skill: part.state for skill, part in again.by_skill.items()} == states
    for part in made.skills:
        assert part.mastered == (part.due is not None)
        assert 0 <= part.since <= made.round


def test_luck_makes_and_breaks_mastery_as_rarely_as_the_module_says():
    enter80, enter70, slip95 = [], [], []
    for n in range(9, 121):
        enter = min(k for k in range(n + 1) if k / n >= 0.95 and wilson(k, n).low >= 0.7)
        slip = max(k for k in range(n + 1) if wilson(k, n).high < 0.95)
        assert slip < enter - 1, "between the two a skill stays what it is"
        enter80.append(1 - binom.cdf(enter - 1, n, 0.8))
        enter70.append(1 - binom.cdf(enter - 1, n, 0.7))
        slip95.append(binom.cdf(slip, n, 0.95))
    assert (max(enter80) < 0.14, max(enter70) < 0.05, max(slip95) < 0.11) == (True, True, True)


# What the plan and the rules of allocation make of it


DIPPED = profile({"add": (4, 16), "count": (4, 16), "sort": (4, 16)})


def test_a_mastered_skill_that_dips_between_re_tests_keeps_the_floor_only():
    known = remember([*rounds((20, 20), (20, 20)), DIPPED.model_copy(update={"round": 2, "adapter": "c"})], PLAN)
    assert known.by_skill["add"].state == "retested"
    plan = planned(DIPPED, config(uniform_floor=0.15), mastery=known)
    assert rows(plan) == {"add": 5, "count": 48, "sort": 47}
    assert plan.skills[0].reason.startswith("mastered, right in 16 of 20")


def test_failures_of_a_slipped_skill_count_twice():
    known = remember([*rounds((20, 20)), DIPPED.model_copy(update={"round": 1, "adapter": "b"})], PLAN)
    assert known.by_skill["add"].state == "slipped"
    plan = planned(DIPPED, config(uniform_floor=0), mastery=known)
    assert rows(plan) == {"add": 50, "count": 25, "sort": 25}
    assert plan.skills[0].reason.startswith("slipped, missing in 4 failed probe answers")
    assert rows(planned(DIPPED, config(uniform_floor=0, allocation="even"), mastery=known)) == rows(plan)
    assert demand(known.by_skill["add"], 4, config(mastery={"slip_weight": 3}).plan) == 12


def test_no_rule_gives_a_mastered_skill_more_than_the_floor():
    settings = config(uniform_floor=0.15)
    known = remember([*rounds((20, 20), (20, 20)), DIPPED.model_copy(update={"round": 2, "adapter": "c"})], PLAN)
    parsed = DIPPED.model_copy(update={"counts": VerdictCounts(correct=48, wrong=12)})
    made = allocate(2, settings, [Measurement(parsed, {})], catalogue(*SKILLS), POOL, LEVELS, known)
    assert made is not None
    shares = made.skills[0].shares
    for share in (shares.failures, shares.learnability, shares.expected_gain):
        assert share == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(0, 0)], "never measured"),
        ([(2, 20)], "missing since round 0"),
        ([(20, 20)], "mastered since round 0, tested again from round 1"),
        ([(20, 20), (20, 20)], "mastered since round 0, 1 re-test passed, tested again from round 3"),
        ([(20, 20), (2, 20)], "slipped since round 1"),
    ],
)
def test_a_state_is_worded_with_its_round(answers, said):
    assert state_words(add(*answers)) == said


def test_every_round_remembers_on_disk_and_its_report_shows_it(tmp_path):
    path = config_of(tmp_path, [])
    # The fake student gets at best nine of ten right, of three items a skill.
    low = {"target_rate": 0.5, "mastery": {"low": 0.1, "retest_items": 1}}
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(tree | {"rounds": 3, "plan": tree["plan"] | low, "gate": {"alpha": 0.4}}))
    with loop_of(path) as loop:
        run_plain(loop)
        write_pages(loop.run, loop.config)
        kept = [read_mastery(loop, r) for r in range(4)]
        seen = [read_profile(loop, r) for r in range(4)]
    assert kept == [remember(seen[: r + 1], loop.config.plan) for r in range(4)]
    report = json.loads((loop.run.path / "report.json").read_text())
    assert [r["mastery"]["round"] for r in report["rounds"]] == [0, 1, 2, 3]
    mastered = [part for part in kept[-1].skills if part.mastered]
    assert mastered and state_words(mastered[0]) in (loop.run.path / "report.html").read_text()
    assert "Mastery: " in render_plain(loop.run.path / "report.json")


def render_plain(path: Path) -> str:
    """What the terminal says of the last round."""
    report = read_record(path, RunReport)
    console = Console(width=80, file=StringIO())
    console.print(render_terminal(report, Timings(), report.rounds[-1].round))
    return console.file.getvalue()
