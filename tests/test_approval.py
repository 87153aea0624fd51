"""A person's approval of a plan, through the real command line with the fake student: by file, command and terminal."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import canonical_files, tutelage, write_config
from pages import Page

from curriculum.approval import decision_faults, plan_changes
from curriculum.plan_file import PlanApproval
from curriculum.round_records import RoundPlan, SkillPlan

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>[bold]{{ 7 * 7 }}\x1b[2J\u202egnp"


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one round that waits for the approval of its plan."""
    folder = tmp_path_factory.mktemp("waiting")
    done = tutelage("run", write_config(folder), "--name", "run", "--set", "rounds=1", "--approve", "--json")
    assert (done.code, done.last["status"]) == (0, "waiting"), done.err
    assert f"tutelage approve {folder / 'run'} --by NAME --reason TEXT" in done.err
    return folder / "run"


@pytest.fixture
def run(waiting: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(waiting, tmp_path / "run"))


@pytest.fixture(scope="module")
def decided(waiting: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose plan Ada changed."""
    run = Path(shutil.copytree(waiting, tmp_path_factory.mktemp("decided") / "first"))
    edit(run, lambda plan: plan["skills"][0].update(pool_rows=1))
    assert tutelage("approve", run, "--by", "Ada", "--reason", "less spelling").code == 0
    done = tutelage("resume", run, "--json")
    assert (done.code, done.last["status"]) == (0, "finished"), done.err
    return run


def approval_file(run: Path) -> Path:
    return run / "round_01" / "approve" / "plan.approved.yaml"


def edit(run: Path, change: Any) -> None:
    """Edits the plan of the file as a person would."""
    approval = yaml.safe_load(approval_file(run).read_text())
    change(approval["plan"])
    approval_file(run).write_text(yaml.safe_dump(approval))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def typed(text: str, *args: str | Path, editor: str = "") -> tuple[int, str]:
    """Runs a command at a terminal where a person types `text`; its exit code and all that it showed."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "160", "EDITOR": editor, "VISUAL": "", "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-m", "agents.cli", *map(str, args)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=Path(__file__).parents[1],
        env=environment,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, text.encode())  # waits in the terminal until it is asked for
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
    os.close(ours)
    return process.wait(), shown.decode("utf-8", "replace")


@pytest.mark.real
def test_the_page_shows_what_will_be_taught_and_says_what_is_not_known(decided: Path, run: Path) -> None:
    shown = Page((run / "round_01" / "plan.html").read_text())
    proposal = json.loads((run / "round_01" / "proposal.json").read_text())
    assert "This plan waits for a person" in shown.text and "tutelage approve" in shown.text
    plan = yaml.safe_load((run / "round_01" / "plan" / "plan.proposed.yaml").read_text())
    for skill in plan["skills"]:
        assert skill["skill"] in shown.text and f"Why: {skill['reason']}" in shown.text
    assert (proposal["forecast"]["answers"], proposal["forecast"]["training_rows"]) == (60, 40)
    assert "The others are not made yet" in shown.text
    assert {"link", "img", "script", "iframe"}.isdisjoint(shown.tags)

    assert tutelage("approve", run, "--by", "Ada", "--reason", "as it is").code == 0
    assert tutelage("resume", run).code == 0
    taught = {r["question"] for r in lines(run / "round_01" / "build" / "training_set.jsonl")}
    sample = [row for skill in proposal["skills"] for row in skill["rows"]]
    assert {row["kind"] for row in sample} == {"pool", "generated"}
    assert {row["question"] for row in sample} <= taught, "what is shown is what is taught"
    assert "Approved by Ada: as it is. Nothing was changed." in Page((run / "round_01" / "plan.html").read_text()).text


@pytest.mark.real
def test_an_approval_without_a_name_and_a_reason_is_refused_with_every_other_fault(run: Path) -> None:
    done = tutelage("approve", run, "--by", "  ")
    assert done.code == 2 and "by: expected the name" in done.err and "reason: expected why" in done.err
    assert "approved: false" in approval_file(run).read_text()

    def spoil(plan: Any) -> None:
        plan["skills"][0]["written_rows"] = {7: 1}
        plan["skills"][1]["skill"] = "sorcery"
        plan["learning_rate"] = float("inf")

    edit(run, spoil)
    done = tutelage("approve", run, "--reason", "why not")
    for fault in ("by: expected", "at difficulty 7", "'sorcery' is not in the catalogue", "a finite number, got inf"):
        assert fault in done.err, done.err
    assert done.code == 2 and "reason:" not in done.err

    approval = yaml.safe_load(approval_file(run).read_text()) | {"approved": True}
    approval_file(run).write_text(yaml.safe_dump(approval))
    by_file = tutelage("resume", run)
    assert by_file.code == 2
    for fault in ("by: expected", "reason: expected", "at difficulty 7", "'sorcery' is not in the catalogue"):
        assert fault in by_file.err, by_file.err

    approval_file(run).write_text("approved: true\napproved: false\nplan: {round: many}\ncolour: red\n")
    done = tutelage("approve", run, "--json")
    assert (done.code, done.last["status"]) == (2, "error")
    for fault in ("by: expected", "line 2: `approved` is given twice", "`plan.round`", "`colour`", "`reason`"):
        assert fault in done.err, done.err


@pytest.mark.real
def test_a_decision_is_in_every_view_of_the_report(decided: Path) -> None:
    report = json.loads((decided / "report.json").read_text())
    changed = report["rounds"][1]["approval"].pop("changed")
    assert report["rounds"][1]["approval"] == {"by": "Ada", "reason": "less spelling", "taken_from": None}
    assert changed == ["basic_arithmetic: pool rows 6 → 1"]
    assert "approval" not in report["rounds"][0]
    said = "Approved by Ada: less spelling. Changed: basic_arithmetic: pool rows 6 → 1."
    assert said in Page((decided / "report.html").read_text()).text
    assert said in Page((decided / "round_01" / "plan.html").read_text()).text
    assert said in (decided / "report.md").read_text().replace("\\", "")
    assert said in tutelage("report", decided).out
    done = tutelage("approve", decided, "--by", "Eve", "--reason", "too late")
    assert done.code == 2 and "nothing waits for approval" in done.err


@pytest.mark.real
def test_a_page_that_is_gone_is_made_again(run: Path) -> None:
    (run / "round_01" / "proposal.json").unlink()
    (run / "round_01" / "plan.html").unlink()
    refused = tutelage("approve", run, "--by", "Ada", "--reason", "r")
    assert refused.code == 2 and f"tutelage resume {run}" in refused.err
    assert tutelage("resume", run).code == 0
    assert tutelage("approve", run, "--by", "Ada", "--reason", "r").code == 0


@pytest.mark.real
def test_a_rerun_takes_the_decision_over_where_the_plan_is_the_same(decided: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    done = tutelage("run", config, "--name", "again", "--set", "rounds=1", "--decisions", decided, "--json")
    assert (done.code, done.last["status"]) == (0, "finished"), done.err
    assert "The decision was made in the run first, on the same plan" in done.err
    ours, theirs = (canonical_files(run) for run in (tmp_path / "again", decided))
    assert ours["round_01/build/training_set.jsonl"] == theirs["round_01/build/training_set.jsonl"]
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert report["rounds"][1]["approval"]["taken_from"] == "first"

    place = ["--decisions", tmp_path / "again", "--set", "rounds=1", "--json"]
    done = tutelage("run", config, "--name", "third", *place)
    assert "made in the run first" in done.err, "whoever decided is named, not whoever took it over"
    done = tutelage("run", config, "--name", "other", *place, "--set", "plan.rows_per_round=50")
    assert done.last["status"] == "waiting"
    assert "Ada decided on another plan in the run again" in done.err and "pool rows 6 → 8" in done.err
    assert "Ada decided on another plan" in Page((tmp_path / "other" / "round_01" / "plan.html").read_text()).text
    done = tutelage("run", config, "--name", "seeded", *place, "--set", "seed=7")
    assert done.last["status"] == "waiting", "other items are another plan"

    refused = tutelage("run", config, "--name", "no", "--decisions", tmp_path)
    assert refused.code == 2 and "expected a run's folder" in refused.err
    refused = tutelage("run", config, "--name", "no", "--decisions", tmp_path / "other")
    assert refused.code == 0 or "approved a plan" in refused.err


@pytest.mark.real
def test_a_fork_takes_the_decision_over_unless_it_is_to_ask_anew(decided: Path, tmp_path: Path) -> None:
    place = ["--round", "0", "--set", f"runs_dir={tmp_path}", "--json"]
    done = tutelage("fork", decided, *place, "--name", "same", "--set", "gate.alpha=0.1")
    assert (done.code, done.last["status"]) == (0, "finished"), done.err
    plans = [yaml.safe_load(approval_file(run).read_text()) for run in (decided, tmp_path / "same")]
    assert plans[0]["plan"] == plans[1]["plan"] and plans[1]["taken_from"] == "first"
    assert tutelage("fork", decided, *place, "--name", "anew", "--ask-anew").last["status"] == "waiting"
    done = tutelage("fork", tmp_path / "anew", *place, "--name", "of-anew")
    assert done.last["status"] == "waiting", "a run that has no decision gives none"


@pytest.mark.real
def test_a_person_at_the_terminal_edits_and_approves(run: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import sys, pathlib\n"
        "file = pathlib.Path(sys.argv[1]); text = file.read_text()\n"
        "file.write_text(text.replace('pool_rows: 6', 'pool_rows: -6' if 'pool_rows: -6' not in text else '')\n"
        "                if 'pool_rows: -6' not in text else text.replace('pool_rows: -6', 'pool_rows: 2'))\n"
    )
    keys = "what\ne\na\ne\na\n\nAda\n\nshorter\n"
    code, shown = typed(keys, "resume", run, editor=f"{sys.executable} {editor}")
    assert code == 0, shown
    assert "It cannot be approved as it is" in shown and "pool_rows" in shown
    assert "Your changes:" in shown and "pool rows 6 → 2" in shown
    assert shown.count("your name: ") == shown.count("why: ") == 2, "an empty answer is asked for again"
    approval = json.loads((run / "report.json").read_text())["rounds"][1]["approval"]
    assert (approval["by"], approval["reason"]) == ("Ada", "shorter")
    assert "round 1: accepted" in shown or "round 1: rolled back" in shown


@pytest.mark.real
@pytest.mark.parametrize("keys", ["s\n", "\x04", "a\n\x04"])
def test_a_person_at_the_terminal_may_stop(run: Path, keys: str) -> None:
    code, shown = typed(keys, "resume", run)
    assert code == 0 and "Round 1 would teach 40 new rows of 3 skills" in shown
    assert f"tutelage approve {run}" in shown.replace("\r\n", "")
    assert "approved: false" in approval_file(run).read_text()
    assert not (run / "round_01" / "build").exists()


@pytest.mark.real
def test_a_plan_that_nobody_was_asked_about_is_not_edited_without_a_name(decided: Path, tmp_path: Path) -> None:
    done = tutelage("run", write_config(tmp_path), "--name", "run", "--set", "rounds=1")
    assert done.code == 0 and not (tmp_path / "run" / "round_01" / "plan.html").exists()
    assert "approval" not in json.loads((tmp_path / "run" / "report.json").read_text())["rounds"][1]
    edit(tmp_path / "run", lambda plan: plan["skills"][0].update(pool_rows=1))
    refused = tutelage("resume", tmp_path / "run")
    assert refused.code == 2 and "by: expected the name of who changed the plan (basic_arithmetic" in refused.err
    assert "Traceback" not in refused.err


@pytest.mark.real
def test_hostile_names_and_reasons_are_text_everywhere(tmp_path: Path) -> None:
    text = HOSTILE.replace("\x1b", "")  # no row with that is used
    rows = [{"q": f"What is {n} + {n}? {text}", "a": str(2 * n), "s": f"{text} {n % 2}"} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = yaml.safe_load(write_config(tmp_path).read_text())
    config["data"] = {
        "kind": "file",
        "path": str(tmp_path / "rows.jsonl"),
        "columns": {"question": "q", "answer": "a", "skills": "s"},
        "grader": "exact",
        "splits": {"probe": 12, "gate": 16, "final": 12},
    }
    config["plan"] = {"rows_per_round": 8, "write_share": 0}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config | {"rounds": 1}))
    name = "<img src=x>&amp;'"
    done = tutelage("run", tmp_path / "small.yaml", "--name", name, "--approve")
    assert done.code == 0, done.err
    run = tmp_path / name
    code, shown = typed("s\n", "resume", run)
    assert code == 0 and "\x1b[2J" not in shown and "\u202e" not in shown and "\\u202egnp" in shown
    assert tutelage("approve", run, "--by", HOSTILE, "--reason", f"{HOSTILE}: *x* [a](http://b)").code == 0
    done = tutelage("resume", run)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err and "\u202e" not in done.out + done.err
    for view in (run / "round_01" / "plan.html", run / "report.html"):
        page = Page(view.read_text())
        assert "img" not in page.tags and "iframe" not in page.tags and page.tags.count("script") <= 1
        assert not [key for key, _ in page.attributes if key.startswith("on")]
        assert "\x1b" not in page.text and "\u202e" not in page.text
    assert "alert(1)" in Page((run / "round_01" / "plan.html").read_text()).text


PLAN = RoundPlan(
    round=1,
    action="train",
    skills=tuple(
        SkillPlan(skill=s, missing=1, share=0.5, pool_rows=3, written_rows={1: 2, 2: 0}, reason="r") for s in "ab"
    ),
    learning_rate=1e-3,
    epochs=1,
    seed=1,
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"epochs": 2, "learning_rate": 2e-3}, ["learning rate 0.001 → 0.002", "epochs 1 → 2"]),
        ({"action": "stop", "stop_reason": "enough"}, ["action train → stop", "stop reason none → enough"]),
        ({"replay_first": ("a",)}, ["replay first none → a"]),
        ({"skills": PLAN.skills[:1]}, ["b left out"]),
        ({"skills": PLAN.skills[::-1]}, ["the order of the skills"]),
        ({"skills": (PLAN.skills[0].model_copy(update={"written_rows": {1: 2}}), PLAN.skills[1])}, []),
        (
            {"skills": (PLAN.skills[0].model_copy(update={"written_rows": {3: 1}, "pool_rows": 0}), PLAN.skills[1])},
            ["a: pool rows 3 → 0", "a: written rows 2 × d1 → 1 × d3"],
        ),
        (
            {"skills": (*PLAN.skills, PLAN.skills[0].model_copy(update={"skill": "c"}))},
            ["c added: 3 pool rows, written 2 × d1"],
        ),
    ],
)
def test_changes_of_a_plan_are_said(change: dict[str, Any], said: list[str]) -> None:
    assert plan_changes(PLAN, PLAN.model_copy(update=change)) == said


@pytest.mark.parametrize(
    ("by", "reason", "changed", "faults"),
    [("Ada", "r", True, 0), ("the config", "r", False, 0), ("the config", "r", True, 1), (" ", "\n", True, 2)],
)
def test_a_decision_says_who_and_why(by: str, reason: str, changed: bool, faults: int) -> None:
    plan = PLAN.model_copy(update={"epochs": 2}) if changed else PLAN
    assert len(decision_faults(PLAN, PlanApproval(approved=True, by=by, reason=reason, plan=plan))) == faults
