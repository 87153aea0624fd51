"""Runs the real command line in a process of its own, and reads what a run left behind."""

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
NOT_CANONICAL = {"run.json", "timing.json", "config_changes.jsonl", "final_openings.jsonl", "report.md", "report.html"}
NOT_CANONICAL |= {"proposal.json", "plan.html"}
"""Files that hold times, or are views of others; logs are not canonical either."""

FAKE = """\
rounds: 2
data:
  kind: reasoning_gym
  per_task: 60
  tasks:
    {tasks}
  splits: {{probe: 40, gate: 60, final: 40}}
student: {{engine: {engine}, base: {base}, max_new_tokens: 8, dtype: float32, batch_size: 16}}
plan: {{rows_per_round: 40, replay_rows: 20, allocation: failures}}
training: {{epochs: 1, rank: 4, learning_rate: 1.0e-3, batch_tokens: 1024}}
gate: {{retrain_sd: 0.0}}
"""
TASKS = """\
    chain_sum:
      - {difficulty: 1, params: {max_terms: 2, max_digits: 1}}
      - {difficulty: 2, params: {max_terms: 3, max_digits: 2}}
    basic_arithmetic:
      - {difficulty: 1}
    spell_backward:
      - {difficulty: 1}
"""


class Finished(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The machine-readable last line."""
        line: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return line


def tutelage(*args: str | Path, kill_at: tuple[str, int] | None = None, cwd: Path = HERE.parent) -> Finished:
    """Runs `tutelage ARGS`, killed at a point of `kill_at.py` when one is given."""
    program = [str(HERE / "kill_at.py"), *map(str, kill_at)] if kill_at else ["-m", "agents.cli"]
    done = subprocess.run(
        [sys.executable, *program, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env=os.environ | {"COLUMNS": "160"},
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def write_config(folder: Path, *, engine: str = "fake", base: str = "fake", extra: str = "") -> Path:
    """A small config of two rounds over generated data, whose runs go into `folder`."""
    path = folder / "small.yaml"
    path.write_text(FAKE.format(engine=engine, base=base, tasks=TASKS.strip()) + f"runs_dir: {folder}\n" + extra)
    return path


def canonical_files(run: Path) -> dict[str, str]:
    """The hashes of a run's canonical files, by path; the commit that a run was begun with does not count."""

    def content(path: Path) -> bytes:
        return re.sub(rb'"git_commit": "[0-9a-f]+"', b"", path.read_bytes())

    return {
        str(p.relative_to(run)): hashlib.sha256(content(p)).hexdigest()
        for p in sorted(run.rglob("*"))
        if p.is_file() and p.name not in NOT_CANONICAL and p.suffix != ".log" and p.name != ".lock"
    }


def limited(what: int, limit: int, *args: str | Path) -> "subprocess.CompletedProcess[str]":
    """The command line and its workers with a limit of the system's, such as `resource.RLIMIT_AS`, in bytes."""
    return subprocess.run(
        [sys.executable, "-m", "agents.cli", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        preexec_fn=lambda: resource.setrlimit(what, (limit, limit)),
    )
