"""The client against a FAKE server: retries, pauses, concurrency, budget, and what must never leave it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import FakeChatServer

from agents import rate
from agents.chat import ChatClient, NoReply
from agents.ledger import Ledger, Purpose
from agents.wire import Call
from curriculum.errors import BudgetReached, StopRequested, TeacherUnavailable, UserError
from curriculum.records import Message
from curriculum.teacher_config import Budget, TeacherConfig
from curriculum.teacher_records import CallEvent, Reply

KEY = "k-55aa-secret"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nothing on this machine goes through a proxy


def config_of(server: FakeChatServer, **keys: Any) -> TeacherConfig:
    plain = {"kind": "llm", "model": "m", "base_url": server.url, "key_variable": "FAKE_KEY", "backoff_seconds": 0.001}
    return TeacherConfig.model_validate(plain | {"attempts": 3} | keys)


def question(number: int = 0, sample: int = 0) -> Call:
    text = f"Solve the question\n<question 00000000>\nwhat is {number} + 1?\n</question 00000000>"
    return Call(
        Purpose("solve"), (Message(role="user", content=text),), "solve", {"type": "object"}, "hash", "", sample
    )


def ask(
    config: TeacherConfig, path: Path, *calls: Call, check_stop: Callable[[], None] = lambda: None
) -> list[Reply | BaseException]:
    async def all_of() -> list[Reply | BaseException]:
        client = ChatClient(Ledger(path / "calls.jsonl", config.budget), config, 0, check_stop)
        endpoint = config.endpoint("solve")
        replies = await asyncio.gather(*(client.ask(endpoint, c) for c in calls), return_exceptions=True)
        await client.close()
        return [r if isinstance(r, BaseException) else r[1] for r in replies]

    return asyncio.run(all_of())


def events(path: Path) -> list[CallEvent]:
    return [CallEvent.model_validate_json(line) for line in (path / "calls.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("fault", ["429", "429_retry_after", "500", "503", "drop", "cut", "not_json"])
def test_a_failed_request_is_repeated_until_it_is_given_up(fault: str, tmp_path: Path) -> None:
    with FakeChatServer((fault,)) as server:
        (end,) = ask(config_of(server), tmp_path, question())
        assert isinstance(end, NoReply) and end.kind == "no_reply" and "3 attempts" in end.reason
        assert server.counts.total() == 3
    assert [e.event for e in events(tmp_path)] == ["intent", "error"] * 3
    assert "no reply within" not in end.reason
    billed = fault in ("drop", "cut", "not_json")
    assert all((e.tokens > 0) == billed for e in events(tmp_path) if e.event == "error")


def test_a_server_that_is_not_there_is_not_called_slow_and_costs_nothing(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        config = config_of(server)
    (end,) = ask(config, tmp_path, question())
    assert isinstance(end, NoReply) and "the connection broke: ConnectionRefusedError" in end.reason
    errors = [e for e in events(tmp_path) if e.event == "error"]
    assert len(errors) == 3 and all(e.tokens == 0 for e in errors)


def test_a_reply_comes_through_after_failures(tmp_path: Path) -> None:
    with FakeChatServer(("500", "drop"), share=0.6) as server:
        replies = ask(config_of(server, attempts=30), tmp_path, *map(question, range(20)))
        assert all(isinstance(r, Reply) for r in replies)
        assert server.counts.total() > 20


def test_a_stalled_reply_is_given_up(tmp_path: Path) -> None:
    with FakeChatServer(("stall",)) as server:
        (end,) = ask(config_of(server, timeout_seconds=0.1, attempts=2), tmp_path, question())
    assert isinstance(end, NoReply) and "no reply within 0.1 s" in end.reason


def test_a_huge_reply_is_not_read_to_its_end(tmp_path: Path) -> None:
    with FakeChatServer(("huge",)) as server:
        (end,) = ask(config_of(server), tmp_path, question())
        assert isinstance(end, NoReply) and end.kind == "too_large"
        assert server.counts.total() == 1


def test_invalid_utf8_is_replaced_and_the_reply_used(tmp_path: Path) -> None:
    with FakeChatServer(("invalid_utf8",)) as server:
        (reply,) = ask(config_of(server), tmp_path, question())
    assert isinstance(reply, Reply) and reply.fingerprint == "��"


@pytest.mark.parametrize(("fault", "said"), [("401", "the key was not accepted"), ("404", "no such model")])
def test_a_refused_key_or_model_stops_at_once(fault: str, said: str, tmp_path: Path) -> None:
    with FakeChatServer((fault,)) as server:
        ends = ask(config_of(server, concurrency=2), tmp_path, *map(question, range(20)))
        assert server.counts.total() <= 2
    assert all(isinstance(e, UserError) and said in str(e) and "FAKE_KEY" in str(e) for e in ends)


def test_a_refused_request_is_a_failure_of_its_item_without_the_key_in_it(tmp_path: Path) -> None:
    with FakeChatServer(("400",)) as server:  # which repeats the key in its message
        (end,) = ask(config_of(server), tmp_path, question())
    assert isinstance(end, NoReply) and end.kind == "refused_request" and "[key]" in end.reason
    assert KEY not in end.reason + (tmp_path / "calls.jsonl").read_text()


def test_a_server_that_is_down_stops_the_run(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        config = config_of(server, attempts=1, concurrency=1)
    ends = ask(config, tmp_path, *map(question, range(30)))
    assert any(isinstance(e, TeacherUnavailable) and "8 items in a row" in str(e) for e in ends)
    assert len(events(tmp_path)) == 16


def test_a_committed_reply_is_not_bought_again(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        first = ask(config_of(server), tmp_path, question(1), question(1), question(2))
        again = ask(config_of(server), tmp_path, question(1), question(2))
        assert first[0] == first[1] == again[0] and first[2] == again[1]
        assert len(server.seen) == 2


def test_what_determines_the_reply_makes_another_call(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        config = config_of(server)
        ask(config, tmp_path, question(1), question(1, sample=1), question(1, sample=2), question(1)._replace(what="x"))
        for changed in ({"model": "n"}, {"temperature": 0.1}, {"max_tokens": 9}, {"structured": "json_schema"}):
            ask(config_of(server, **changed), tmp_path, question(1))
        assert len(server.seen) == 8


def test_no_more_requests_at_once_than_configured(tmp_path: Path) -> None:
    with FakeChatServer(delay=0.01) as server:
        ask(config_of(server, concurrency=3), tmp_path, *map(question, range(30)))
        assert 2 <= server.most_busy <= 3


@pytest.mark.parametrize(("budget", "sent"), [({"requests": 5}, 5), ({"requests": 0}, 0), ({"tokens": 0}, 0)])
def test_parallel_requests_do_not_overshoot_the_budget(budget: dict[str, int], sent: int, tmp_path: Path) -> None:
    with FakeChatServer(delay=0.01) as server:
        ends = ask(config_of(server, concurrency=16, budget=budget), tmp_path, *map(question, range(30)))
        assert len(server.seen) == sent
    assert sum(isinstance(e, BudgetReached) for e in ends) == 30 - sent


def test_what_replies_give_back_is_used_before_the_budget_is_called_reached(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        # One request reserves about 2,400 tokens and takes 70.
        config = config_of(server, concurrency=16, budget={"tokens": 5000})
        ends = ask(config, tmp_path, *map(question, range(60)))
    paid = sum(isinstance(e, Reply) for e in ends)
    assert 30 < paid < 60
    assert Ledger(tmp_path / "calls.jsonl", Budget()).spent.tokens == 70 * paid <= 5000


def test_a_stop_lets_requests_finish_and_sends_no_other(tmp_path: Path) -> None:
    with FakeChatServer(delay=0.01) as server:
        config = config_of(server, concurrency=2)

        def check() -> None:
            if len(server.seen) >= 4:
                raise StopRequested("stop")

        ends = ask(config, tmp_path, *map(question, range(30)), check_stop=check)
        kinds = Counter(type(e).__name__ for e in ends)
        assert kinds["Reply"] == len(server.seen) <= 6 and kinds["StopRequested"] == 30 - len(server.seen)
    assert [e.event for e in events(tmp_path)].count("reply") == kinds["Reply"]


def test_a_missing_key_is_said_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_KEY")
    with FakeChatServer() as server:
        (end,) = ask(config_of(server), tmp_path, question())
    assert isinstance(end, UserError) and "environment variable FAKE_KEY" in str(end)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert rate.retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m30s", 90.0), ("120ms", 0.12), ("2", 2.0), ("6h", 21600.0), ("x1s", None), ("", None)]
)
def test_spans_of_rate_limit_headers(text: str, seconds: float | None) -> None:
    assert rate.span_seconds(text) == seconds


def test_concurrency_halves_once_for_what_was_under_way_and_grows_again() -> None:
    async def limits() -> list[float]:
        limiter = rate.Limiter(8)
        began = asyncio.get_running_loop().time()
        limiter.overloaded(began)
        limiter.overloaded(began)
        seen = [limiter.limit]
        for _ in range(4):
            limiter.succeeded()
        seen.append(limiter.limit)
        for _ in range(1000):
            limiter.succeeded()
        return [*seen, limiter.limit]

    halved, grown, most = asyncio.run(limits())
    assert halved == 4 and 4.9 < grown <= 5 and most == 8
