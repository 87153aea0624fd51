"""Runs the real command line and kills it, with SIGKILL, the n-th time it reaches a chosen point.

    python tests/kill_at.py POINT N run CONFIG …

POINT is `done` (a stage's files are written, its `done.json` is not), `rename` (a whole-file write has its
temporary file, half written), `line` (half a journal line is written) or `step` (training made a step).
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from curriculum import rundir
from student.interface import Progress

point, countdown = sys.argv[1], int(sys.argv[2])


def die_at_zero(before: Callable[[], object] = lambda: None) -> None:
    global countdown
    countdown -= 1
    if countdown == 0:
        before()
        os.kill(os.getpid(), signal.SIGKILL)


write_json, write_atomic, append_line = rundir.write_json, rundir.write_atomic, rundir.append_line


def write_json_or_die(path: Path, value: object) -> None:
    if path.name == rundir.DONE:
        die_at_zero()
    write_json(path, value)


def write_atomic_or_die(path: Path, text: str) -> None:
    die_at_zero(lambda: path.with_name(f".{path.name}.tmp").write_text(text[: len(text) // 2], errors="replace"))
    write_atomic(path, text)


def append_line_or_die(path: Path, value: object) -> None:
    line = (rundir.canonical_json(value) + "\n").encode()

    def tear() -> None:
        with path.open("ab") as file:
            file.write(line[: len(line) // 2])

    die_at_zero(tear)
    append_line(path, value)


if point == "done":
    rundir.write_json = write_json_or_die
elif point == "rename":
    rundir.write_atomic = write_atomic_or_die
elif point == "line":
    rundir.append_line = append_line_or_die
else:
    assert point == "step", point

from agents.cli import main  # noqa: E402  (after the patches, which its imports must see)
from agents.progress import ProgressPrinter  # noqa: E402

if point == "step":
    show = ProgressPrinter.__call__

    def show_or_die(self: ProgressPrinter, what: str, progress: Progress) -> None:
        if what.startswith("training"):
            die_at_zero()
        show(self, what, progress)

    ProgressPrinter.__call__ = show_or_die  # type: ignore[method-assign]

sys.argv = ["tutelage", *sys.argv[3:]]
main()
