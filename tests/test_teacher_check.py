"""`tutelage teacher check`: what a FAKE server does and what it only promises, within what was announced."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import CAN, FakeChatServer
from command import tutelage
from rich.console import Console
from test_extra import config_of

from agents.measure_views import print_teacher_check
from agents.progress import ProgressPrinter
from agents.session import measuring_folder
from agents.teacher_check import check_teacher
from curriculum.config import Config, load_config
from curriculum.errors import BudgetReached, RunDirError, UserError
from curriculum.teacher_measures import TeacherCheck

ROLES = ["skills", "label", "diagnose", "write", "solve"]
PER_MODEL = 9
"""Two for each of the two forms, one for log-probabilities, two seeds twice."""


def config_with(folder: Path, server: FakeChatServer, **keys: Any) -> Path:
    """The config of `test_extra` with an LLM teacher at the server."""
    path = config_of(folder, [])
    tree = yaml.safe_load(path.read_text())
    prices = {"input": 1.0, "output": 2.0}
    teacher = {"kind": "llm", "model": "fake", "base_url": server.url, "provider": "vllm", "prices": prices}
    tree["teacher"] = teacher | {"backoff_seconds": 0, "attempts": 2} | keys
    path.write_text(yaml.safe_dump(tree))
    return path


def check(config: Config, items: int = 2, name: str = "check") -> tuple[TeacherCheck, str]:
    said = StringIO()
    made = check_teacher(config, measuring_folder(config, name), items, ProgressPrinter(said))
    return made, said.getvalue()


def test_a_server_that_keeps_its_promises(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        made, said = check(load_config(config_with(tmp_path, server)))
        asked = PER_MODEL + 2 * 2 * len(ROLES)
        assert len(server.seen) == asked and server.most_busy == 1
    (model,) = made.models
    assert (model.model, model.roles, model.served) == ("fake", tuple(ROLES), ("fake",))
    found = (model.json_schema, model.json_object, model.log_probabilities, model.seed)
    assert [f.verdict for f in found] == ["yes"] * 4
    assert "2 tokens" in model.log_probabilities.said
    assert [r.role for r in made.roles] == ROLES and not made.advice
    for role in made.roles:
        assert (role.usable.correct, role.usable.n, role.bare.correct, role.bare.n) == (2, 2, 4, 4)
        assert role.seconds is not None and role.seconds_most is not None and 0 <= role.seconds <= role.seconds_most
        # 50 tokens in, 10 of them cached at no other price, and 20 out.
        assert (role.prompt_tokens, role.completion_tokens, role.price) == (50, 20, pytest.approx(90e-6))
        assert role.repeat.asked == role.repeat.answered == 2
    assert sum(r.requests for r in made.spend) == asked and sum(r.money for r in made.spend) == pytest.approx(
        asked * 90e-6
    )
    # What is the same and what is not: the fake writes and solves anew each time, but its answers are the same.
    same = {r.role: (r.repeat.same.correct, r.same_text.correct) for r in made.roles}
    assert same == {"skills": (2, 2), "label": (2, 2), "diagnose": (2, 2), "write": (0, 0), "solve": (2, 0)}
    assert f"at most {asked} requests" in said and made.announced in said
    assert json.loads((tmp_path / "runs" / "check" / "check.json").read_text()) == made.model_dump(mode="json")


def test_a_server_that_only_promises(tmp_path: Path) -> None:
    with FakeChatServer(("prose",)) as server:
        server.honours = frozenset()
        made, _ = check(load_config(config_with(tmp_path, server)))
    (model,) = made.models
    assert [f.verdict for f in (model.json_schema, model.json_object, model.log_probabilities, model.seed)] == [
        "no"
    ] * 4
    assert "0 of 2" in model.json_schema.said and "Cirrus, cumulus" in model.json_schema.said
    assert "0 of 2 times" in model.seed.said
    assert len(made.advice) == 2
    assert "`structured: json_schema` is not honoured" in made.advice[0]
    assert "set `structured: prompt`" in made.advice[0] and "the seed is ignored" in made.advice[1]
    for role in made.roles:
        assert (role.usable.correct, role.bare.correct) == (2, 0), "prose around the JSON is taken off, and counted"


@pytest.mark.parametrize(
    ("honours", "keys", "advice"),
    [
        (CAN - {"json_schema"}, {}, ["set `structured: json_object`"]),
        (CAN, {"structured": "prompt"}, ["`structured: json_schema` is honoured and would spare"]),
        (CAN - {"json_schema", "json_object"}, {"structured": "prompt"}, []),
        (CAN, {"seed": False}, ["a seed is honoured"]),
        (CAN - {"seed", "logprobs"}, {"seed": False}, []),
    ],
)
def test_advice_is_what_would_make_the_config_true(
    honours: frozenset[str], keys: dict[str, Any], advice: list[str], tmp_path: Path
) -> None:
    with FakeChatServer() as server:
        server.honours = honours
        made, _ = check(load_config(config_with(tmp_path, server, **keys)), items=1)
    assert len(made.advice) == len(advice) and all(a in got for a, got in zip(advice, made.advice, strict=True))


def test_what_is_refused_is_said_and_stops_nothing(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.refuses = frozenset({"seed", "logprobs"})
        made, _ = check(load_config(config_with(tmp_path, server, seed=False)), items=1)
    (model,) = made.models
    assert (model.seed.verdict, model.log_probabilities.verdict, model.json_schema.verdict) == (
        "refused",
        "refused",
        "yes",
    )
    assert "status 400" in model.seed.said
    assert all(role.usable.correct == 1 for role in made.roles)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 1.0])
def test_replies_cut_at_the_token_limit_are_no_broken_promise(share: float, tmp_path: Path) -> None:
    with FakeChatServer(("truncated",), share) as server:
        made, _ = check(load_config(config_with(tmp_path, server)), items=1)
    (model,) = made.models
    for found in (model.json_schema, model.json_object):
        assert found.verdict == ("unclear" if "every reply was cut" in found.said else "yes"), found.said
    assert share < 1 or model.json_schema.verdict == "unclear"


def test_a_seed_says_nothing_where_every_reply_is_the_same(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.script = lambda prompt: '{"sentence": "Rain."}' if prompt.startswith("Invent") else None
        made, _ = check(load_config(config_with(tmp_path, server)), items=1)
    assert made.models[0].seed.verdict == "unclear" and not made.advice


def test_each_model_is_tried_once_and_each_role_by_its_own(tmp_path: Path) -> None:
    with FakeChatServer() as one, FakeChatServer(("wrong_schema",)) as other:
        other.honours = frozenset()
        roles = {"solve": {"base_url": other.url, "model": "weak", "provider": "vllm"}, "label": {"model": "big"}}
        made, _ = check(load_config(config_with(tmp_path, one, roles=roles)), items=1)
        assert len(other.seen) == PER_MODEL + 2
    assert [(m.model, m.roles) for m in made.models] == [
        ("fake", ("skills", "diagnose", "write")),
        ("big", ("label",)),
        ("weak", ("solve",)),
    ]
    solve = next(r for r in made.roles if r.role == "solve")
    assert (solve.model, solve.usable.correct, solve.faults, solve.price) == ("weak", 0, {"schema": 2}, None)


def test_nothing_is_bought_twice_and_another_name_measures_anew(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        config = load_config(config_with(tmp_path, server))
        first, _ = check(config, items=1)
        sent = len(server.seen)
        again, said = check(config, items=1)
        assert len(server.seen) == sent and "nothing is sent" in said
        assert again.models == first.models and again.roles == first.roles
        check(config, items=2)
        assert len(server.seen) == sent + 2 * len(ROLES), "only what is new"
        check(config, items=1, name="anew")
        assert len(server.seen) == 2 * sent + 2 * len(ROLES)


def test_no_more_is_spent_than_was_announced_or_than_the_budget_allows(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        path = config_with(tmp_path, server)
        with pytest.raises(BudgetReached, match=r"teacher\.budget\.requests is 3"):
            check(load_config(path, ["teacher.budget.requests=3"]))
        assert len(server.seen) == 3
        made, _ = check(load_config(path))
        assert len(server.seen) == PER_MODEL + 2 * 2 * len(ROLES)
        announced = int(made.announced.split(" requests")[0].rsplit(" ", 1)[1])
        assert announced == len(server.seen) - 3 and "3 replies are there already" in made.announced


def test_a_server_that_charges_for_nothing_is_held_to_the_announcement(tmp_path: Path) -> None:
    with FakeChatServer(("cut",)) as server:  # each attempt may have been billed
        path = config_with(tmp_path, server, attempts=50)
        with pytest.raises(BudgetReached, match=r"teacher\.budget\.money is 0\.0"):
            check(load_config(path), items=1)
        assert PER_MODEL < server.counts.total() < 3 * PER_MODEL + 6 * len(ROLES)


def test_what_a_user_can_mend(tmp_path: Path) -> None:
    path = config_of(tmp_path, [])
    with pytest.raises(UserError, match="expected `llm` to check a teacher"):
        check(load_config(path))
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.json").write_text("{}")
    with pytest.raises(RunDirError, match="this is a run"):
        measuring_folder(load_config(path), "mine")
    with pytest.raises(RunDirError, match="plain folder name"):
        measuring_folder(load_config(path), "../x")


def test_what_servers_say_is_shown_as_text(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        server.script = lambda prompt: "[red]\x1b[2J\u202e clouds" if prompt.startswith("Name three") else None
        made, _ = check(load_config(config_with(tmp_path, server)), items=1)
    narrow = Console(file=StringIO(), width=80, highlight=False)
    print_teacher_check(made, narrow)
    assert all(f"\n{role} " in narrow.file.getvalue() for role in ROLES)  # type: ignore[attr-defined]
    console = Console(file=StringIO(), width=200, highlight=False)
    print_teacher_check(made, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]" in text and "\x1b[2J" not in text and "\u202e" not in text
    for expected in ("json schema", "log probabilities", "diagnose", "Advice: ", "Spent: "):
        assert expected in text


@pytest.mark.real
def test_the_command_prints_a_last_line_and_its_exit_codes(tmp_path: Path) -> None:
    with FakeChatServer() as server:
        path = config_with(tmp_path, server)
        done = tutelage("teacher", "check", path, "--items", "1", "--json")
        assert done.code == 0, done.err
        assert done.last["status"] == "ok" and len(done.last["roles"]) == len(ROLES)
        assert (tmp_path / "runs" / "teacher-check-run" / "check.json").is_file()
        done = tutelage("teacher", "check", path, "--name", "b", "--json", "--set", "teacher.budget.requests=2")
        assert (done.code, done.last["status"]) == (3, "over_budget") and "kept" in done.err
        done = tutelage(
            "teacher", "check", path, "--json", "--set", "teacher.kind=offline", "--set", "teacher.model=null"
        )
        assert done.code == 2 and "Traceback" not in done.err
