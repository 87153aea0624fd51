"""The index of a folder of runs: what is there is shown, what is broken is named, and nothing is executed."""

import json
import os
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from command import canonical_files, tutelage, write_config
from pages import Page
from rich.console import Console

from agents.run_index import read_index
from curriculum.run_index import RunIndex
from curriculum.run_index_views import link, render_html, render_terminal, time_words

HOSTILE = "<script>alert(1)</script>[bold]\x1b[2J\u202e{{ 7 * 7 }}"
FACTS: dict[str, Any] = {
    "run": "run",
    "created": "2026-01-01T10:00:00+01:00",
    "identity": {"student": {"base": "tiny"}, "teacher": {"kind": "llm", "model": "big", "other": 1}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, a fork of it that waits for approval, and a bench."""
    folder = tmp_path_factory.mktemp("runs")
    config = write_config(folder)
    assert tutelage("run", config, "--name", "first", "--set", "rounds=1").code == 0
    assert (
        tutelage("fork", folder / "first", "--round", "0", "--name", "second", "--set", "plan.approve=true").code == 0
    )
    done = tutelage("bench", config, "--arms", "stat_sel", "--seeds", "1", "--name", "third")
    assert done.code == 0, done.err
    return folder


def made(folder: Path, name: str, facts: object = FACTS, report: object = None) -> Path:
    """A folder that says it is a run."""
    path = folder / name
    path.mkdir()
    (path / "run.json").write_text(facts if isinstance(facts, str) else json.dumps(facts))
    if report is not None:
        (path / "report.json").write_text(report if isinstance(report, str) else json.dumps(report))
    return path


def terminal(index: RunIndex) -> str:
    console = Console(file=StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(render_terminal(index))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.real
def test_the_index_has_a_row_for_every_run_and_bench(runs: Path) -> None:
    before = {run: canonical_files(runs / run) for run in ("first", "second", "third")}
    done = tutelage("index", runs, "--json")
    assert done.code == 0, done.err
    assert {run: canonical_files(runs / run) for run in before} == before, "runs are read, never changed"
    second, first = done.last["runs"]
    assert (first["name"], first["status"], first["rounds"], first["accepted"]) == ("first", "finished", 1, 1)
    assert (second["name"], second["status"], second["forked_from"]) == ("second", "waiting", ["first, round 0"])
    report = json.loads((runs / "first" / "report.json").read_text())["final"]
    assert (first["before"], first["after"], first["change"]) == (report["base"], report["adapter"], report["change"])
    assert (first["base"], first["teacher"], first["notes"]) == ("fake", "offline", [])
    assert first["seconds"] > 0 and [b["name"] for b in done.last["benches"]] == ["third"]
    assert done.last["others"] == []

    page = Page((runs / "index.html").read_text())
    assert page.links == [
        "./second/report.html",
        "./second/round_01/plan.html",
        "./first/report.html",
        "./third/bench.html",
    ]
    assert all((runs / target).is_file() for target in page.links)
    rate = f"{100 * report['adapter']['rate']:.1f}"
    assert f"{rate} %" in page.text and rate in done.out
    for text in ("first", "second", "third", "for approval of the plan of round 1", "forked from first, round 0"):
        assert text in page.text and text in done.out


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def pipe(path: Path) -> None:
    os.mkfifo(path / "report.json")
    os.mkfifo(path / "timing.json")


def loops(path: Path) -> None:
    (path / "report.json").symlink_to(path / "report.json")
    (path / "round_01").symlink_to(path)


def torn_plan(path: Path) -> None:
    stage = path / "round_01" / "approve"
    stage.mkdir(parents=True)
    (stage / "started.json").write_text("{}")
    (stage / "plan.approved.yaml").write_text("approved: &a [*a]")


@pytest.mark.parametrize(
    ("facts", "report", "also", "said"),
    [
        ("{", None, None, "run.json: no JSON: Expecting"),
        ("[]", None, None, "run.json: no JSON object"),
        (deep(100_000), None, None, "run.json: no JSON"),
        ({}, None, None, "its first file: 2 faults"),
        (FACTS | {"created": "yesterday"}, None, None, "the first in created"),
        (FACTS | {"lineage": [{"run": 1}]}, None, None, "its first file: 2 faults"),
        (FACTS, "{}", None, "report.json: "),
        (FACTS, '{"a":' + deep(100_000) + "}", None, "report.json: no JSON"),
        (FACTS, {"schema_version": 7, "run": "x", "rounds": "many"}, None, "report.json: "),
        (FACTS, None, pipe, "report.json: not a file"),
        (FACTS, None, torn_plan, ""),
        (FACTS, None, loops, ""),
    ],
)
def test_whatever_a_run_says_it_is_a_row(
    facts: object, report: object, also: Callable[[Path], None] | None, said: str, tmp_path: Path
) -> None:
    path = made(tmp_path, "odd", facts, report)
    if also:
        also(path)
    index = read_index(tmp_path)
    assert [row.name for row in index.runs] == ["odd"] and not index.others
    assert said in " ".join(index.runs[0].notes) and bool(said) == bool(index.runs[0].notes)
    assert (said or "odd") in Page(render_html(index)).text and (said or "odd") in terminal(index)


def test_what_is_no_run_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / ".half.tmp").mkdir()
    (tmp_path / "trackers").mkdir()
    (tmp_path / "LOG.md").write_text("x")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "began.json").write_text("not JSON")
    index = read_index(tmp_path)
    assert {o.name: o.reason for o in index.others} == {
        "configs": "no run: it has no run.json",
        "gone": "not a folder",
    }
    assert [(b.name, b.status) for b in index.benches] == [("bench", "not known")]
    assert "no JSON" in index.benches[0].notes[0]
    assert "no run: it has no run.json" in Page(render_html(index)).text
    empty = read_index(tmp_path / "configs")
    assert "No run yet" in Page(render_html(empty)).text and "No run yet" in terminal(empty)


def test_newest_first_and_unknown_last(tmp_path: Path) -> None:
    for name, created in (("old", "2025-05-05T05:05:05+00:00"), ("new", "2026-05-05T05:05:05+00:00")):
        made(tmp_path, name, FACTS | {"created": created})
    made(tmp_path, "a-broken", "{")
    made(tmp_path, "utc", FACTS | {"created": "2026-05-05T06:05:05+02:00"})
    rows = read_index(tmp_path).runs
    assert [row.name for row in rows] == ["new", "utc", "old", "a-broken"]
    assert rows[1].created == "2026-05-05 04:05:05"
    assert (rows[0].base, rows[0].teacher, rows[0].status) == ("tiny", "big", "begun")


def test_hostile_names_and_texts_are_text_and_links_stay_inside(tmp_path: Path) -> None:
    names = ["javascript:alert(1)", '"><img src=x>', "a b#c?d%2e", "\u202egnp", "\x1b[2J", "ünï"]
    for name in names:
        made(tmp_path, name, FACTS | {"identity": {"student": {"base": HOSTILE}, "teacher": {"kind": HOSTILE}}})
        (tmp_path / name / "report.html").write_text("x")
    raw = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(raw)
    index = read_index(tmp_path)
    text = render_html(index)
    page = Page(text)
    assert {"script", "img"}.isdisjoint(page.tags) and "\x1b" not in text and "\u202e" not in text
    assert "\\u202egnp" in page.text and "<script>alert(1)</script>" in page.text
    assert sorted(unquote(of.removeprefix("./").removesuffix("/report.html")) for of in page.links) == sorted(names)
    assert all(re.fullmatch(r"\./[^/:#?\"'<>]+/report\.html", of) for of in page.links)
    shown = terminal(index)
    assert "\x1b" not in shown and "\u202e" not in shown and "<script>alert(1)</script>" not in shown.split("Runs")[0]
    assert link(os.fsdecode(b"\xff"), "report.html") == "./%FF/report.html"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (0.4, "0 s"), (59, "59 s"), (431, "7 min"), (3600, "1 h 00 min"), (9000, "2 h 30 min")],
)
def test_times_are_short(seconds: float | None, said: str) -> None:
    assert time_words(seconds) == said


@pytest.mark.real
def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    done = tutelage("index", tmp_path / "nowhere")
    assert done.code == 2 and "expected the folder that runs are in" in done.err
    done = tutelage("approve", tmp_path / "nowhere", "--by", "Ada", "--reason", "r")
    assert done.code == 2 and "expected a run's folder" in done.err
