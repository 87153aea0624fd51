"""What must not be forgotten: which falls roll a candidate back, what is replayed first, and how often luck does it."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from samples import training_row
from test_extra import loop_of
from test_gate import ONE_SKILL, C, W, grades
from test_plan import catalogue, config, planned

from agents.forecast import forecast
from agents.graph import run_plain
from agents.reporting import write_pages
from curriculum.config import GateConfig, load_config
from curriculum.gate import decide
from curriculum.gate_odds import gate_p_value
from curriculum.mixture import training_rows
from curriculum.plan import PastRound
from curriculum.plan_check import check_edited
from curriculum.retention import ALL_ITEMS, Kept, regressed, retention_parts
from curriculum.round_records import GateDecision, TrainingRow
from curriculum.rundir import read_json, read_records


def part(name: str, gained: int, lost: int, same: int = 20, kind: str = "skill", skills: str = "") -> Kept:
    """A part with so many items gained, lost, and right in both; each item needs the skills named, or `name`."""
    ids = [f"{kind}-{name}-{n}" for n in range(gained + lost + same)]
    before = {id_: n >= gained for n, id_ in enumerate(ids)}
    after = {id_: n < gained or n >= gained + lost for n, id_ in enumerate(ids)}
    return Kept(name, kind, before, after, dict.fromkeys(ids, tuple((skills or name).split())))  # type: ignore[arg-type]


def test_each_part_is_paired_tested_for_a_fall_and_adjusted_over_the_parts():
    made = retention_parts([part("far", 2, 9, kind="set"), part("sort", 0, 1), part("add", 1, 12)], 0.02)
    assert [(p.kind, p.name) for p in made] == [("skill", "add"), ("skill", "sort"), ("set", "far"), ("all", ALL_ITEMS)]
    add, sort, far, every = made
    assert (add.before.correct, add.after.correct, add.change.n) == (32, 21, 33)
    assert (every.change.gained, every.change.lost, every.change.n) == (3, 22, 85)
    alone = [gate_p_value(12, 1, 33, 0.02), gate_p_value(1, 0, 21, 0.02), gate_p_value(9, 2, 31, 0.02)]
    assert [p.p_alone for p in (add, sort, far)] == alone
    assert far.p_value == pytest.approx(far.p_alone * 4 / 3)  # third of four
    assert [p.fell for p in made] == [True, False, far.p_value <= 0.05, True]


def test_a_rise_is_no_fall_and_a_lone_part_is_not_counted_twice():
    (only,) = retention_parts([part("add", 12, 0)], 0.0)
    assert (only.fell, only.replay) == (False, ()) and only.p_value == pytest.approx(1.0)
    assert retention_parts([], 0.02) == ()


def test_a_part_without_common_items_says_nothing():
    of = part("add", 0, 9)
    made = retention_parts([of._replace(after={})], 0.02)
    assert (made[0].p_value, made[0].fell, made[0].before.rate) == (None, False, None)
    assert regressed(made) == ()


def test_what_regressed_is_replayed_on_less_evidence_the_surest_first():
    made = retention_parts(
        [part("add", 0, 4), part("sort", 0, 9), part("count", 3, 3), part("far", 0, 5, kind="set", skills="gcd lcm")],
        0.0,
    )
    assert [p.name for p in made if p.fell] == ["sort", ALL_ITEMS]
    assert regressed(made) == ("sort", "gcd", "lcm", "add")


def decided(*kept: Kept) -> GateDecision:
    """The gate's decision on a candidate with ten items gained, with these parts of the retention set."""
    before, after = grades([W] * 40, "base"), grades([C] * 10 + [W] * 30, "x")
    return decide(1, "base", "x", before, after, ONE_SKILL, GateConfig(), None, retention_parts(kept, 0.02))


def test_a_fall_on_the_retention_set_rolls_back_what_gained_on_the_gate():
    assert decided().decision == decided(part("add", 1, 2)).decision == "accepted"
    made = decided(part("far", 0, 12, kind="set"))
    assert made.decision == "rolled_back"
    assert (
        "of the retention set, set far fell significantly (gained 0, lost 12 of 32, adjusted one-sided" in made.reason
    )
    assert "no part of the retention set falls" in made.rule


def test_a_decision_without_a_retention_set_says_nothing_of_one():
    assert "retention" not in decided().model_dump_json()


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_luck_rolls_back_as_rarely_as_is_said_and_a_real_fall_is_caught(noise: float):
    """Three parts of 30, 30 and 120 items, a fifth of them discordant; the last truly falls by 0 or 15 points."""
    random = np.random.default_rng(7)
    caught = {}
    for fall in (0.0, 0.15):
        rolled = []
        for shift in random.normal(0, noise, 400):
            kept = []
            for name, n, own in (("a", 30, 0.0), ("b", 30, 0.0), ("c", 120, fall)):
                discordant = random.binomial(n, 0.2)
                gained = random.binomial(discordant, np.clip(0.5 + (shift - own) / 0.4, 0, 1))
                kept.append(part(name, gained, discordant - gained, n - discordant))
            rolled.append(any(p.fell for p in retention_parts(kept, noise)))
        caught[fall] = np.mean(rolled)
    assert caught[0.0] <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5
    assert caught[0.15] > 0.6


# Replay


def replayed(rows: int, first: tuple[str, ...]) -> list[tuple[str, str]]:
    """Skill and layer of what a plan replays of ten rows of each of three skills."""
    earlier = [
        training_row(id=f"{s}{n}", example_id=f"{s}{n}", skill=s, skills=(s, "both") if n == 0 else (s,))
        for s in ("add", "count", "sort")
        for n in range(10)
    ]
    plan = planned().model_copy(update={"skills": (), "replay_rows": rows, "replay_first": first})
    made = training_rows(plan, [], {}, [], earlier, {}, lambda e: ["t"], 0.1)
    return sorted((row.skill, row.layer) for row in made)


def test_rows_of_what_regressed_are_replayed_before_others():
    assert [s for s, _ in replayed(6, ())] == ["add", "add", "count", "count", "sort", "sort"]
    again = "replay of what regressed"
    assert replayed(6, ("sort",)) == [("sort", again)] * 6
    assert [s for s, _ in replayed(8, ("sort", "add"))] == ["add"] * 4 + ["sort"] * 4
    assert replayed(12, ("sort",)) == [("add", "replay"), ("count", "replay"), *[("sort", again)] * 10]
    assert replayed(3, ("both",)) == [("add", again), ("count", again), ("sort", again)]
    assert len(replayed(99, ("sort",))) == 30


def test_a_plan_after_a_rollback_says_what_it_replays_first():
    rejected = planned()
    of = {"history": [PastRound(rejected, accepted=False)], "accepted_rows": 20, "settings": config(patience=9)}
    plan = planned(**of, replay_first=("sort",))
    assert plan.replay_first == ("sort",)
    assert plan.changed is not None and plan.changed.endswith("; replay first of sort; new seed")
    stays = [PastRound(rejected.model_copy(update={"replay_first": ("sort",)}), accepted=False)]
    assert "replay first" not in str(planned(**of | {"history": stays}, replay_first=("sort",)).changed)
    strange = check_edited(plan, plan.model_copy(update={"replay_first": ("jump",)}), {}, catalogue("sort"), {})
    assert "replay_first: skill 'jump' is not in the catalogue; known: add, count, sort" in strange


# The whole loop


def config_of(folder: Path, **extra: object) -> Path:
    """A config whose fake student masters one skill in round 1, and loses what it is not given rows of again."""
    lines = [
        {"question": f"What is {n} plus {n}?", "gold": str(2 * n), "skills": [f"s{n % 3}"]} for n in range(100, 340)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    kept = [{"q": f"Double the number {n}.", "a": str(2 * n), "s": "s0"} for n in range(1000, 1060)]
    (folder / "kept.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    columns = {"question": "q", "answer": "a", "skills": "s"}
    basics = {"kind": "file", "path": str(folder / "kept.jsonl"), "columns": columns, "items": 50, **extra}
    tree = {
        "rounds": 3,
        "data": {
            "kind": "file",
            "path": str(folder / "data.jsonl"),
            "format": "examples",
            "splits": {"probe": 60, "gate": 60, "final": 9},
        },
        "runs_dir": str(folder / "runs"),
        "plan": {
            "rows_per_round": 90,
            "allocation": "failures",
            "write_share": 0,
            "uniform_floor": 0.0,
            "replay_rows": 12,
            "target_rate": 0.6,
            "mastery": {"low": 0.1},
        },
        "student": {"engine": "fake", "base": "fake"},
        "gate": {"retrain_sd": 0.0, "alpha": 0.4},
        "extra": {"basics": basics},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_run_rolls_back_what_forgets_and_replays_it_first(tmp_path: Path):
    """Round 1 has the student master s0 alone; round 2 gives it few rows, so that it is forgotten."""
    with loop_of(config_of(tmp_path, retention=True)) as loop:
        run_plain(loop)
        report = write_pages(loop.run, loop.config)
        answers = {p.parents[1].name for p in loop.run.path.glob("answers/*/extra-basics/done.json")}
        replays = [
            [row for row in read_records(loop.run.round_stage(r, "build") / "training_set.jsonl", TrainingRow)
             if row.origin == "replay"]
            for r in (2, 3)
        ]  # fmt: skip
        last = loop.run.round_stage(3, "gate")
        read = read_json(last / "done.json")["inputs"]
    base, first, second, third = report.rounds
    assert answers == {"base", first.candidate, second.candidate, third.candidate}
    assert [part.skill for part in second.mastery.skills if part.mastered] == ["s0"]
    assert base.retention == () and [p.name for p in first.retention] == ["basics"]
    assert [(p.kind, p.name, p.change.n) for p in second.retention] == [
        ("skill", "s0", 20),
        ("set", "basics", 50),
        ("all", ALL_ITEMS, 70),
    ]
    assert (first.decision, second.decision) == ("accepted", "rolled_back")
    assert "of the retention set, skill s0 fell significantly" in second.reason
    assert (second.plan.replay_first, third.plan.replay_first) == ((), ("s0",))
    assert [Counter(row.skill for row in rows)["s0"] for rows in replays] == [4, 12]
    assert {row.layer for row in replays[1]} == {"replay of what regressed"}
    assert third.plan.changed.endswith("; replay first of s0; new seed")
    assert {f"answers/{third.candidate}/extra-basics", "round_03/profile"} <= read.keys()
    page = (loop.run.path / "report.md").read_text().replace("\\", "")
    for said in (
        "The retention set:",
        "basics (set)",
        "Fell significantly: s0, basics, all items. The next round replays rows of s0 first.",
        "Replay (12 rows) took rows of s0 first",
        "retention: basics 50",
        "On basics (retention) a significant fall rolled candidates back",
    ):
        assert said in page
    assert "never select" not in page


def test_a_set_that_is_not_marked_selects_nothing(tmp_path: Path):
    with loop_of(config_of(tmp_path)) as loop:
        run_plain(loop)
        report = write_pages(loop.run, loop.config)
        answers = {p.parents[1].name for p in loop.run.path.glob("answers/*/extra-basics/done.json")}
    assert [p.name for p in report.rounds[2].retention] == ["s0"]
    assert answers == {"base", report.final.adapter_name}
    assert "never select" in (loop.run.path / "report.md").read_text()


def test_the_forecast_counts_the_answers_of_every_candidate(tmp_path: Path):
    plain = forecast(load_config(config_of(tmp_path)))
    marked = load_config(config_of(tmp_path, retention=True))
    assert forecast(marked).answers == plain.answers + 2 * 50
    assert marked.retention_sets == ["basics"]
