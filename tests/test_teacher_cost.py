"""The forecast of a teacher's cost: its arithmetic, which roles it counts, and where its figures are from."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import HOSTILE, run_report, terminal

from agents.ledger import LEDGER, Amount, Ledger, Purpose, upper_bound
from agents.llm_teacher import LLMTeacher
from agents.recorded_usage import FORECAST, Recorded, Usage, recorded_usage, role_timings
from agents.teacher_cost import config_forecast, record_forecast, teacher_forecast
from agents.teacher_work import End, Known
from agents.wire import request_body
from curriculum.config import Config
from curriculum.grading import Grader
from curriculum.records import Example, Message, Skill, SkillCatalogue
from curriculum.report import RoleTiming, Timings
from curriculum.report_html import render_html
from curriculum.report_text import render_markdown
from curriculum.rundir import RunDir, append_journal, write_json
from curriculum.teacher_config import Budget
from curriculum.teacher_records import CallEvent, Reply, RoleForecast, SpendRow, TeacherForecast, TeacherReport
from curriculum.teacher_words import count_words, forecast_rows, range_words, short_of

PRICES = {"input": 1.0, "cached_input": 0.5, "output": 4.0}
NOTHING = Recorded({}, ())
USAGE = Usage(99, ("one",), (0.2, 0.3), (10.0, 90.0), (0.5, 2.0))
FIELDS = ("requests", "prompt_tokens", "completion_tokens", "money", "minutes")


def tree(rounds: int = 2, rows: int = 6, share: float = 0.5, **teacher: Any) -> dict[str, Any]:
    splits = {"probe": 2, "gate": 2, "final": 2}
    return {
        "rounds": rounds,
        "data": {"kind": "file", "path": "x.jsonl", "format": "gsm8k", "splits": splits},
        "plan": {"rows_per_round": rows, "write_share": share},
        "teacher": {"kind": "llm", "model": "m", "base_url": "https://h.example/v1", "prices": PRICES} | teacher,
    }


def config(*args: Any, **teacher: Any) -> Config:
    return Config.model_validate(tree(*args, **teacher))


def examples(**sizes: int) -> list[Example]:
    """So many of each split, of different lengths."""
    return [
        Example.make(
            question=f"Question {n} of {split}: " + "word " * (n % 7), gold=str(n), grader="numeric", source="f:1"
        ).model_copy(update={"split": split, "skills": ("add",)})
        for split, size in sizes.items()
        for n in range(size)
    ]


SMALL = examples(pool=9, probe=6, gate=3, final=2)


def made(config: Config, data: Sequence[Example] = SMALL, recorded: Recorded = NOTHING) -> dict[str, RoleForecast]:
    return {role.role: role for role in teacher_forecast(config, data, recorded).roles}


@settings(max_examples=8, deadline=None)
@given(
    *(st.integers(1, most) for most in (4, 14, 6, 9)),
    *(st.integers(0, 3) for _ in range(4)),
    st.integers(1, 7),
    st.booleans(),
)
def test_more_is_never_cheaper_and_least_is_at_most_most(
    rounds: int, rows: int, probe: int, gate: int, r: int, w: int, p: int, g: int, per_call: int, recorded: bool
) -> None:
    usage = Recorded(dict.fromkeys(("label", "solve"), USAGE), ()) if recorded else NOTHING
    keys = {"rows_per_call": per_call, "concurrency": 1 + rows % 5}
    less = made(config(rounds, rows, **keys), examples(pool=8, probe=probe, gate=gate), usage)
    more = made(config(rounds + r, rows + w, **keys), examples(pool=8, probe=probe + p, gate=gate + g), usage)
    assert less.keys() <= more.keys()
    for role, forecast in less.items():
        for name in FIELDS:
            (low, high), (low2, high2) = getattr(forecast, name), getattr(more[role], name)
            assert 0 <= low <= high and low <= low2 and high <= high2, (role, name)


def test_without_prices_there_is_no_money() -> None:
    assert all(role.money is None for role in made(config(prices=None)).values())
    local = {"solve": {"base_url": "http://localhost:1/v1", "model": "n"}}
    forecast = teacher_forecast(config(roles=local), SMALL, NOTHING)
    assert {r.role for r in forecast.roles if r.money is None} == {"solve"} and forecast.total.money is None
    assert all(r.money and 0 <= r.money[0] < r.money[1] for r in made(config()).values())


@pytest.mark.parametrize(
    ("share", "keys", "roles"),
    [
        (0.5, {}, ["skills", "label", "diagnose", "write", "solve"]),
        (0.0, {}, ["skills", "label", "diagnose"]),
        (0.5, {"catalogue": {"source": "data"}}, ["label", "diagnose", "write", "solve"]),
        (0.0, {"catalogue": {"source": "data"}, "labels": "data"}, ["diagnose"]),
    ],
)
def test_only_roles_that_are_asked_are_forecast(share: float, keys: dict[str, Any], roles: list[str]) -> None:
    assert list(made(config(2, 6, share, **keys))) == roles


def test_what_the_data_label_is_not_asked_but_new_questions_are() -> None:
    own = {"catalogue": {"source": "data"}, "labels": "data"}
    all_, new = made(config())["label"], made(config(**own))["label"]
    assert all_.requests[0] - new.requests[0] == 5, "20 examples, four a request"
    assert new.requests[0] == 2, "of two rounds: four drafts in one request"


def test_requests_at_both_ends() -> None:
    forecast = made(config(3, 8), examples(pool=30, probe=40, gate=4, final=2))
    # 30 pool questions, ten a request; at most 150 names, in two requests and one of what is left of them.
    assert forecast["skills"].requests == (3 + 1, 2 * (3 + 2 + 1))
    # Two of 40, the base's; or all of three adapters, each with its repair.
    assert forecast["diagnose"].requests == (2, 2 * 3 * 40)
    # Four rows: two requests a round; or four orders of one row, in four waves, each with its repair.
    assert forecast["write"].requests == (3 * 2, 2 * 3 * 4 * 4)
    assert forecast["solve"].requests == (3 * 4 * 3, 2 * 3 * 4 * 8 * 3)
    # 76 examples, four a request, and four drafts a round; or eight drafts of four orders a wave.
    assert forecast["label"].requests == (19 + 3, 2 * (19 + 3 * 4 * 5))


def test_planning_and_judging_at_both_ends() -> None:
    tree_ = tree(3, 8, second_judge={"model": "n", "share": 0.5})
    tree_["plan"] |= {"by": "llm"}
    tree_["data"] |= {"grader": "judge", "grader_rubric": "It is right."}
    judged = Config.model_validate(tree_)
    data = [e.model_copy(update={"grader": "judge"}) for e in examples(pool=30, probe=40, gate=20, final=10)]
    forecast = teacher_forecast(judged, data, NOTHING)
    assert [(r.role, r.model) for r in forecast.roles[-3:]] == [("plan", "m"), ("judge", "m"), ("judge", "n")]
    plan, judge, second = forecast.roles[-3:]
    assert plan.requests == (3, 2 * 3)
    # A planner need not have anything written. Half of the base's 70 answers; or three probes, four gates, three
    # arms, and three pairs of all drafts of all waves; each with its repair.
    assert judge.requests == (35, 2 * (3 * 40 + 4 * 20 + 3 * 10 + 3 * 4 * 8 * 3))
    # Half of 35 and of 230, three standard deviations to either side.
    assert second.requests == (8, 2 * 138) and forecast.of("judge").requests == (35 + 8, judge.requests[1] + 276)
    assert second.money is None and forecast.of("judge").money is None, "another model has no prices of the first"
    assert [r.requests[0] for r in forecast.roles if r.role in ("write", "solve")] == [0, 0]
    tree_["plan"] |= {"by": "rule"}
    by_rule = made(Config.model_validate(tree_ | {"teacher": tree(3, 8)["teacher"]}), data)
    assert "plan" not in by_rule and by_rule["judge"].requests == (35 + 3 * 4, judge.requests[1]), "one pair a draft"
    assert "judge" not in made(config(3, 8))


def test_few_requests_at_once_take_longer() -> None:
    one, many = (made(config(concurrency=n))["solve"] for n in (1, 8))
    assert one.requests == many.requests and one.minutes[0] == pytest.approx(one.requests[0] / 60, abs=0.01)
    assert many.minutes[0] < one.minutes[0] and many.minutes[1] < one.minutes[1]
    recorded = Recorded({"solve": USAGE}, ())
    assert made(config(concurrency=1), recorded=recorded)["solve"].minutes[0] == pytest.approx(
        one.requests[0] * 0.5 / 60, abs=0.01
    )


def test_prompts_are_those_that_would_be_sent(tmp_path: Path) -> None:
    settings_ = config(prices=None, catalogue={"source": "data"})
    ledger = Ledger(tmp_path / "calls.jsonl", Budget())
    teacher = LLMTeacher(settings_, ledger, Grader(), lambda what, p: None, lambda text: None, lambda: None)
    catalogue = teacher.propose_skills([e for e in SMALL if e.split == "pool"])
    (one,) = examples(gate=1)
    question = teacher.label_question([one], catalogue, Purpose("label"))
    endpoint = settings_.teacher.endpoint("label")
    body = request_body(endpoint, teacher.asker.call(question, [Message(role="user", content=question.text)]), 0)
    end = End(settings_, [*SMALL, one], teacher, Known(catalogue=catalogue), most=False)
    work = end.step(3, lambda _: question)
    assert one.question in body["messages"][0]["content"]
    assert work.text_bytes == 3 * len(body["messages"][0]["content"].encode())
    assert work.bound == 3 * (upper_bound(endpoint, body).tokens - endpoint.max_tokens)
    assert (work.requests, work.turns, work.rows) == (3, 1, 3)
    dear = End(settings_, [*SMALL, one], teacher, Known(catalogue=catalogue), most=True).step(3, lambda _: question)
    assert dear.requests == 6 and dear.turns == 2 and dear.bound > 2 * work.bound, "the repair shows the faulty reply"
    many = end.step(1000, lambda i: question)
    assert many.text_bytes * 3 == work.text_bytes * 1000, "many prompts of one kind stand for one another"


def test_a_fork_is_not_asked_again_for_what_it_has() -> None:
    catalogue = SkillCatalogue(teacher="m", skills=(Skill(id="add", name="add", writable=True),))
    whole = teacher_forecast(config(3), SMALL, NOTHING)
    fork = teacher_forecast(config(3), SMALL, NOTHING, Known(2, catalogue, labelled=True))
    assert [r.role for r in fork.roles] == ["label", "diagnose", "write", "solve"]
    assert fork.total.requests[1] < whole.total.requests[1] / 2
    assert fork.roles[1].requests[1] == whole.roles[2].requests[1] / 3, "one round of three"


# What ledgers say.


def run_with(
    folder: Path, name: str, prompt: int = 30, completion: int = 20, replies: int = 12, **teacher: Any
) -> Config:
    """A run whose ledger has replies to requests of 100 bytes by role `solve`, and the config it had."""
    then = config(**teacher)
    (folder / name / LEDGER).parent.mkdir(parents=True)
    (folder / name / "config.yaml").write_text(yaml.safe_dump(then.model_dump(mode="json")))
    ledger = Ledger(folder / name / LEDGER, Budget())
    for n in range(replies):
        need = Amount(1, 100 + then.teacher.endpoint("solve").max_tokens, 0)
        number = ledger.intend(str(n), Purpose("solve", 1, "add"), need)
        usage = {"prompt_tokens": prompt + n, "completion_tokens": completion + n}
        ledger.commit(
            number, Reply.model_validate({"text": "x", "finish_reason": "stop", "prompt_hash": "", **usage}), None
        )
    return then.model_copy(update={"runs_dir": folder})


def test_recorded_usage_gives_the_ratios(tmp_path: Path) -> None:
    now = run_with(tmp_path, "one")
    found = recorded_usage(now)
    assert list(found.usage) == ["solve"] and not found.unread
    usage = found.usage["solve"]
    assert (usage.replies, usage.runs) == (12, ("one",))
    assert usage.tokens_per_byte == pytest.approx((0.31, 0.40)) and usage.completion_tokens == (21, 30)
    assert usage.seconds is not None and 0 <= usage.seconds[0] <= usage.seconds[1]
    forecast = teacher_forecast(now, SMALL, found)
    assert any(s.startswith("solve: by 12 replies of m in one, 0.31 to 0.4 tokens a byte") for s in forecast.basis)
    assert any(s.startswith("skills, label, diagnose, write: no run recorded m asked so") for s in forecast.basis)
    solve = forecast.roles[-1]
    assert solve.completion_tokens == (21 * solve.requests[0], 30 * solve.requests[1])


@pytest.mark.parametrize(
    "other", [{"model": "n"}, {"max_tokens": 9}, {"structured": "json_object"}, {"extra_body": {"effort": "low"}}]
)
def test_records_of_another_way_to_ask_say_nothing(other: dict[str, Any], tmp_path: Path) -> None:
    now = run_with(tmp_path, "one")
    assert not recorded_usage(config(**other).model_copy(update={"runs_dir": tmp_path})).usage
    assert recorded_usage(now).usage


def test_few_replies_and_other_addresses_and_damage(tmp_path: Path) -> None:
    assert not recorded_usage(run_with(tmp_path / "few", "one", replies=9)).usage
    run_with(tmp_path / "moved", "one", base_url="https://elsewhere.example/v1")
    moved = recorded_usage(config().model_copy(update={"runs_dir": tmp_path / "moved"}))
    assert moved.usage["solve"].seconds is None, "another server has other times"
    now = run_with(tmp_path / "torn", "one")
    (tmp_path / "torn" / "one" / LEDGER).write_text("no JSON\n")
    assert recorded_usage(now) == Recorded({}, ("one",))
    assert "Ledgers that could not be read: one." in teacher_forecast(now, SMALL, recorded_usage(now)).basis


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([(0, 2), (1, 3)], 3.0),
        ([(0, 10), (2, 3), (10, 11)], 11.0),
        ([(5, 6), (0, 1)], 2.0),
        ([(0, None)], None),
    ],
)
def test_a_role_is_timed_while_any_of_its_requests_is_under_way(
    spans: list[tuple[float, float | None]], seconds: float | None, tmp_path: Path
) -> None:
    (tmp_path / LEDGER).parent.mkdir()
    for number, (begin, end) in enumerate(spans):
        event = CallEvent(event="intent", key="k", number=number, role="solve", at=begin)
        append_journal(tmp_path / LEDGER, event)
        if end is not None:
            append_journal(tmp_path / LEDGER, event.model_copy(update={"event": "error", "at": end}))
    expected = () if seconds is None else (RoleTiming(role="solve", seconds=seconds),)
    assert role_timings(tmp_path) == expected


# What is said, and where it is kept.


def test_a_budget_below_the_cheap_end_is_said() -> None:
    forecast = teacher_forecast(config(), SMALL, NOTHING)
    total = forecast.total
    assert total.money is not None
    tokens = total.prompt_tokens[0] + total.completion_tokens[0]
    enough = Budget(requests=total.requests[0], tokens=tokens, money=total.money[0])
    assert not short_of(enough, forecast) and not short_of(Budget(), forecast)
    less = Budget(requests=total.requests[0] - 1, tokens=tokens - 1, money=total.money[0] / 2)
    said = short_of(less, forecast)
    assert [s.partition(" is ")[0] for s in said] == [f"teacher.budget.{n}" for n in ("requests", "tokens", "money")]
    assert f"the least that is forecast is {total.requests[0]}" in said[0]


def test_data_that_are_not_here_are_said_and_not_fetched(tmp_path: Path) -> None:
    keys = tree()
    keys["data"]["path"] = str(tmp_path / "none.jsonl")
    assert "none.jsonl: expected a data file" in str(config_forecast(Config.model_validate(keys)))
    keys["data"] |= {"path": None, "hub": {"name": "openai/gsm8k"}}
    assert "not fetched" in str(config_forecast(Config.model_validate(keys)))


def test_a_run_keeps_its_forecast_until_it_is_to_have_other_rounds(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {})
    said: list[str] = []
    loop: Any = SimpleNamespace(
        run=RunDir(tmp_path),
        config=config(budget={"requests": 3}).model_copy(update={"runs_dir": tmp_path.parent / "none"}),
        examples={e.id: e for e in SMALL},
        say=said.append,
    )
    record_forecast(loop)
    first = json.loads((tmp_path / FORECAST).read_text())
    assert said[0].startswith("teacher: ") and "teacher.budget.requests is 3" in said[1]
    loop.config = loop.config.model_copy(update={"seed": 5})
    record_forecast(loop)
    assert json.loads((tmp_path / FORECAST).read_text()) == first and len(said) == 2
    loop.config = loop.config.model_copy(update={"rounds": 4})
    record_forecast(loop)
    longer = json.loads((tmp_path / FORECAST).read_text())
    assert longer["rounds"] == 4 and longer["roles"][-1]["requests"][1] > first["roles"][-1]["requests"][1]


def test_a_run_that_began_without_a_forecast_gets_none(tmp_path: Path) -> None:
    loop: Any = SimpleNamespace(run=RunDir(tmp_path), config=run_with(tmp_path.parent, tmp_path.name, replies=1))
    record_forecast(loop)
    assert not (tmp_path / FORECAST).exists()


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0"), (412, "412"), (9999, "9999"), (12_345, "12.3k"), (999_600, "1M"), (0.0123, "0.012")]
)
def test_counts_are_short(count: float, said: str) -> None:
    assert count_words(count) == said
    assert range_words((count, count)) == said and range_words(None) == "–"


def reported(requests: int, text: str = "m", status: str = "finished") -> Any:
    role = RoleForecast(
        role="solve",
        model=text,
        requests=(10, 20),
        prompt_tokens=(100, 200),
        completion_tokens=(1, 2),
        money=None,
        minutes=(0.5, 1),
    )
    spend = SpendRow(
        role="solve", round=1, skill=text, requests=requests, prompt_tokens=150, cached_tokens=7, money=0.0
    )
    forecast = TeacherForecast(rounds=2, roles=(role,), basis=(text,))
    teaching = TeacherReport(models={"solve": text}, forecast=forecast, spend=(spend,), faults=(), failed=())
    return run_report(text).model_copy(update={"teaching": teaching, "status": status})


@pytest.mark.parametrize(
    ("requests", "status", "said"),
    [
        (15, "finished", "15 (10–20)"),
        (25, "running", "25 (10–20, above)"),
        (5, "finished", "5 (10–20, below)"),
        (5, "running", "5 (10–20)"),
    ],
)
def test_the_report_shows_forecast_against_actual(requests: int, status: str, said: str) -> None:
    report = reported(requests, status=status)
    timings = Timings(roles=(RoleTiming(role="solve", seconds=45.0),))
    solve, together = forecast_rows(report, timings)
    assert (solve.requests, solve.prompt, solve.cost, solve.minutes) == (said, "150 (100–200)", "–", "0.75 (0.5–1)")
    assert together[1:] == solve[1:] and together.role == "all"
    for view in (render_html(report, timings), render_markdown(report, timings), terminal(report, None)):
        assert said in view and "150 (100–200)" in view


def test_hostile_names_are_harmless_in_the_teachers_tables() -> None:
    report = reported(1, HOSTILE)
    page, text = render_html(report, Timings()), render_markdown(report, Timings())
    tables = text.partition("## The teacher")[2]  # above are fenced texts
    assert tables and "<script>alert" not in page + tables and "![x]" not in tables
    assert "\x1b]0" not in page + text + terminal(report, None)
