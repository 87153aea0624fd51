"""The whole loop with an LLM that plans and one that judges, through the real command line, against a FAKE server."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import FakeChatServer
from command import Finished, tutelage

pytestmark = pytest.mark.real
KEY = "k-3f9a1c77e2-secret"


def config_of(folder: Path, server: FakeChatServer, **sections: Any) -> Path:
    """A small run on rows of a file; sections are laid over it."""
    os.environ["FAKE_TEACHER_KEY"] = KEY
    lines = [
        {"question": f"{name} {n}: what is {n} + {k}?", "gold": str(n + k), "skills": [name]}
        for k, name in enumerate(("adding_numbers", "spelling"), 1)
        for n in range(110)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    config: dict[str, Any] = {
        "rounds": 2,
        "runs_dir": str(folder),
        "data": {
            "kind": "file",
            "path": str(folder / "rows.jsonl"),
            "format": "examples",
            "grader": "exact",
            "splits": {"probe": 30, "gate": 40, "final": 30},
        },
        "student": {"engine": "fake", "base": "fake", "max_new_tokens": 8},
        "plan": {"rows_per_round": 20, "write_share": 0.2, "by": "llm"},
        "training": {"epochs": 1, "rank": 4},
        "gate": {"retrain_sd": 0.0},
        "teacher": {
            "kind": "llm",
            "model": "fake-teacher",
            "base_url": server.url,
            "key_variable": "FAKE_TEACHER_KEY",
            "backoff_seconds": 0.01,
            "labels": "data",
            "catalogue": {"source": "data"},
        },
    }
    for name, section in sections.items():
        config[name] = config.get(name, {}) | section if isinstance(section, dict) else section
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report_of(run: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((run / "report.json").read_text())
    return made


def started(config: Path, *args: str) -> Finished:
    return tutelage("run", config, "--name", "run", "--json", *args)


def pages(run: Path, done: Finished) -> list[str]:
    """The report in all its forms, each on one line and without what Markdown escapes."""
    html = (run / "report.html").read_text().replace("&#39;", "'")
    texts = [html, (run / "report.md").read_text(), done.out]
    return [re.sub(r"\s+", " ", text.replace("\\", "")) for text in texts]


# Planning


def test_the_loop_follows_an_llms_plan(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        done = started(config_of(tmp_path, server))
        assert done.code == 0, done.err
        run = tmp_path / "run"
        asked = [s for s in server.seen if "who plans" in s.body]
        assert len(asked) == 2
    plans = [r["plan"] for r in report_of(run)["rounds"] if r["plan"]]
    assert [p["by"] for p in plans] == ["llm", "llm"] and all(p["reason"] for p in plans)
    # 3 of 20 rows are the floor's; the fake gives all 17 of its own to the first skill.
    by_skill = {s["skill"]: s["pool_rows"] for s in plans[0]["skills"]}
    assert by_skill == {"adding_numbers": 19, "spelling": 1}
    trained = Counter(r["skill"] for r in lines(run / "round_01" / "build" / "training_set.jsonl"))
    assert trained == by_skill
    told = "An LLM planned this round: The first skill is enough."
    shown = pages(run, done)
    assert all(told in page for page in shown[:2])
    assert not list(run.rglob("told.journal"))
    spent = [r for r in report_of(run)["teaching"]["spend"] if r["role"] == "plan"]
    assert [(r["round"], r["requests"]) for r in spent] == [(1, 1), (2, 1)]
    assert report_of(run)["teaching"]["models"]["plan"] == "fake-teacher"
    assert_forecast(report_of(run)["teaching"], "plan")


def assert_forecast(teaching: dict[str, Any], role: str) -> None:
    """What a role was asked lies in what was forecast."""
    asked = sum(r["requests"] for r in teaching["spend"] if r["role"] == role)
    forecast = [r["requests"] for r in teaching["forecast"]["roles"] if r["role"] == role]
    assert 0 < sum(least for least, _ in forecast) <= asked <= sum(most for _, most in forecast)


BAD = {
    "over_budget": {"skill": "spelling", "reason": "r", "pool_rows": 900, "written_rows": []},
    "unknown_skill": {"skill": "<script>fly</script>", "reason": "r", "pool_rows": 9, "written_rows": []},
    "schema": {"skill": "spelling", "reason": "r"},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_plan_that_cannot_be_used_gives_way_to_the_rule_and_the_report_says_so(tmp_path: Path, kind: str) -> None:
    with FakeChatServer() as server:
        plan = json.dumps({"reason": "r", "skills": [BAD[kind]]})
        server.script = lambda prompt: plan if "who plans" in prompt else None
        done = started(config_of(tmp_path, server, rounds=1))
        assert done.code == 0, done.err
        by_llm = tmp_path / "run"
        assert sum("who plans" in s.body for s in server.seen) == 2, "one repair turn"
        rule = tutelage("run", tmp_path / "small.yaml", "--name", "rule", "--set", "plan.by=rule")
        assert rule.code == 0, rule.err
    made, plain = (report_of(tmp_path / name)["rounds"][1]["plan"] for name in ("run", "rule"))
    fallback = made.pop("fallback")
    assert made == plain and made["by"] == "rule" and fallback.startswith(f"{kind}: ")
    assert f"the LLM's plan cannot be used, so the rule planned ({kind}: " in done.err
    told = f"The rule planned this round, for the LLM's plan could not be used: {kind}: "
    assert all(told in page for page in pages(by_llm, tutelage("report", by_llm)))
    assert all("<script>fly" not in page for page in pages(by_llm, done)[:1])
    (failure,) = lines(by_llm / "round_01" / "plan" / "failed.jsonl")
    assert (failure["role"], failure["kind"]) == ("plan", kind)


def test_killed_while_planning_no_plan_is_bought_twice(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        config = config_of(tmp_path, server, rounds=1, teacher={"budget": {"requests": 500}})
        # The twelfth stage is the first plan: its reply is bought, its files are written, and it is not done.
        done = tutelage("run", config, "--name", "run", kill_at=("done", 12))
        stage = tmp_path / "run" / "round_01" / "plan"
        assert done.code == -9 and (stage / "plan.proposed.yaml").exists() and not (stage / "done.json").exists()
        assert tutelage("resume", tmp_path / "run").code == 0
        (asked,) = [s for s in server.seen if "who plans" in s.body]
    assert "The teacher's budget: " in asked.body and " of 500 requests are spent" in asked.body
    assert yaml.safe_load((stage / "plan.proposed.yaml").read_text())["by"] == "llm"


# Judging

JUDGE = {"grader": "judge", "grader_rubric": "The number is the right one.", "grader_check": "exact"}


def test_the_loop_runs_on_a_judges_verdicts(tmp_path: Path) -> None:
    second = {"model": "other", "share": 0.3}
    with FakeChatServer() as server:
        # The rule has rows written; the fake planner does not.
        config = config_of(tmp_path, server, data=JUDGE, plan={"by": "rule"}, teacher={"second_judge": second})
        done = started(config)
        assert done.code == 0, done.err
        run = tmp_path / "run"
        judged = [s for s in server.seen if "who decides" in s.body]
    grades = [g for path in run.rglob("grades.jsonl") for g in lines(path)]
    assert {g["grader"] for g in grades} == {"judge"} and all(g["judged"] for g in grades if g["extracted"])
    # The fake judge compares texts as `exact` does; verdicts of both kinds occur, and decide.
    assert {(g["verdict"], g["judged"]["check"]) for g in grades if "judged" in g} == {
        ("correct", "correct"),
        ("wrong", "wrong"),
    }
    assert {r["decision"] for r in report_of(run)["rounds"][1:]} <= {"accepted", "rolled_back"}
    judging = report_of(run)["judging"]
    assert judging["answers"] == sum(g["judged"] is not None for g in grades if "judged" in g)
    by_name = {a["against"]: a for a in judging["agreement"]}
    assert by_name["exact"]["agree"]["n"] == judging["answers"] and by_name["exact"]["kappa"]["value"] == 1.0
    assert 0 < by_name["other"]["agree"]["n"] < judging["answers"]
    # Adapters that answer a question in the same words are judged in one request.
    assert 0 < Counter(json.loads(s.body)["model"] for s in judged)["other"] < by_name["other"]["agree"]["n"]
    assert len({s.body for s in judged}) == len(judged) < judging["answers"]
    shown = pages(run, tutelage("report", run))
    assert all("exact agrees with it on 100.0 %" in page and "Cohen's kappa 1.00" in page for page in shown)
    assert all("other agrees with it on 100.0 %" in page for page in shown)
    written = lines(run / "round_01" / "build" / "written.jsonl")
    assert written and {w["grader"] for w in written} == {"judge"} and all(len(w["solutions"]) >= 2 for w in written)
    spend = report_of(run)["teaching"]["spend"]
    assert {r["round"] for r in spend if r["role"] == "judge"} >= {None, 0, 1}
    forecast = report_of(run)["teaching"]["forecast"]["roles"]
    assert [(r["role"], r["model"]) for r in forecast[-2:]] == [("judge", "fake-teacher"), ("judge", "other")]
    assert_forecast(report_of(run)["teaching"], "judge")
    assert not [p for p in run.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_a_judge_that_is_often_unsure_stops_the_run_with_what_to_do(tmp_path: Path) -> None:
    def unsure(prompt: str) -> str | None:
        found = re.findall(r'"id": "([0-9a-f]{8})"', prompt)
        return json.dumps({"id": found[-1], "reason": "It depends.", "verdict": "unsure"}) if found else None

    with FakeChatServer() as server:
        server.script = unsure
        done = started(config_of(tmp_path, server, data=JUDGE))
    assert done.code == 2 and "got no verdict of the judge, at most 10%" in done.err, done.err
    assert "unsure: It depends." in done.err and "grader_rubric" in done.err and "Traceback" not in done.err


def test_killed_again_and_again_no_judgement_is_bought_twice(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        config = config_of(tmp_path, server, data=JUDGE, rounds=1)
        done = tutelage("run", config, "--name", "run", kill_at=("line", 60))
        kills = 0
        while done.code:
            assert done.code == -9, done.err
            kills += 1
            done = tutelage("resume", tmp_path / "run", kill_at=("line", 300))
        events = lines(tmp_path / "run" / "teacher" / "calls.jsonl")
    assert kills > 1
    keys = Counter(e["key"] for e in events if e["event"] == "reply")
    assert set(keys.values()) == {1}


def test_looking_at_the_data_asks_no_judge(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        done = tutelage("data", "check", config_of(tmp_path, server, data=JUDGE))
        assert done.code == 0, done.err
        assert not server.seen


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["teacher={}"], "`data.grader: judge` and `plan.by: llm` asks a model, but the offline teacher calls nobody"),
        (["data.grader_rubric=null"], "`grader_rubric` goes with `grader: judge`"),
        (["data.grader=exact", "data.grader_rubric=null"], "`grader_check` goes with `grader: judge`"),
        (["teacher.second_judge={share: 0.1}"], "expected a `model` of its own"),
        (["plan.uniform_floor=1"], "has no row to plan"),
        (["teacher.budget.money=1"], "needs `prices`"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(tmp_path: Path, sets: list[str], message: str) -> None:
    with FakeChatServer() as server:
        config = config_of(tmp_path, server, data=JUDGE)
        done = started(config, "--set", "plan.write_share=0", *(f"--set={s}" for s in sets))
    assert done.code == 2 and message in done.err, done.err
    assert not (tmp_path / "run").exists() and not server.seen
