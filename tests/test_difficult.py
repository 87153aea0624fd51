"""Difficult questions: by gold, by disagreement, by a process reward model; and profiles made of a harder set."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import FakeChatServer
from hypothesis import given
from hypothesis import strategies as st
from samples import grade
from test_extra import FAR, config_of, loop_of
from tiny_model import make_tiny_model

from agents.forecast import forecast, leaving
from agents.graph import run_plain
from agents.reporting import write_pages
from curriculum.config import load_config
from curriculum.difficult import StepScores, answer_steps, compared_with_gold, is_difficult, step_turns
from curriculum.errors import ConfigError, DataError, StudentError
from curriculum.mixture import stat_sel_weights
from curriculum.records import Diagnosis, SkillLabel, Verdict
from curriculum.round_records import MissingSkillProfile, TrainingRow
from curriculum.rundir import read_record, read_records
from curriculum.student_config import RewardConfig
from student.step_scoring import conversations, score_served, score_steps

PRM = RewardConfig(model="prm", base_url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("scores", "difficult"),
    [
        ((), True),
        ((0.86,), False),
        ((0.85,), True),  # the last at most tau1
        ((1.0, 1.0, 0.86), False),
        ((1.0, 1.0, 0.85), True),
        ((0.7, 1.0, 1.0), True),  # an earlier one at most tau2, the mean above tau1
        ((0.71, 1.0, 1.0), False),
        ((0.71, 0.71, 1.0), True),  # the mean
        ((0.75, 0.75, 1.0), True),
        ((1.0, 0.9), False),  # the last step is not held to tau2 alone
    ],
)
def test_difficult_by_the_formula_of_the_paper(scores: tuple[float, ...], difficult: bool) -> None:
    assert is_difficult(scores, 0.85, 0.7) is difficult


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_higher_thresholds_find_no_fewer_questions(scores: list[float], tau1: float, tau2: float, more: float) -> None:
    if is_difficult(scores, tau1, tau2):
        assert is_difficult(scores, max(tau1, more), tau2) and is_difficult(scores, tau1, max(tau2, more))
        assert is_difficult([score * more for score in scores], tau1, tau2)


@pytest.mark.parametrize(
    ("text", "found", "steps"),
    [
        ("a\nb\n\nc", "7", ["a\nb", "c", "The final answer is 7."]),
        ("a\n \n\n\n b \n", None, ["a", "b"]),
        ("", None, []),
        ("", "7", ["The final answer is 7."]),
    ],
)
def test_steps_are_paragraphs_and_the_answer_that_was_found(text: str, found: str | None, steps: list[str]) -> None:
    assert answer_steps(text, found) == steps
    assert step_turns("Q?", steps) == ([f"Q? {steps[0]}", *steps[1:]] if steps else [])


def test_agreement_with_gold_leaves_out_what_failed() -> None:
    verdicts = [Verdict.CORRECT, Verdict.CORRECT, Verdict.WRONG, Verdict.TRUNCATED, Verdict.FAILED]
    grades = [grade(str(at), "base", verdict) for at, verdict in enumerate(verdicts)]
    made = compared_with_gold("prm", 6, {"0", "2", "4", "5"}, grades)
    assert (made.items, made.difficult, made.graded, made.graded_difficult) == (6, 4, 4, 2)
    assert (made.wrong, made.wrong_difficult, made.precision, made.recall) == (2, 1, 0.5, 0.5)
    assert compared_with_gold("prm", 0, (), []).precision is None


def test_each_step_is_asked_after_steps_that_were_good() -> None:
    made = [[(m.role, m.content) for m in turns] for turns in conversations(["Q? a", "b"])]
    assert made == [[("user", "Q? a")], [("user", "Q? a"), ("assistant", "+"), ("user", "b")]]


def test_a_local_model_scores_each_step_as_a_pass_of_its_own_would(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_tiny_model(tmp_path / "prm")
    turns = ["What is 12 plus 7? First add.", "12 plus 7 is 19.", "The final answer is 19."]
    job = {"base": str(base), "dtype": "float32", "threads": 1, "answers": [{"id": "x", "turns": turns}]}
    (event,) = score_steps(job)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    signs = [tokenizer.encode(sign)[0] for sign in "+-"]
    for at, score in enumerate(event["scores"]):
        said = [m.model_dump() for m in conversations(turns)[at]]
        ids = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            good, bad = model(**ids).logits[0, -1, signs].tolist()
        assert score == pytest.approx(math.exp(good) / (math.exp(good) + math.exp(bad)), abs=1e-5)
    assert len({round(score, 6) for score in event["scores"]}) == 3


def served(server: FakeChatServer, **keys: Any) -> RewardConfig:
    return RewardConfig(model="prm", base_url=server.url, **keys)


def test_a_server_scores_each_step(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.signs = lambda messages: 0.9 if len(messages) == 1 else 0.25
        answers = [(str(at), ["Q? a", "b"]) for at in range(5)]
        assert list(score_served(answers, served(server), "word")) == [
            (str(at), [pytest.approx(0.9), pytest.approx(0.25)]) for at in range(5)
        ]
        bodies = [json.loads(seen.body) for seen in server.seen]
        assert {seen.authorization for seen in server.seen} == {"Bearer word"}
    assert len(bodies) == 10 and all(b["max_tokens"] == 1 and b["temperature"] == 0 for b in bodies)


def test_a_server_of_another_model_is_refused() -> None:
    with FakeChatServer() as server, pytest.raises(StudentError, match="got neither"):
        list(score_served([("x", ["Q? a"])], served(server), "none"))
    with FakeChatServer(faults=("401",)) as server, pytest.raises(StudentError, match="AuthenticationError"):
        list(score_served([("x", ["Q? a"])], served(server), "none"))


def with_keys(path: Path, **sections: Any) -> Path:
    tree = yaml.safe_load(path.read_text())
    for name, keys in sections.items():
        tree[name] = tree.get(name, {}) | keys
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"student": {"difficult": "prm"}}, "`student.reward` goes with"),
        ({"student": {"reward": {"model": "m"}}}, "`student.reward` goes with"),
        ({"student": {"difficult": "prm", "reward": {"model": "m", "base_url": "http://far.example"}}}, "https"),
        (
            {
                "data": {"grader": "judge", "grader_rubric": "r"},
                "student": {"difficult": "disagreement"},
                "teacher": {"kind": "llm", "model": "m", "base_url": "http://127.0.0.1:1"},
            },
            "not `judge`",
        ),
        ({"plan": {"draws_per_failure": 0}}, "draws_per_failure"),
        ({"plan": {"draws_per_failure": 5, "by": "llm"}}, "is for the rule"),
    ],
)
def test_settings_without_their_inputs_are_refused(keys: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_config(with_keys(config_of(tmp_path, []), **keys))


def test_disagreement_decides_what_is_diagnosed_and_gold_says_how_well(tmp_path: Path) -> None:
    path = with_keys(config_of(tmp_path, []), student={"difficult": "disagreement"})
    with loop_of(path) as loop:
        run_plain(loop)
        run, config = loop.run, loop.config
    diagnosed = read_records(run.path / "round_00" / "diagnose" / "diagnoses.jsonl", Diagnosis)
    assert diagnosed and {d.error_kind for d in diagnosed} == {"inconsistent"}
    report = write_pages(run, config)
    assert report.rounds[0].probe is not None
    found = report.rounds[0].probe.difficult
    assert found is not None and found.method == "disagreement"
    assert (found.items, found.graded, found.difficult) == (9, 9, len(diagnosed))
    profile = read_record(run.path / "round_00" / "profile" / "profile.json", MissingSkillProfile)
    assert profile.overall.n == 9 and all(s.without_gold is None for s in profile.skills)
    for view in ("report.md", "report.html"):
        assert "Difficult by five drawn answers that all differ: " in (run.path / view).read_text()
    assert forecast(config).answers == forecast(load_config(path, ["student.difficult=gold"])).answers + 5 * 9


def test_a_reward_model_decides_what_is_diagnosed(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        # The fake student says "no idea" where it is wrong, and then has no final answer to be asked about.
        server.signs = lambda messages: 0.2 if "no idea" in messages[-1]["content"] else 0.95
        reward = {"model": "prm", "base_url": server.url}
        path = with_keys(config_of(tmp_path, []), student={"difficult": "prm", "reward": reward})
        with loop_of(path) as loop:
            run_plain(loop)
            run, config = loop.run, loop.config
    folder = run.path / "answers" / "base" / "probe_steps"
    scored = read_records(folder / "scores.jsonl", StepScores)
    assert len(scored) == 9 and not (folder / "scores.journal").exists()
    low = {one.example_id for one in scored if min(one.scores) < 0.5}
    diagnosed = read_records(run.path / "round_00" / "diagnose" / "diagnoses.jsonl", Diagnosis)
    assert {d.example_id for d in diagnosed} == low and {d.error_kind for d in diagnosed} == {"doubtful"}
    probe = write_pages(run, config).rounds[0].probe
    assert probe is not None and probe.difficult is not None
    assert (probe.difficult.precision, probe.difficult.recall) == (1.0, 1.0)
    far = load_config(path, ["student.reward.base_url=https://prm.example/v1"])
    assert any("https://prm.example/v1 (student.reward)" in line for line in leaving(far))


def harder(folder: Path, skills: str = "s", profile_from: int = 2) -> Path:
    """Two rounds, the second by a profile of 5 items of a set with the pool's skills."""
    path = config_of(folder, FAR, profile_from=profile_from)
    rows = [{"question": q, "gold": a, "skills": [f"{skills}{n % 3}"]} for n, (q, a) in enumerate(FAR)]
    (folder / "ood.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = yaml.safe_load(path.read_text())
    tree["extra"]["ood"] |= {"columns": None, "format": "examples", "grader": "exact"}
    tree["rounds"] = 2
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_later_profile_is_made_of_a_harder_set_that_is_never_trained_on(tmp_path: Path) -> None:
    with loop_of(harder(tmp_path)) as loop:
        run_plain(loop)
        run, config = loop.run, loop.config
        ids = {e.id for e in loop.extra["ood"]}
    profiles = [
        read_record(run.path / f"round_{r:02d}" / "profile" / "profile.json", MissingSkillProfile) for r in range(3)
    ]
    assert [p.overall.n for p in profiles] == [9, 9, 5]
    labels = read_records(run.path / "label" / "labels.jsonl", SkillLabel)
    assert ids < {label.example_id for label in labels}
    diagnosed = read_records(run.path / "round_02" / "diagnose" / "diagnoses.jsonl", Diagnosis)
    assert diagnosed and {d.example_id for d in diagnosed} <= ids
    rows = [r for p in run.path.rglob("training_set.jsonl") for r in read_records(p, TrainingRow)]
    assert rows and not ids & {row.example_id for row in rows}
    report = write_pages(run, config)
    assert {f.example_id for f in report.rounds[2].failures} <= ids
    for view in ("report.md", "report.html"):
        assert "From round 2 on the missing-skill profile is made of the extra set ood" in (run.path / view).read_text()


def test_a_harder_set_without_the_pools_skills_is_refused(tmp_path: Path) -> None:
    with loop_of(harder(tmp_path, skills="other")) as loop, pytest.raises(DataError, match=r"extra\.ood\.profile_from"):
        run_plain(loop)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["extra.ood.retention=true"], "`retention`"),
        (["student.signals={samples: 2}"], "`student.signals`"),
        (["plan.allocation=expected_gain"], "expected_gain"),
        (["extra.ood.profile_from=0"], "profile_from"),
        (["extra.more={kind: file, path: x, format: gsm8k, items: 4, profile_from: 1}"], "one extra set"),
    ],
)
def test_a_harder_set_and_what_it_does_not_go_with(overrides: list[str], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=fault):
        load_config(harder(tmp_path), overrides)


STAT = {"allocation": "failures", "draws_per_failure": 5, "uniform_floor": 0, "max_repeats": 50}


def test_draws_follow_the_number_of_missing_skills(tmp_path: Path) -> None:
    path = with_keys(config_of(tmp_path, []), plan=STAT)
    with loop_of(path) as loop:
        run_plain(loop)
        plan, pool = loop.plan(1), {e.id: loop.labels[e.id].skills for e in loop.split("pool")}
        rows = loop.new_rows(1)
    missing = {part.skill: part.missing for part in plan.skills}
    assert plan.new_rows == len(rows) == 5 * sum(missing.values()) < 120
    assert {part.skill: part.pool_rows for part in plan.skills} == {s: 5 * n for s, n in missing.items()}
    assert sum(stat_sel_weights(missing, pool, k=5).values()) == len(rows)
