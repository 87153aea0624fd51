"""What a run would make of its data: counts, lengths, repeats, rows set aside, and ten rows as the student reads them.

Runs the node `prepare` itself, in a folder that is thrown away, and counts what it wrote. Answers and trains nothing.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import nsmallest
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from agents.evaluation import student_prompts
from agents.forecast import forecast, warnings
from agents.loop import Loop
from agents.prepare import prepare
from agents.progress import ProgressPrinter
from agents.session import check_start, open_loop
from curriculum.config import Config
from curriculum.data import UNLABELLED
from curriculum.extraction import taught_text
from curriculum.records import Example, Part, QuarantinedRow, content_id
from curriculum.report_text import add_row, narrow_table, safe_text
from curriculum.report_words import visible
from curriculum.rundir import RunDir, read_records
from curriculum.splits import DroppedExample, assert_no_leak
from student.interface import Progress, Prompt

SHOWN_ROWS = 10
SHOWN_BAD_ROWS = 5
SHOWN_SKILLS = 40
CHUNK = 2000
"""Rows that are encoded together; only their counts of tokens are kept."""
UNDECLARED = "undeclared"


class Spread(Part):
    """Counts of tokens: the median, the smallest that 95 % do not exceed, and the most."""

    median: int
    p95: int
    most: int


class SplitCheck(Part):
    """One split or extra set."""

    name: str
    items: int
    skills: dict[str, int]
    difficulties: dict[str, int]
    prompt_tokens: Spread
    target_tokens: Spread
    too_long: int | None
    """Pool rows with more tokens than training.max_length, which training drops; `None` where nothing is trained."""
    cut: int
    """Items whose gold answer, written as it is taught, has more tokens than student.max_new_tokens."""


class ShownRow(Part):
    """A row as the student reads it: texts, each with whether it is a special token."""

    split: str
    source: str
    prompt: tuple[tuple[str, bool], ...]
    target: tuple[tuple[str, bool], ...]


class DataCheck(Part):
    """All that was found."""

    splits: tuple[SplitCheck, ...]
    dropped: dict[str, int]
    """Reason → rows that prepare dropped: duplicates, leaks, and what is beyond a size."""
    quarantined: dict[str, int]
    """Reason → rows that cannot be used."""
    first_quarantined: tuple[QuarantinedRow, ...]
    detectable_gain: float | None
    warnings: tuple[str, ...]
    rows: tuple[ShownRow, ...]


class _Items(NamedTuple):
    split: str
    examples: Sequence[Example]


def check_data(config: Config, progress: ProgressPrinter) -> DataCheck:
    """Prepares the data as a run would, and counts.

    Raises:
        UserError: whatever would stop the run before its first answer.
    """
    check_start(config)
    with (
        TemporaryDirectory(prefix="tutelage-data-check-") as folder,
        open_loop(RunDir(Path(folder)), config, progress) as loop,
    ):
        prepare(loop, {})
        return _count(loop)


def _count(loop: Loop) -> DataCheck:
    parts = [_Items(split, loop.split(split)) for split in ("pool", "probe", "gate", "final")]
    assert_no_leak(parts[0].examples, loop.held_out())
    parts += [_Items(f"extra {name}", items) for name, items in loop.extra.items()]
    splits = tuple(_check_split(loop, part) for part in parts)
    folder = loop.run.stage_path("prepare")
    quarantined = read_records(folder / "quarantine.jsonl", QuarantinedRow)
    dropped = read_records(folder / "dropped.jsonl", DroppedExample)
    place = {e.id: part.split for part in parts for e in part.examples}
    made = forecast(loop.config)
    return DataCheck(
        splits=splits,
        dropped=_counts(_why_dropped(d, place) for d in dropped),
        quarantined=_counts(_kind(row) for row in quarantined),
        first_quarantined=tuple(quarantined[:SHOWN_BAD_ROWS]),
        detectable_gain=made.detectable_gain,
        warnings=(*warnings(loop.config, made), *_data_warnings(loop.config, splits)),
        rows=_shown(loop, parts),
    )


def _check_split(loop: Loop, part: _Items) -> SplitCheck:
    prompts, targets = array("L"), array("L")
    what = f"token lengths of {part.split}"
    for at in range(0, len(part.examples), CHUNK):
        for encoded in loop.student.encode(_rows(loop, part.examples[at : at + CHUNK]), False, _log(loop)):
            prompts.append(encoded.prompt_tokens)
            targets.append(encoded.target_tokens)
        loop.progress(what, Progress(len(prompts), len(part.examples), ""))
    most, answer = loop.config.training.max_length, loop.config.student.max_new_tokens
    too_long = sum(p + t > most for p, t in zip(prompts, targets, strict=True)) if part.split == "pool" else None
    return SplitCheck(
        name=part.split,
        items=len(part.examples),
        skills=_counts(skill for e in part.examples for skill in e.skills),
        difficulties=dict(sorted(Counter(str(e.difficulty or UNDECLARED) for e in part.examples).items())),
        prompt_tokens=_spread(prompts),
        target_tokens=_spread(targets),
        too_long=too_long,
        cut=sum(t > answer for t in targets),
    )


def _rows(loop: Loop, examples: Sequence[Example]) -> list[tuple[Prompt, str]]:
    return [(p, taught_text(e)) for p, e in zip(student_prompts(loop, examples, "plain"), examples, strict=True)]


def _log(loop: Loop) -> Path:
    return loop.run.path / "encode.log"


def _spread(values: Sequence[int]) -> Spread:
    ordered = sorted(values)
    at = {share: ordered[max(0, ceil(share * len(ordered)) - 1)] for share in (0.5, 0.95)}
    return Spread(median=at[0.5], p95=at[0.95], most=ordered[-1])


def _counts(names: Iterator[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0])))


def _why_dropped(row: DroppedExample, place: Mapping[str, str]) -> str:
    plain = row.reason in ("exact duplicate", "near duplicate")
    return f"{row.reason} of a {place.get(row.duplicate_of or '', 'dropped')} row" if plain else row.reason


def _kind(row: QuarantinedRow) -> str:
    """A reason without what is particular to one row: where it is, quoted texts and numbers."""
    reason = row.reason.removeprefix(f"{row.source.partition(': ')[2] or row.source}: ")
    return re.sub(r"'[^']*'|\"[^\"]*\"|\b(0x)?\d[\d.]*\b", "…", reason)


def _data_warnings(config: Config, splits: Sequence[SplitCheck]) -> Iterator[str]:
    pool, probe, gate, final, *extra = splits
    if pool.too_long:
        yield (
            f"{pool.too_long} of {pool.items} pool rows have more than {config.training.max_length} tokens and will "
            "not be trained on. Raise training.max_length, or shorten them."
        )
    cut = {s.name: s.cut for s in splits if s.cut}
    if cut:
        yield (
            "answers as they are taught have more tokens than student.max_new_tokens "
            f"({config.student.max_new_tokens}) in {', '.join(f'{n} rows of {name}' for name, n in cut.items())}: a "
            "student cannot finish them. Raise student.max_new_tokens."
        )
    if set(pool.skills) == {UNLABELLED}:
        yield f"every skill is `{UNLABELLED}`, so there is nothing to target. Name a column of skills."
    missing = sorted((probe.skills.keys() | gate.skills.keys() | final.skills.keys()) - pool.skills.keys())
    if missing:
        names = ", ".join(missing[:SHOWN_SKILLS])
        yield f"no pool row teaches {names}, which held-out splits ask for. Give more rows of it."
    for made, name in zip(extra, sorted(config.extra), strict=True):
        if made.items < config.extra[name].items:
            yield f"extra set {name} has {made.items} items, fewer than the {config.extra[name].items} it may have."


def _shown(loop: Loop, parts: Sequence[_Items]) -> tuple[ShownRow, ...]:
    """Ten rows of all splits and sets, the same ones for the same seed."""
    every = ((part.split, e) for part in parts for e in part.examples)
    seed = loop.config.seed
    chosen = nsmallest(SHOWN_ROWS, every, key=lambda pair: content_id([seed, "shown", pair[1].id]))
    encoded = loop.student.encode(_rows(loop, [e for _, e in chosen]), True, _log(loop))
    return tuple(
        ShownRow(split=split, source=e.source, prompt=row.prompt, target=row.target)
        for (split, e), row in zip(chosen, encoded, strict=True)
    )


def print_check(check: DataCheck, console: Console) -> None:
    """Prints what was found; texts of the data are escaped."""
    _print_counts(console, "Items, by skill", check.splits, lambda s: s.skills)
    _print_counts(console, "Items, by difficulty", check.splits, lambda s: s.difficulties)
    table = narrow_table(
        "Tokens: median, 95 %, most", ["split", "prompt", "target", "too long to train", "too long to write"]
    )
    for s in check.splits:
        spreads = [f"{t.median}, {t.p95}, {t.most}" for t in (s.prompt_tokens, s.target_tokens)]
        add_row(table, [s.name, *spreads, "–" if s.too_long is None else str(s.too_long), str(s.cut)])
    console.print(table)
    for title, found in (("Dropped", check.dropped), ("Quarantined", check.quarantined)):
        table = narrow_table(f"{title} rows: {sum(found.values())}", ["why", "rows"] if found else [])
        for why, count in found.items():
            add_row(table, [why, str(count)])
        console.print(table)
    for bad in check.first_quarantined:
        console.print(safe_text(f"  {bad.source}: {bad.reason}: {bad.text}"), soft_wrap=True)
    gain = "none" if check.detectable_gain is None else f"{100 * check.detectable_gain:.1f} points"
    console.print(safe_text(f"Smallest gain the gate sees: {gain}"))
    for number, row in enumerate(check.rows, 1):
        console.print(safe_text(f"\nRow {number} of {len(check.rows)}: {row.split}, {row.source}", "bold"))
        _print_text(console, "The student reads", row.prompt)
        _print_text(console, "and is taught to write" if row.split == "pool" else "It never sees", row.target)
    for warning in check.warnings:
        console.print(Text("Warning: ", "bold"), safe_text(warning), sep="")


def _print_counts(
    console: Console, title: str, splits: Sequence[SplitCheck], of: Callable[[SplitCheck], Mapping[str, int]]
) -> None:
    table = narrow_table(title, ["", *(s.name for s in splits)])
    add_row(table, ["all", *(str(s.items) for s in splits)])
    names = sorted({name for s in splits for name in of(s)})
    for name in names[:SHOWN_SKILLS]:
        add_row(table, [name, *(str(of(s).get(name, 0)) for s in splits)])
    if len(names) > SHOWN_SKILLS:
        add_row(table, [f"and {len(names) - SHOWN_SKILLS} more", *("" for _ in splits)])
    console.print(table)


def _print_text(console: Console, title: str, pieces: Sequence[tuple[str, bool]]) -> None:
    """Special tokens stand in ⟦ ⟧, which ordinary text cannot: there these are escaped."""
    console.print(safe_text(title, "dim"))
    text = "".join(
        f"⟦{visible(text)}⟧" if special else visible(text).replace("⟦", "\\u27e6").replace("⟧", "\\u27e7")
        for text, special in pieces
    )
    for line in text.split("\n"):
        console.print(safe_text(f"│ {line}"), soft_wrap=True)
