"""Each way in which the FAKE server misbehaves, alone and all mixed: every item is done or listed, none twice."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import FAULTS, SKILLS, FakeChatServer

from agents.ledger import Ledger
from agents.llm_teacher import LLMTeacher
from curriculum.config import Config
from curriculum.grading import Grader
from curriculum.records import Example, Skill, SkillCatalogue, SkillLabel
from curriculum.teacher_records import CallEvent, TeacherFailure

CATALOGUE = SkillCatalogue(teacher="m", skills=tuple(Skill(id=s, name=s, writable=True) for s in SKILLS))
DONE, STALLED = "done", ("stall", "stall_midway")
ENDS = {
    **{
        fault: {"no_reply": 4}
        for fault in ("429", "429_retry_after", "500", "503", "drop", "cut", "not_json", *STALLED)
    },
    **{fault: {DONE: 4} for fault in ("slow", "prose", "preamble", "invalid_utf8", "no_usage")},
    "truncated": {"truncated": 4},
    "wrong_schema": {"schema": 4},
    "wrong_ids": {"wrong_ids": 2, DONE: 2},
    "unknown_skill": {"unknown_skill": 4},
    "duplicate_keys": {"duplicate_keys": 4},
    "empty": {"empty": 4},
    "refusal": {"refusal": 4},
    "huge": {"too_large": 4},
    "400": {"refused_request": 4},
}
"""What becomes of four questions in two requests when every reply has this fault."""


def examples(count: int) -> list[Example]:
    return [
        Example.make(question=f"What is {at} + 2?", gold=str(at + 2), grader="numeric", source="made")
        for at in range(count)
    ]


def label(server: FakeChatServer, folder: Path, items: list[Example], **keys: Any) -> list[SkillLabel | TeacherFailure]:
    plain = {"kind": "llm", "model": "m", "base_url": server.url, "rows_per_call": 2, "backoff_seconds": 0.001}
    plain |= {"attempts": 2, "max_failed_share": 1.0, "timeout_seconds": 20, "concurrency": 4}
    config = Config.model_validate(
        {
            "data": {"kind": "file", "path": "x", "format": "gsm8k", "splits": {"probe": 1, "gate": 1, "final": 1}},
            "plan": {"rows_per_round": 1},
            "teacher": plain | keys,
        }
    )
    ledger = Ledger(folder / "calls.jsonl", config.teacher.budget)
    with Grader() as grader:
        teacher = LLMTeacher(config, ledger, grader, lambda what, p: None, lambda text: None, lambda: None)
        try:
            return list(teacher.label(items, CATALOGUE))
        finally:
            teacher.close()


def end_of(one: SkillLabel | TeacherFailure) -> tuple[str, str]:
    """The item and what became of it."""
    return (one.example_id, DONE) if isinstance(one, SkillLabel) else (one.item_id, one.kind)


def events(folder: Path) -> list[CallEvent]:
    return [CallEvent.model_validate_json(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("fault", ENDS)
def test_what_becomes_of_items_when_every_reply_has_one_fault(fault: str, tmp_path: Path) -> None:
    items = examples(4)
    with FakeChatServer((fault,)) as server:
        made = label(server, tmp_path, items, timeout_seconds=0.1 if fault in STALLED else 20)
        requests = server.counts.total()
    ends = [end_of(one) for one in made]
    assert sorted(id_ for id_, _ in ends) == sorted(e.id for e in items)
    assert Counter(end for _, end in ends) == ENDS[fault]
    assert all(one.reason for one in made)
    # The ledger has each request, and how it ended; one that was given up may not have reached the server.
    sent, ended = (sum(e.event in kinds for e in events(tmp_path)) for kinds in (["intent"], ["reply", "error"]))
    assert sent == ended >= requests and (sent == requests or fault in STALLED)


def test_every_fault_the_server_knows_is_in_the_table() -> None:
    assert set(FAULTS) <= ENDS.keys()


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_with_faults_of_all_kinds_every_item_is_done_or_listed_once(share: float, tmp_path: Path) -> None:
    items = examples(160)
    with FakeChatServer((*FAULTS, *STALLED), share=share) as server:
        made = label(server, tmp_path, items, timeout_seconds=0.2, attempts=3, concurrency=16)
        again = label(server, tmp_path, items, timeout_seconds=0.2, attempts=3, concurrency=16)
        seen = Counter(s.body for s in server.seen)
    ends = dict(map(end_of, made))
    assert len(made) == len(ends) and ends.keys() == {e.id for e in items}
    assert DONE in ends.values() and len(set(ends.values())) > 1
    assert all(one.reason for one in made)
    # A second look buys only what got no reply at all; each committed reply is one of its own request.
    assert {one for one in map(end_of, made) if one[1] == DONE} <= {one for one in map(end_of, again) if one[1] == DONE}
    committed = Counter(e.key for e in events(tmp_path) if e.event == "reply")
    assert set(committed.values()) == {1} and len(committed) <= len(seen)


def test_a_repair_turn_carries_the_fault_and_mends_the_item(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.fault_of = lambda body: "wrong_schema" if len(json.loads(body)["messages"]) == 1 else None
        made = label(server, tmp_path, examples(4))
        turns = [json.loads(s.body)["messages"] for s in server.seen]
    assert all(isinstance(one, SkillLabel) for one in made)
    assert sorted(map(len, turns)) == [1, 1, 3, 3]
    assert all("expected a list under `labels`" in t[2]["content"] for t in turns if len(t) == 3)
