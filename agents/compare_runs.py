"""Reads two finished runs, or rounds of them, and compares what their adapters answered.

A side is `RUN`, the adapter its run ended with, or `RUN:ROUND`, the candidate which that round trained (0: the base),
accepted or not. Compared is the final split where both sides answered it, else the gate split. Nothing is written,
and no code that a run names is imported.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue

from agents.reporting import gather
from agents.session import open_run
from curriculum.config import Config, flatten
from curriculum.errors import RunDirError
from curriculum.records import BASE, Grade, SkillLabel
from curriculum.report import RunReport, read_timings
from curriculum.run_comparison import Examined, RunComparison, Side, differences, notes, pair_items, spent
from curriculum.rundir import RunDir, is_whole, read_json, read_records

SPLITS: tuple[Literal["final", "gate"], ...] = ("final", "gate")
MADE_WITH = ("tutelage", "commit", "python", "libraries")


class Read(NamedTuple):
    """A side as its run recorded it."""

    side: Side
    run: RunDir
    config: Config
    report: RunReport
    splits: tuple[Literal["final", "gate"], ...]
    """Those that its adapter has answered."""


def compare_runs(a: str, b: str) -> RunComparison:
    """Compares two sides; see the module.

    Raises:
        RunDirError: one is no finished run or round, has no adapter, or its answers are not those it recorded.
    """
    one, other = read_side(a), read_side(b)
    both = [split for split in SPLITS if split in one.splits and split in other.splits]
    if not both:
        raise RunDirError(
            f"expected two adapters that answered the same split, got {a} with {' and '.join(one.splits) or 'none'} "
            f"and {b} with {' and '.join(other.splits) or 'none'}. The final split is answered by the base and by the "
            "adapter a run ended with; the gate split by every round's candidate"
        )
    items = pair_items(both[0], _examined(one, both[0]), _examined(other, both[0]))
    return RunComparison(
        a=one.side,
        b=other.side,
        differences=tuple(
            difference
            for kind in ("identity", "operational", "made with")
            for difference in differences(_facts(one, kind), _facts(other, kind), kind)
        ),
        items=items,
        spent_a=spent(one.report, read_timings(one.run.path)),
        spent_b=spent(other.report, read_timings(other.run.path)),
        notes=notes(one.side, other.side, items),
    )


def read_side(text: str) -> Read:
    """Reads `RUN` or `RUN:ROUND`.

    Raises:
        RunDirError: as in `compare_runs`.
    """
    found = None if Path(text).is_dir() else re.fullmatch(r"(.+):([0-9]{1,6})", text)
    path, round_ = (Path(found[1]), int(found[2])) if found else (Path(text), None)
    run, config = open_run(path, only_read=True)
    report = gather(run, config)
    adapter = _adapter(path, report, round_)
    side = Side(run=report.run, round=round_, adapter=adapter, base=report.base, base_hash=report.base_hash)
    folders = {split: run.stage_path("answers") / adapter / split for split in SPLITS}
    answered = tuple(split for split, folder in folders.items() if (folder / "grades.jsonl").exists())
    for split in answered:
        if not is_whole(folders[split]):
            raise RunDirError(
                f"{folders[split]}: expected a finished examination as the run recorded it, got other files. Put them "
                f"back, or go on with: tutelage resume {path}"
            )
    return Read(side, run, config, report, answered)


def _adapter(path: Path, report: RunReport, round_: int | None) -> str:
    if round_ is None:
        if report.final is None:
            raise RunDirError(
                f"{path}: expected a finished run, got one whose final test is still to come. Go on with: tutelage "
                f"resume {path}; or compare a finished round of it: {path}:ROUND"
            )
        return report.final.adapter_name
    if round_ == 0:
        return BASE
    trained = {r.round: r.candidate for r in report.rounds if r.candidate}
    if round_ not in trained:
        known = ", ".join(map(str, [0, *trained]))
        raise RunDirError(f"{path}: expected one of its finished rounds that trained ({known}), got {round_}")
    return trained[round_]


def _examined(read: Read, split: str) -> Examined:
    folder = read.run.stage_path("answers") / read.side.adapter / split
    labels = read_records(read.run.stage_path("label") / "labels.jsonl", SkillLabel)
    return Examined(read_records(folder / "grades.jsonl", Grade), {r.example_id: r for r in labels})


def _facts(read: Read, kind: str) -> Mapping[str, JsonValue]:
    facts = read_json(read.run.path / "run.json")
    if kind == "identity":  # as recorded: what the config of an older run lacks has the defaults of today there
        return flatten(facts["identity"])
    if kind == "operational":
        everything, identity = flatten(read.config.model_dump(mode="json")), flatten(read.config.identity())
        return {key: value for key, value in everything.items() if key not in identity}
    return flatten({key: facts.get(key) for key in MADE_WITH} | {"base files": read.side.base_hash})
