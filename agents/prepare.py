"""The first node: data become examples with splits, and everything that can be checked free of cost is checked."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.loop import Loop, State
from agents.method_checks import check_skills
from curriculum.bindings import bind_example, label_sets, may_be_bound
from curriculum.config import Config
from curriculum.data import fingerprint, read_examples
from curriculum.data_config import FileSource, Source
from curriculum.errors import DataError, RunDirError, UserError
from curriculum.generator import generate_examples
from curriculum.grading import Grader
from curriculum.records import BASE, Example, QuarantinedRow, content_id
from curriculum.rundir import DONE, read_json, write_json, write_records
from curriculum.splits import DroppedExample, SplitResult, leaks, split_examples, with_extra
from curriculum.user_grader import grader_hash


def prepare(loop: Loop, state: State) -> State:
    """Reads or generates the examples and the extra sets, quarantines bad ones, splits the rest.

    Raises:
        DataError: too many bad rows, or too few good ones for the splits.
        RunDirError: the data changed since the run began.
        UserError: the base model cannot be used.
    """
    data = loop.config.data
    inputs = {
        "identity": loop.config.identity_hash,
        "data": _fingerprint(data),
        "base": loop.base_hash,
        "prompt": loop.prompt.hash,
        "grader": _grader_hash(data),
        **loop.teacher.identity,
    }
    for name, source in loop.config.extra.items():
        with _said_of(name, source):
            inputs[f"extra.{name}"] = content_id([_fingerprint(source), _grader_hash(source)], 64)
    folder = loop.run.stage_path("prepare")
    if (folder / DONE).exists():
        _check_unchanged(folder, inputs)

    def work(folder: Path) -> Mapping[str, Any]:
        loop.student.check(folder / "student.log")
        result, quarantined = read_all(loop)
        _check_shots(loop, result)
        _check_bindings(loop.config, result)
        if loop.config.teacher.kind == "offline":  # its skills are those that the data declare
            check_skills(loop.config, loop.teacher.propose_skills([e for e in result.examples if e.split == "pool"]))
        counts = write_splits(folder, result)
        sizes, reasons = counts["counts"], counts["dropped"]
        write_records(folder / "quarantine.jsonl", quarantined)
        dropped = "".join(f", {count} dropped: {reason}" for reason, count in sorted(reasons.items()))
        splits = ", ".join(f"{count} {split}" for split, count in sorted(sizes.items()))
        extra = "".join(f", {len(items)} extra {name}" for name, items in result.extra.items())
        silent = sum(not e.gold for e in result.examples)
        extra += f"; {silent} of the probe have no gold answer" if silent else ""
        loop.say(f"examples: {splits}{extra}; {len(quarantined)} quarantined{dropped}")
        return {"round": 0, "adapter": BASE, "adapter_round": 0}

    update = loop.stage(folder, inputs, work)
    if loop.config.teacher.kind == "llm":
        from agents.teacher_cost import record_forecast  # and with it the client, which an offline run does not need

        record_forecast(loop)
    return update


def write_splits(folder: Path, result: SplitResult) -> dict[str, Any]:
    """Writes the items of the splits and of the extra sets, what was dropped, and how many these are; returns that."""
    counts: dict[str, Any] = {
        "schema_version": 1,
        "counts": Counter(str(e.split) for e in result.examples),
        "dropped": Counter(d.reason for d in result.dropped),
    }
    if result.extra:
        counts["extra"] = {name: len(items) for name, items in result.extra.items()}
    write_records(folder / "examples.jsonl", result.examples)
    for name, items in result.extra.items():
        write_records(folder / f"extra-{name}.jsonl", items)
    write_records(folder / "dropped.jsonl", result.dropped)
    write_json(folder / "splits.json", counts)
    return counts


def read_all(loop: Loop) -> tuple[SplitResult, list[QuarantinedRow]]:
    """The examples of the splits and of the extra sets, and the rows of both that cannot be used."""
    config = loop.config
    examples, quarantined = _examples(loop, config.data, loop.grader, "prepare")
    result = split_examples(examples, config.data.splits, config.seed)
    if not config.extra:
        return result, quarantined
    extra: dict[str, list[Example]] = {}
    for name, source in config.extra.items():
        with _said_of(name, source):
            extra[name], bad = _examples(loop, source, loop.extra_graders[name], f"extra {name}")
        quarantined += [row.model_copy(update={"source": f"extra.{name}: {row.source}"}) for row in bad]
    sizes = {name: source.items for name, source in config.extra.items()}
    return _bound(config, with_extra(result, extra, sizes, config.seed)), quarantined


def _bound(config: Config, result: SplitResult) -> SplitResult:
    """Puts the sets that ask for it into held-out words: after repeats were looked for, which words would hide.

    Raises:
        DataError: a set has nothing that could be put into words.
    """
    kept, dropped = dict(result.extra), list(result.dropped)
    for name in sorted(n for n, source in config.extra.items() if source.bindings):
        items, sets = kept[name], label_sets((e, e.skills) for e in kept[name])
        made = {e.id: bind_example(e, sets, config.seed) for e in items}
        kept[name] = tuple(sorted((e for e in made.values() if e is not None), key=lambda e: e.id))
        if not kept[name]:
            raise DataError(
                f"extra.{name}.bindings: expected items with operators between numbers, or with answers of a few that "
                f"come again and again, got none among {len(items)}: leave `bindings` out, or give other data"
            )
        reason = f"extra set {name}: nothing to bind"
        dropped += [DroppedExample(example_id=e.id, source=e.source, reason=reason) for e in items if not made[e.id]]
    return replace(result, extra=kept, dropped=tuple(dropped))


@contextmanager
def _said_of(name: str, source: Source) -> Iterator[None]:
    """What is wrong with the data of an extra set names the keys of that set."""
    try:
        yield
    except UserError as error:
        keys = "|".join(type(source).model_fields)
        raise type(error)(f"extra.{name}: " + re.sub(rf"\bdata\.({keys})\b", rf"extra.{name}.\1", str(error))) from None


def _examples(loop: Loop, data: Source, grader: Grader, purpose: str) -> tuple[list[Example], list[QuarantinedRow]]:
    quarantined: list[QuarantinedRow] = []
    if isinstance(data, FileSource):
        examples, quarantined = read_examples(data)
        allowed = data.max_bad_share
    else:
        examples, short = generate_examples(data, loop.config.seed, purpose)
        for level in short:
            loop.say(f"{level.task} at difficulty {level.difficulty} has only {level.got} of {level.wanted} questions")
        allowed = 0.0  # a generator whose gold answer fails its own scorer is broken
    rejected = grader.check_gold([e for e in examples if e.gold])
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


def _fingerprint(data: Source) -> str:
    return fingerprint(data) if isinstance(data, FileSource) else "generated"


def _grader_hash(data: Source) -> str:
    function = data.grader_function if isinstance(data, FileSource) else None
    return grader_hash(function, Path.cwd()) if function else "built in"


def _check_shots(loop: Loop, result: SplitResult) -> None:
    """The config's few-shot examples may not give held-out answers away."""
    held_out = [e for e in result.examples if e.split != "pool"]
    held_out += [e for items in result.extra.values() for e in items]
    shots = [
        Example.make(question=shot.question, gold=shot.answer, grader="exact", source=f"example {number}")
        for number, shot in enumerate(loop.config.student.few_shot_examples or (), 1)
    ]
    leaking = leaks(shots, held_out)
    if leaking:
        raise DataError(
            "student.few_shot_examples: expected questions that no held-out split or extra set has, got "
            + "; ".join(f"{shot.source}: {leaking[shot.id]}" for shot in shots if shot.id in leaking)
            + ". Choose others, or leave the key out: then they come from the pool"
        )


def _check_bindings(config: Config, result: SplitResult) -> None:
    """Rows that shall declare words have to have something that these can stand for."""
    if config.plan.bindings and not any(may_be_bound(e) for e in result.examples if e.split == "pool"):
        raise UserError(
            f"plan.bindings is {config.plan.bindings:g}, but no pool item has operators between numbers, nor an answer "
            "in words, graded by `exact`, `choice` or a generator's scorer. Expected some: set plan.bindings to 0"
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
