"""The loop's own share of each round of a finished run: what is not the student's reading, writing and learning.

    python benchmarks/loop_share.py runs/quickstart-1

Read from the run, which must not have been interrupted: the seconds of its stages, and when each round ended. Measured
here: grading the round's answers anew, one start of the worker process, and one load of the base, which each job
of a round does. "loop" is every stage that asks nothing of the student, what lies between stages, and grading; starts
and loads stand apart; the rest of the stages that ask the student is its own time. The run is read, never changed.
"""

import argparse
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from machine import describe

from agents.loop import Loop
from agents.progress import ProgressPrinter
from agents.session import open_loop, open_run
from curriculum.config import Config
from curriculum.records import StudentAnswer
from curriculum.rundir import DONE, TIMING, read_json, read_records
from student.base_model import resolve_base
from student.subprocess_job import worker_environment


class Stage(NamedTuple):
    """A finished stage: its folder, when it ended, and the seconds it took."""

    folder: Path
    ended: float
    seconds: float

    @property
    def asks_student(self) -> bool:
        """Whether the student answers or learns in it."""
        return self.folder.name == "train" or "answers" in self.folder.parts


def stages(run: Path) -> list[Stage]:
    """All stages of a run in the order in which they ended."""
    found = [
        Stage(done.parent, done.stat().st_mtime, read_json(done.parent / TIMING)["seconds"]) for done in run.rglob(DONE)
    ]
    return sorted(found, key=lambda stage: stage.ended)


def grading_seconds(loop: Loop, stage: Stage) -> float:
    """How long it takes to grade the answers of a stage."""
    file = stage.folder / "answers.jsonl"
    if not file.exists():
        return 0.0
    pairs = [(loop.examples[a.example_id], a) for a in read_records(file, StudentAnswer)]
    since = time.perf_counter()
    loop.grader.grade(pairs)
    return time.perf_counter() - since


def start_and_load(config: Config) -> tuple[float, float]:
    """Seconds to start a worker process with its libraries, and to load the base in it."""
    load = (
        "import student.worker, time, pathlib, sys; from student.loading import load_base; since = time.perf_counter();"
        "load_base(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])); print(time.perf_counter() - since)"
    )
    base, threads = resolve_base(config.student.base, config.student.revision), config.student.threads
    command = [sys.executable, "-c", load, str(base), config.student.dtype, str(threads)]
    since = time.perf_counter()
    made = subprocess.run(command, check=True, capture_output=True, text=True, env=worker_environment(threads))
    loading = float(made.stdout)
    return time.perf_counter() - since - loading, loading


def main() -> None:
    """Prints a line a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run, config = open_run(parser.parse_args().run)
    print(describe("torch", "transformers"))
    start, load = start_and_load(config)
    print(f"start of the worker process {start:.1f} s, once a run; load of the base {load:.1f} s a job")
    print("round  whole, s  student, s  loads, s  loop: stages + between + grading, s  loop's share")
    with run, open_loop(run, config, ProgressPrinter()) as loop:
        all_stages = stages(run.path)
        ends = [stage.ended for stage in all_stages if stage.folder.name == "report"]
        for round_, (began, ended) in enumerate(pairwise(ends), 1):
            within = [stage for stage in all_stages if began < stage.ended <= ended]
            asked = [stage for stage in within if stage.asks_student]
            own = sum(stage.seconds for stage in within if not stage.asks_student)
            between = ended - began - sum(stage.seconds for stage in within)
            grading = sum(grading_seconds(loop, stage) for stage in asked)
            share = (own + between + grading) / (ended - began)
            loads = load * len(asked)
            student = sum(stage.seconds for stage in asked) - grading - loads
            print(
                f"{round_:>5}{ended - began:>10.1f}{student:>12.1f}{loads:>10.1f}"
                f"{own:>18.1f} + {between:.1f} + {grading:.1f}{share:>19.1%}"
            )


if __name__ == "__main__":
    main()
