"""Examples from reasoning-gym: one allow-listed task a skill, or two tasks composed into one question.

Takes the config's tasks and levels and a seed; returns distinct examples, the same ones for the same seed
in every process. Generates for the splits (`generate_examples`) and for teaching (`write_examples`). Does
not grade, and generates for no task whose scorer is not on the list of safe ones.
"""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from pydantic import JsonValue

from curriculum.arithmetic import exact_value
from curriculum.data_config import GeneratorSource, Level
from curriculum.duplicates import GENERATED, normalise
from curriculum.errors import DataError
from curriculum.records import Example, GraderName, content_id
from curriculum.safe_tasks import SAFE_TASKS

UNREPRODUCIBLE = frozenset(["isomorphic_strings", "list_functions", "ransom_note"])
"""Tasks that draw from the global random state, or in the order of a set of strings: no seed brings an item back."""
TRIES, MORE_TRIES = 20, 500
"""Items looked at for each one wanted, and in all, before a level counts as exhausted."""
KIND_SAMPLE = 20
"""Items of a level whose answers tell whether its answers are numbers."""

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Shortfall:
    """A level whose parameters allow fewer distinct questions than were wanted."""

    task: str
    difficulty: int
    wanted: int
    got: int


@dataclass(frozen=True)
class _Item:
    question: str
    gold: str
    metadata: dict[str, JsonValue]


def check_tasks(config: GeneratorSource) -> list[str]:
    """Every fault of the configured tasks and levels, in words; empty when all can be generated."""
    return [fault for task, levels in sorted(config.tasks.items()) for fault in _task_faults(task, levels)]


def _task_faults(task: str, levels: list[Level]) -> list[str]:
    parts = task.split("+")
    usable = SAFE_TASKS - UNREPRODUCIBLE
    faults = [
        f"data.tasks.{task}: `{part}` is no task that may be used: allowed are {', '.join(sorted(usable))}"
        for part in parts
        if part not in usable
    ]
    if len(parts) > 2 or len(set(parts)) < len(parts):
        faults.append(f"data.tasks.{task}: expected one task, or two different ones joined by `+`")
    difficulties = [level.difficulty for level in levels]
    if not levels or len(set(difficulties)) < len(levels):
        faults.append(f"data.tasks.{task}: expected levels of different difficulty, got {difficulties}")
    return faults or [fault for level in levels for fault in _level_faults(task, level)]


def _level_faults(task: str, level: Level) -> list[str]:
    from reasoning_gym.factory import DATASETS

    parts = task.split("+")
    allowed = {
        name if len(parts) == 1 else f"{part}.{name}"
        for part in parts
        for name in (field.name for field in fields(DATASETS[part][1]))
        if name not in ("seed", "size")
    }
    at = f"data.tasks.{task}, difficulty {level.difficulty}"
    unknown = sorted(set(level.params) - allowed)
    if unknown:
        return [f"{at}: unknown parameter(s) {', '.join(unknown)}: allowed are {', '.join(sorted(allowed))}"]
    try:
        next(_items(task, level, 0, KIND_SAMPLE))
    except Exception as error:  # a generator may raise anything for parameters it cannot work with
        return [f"{at}: reasoning-gym refuses the parameters {level.params}: {type(error).__name__}: {error}"]
    return []


def generate_examples(
    config: GeneratorSource, seed: int, purpose: str = "prepare"
) -> tuple[list[Example], list[Shortfall]]:
    """`per_task` distinct items of every task, spread evenly over its levels, and the levels that gave fewer.

    Another purpose draws other items with the same seed.

    Raises:
        DataError: a task or level cannot be used (all faults at once), or gives no new question at all.
    """
    faults = check_tasks(config)
    if faults:
        raise DataError("\n".join(faults))
    seen: set[str] = set()
    examples: list[Example] = []
    short: list[Shortfall] = []
    for task, levels in sorted(config.tasks.items()):
        share, extra = divmod(config.per_task, len(levels))
        for place, level in enumerate(sorted(levels, key=lambda one: one.difficulty)):
            wanted = share + (place < extra)
            fresh = _distinct(task, level, wanted, _stream_seed(purpose, task, level, seed), seen)
            if wanted and not fresh:
                raise DataError(
                    f"data.tasks.{task}, difficulty {level.difficulty}: expected {wanted} distinct questions, got 0 "
                    "that no other level gives: remove the level or widen its parameters"
                )
            if len(fresh) < wanted:
                short.append(Shortfall(task, level.difficulty, wanted, len(fresh)))
            seen |= {normalise(e.question) for e in fresh}
            examples += fresh
    return examples, short


def write_examples(
    config: GeneratorSource, skill: str, difficulty: int, count: int, seed: int, taken: Set[str]
) -> list[Example]:
    """Up to `count` fresh items for a skill at a difficulty; fewer when the generator has no more.

    A skill that is no task of its own is taught by the composed tasks that need it, in equal parts.

    Args:
        taken: normalised questions that must not come again.

    Raises:
        DataError: no task of the config has this skill at this difficulty.
    """
    names = [skill] if skill in config.tasks else sorted(t for t in config.tasks if skill in t.split("+"))
    sources = [(name, level) for name in names for level in config.tasks[name] if level.difficulty == difficulty]
    if not sources:
        have = sorted({level.difficulty for name in names for level in config.tasks[name]})
        raise DataError(f"data.tasks: expected a level of difficulty {difficulty} for `{skill}`, got {have}")
    used = set(taken)
    examples: list[Example] = []
    for place, (task, level) in enumerate(sources):
        wanted = (count - len(examples)) // (len(sources) - place)
        fresh = _distinct(task, level, wanted, _stream_seed("write", task, level, seed), used)
        used |= {normalise(e.question) for e in fresh}
        examples += fresh
    return examples


def _stream_seed(purpose: str, task: str, level: Level, seed: int) -> int:
    # 30 bits: item i of a stream is seeded with this plus i, and two parts must fit below numpy's 2³².
    return int(content_id([purpose, task, level.difficulty, seed], 8), 16) >> 2


def _distinct(task: str, level: Level, wanted: int, stream_seed: int, taken: Set[str]) -> list[Example]:
    """The first `wanted` items of a stream whose questions differ from each other and from `taken`."""
    kind = _answer_kind(task, level)
    grader: GraderName = "exact" if "+" in task else "reasoning_gym"
    found: dict[str, Example] = {}
    for index, item in enumerate(_items(task, level, stream_seed, TRIES * wanted + MORE_TRIES)):
        if len(found) == wanted:
            break
        key = normalise(item.question)
        if key in taken or key in found:
            continue
        found[key] = Example.make(
            question=item.question,
            gold=item.gold,
            grader=grader,
            source=f"{GENERATED}{task}:level{level.difficulty}:seed={stream_seed}:index={index}",
            skills=tuple(task.split("+")),
            difficulty=level.difficulty,
            metadata={"task": task, **item.metadata, "answer_kind": kind},
        )
    return list(found.values())


def _answer_kind(task: str, level: Level) -> str:
    """`number` when a level's answers are plain numbers, else `text`.

    Told from a fixed sample, not from the item at hand: the prime 7 must be read like the other answers
    of `prime_factorization`, which are products.
    """
    sample = _items(task, level, 0, KIND_SAMPLE)
    return "number" if all(_NUMBER.fullmatch(item.gold) for item in sample) else "text"


def _items(task: str, level: Level, stream_seed: int, size: int) -> Iterator[_Item]:
    """The first `size` items of a stream; those of a composed task ask one question of each part."""
    from reasoning_gym import create_dataset

    parts = task.split("+")
    datasets = []
    for place, part in enumerate(parts):
        prefix = "" if len(parts) == 1 else f"{part}."
        params = {k.removeprefix(prefix): v for k, v in level.params.items() if k.startswith(prefix)}
        # Far apart, so that the parts of a question do not draw the same random numbers.
        datasets.append(create_dataset(part, seed=stream_seed + place * 2**30, size=max(size, 1), **params))
    for index in range(size):
        try:
            entries = [_plain(dataset[index]) for dataset in datasets]
        except ArithmeticError:  # basic_arithmetic divides by zero at a rare seed: it has no question there
            continue
        if not all(map(_is_right, entries)):
            continue
        yield _single(entries[0]) if len(parts) == 1 else _composed(entries)


def _is_right(entry: Mapping[str, Any]) -> bool:
    """Whether an answer is that of the expression it was made from.

    Version 0.1.25 computes `basic_arithmetic` from left to right where it sets no brackets (`4 - 1 * 7`), and rounds
    some quotients.
    """
    expression = entry["metadata"].get("expression")
    if expression is None:
        return True
    try:
        return exact_value(expression) == Fraction(entry["answer"])
    except (ValueError, ZeroDivisionError):
        return False


def _single(entry: dict[str, Any]) -> _Item:
    return _Item(entry["question"], entry["answer"], {"entry": entry})


def _composed(entries: list[dict[str, Any]]) -> _Item:
    questions = "\n".join(f"{place}. {entry['question'].strip()}" for place, entry in enumerate(entries, 1))
    question = (
        f"Answer two questions.\n{questions}\n"
        "Give both answers on one line: the first answer, a comma, a space, the second answer."
    )
    gold = ", ".join(entry["answer"] for entry in entries)
    return _Item(question, gold, {"entry": {"question": question, "answer": gold, "metadata": {"parts": [*entries]}}})


def _plain(value: Any) -> Any:
    """A JSON value that says the same; the scorers read tuples and lists alike."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
