"""Forking: a new run that takes over another's finished rounds and goes on from there with other settings.

Only settings that first matter in the next round may differ: how rows are planned, how the student is
trained, what the gate accepts, and the seed. Every stage is checked against its `done.json` before it is
copied; weights become hard links where the file system has them, for nothing ever writes into them.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.earlier_decisions import copy_decisions
from agents.final import OPENINGS
from agents.first_files import write_first_files
from agents.session import check_start, new_folder, open_run
from curriculum.config import Config, changed_keys, load_config
from curriculum.errors import RunDirError
from curriculum.records import BASE
from curriculum.report import RoundReport
from curriculum.rundir import DONE, RunDir, file_hash, finished_rounds, is_whole, read_json, read_record

MAY_DIFFER = ("plan.", "training.", "gate.", "seed")
"""Beginnings of the identity keys that a fork may change."""


def fork_run(
    source: Path,
    round_: int,
    name: str | None,
    overrides: Sequence[str],
    check: Callable[[Config], None],
    ask_anew: bool = False,
) -> tuple[RunDir, Config]:
    """Makes a run that shares the finished stages of rounds 0 … `round_` of another, and its answers.

    `check` is called with the new config before anything is made. Persons' decisions on plans of later rounds are
    taken along, for when the same plan is proposed again, unless those are to be asked about anew.

    Raises:
        ConfigError: an override is no config key, or its value is wrong.
        RunDirError: the round is not finished or stopped the run, a key may not differ, a stage is damaged,
            or the folder cannot be made.
    """
    run, before = open_run(source)
    config = load_config(source / "config.yaml", overrides)
    check_start(config)
    check(config)
    changed = _changed(source, before, config)
    stages = _stages(run, _reports(run, round_))
    lineage = [
        *read_json(source / "run.json").get("lineage", []),
        {"run": run.path.name, "round": round_, "changed": changed},
    ]
    with new_folder(config, name, f"{run.path.name}-fork") as (draft, path):
        inherited = {}
        for stage in stages:
            at = stage.relative_to(run.path)
            shutil.copytree(stage, draft / at, copy_function=_link_or_copy)
            inherited[at.as_posix()] = file_hash(draft / at / DONE)
        if (run.path / OPENINGS).exists():  # whoever forks may have seen the final test
            shutil.copy2(run.path / OPENINGS, draft / OPENINGS)
        if not ask_anew:
            copy_decisions(run, draft)
        write_first_files(draft, path.name, config, {"lineage": lineage, "inherited": inherited})
    return RunDir(path), config


def _changed(source: Path, before: Config, after: Config) -> dict[str, list[object]]:
    """The identity keys that differ, with both values."""
    changed = changed_keys(before.identity(), after.identity())
    early = [f"  {key}: {was} → {now}" for key, (was, now) in changed.items() if not key.startswith(MAY_DIFFER)]
    if early:
        raise RunDirError(
            f"{source}: expected keys that matter only after the fork (plan, training, gate, seed), got\n"
            + "\n".join(early)
            + "\nLeave them, or start a new run"
        )
    return changed


def _reports(run: RunDir, last: int) -> list[RoundReport]:
    """The reports of rounds 0 … `last`, of which the last must leave something to go on from."""
    done = finished_rounds(run)
    if last >= done:
        known = f"one of its finished rounds (0 to {done - 1})" if done else "a run with a finished round"
        raise RunDirError(f"{run.path}: expected {known}, got --round {last}. Go on with: tutelage resume {run.path}")
    reports = [read_record(run.round_stage(r, "report") / "report.json", RoundReport) for r in range(last + 1)]
    if reports[-1].decision == "stopped":
        raise RunDirError(
            f"{run.path}: expected a round to go on from, got --round {last}, which stopped the run "
            f"({reports[-1].reason}). Give an earlier one, such as --round {last - 1}"
        )
    return reports


def _stages(run: RunDir, reports: Sequence[RoundReport]) -> list[Path]:
    """The stages that rounds share: what a run does once but its final test, the rounds, the adapters' answers."""
    once = [p.parent for p in run.path.glob(f"*/{DONE}") if p.parent.name != "final"]
    rounds = [p.parent for r in reports for p in run.path.glob(f"round_{r.round:02d}/*/{DONE}")]
    controls = [r.control.control.adapter for r in reports if r.control]
    tried = [name for r in reports if r.methods for name in r.methods.tried]
    adapters = dict.fromkeys([BASE, *(r.candidate for r in reports if r.candidate), *controls, *tried])
    answers = [p.parent for adapter in adapters for p in (run.stage_path("answers") / adapter).glob(f"*/{DONE}")]
    stages = sorted([*once, *rounds, *answers])
    for stage in stages:
        if not is_whole(stage):
            raise RunDirError(
                f"{stage}: expected a finished stage with the files its {DONE} names, got others. "
                f"Mend it first: tutelage resume {run.path}"
            )
    return stages


def _link_or_copy(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:  # another disk, or a file system without hard links
            pass
    shutil.copy2(source, target)
