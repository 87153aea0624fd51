"""The whole loop with an LLM teacher, through the real command line, against a FAKE server that misbehaves."""

import json
import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from chat_server import FAULTS, FakeChatServer
from command import Finished, canonical_files, tutelage, write_config
from tiny_model import make_tiny_model

from agents.recorded_usage import role_timings
from agents.teacher_cost import config_forecast
from curriculum.config import load_config
from curriculum.report import RunReport, Timings
from curriculum.teacher_records import TeacherForecast
from curriculum.teacher_words import forecast_rows, spend_by_role

pytestmark = pytest.mark.real
KEY = "k-3f9a1c77e2-secret"
TEACHER = """\
teacher:
  kind: llm
  model: fake-teacher
  base_url: {url}
  key_variable: FAKE_TEACHER_KEY
  concurrency: 8
  backoff_seconds: 0.01
  timeout_seconds: 20
  prices: {{input: 1.0, cached_input: 0.5, output: 2.0}}
  catalogue: {catalogue}
  {extra}
"""


def config_of(
    folder: Path, server: FakeChatServer, extra: str = "", catalogue: str = "{least: 2, most: 10, sample: 30}"
) -> Path:
    os.environ["FAKE_TEACHER_KEY"] = KEY
    return write_config(folder, extra=TEACHER.format(url=server.url, extra=extra, catalogue=catalogue))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def started(config: Path, *args: str) -> Finished:
    return tutelage("run", config, "--name", "run", "--json", *args)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], Finished]:
    """A run with a server that behaves, what the server saw, and what the command printed."""
    folder = tmp_path_factory.mktemp("good")
    with FakeChatServer() as server:
        done = started(config_of(folder, server))
        assert done.code == 0, done.err
        return folder / "run", server.seen, done


def test_the_loop_runs_with_an_llm_teacher(good: tuple[Path, list[Any], Finished]) -> None:
    run, _, done = good
    assert done.last["status"] == "finished"
    labels = lines(run / "label" / "labels.jsonl")
    assert len(labels) == len(lines(run / "prepare" / "examples.jsonl"))
    assert {r["teacher"] for r in labels} == {"fake-teacher"}
    skills = {s["id"] for s in json.loads((run / "catalogue" / "skills.json").read_text())["skills"]}
    assert {s for r in labels for s in r["skills"]} <= skills
    written = lines(run / "round_01" / "build" / "written.jsonl")
    assert written and all(len(w["solutions"]) >= 2 for w in written)
    trained = {r["origin"] for r in lines(run / "round_01" / "build" / "training_set.jsonl")}
    assert trained == {"pool", "written"}


def test_three_solutions_of_a_question_are_three_replies(good: tuple[Path, list[Any], Finished]) -> None:
    _, seen, _ = good
    asked = Counter(s.body for s in seen if "Solve the question" in s.body)
    assert asked and set(asked.values()) == {3}
    replies = [s.reply for s in seen if "Solve the question" in s.body]
    assert len(set(replies)) == len(replies)


def test_the_report_says_what_the_teacher_cost(good: tuple[Path, list[Any], Finished]) -> None:
    run, seen, _ = good
    teaching = json.loads((run / "report.json").read_text())["teaching"]
    total = Counter[str]()
    for row in teaching["spend"]:
        total.update({k: v for k, v in row.items() if isinstance(v, int | float) and k != "round"})
    assert total["requests"] == total["replies"] == len(seen)
    assert total["prompt_tokens"] == 50 * len(seen) and total["completion_tokens"] == 20 * len(seen)
    assert total["cached_tokens"] == 10 * len(seen) and total["reasoning_tokens"] == 5 * len(seen)
    # 40 tokens at 1, 10 cached at 0.5 and 20 out at 2, per million.
    assert total["money"] == pytest.approx(len(seen) * 85e-6)
    assert {r["role"] for r in teaching["spend"]} == {"skills", "label", "diagnose", "write", "solve"}
    assert {r["round"] for r in teaching["spend"] if r["role"] == "write"} == {1, 2}
    assert "fake-teacher" in (run / "report.md").read_text()


def test_what_was_used_lies_in_what_was_forecast_and_records_narrow_it(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.bytes_per_token = 4
        config = config_of(tmp_path, server)
        done = started(config)
        assert done.code == 0, done.err
        sent = len(server.seen)
        printed = tutelage("forecast", config)
        assert printed.code == 0 and len(server.seen) == sent, "a forecast asks nobody"
    assert "label, diagnose, write, solve: by" not in printed.out and "replies of fake-teacher in run" in printed.out
    made = RunReport.model_validate(json.loads((tmp_path / "run" / "report.json").read_text()))
    assert made.teaching is not None and made.teaching.forecast is not None
    before, actual = made.teaching.forecast, {row.role: row for row in spend_by_role(made.teaching)}
    after = config_forecast(load_config(config))
    assert isinstance(after, TeacherForecast)
    for forecast in (before, after):
        assert [r.role for r in forecast.roles] == ["skills", "label", "diagnose", "write", "solve"]
        for role in forecast.roles:
            spent = actual[role.role]
            assert role.money is not None
            for (low, high), used in (
                (role.requests, spent.requests),
                (role.prompt_tokens, spent.prompt_tokens),
                (role.completion_tokens, spent.completion_tokens),
                (role.money, spent.money),
            ):
                assert low <= used <= high, (role, spent)
    wide, narrow = before.total, after.total
    assert narrow.requests == wide.requests, "how often it asks is no matter of the model"
    for name in ("prompt_tokens", "completion_tokens", "money"):
        (low, high), (low2, high2) = getattr(wide, name), getattr(narrow, name)
        assert high2 / low2 < high / low
    words = {row.role: row for row in forecast_rows(made, Timings(roles=role_timings(tmp_path / "run")))}
    assert words["all"].requests.startswith(f"{sent} (") and "above" not in str(words)
    assert not any("below" in cell for row in words.values() for cell in row[:-1]), "minutes: no model is this fast"
    assert {role for role, row in words.items() if row.minutes.startswith("–")} == set()
    for view in ("report.html", "report.md"):
        assert words["solve"].requests in (tmp_path / "run" / view).read_text()
    assert words["solve"].requests in done.out


def test_no_gold_of_a_held_out_split_reaches_the_teacher(good: tuple[Path, list[Any], Finished]) -> None:
    run, seen, _ = good
    held_out = [e for e in lines(run / "prepare" / "examples.jsonl") if e["split"] != "pool"]
    writing = "\n".join(s.body for s in seen if "teacher who writes" in s.body)
    assert writing and not [e for e in held_out if json.dumps(e["question"])[1:-1] in writing]
    spoken = [e for e in held_out if len(e["gold"]) > 5 and e["gold"] not in e["question"]]
    students = {a["text"] for path in run.rglob("answers.jsonl") for a in lines(path)}
    spoken = [e for e in spoken if not any(e["gold"] in text for text in students)]
    assert spoken and not [e for e in spoken if any(e["gold"] in s.body for s in seen)]


def test_the_key_is_sent_and_is_nowhere_else(good: tuple[Path, list[Any], Finished]) -> None:
    run, seen, done = good
    assert {s.authorization for s in seen} == {f"Bearer {KEY}"}
    assert KEY not in done.out + done.err + "".join(s.body for s in seen)
    assert not [p for p in run.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_no_process_is_shown_the_key(tmp_path: Path) -> None:
    """Looked at whenever a request comes in: the process list, and the environment of our workers."""
    shown: list[str] = []
    workers = set[int]()

    def look(prompt: str) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile, or is not ours to look at
                words = (folder / "cmdline").read_bytes()
                if KEY.encode() in words:
                    shown.append(f"{folder.name}: {words!r}")
                if b"grading_worker" in words or b"student.worker" in words:
                    workers.add(int(folder.name))
                    shown.extend(["environment"] if KEY.encode() in (folder / "environ").read_bytes() else [])

    base = make_tiny_model(tmp_path / "model")
    with FakeChatServer() as server:
        server.script = look
        config = config_of(tmp_path, server, "rows_per_call: 20")
        over = (f"student.base={base}", "student.engine=transformers", "rounds=1")
        done = started(config, *(part for key in over for part in ("--set", key)))
    assert done.code == 0, done.err
    assert workers and not shown


@pytest.mark.parametrize("fault", ["401", "404", "400"])
def test_a_server_that_repeats_the_key_gets_it_into_no_message(fault: str, tmp_path: Path) -> None:
    with FakeChatServer((fault,)) as server:
        done = started(config_of(tmp_path, server))
        assert server.seen and all(s.authorization == f"Bearer {KEY}" for s in server.seen)
    assert done.code == 2 and KEY not in done.out + done.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_a_cached_run_buys_nothing(good: tuple[Path, list[Any], Finished], tmp_path: Path) -> None:
    run, _, _ = good
    before = canonical_files(run)
    with FakeChatServer(("500",)) as server:
        done = tutelage("resume", run, "--json", "--set", f"teacher.base_url={server.url}")
        assert (done.code, len(server.seen)) == (0, 0), done.err
    changed = {"config.yaml"}
    assert {k: v for k, v in canonical_files(run).items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }


def test_with_a_third_of_bad_replies_every_item_is_done_or_listed(tmp_path: Path) -> None:
    with FakeChatServer(FAULTS, share=0.3) as server:
        done = started(config_of(tmp_path, server, "max_failed_share: 0.6"))
        assert done.code == 0, done.err
        run = tmp_path / "run"
        seen = len(server.seen)
    assert KEY not in done.out + done.err
    assert not [p for p in run.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    examples = [e["id"] for e in lines(run / "prepare" / "examples.jsonl")]
    labelled = [r["example_id"] for r in lines(run / "label" / "labels.jsonl")]
    failed = lines(run / "label" / "failed.jsonl")
    assert sorted(labelled + [f["item_id"] for f in failed]) == sorted(examples)
    assert all(f["reason"] for f in failed)
    for round_ in run.glob("round_*"):
        diagnosed = [d["answer_id"] for d in lines(round_ / "diagnose" / "diagnoses.jsonl")]
        unsaid = [f["item_id"] for f in lines(round_ / "diagnose" / "failed.jsonl")]
        assert len(set(diagnosed + unsaid)) == len(diagnosed) + len(unsaid) > 0
    teaching = json.loads((run / "report.json").read_text())["teaching"]
    assert sum(row["requests"] for row in teaching["spend"]) == seen
    assert len({f["kind"] for f in teaching["faults"]}) >= 6
    assert sum(f["items"] for f in teaching["failed"]) == sum(len(lines(p)) for p in run.rglob("failed.jsonl"))


def test_killed_again_and_again_no_committed_reply_is_bought_twice(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        config = config_of(tmp_path, server)
        done = tutelage("run", config, "--name", "run", kill_at=("line", 40))
        kills = 0
        while done.code:
            assert done.code == -9, done.err
            kills += 1
            done = tutelage("resume", tmp_path / "run", kill_at=("line", 260))
        events = lines(tmp_path / "run" / "teacher" / "calls.jsonl")
        seen = len(server.seen)
    assert kills > 3
    keys = Counter(e["key"] for e in events if e["event"] == "reply")
    assert set(keys.values()) == {1}
    ended = {e["number"] for e in events if e["event"] in ("reply", "error")}
    intents = {e["number"] for e in events if e["event"] == "intent"}
    # A request reached the server only after its intent; those that were under way at a kill are orphans.
    assert len(keys) <= seen <= len(intents)
    orphans = len(intents - ended)
    assert 0 < orphans <= 8 * kills
    spend = json.loads((tmp_path / "run" / "report.json").read_text())["teaching"]["spend"]
    assert sum(row["orphans"] for row in spend) == orphans
    charged = sum(e["tokens"] for e in events if e["event"] == "intent" and e["number"] not in ended)
    assert sum(row["charged_tokens"] for row in spend) == charged + sum(
        e["tokens"] for e in events if e["event"] == "reply"
    )


def test_a_budget_stops_the_run_and_raising_it_lets_it_go_on(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        done = started(config_of(tmp_path, server, "budget: {requests: 20}"))
        assert (done.code, done.last["status"], len(server.seen)) == (3, "over_budget", 20), done.err
        assert "warning: teacher.budget.requests is 20, and the least that is forecast is" in done.err
        assert "teacher.budget.requests is 20" in done.err and "tutelage resume" in done.err
        done = tutelage("resume", tmp_path / "run", "--json")
        assert (done.code, len(server.seen)) == (3, 20), done.err
        done = tutelage("resume", tmp_path / "run", "--json", "--set", "teacher.budget.requests=null")
        assert (done.code, done.last["status"]) == (0, "finished"), done.err
        bodies = Counter(s.body for s in server.seen if "Solve the question" not in s.body)
    assert set(bodies.values()) == {1}
    assert "teacher.budget.requests" in (tmp_path / "run" / "config_changes.jsonl").read_text()


def test_an_edited_catalogue_costs_no_call(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        done = started(config_of(tmp_path, server, "max_failed_share: 1.0"), "--set", "teacher.catalogue.approve=true")
        assert (done.code, done.last["status"]) == (0, "waiting"), done.err
        file = tmp_path / "run" / "catalogue" / "catalogue.yaml"
        text = file.read_text().replace("approved: false", "approved: true")
        text = text.replace("by: ''", "by: Ada").replace("reason: ''", "reason: they are one skill")
        text = text.replace("name: spelling\n", "name: spelling words\n")
        merged = re.sub(r"(  subtracting_numbers:\n(?:    .*\n)*?    into:) null", r"\1 adding_numbers", text)
        assert merged != text
        file.write_text(merged)
        naming = len(server.seen)
        done = tutelage("resume", tmp_path / "run", "--json")
        assert (done.code, done.last["status"]) == (0, "finished"), done.err
        assert naming == sum("takes questions apart" in s.body or "sorts skills" in s.body for s in server.seen)
    labels = lines(tmp_path / "run" / "label" / "labels.jsonl")
    assert not any("subtracting_numbers" in r["skills"] for r in labels)
    assert any("adding_numbers" in r["skills"] for r in labels)


def test_a_catalogue_and_a_plan_are_approved_by_command_and_nothing_is_written_before(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with FakeChatServer() as server:
        config = config_of(tmp_path, server, "max_failed_share: 1.0")
        done = started(config, "--set", "teacher.catalogue.approve=true", "--approve", "--set", "rounds=1")
        assert (done.code, done.last["status"]) == (0, "waiting") and "the skill catalogue" in done.err, done.err
        file = run / "catalogue" / "catalogue.yaml"
        text = re.sub(r"(  subtracting_numbers:\n(?:    .*\n)*?    into:) null", r"\1 sorcery", file.read_text())
        file.write_text(text)
        refused = tutelage("approve", run, "--by", "Ada")
        assert refused.code == 2 and "reason: expected" in refused.err and "`into: sorcery`" in refused.err
        file.write_text(text.replace("into: sorcery", "into: adding_numbers"))
        assert tutelage("approve", run, "--by", "Ada", "--reason", "one skill").code == 0

        done = tutelage("resume", run, "--json")
        assert done.last["status"] == "waiting" and "the plan of round 1" in done.err, done.err
        proposal = json.loads((run / "round_01" / "proposal.json").read_text())
        asked = {r["role"] for r in lines(run / "teacher" / "calls.jsonl")}
        assert asked.isdisjoint({"write", "solve"}), "nothing is written before the plan is approved"
        roles = {r["role"]: r["requests"] for r in proposal["forecast"]["teacher"]["roles"]}
        assert set(roles) == {"label", "write", "solve"} and proposal["forecast"]["teacher"]["rounds"] == 1
        sample = [row for skill in proposal["skills"] for row in skill["rows"]]
        assert {row["kind"] for row in sample} == {"pool", "seed"}
        added = next(s for s in proposal["skills"] if s["plan"]["skill"] == "adding_numbers")
        assert "subtracting numbers" in added["merged"]
        page = (run / "round_01" / "plan.html").read_text()
        assert "What the teacher will write is not known" in page and "merged into it: " in page
        assert "Seed only, not taught" in page

        assert tutelage("approve", run, "--by", "Ada", "--reason", "fine").code == 0
        done = tutelage("resume", run, "--json")
        assert (done.code, done.last["status"]) == (0, "finished"), done.err
    sent = Counter(r["role"] for r in lines(run / "teacher" / "calls.jsonl") if r["event"] == "intent" and r["round"])
    for role in ("write", "solve"):
        assert roles[role][0] <= sent[role] <= roles[role][1]
    notes = json.loads((run / "report.json").read_text())["notes"]
    assert "The skill catalogue was approved by Ada: one skill." in notes


def test_a_missing_key_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeChatServer() as server:
        config = config_of(tmp_path, server)
        monkeypatch.delenv("FAKE_TEACHER_KEY")
        done = started(config)
        assert done.code == 2 and "environment variable FAKE_TEACHER_KEY" in done.err
        assert not (tmp_path / "run").exists()
        assert tutelage("data", "check", config).code == 0, "looking at the data needs no key"
        assert not server.seen


def test_a_teacher_that_fails_too_often_stops_the_run(tmp_path: Path) -> None:
    with FakeChatServer(("empty",)) as server:
        done = started(config_of(tmp_path, server, catalogue="{source: data}"))
        assert done.code == 2 and "items got no usable reply, at most 10% may" in done.err, done.err
        assert "empty" in done.err and len(server.seen) < 60
    assert (tmp_path / "run" / "teacher" / "calls.jsonl").exists(), "what was bought is kept"
