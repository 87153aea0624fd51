"""The first node: data become examples with splits, and everything that can be checked free of cost is checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.loop import Loop, State
from curriculum.data import fingerprint, read_examples
from curriculum.data_config import FileData
from curriculum.errors import DataError, RunDirError
from curriculum.generator import generate_examples
from curriculum.records import BASE, Example, QuarantinedRow
from curriculum.rundir import DONE, read_json, write_json, write_records
from curriculum.splits import leaks, split_examples
from curriculum.user_grader import grader_hash


def prepare(loop: Loop, state: State) -> State:
    """Reads or generates the examples, quarantines bad ones, splits the rest.

    Raises:
        DataError: too many bad rows, or too few good ones for the splits.
        RunDirError: the data changed since the run began.
        UserError: the base model cannot be used.
    """
    data = loop.config.data
    inputs = {
        "identity": loop.config.identity_hash,
        "data": fingerprint(data) if isinstance(data, FileData) else "generated",
        "base": loop.base_hash,
        "prompt": loop.prompt.hash,
        "grader": _grader_hash(loop),
    }
    folder = loop.run.stage_path("prepare")
    if (folder / DONE).exists():
        _check_unchanged(folder, inputs)

    def work(folder: Path) -> Mapping[str, Any]:
        loop.student.check(folder / "student.log")
        examples, quarantined = _examples(loop)
        result = split_examples(examples, data.splits, loop.config.seed)
        _check_shots(loop, result.examples)
        sizes = Counter(str(e.split) for e in result.examples)
        reasons = Counter(d.reason for d in result.dropped)
        write_records(folder / "examples.jsonl", result.examples)
        write_records(folder / "quarantine.jsonl", quarantined)
        write_records(folder / "dropped.jsonl", result.dropped)
        write_json(folder / "splits.json", {"schema_version": 1, "counts": sizes, "dropped": reasons})
        dropped = "".join(f", {count} dropped: {reason}" for reason, count in sorted(reasons.items()))
        splits = ", ".join(f"{count} {split}" for split, count in sorted(sizes.items()))
        loop.say(f"examples: {splits}; {len(quarantined)} quarantined{dropped}")
        return {"round": 0, "adapter": BASE, "adapter_round": 0}

    return loop.stage(folder, inputs, work)


def _examples(loop: Loop) -> tuple[list[Example], list[QuarantinedRow]]:
    data = loop.config.data
    quarantined: list[QuarantinedRow] = []
    if isinstance(data, FileData):
        examples, quarantined = read_examples(data)
        allowed = data.max_bad_share
    else:
        examples, short = generate_examples(data, loop.config.seed)
        for level in short:
            loop.say(f"{level.task} at difficulty {level.difficulty} has only {level.got} of {level.wanted} questions")
        allowed = 0.0  # a generator whose gold answer fails its own scorer is broken
    rejected = loop.grader.check_gold(examples)
    quarantined += [
        QuarantinedRow(source=e.source, reason=rejected[e.id], text=e.question[:200])
        for e in examples
        if e.id in rejected
    ]
    if len(rejected) > allowed * len(examples):
        first = next(iter(rejected.items()))
        raise DataError(
            f"{len(rejected)} of {len(examples)} gold answers do not pass their own grader, at most {allowed:.0%} may; "
            f"example {first[0]}: {first[1]}. Mend the rows or choose another data.grader"
        )
    return [e for e in examples if e.id not in rejected], quarantined


def _grader_hash(loop: Loop) -> str:
    data = loop.config.data
    function = data.grader_function if isinstance(data, FileData) else None
    return grader_hash(function, Path.cwd()) if function else "built in"


def _check_shots(loop: Loop, examples: Sequence[Example]) -> None:
    """The config's few-shot examples may not give held-out answers away."""
    shots = [
        Example.make(question=shot.question, gold=shot.answer, grader="exact", source=f"example {number}")
        for number, shot in enumerate(loop.config.student.few_shot_examples or (), 1)
    ]
    leaking = leaks(shots, [e for e in examples if e.split != "pool"])
    if leaking:
        raise DataError(
            "student.few_shot_examples: expected questions that no held-out split has, got "
            + "; ".join(f"{shot.source}: {leaking[shot.id]}" for shot in shots if shot.id in leaking)
            + ". Choose others, or leave the key out: then they come from the pool"
        )


def _check_unchanged(folder: Path, inputs: Mapping[str, str]) -> None:
    before = read_json(folder / DONE)["inputs"]
    # The identity was compared when the run was opened; a fork took this stage over from a run with another one.
    changed = [key for key in inputs if key != "identity" and before.get(key) != inputs[key]]
    if changed:
        raise RunDirError(
            f"{folder.parent}: {' and '.join(changed)} changed since this run began. Put back what it began with, "
            "or start a new run"
        )
