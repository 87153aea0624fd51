"""Reads a folder of runs for its index. Nothing in it is executed or changed, and nothing in it stops the index."""

import json
from pathlib import Path
from typing import Any

from agents.approval import waiting
from agents.bench import BEGAN
from agents.session import TRACKERS
from curriculum.errors import TutelageError
from curriculum.run_index import Found, OtherFolder, RunIndex, bench_row, newest_first, run_row
from curriculum.rundir import TIMING, RunDir

MOST_BYTES = 100_000_000
"""Of a document that is read; a report of ten rounds has less than one."""


def read_index(folder: Path) -> RunIndex:
    """The index of a folder's folders; hidden ones and that of the trackers are not looked at.

    Raises:
        OSError: the folder itself cannot be read.
    """
    runs, benches, others = [], [], []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == TRACKERS or path.is_file():
            continue
        try:
            if (path / "run.json").is_file():
                runs.append(run_row(_found(path, "run.json", "report.json", "report.html")))
            elif (path / BEGAN).is_file():
                benches.append(bench_row(_found(path, BEGAN, "bench.json", "bench.html")))
            else:
                others.append(OtherFolder(name=path.name, reason=_no_run(path)))
        except OSError as error:
            others.append(OtherFolder(name=path.name, reason=f"cannot be read: {error.strerror}"))
    return RunIndex(folder=str(folder), runs=newest_first(runs), benches=newest_first(benches), others=tuple(others))


def _no_run(path: Path) -> str:
    if not path.is_dir():
        return "not a folder"
    any(path.iterdir())  # a folder that may not be read says so
    return "no run: it has no run.json"


def _found(path: Path, first: str, report: str, page: str) -> Found:
    faults: list[str] = []
    waits, plan_page = _waits(path)
    return Found(
        name=path.name,
        facts=_document(path / first, faults),
        report=_document(path / report, faults) if (path / report).exists() else None,
        page=(path / page).is_file(),
        seconds=_seconds(path),
        waits=waits,
        plan_page=plan_page,
        faults=tuple(faults),
    )


def _document(path: Path, faults: list[str]) -> Any:
    """A JSON document; `None` and a fault where it is none that can be read."""
    try:
        if not path.is_file():
            faults.append(f"{path.name}: not a file")
        elif path.stat().st_size > MOST_BYTES:
            faults.append(f"{path.name}: larger than {MOST_BYTES // 10**6} MB")
        else:
            value = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(value, dict):
                return value
            faults.append(f"{path.name}: no JSON object")
    except OSError as error:
        faults.append(f"{path.name}: {error.strerror}")
    except (ValueError, RecursionError) as error:
        faults.append(f"{path.name}: no JSON: {str(error)[:100]}")
    return None


def _seconds(path: Path) -> float | None:
    """What all stages took; `None` where none says so."""
    measured = []
    for timing in path.rglob(TIMING):
        value = _document(timing, [])
        seconds = value.get("seconds") if value else None
        if isinstance(seconds, int | float) and 0 <= seconds < float("inf"):
            measured.append(float(seconds))
    return sum(measured) if measured else None


def _waits(path: Path) -> tuple[str, str | None]:
    """What a run waits for a person to approve, in words, and the page of it; empty where it does not."""
    try:
        what = waiting(RunDir(path))
    except TutelageError:
        return "", None
    if what is None:
        return "", None
    page = what.page.relative_to(path).as_posix() if what.page and what.page.is_file() else None
    return f"for approval of {what.what}", page
