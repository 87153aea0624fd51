"""What an audit found: how many numbers agree with their records, which do not, and what could not be made again.

A collector of counts and differences, and its words in a terminal. Compares nothing itself.
"""

from collections import Counter
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from curriculum.differences import Compared, Difference, shown
from curriculum.records import Part
from curriculum.report_words import visible

MOST_LISTED = 50


class PartCount(Part):
    """One part of a bundle, such as its plans."""

    part: str
    agree: int
    taken: int
    differ: int


class DifferenceLine(Part):
    """A value that is not what its records give."""

    file: str
    field: str
    expected: str
    got: str


class NotMade(Part):
    """Something that could not be made again."""

    part: str
    why: str
    numbers: int


class Audit(Part):
    """The outcome of verifying a bundle."""

    run: str
    round: int
    hashes: int
    parts: tuple[PartCount, ...]
    not_recomputed: tuple[NotMade, ...]
    notes: tuple[str, ...]
    differences: tuple[DifferenceLine, ...]


class _Count(NamedTuple):
    agree: int = 0
    taken: int = 0
    differ: int = 0


class Findings:
    """Collects what an audit finds."""

    def __init__(self) -> None:
        self._parts: dict[str, _Count] = {}
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._differences: list[Difference] = []
        self._hashes = 0
        self._notes: list[str] = []

    def add(self, part: str, compared: Compared) -> None:
        """Two documents were compared."""
        was = self._parts.get(part, _Count())
        differ = was.differ + len(compared.differences)
        self._parts[part] = _Count(was.agree + compared.agree, was.taken + compared.taken, differ)
        self._differences += compared.differences

    def hash(self, file: str, expected: str, got: str) -> None:
        """A hash was recomputed."""
        self._hashes += expected == got
        if expected != got:
            self.differ(file, "SHA-256", expected, got)

    def differ(self, file: str, field: str, expected: object, got: object) -> None:
        """Something is not as it should be."""
        said = ("nothing" if value is None else shown(value) for value in (expected, got))
        self._differences.append(Difference(file, field, *said))

    def skip(self, part: str, why: str, numbers: int) -> None:
        """Something could not be made again, for a reason."""
        self._skipped[part, why] += numbers

    def note(self, words: str) -> None:
        """Something a reader of the outcome has to know."""
        self._notes.append(words)

    def audit(self, run: str, round_: int) -> Audit:
        """All of it."""
        return Audit(
            run=run,
            round=round_,
            hashes=self._hashes,
            parts=tuple(PartCount(part=part, **count._asdict()) for part, count in self._parts.items()),
            not_recomputed=tuple(NotMade(part=p, why=w, numbers=n) for (p, w), n in sorted(self._skipped.items())),
            notes=tuple(self._notes),
            differences=tuple(DifferenceLine(**d._asdict()) for d in self._differences),
        )


def audit_terminal(audit: Audit) -> RenderableType:
    """What was made again, what could not be, and every difference, for a terminal."""
    table = Table(title=f"{visible(audit.run)}, rounds 0 to {audit.round}", title_justify="left", box=None)
    for heading in ("made again from its records", "numbers that agree", "taken as recorded", "differences"):
        table.add_column(heading, justify="left" if heading.startswith("made") else "right")
    for part in (p for p in audit.parts if p.agree + p.taken + p.differ):
        table.add_row(Text(part.part), f"{part.agree:,}", f"{part.taken:,}", f"{part.differ:,}")
    table.add_row("hashes", f"{audit.hashes:,}", "0", "")
    lines = [f"not recomputed: {p.part}: {p.why} ({p.numbers:,} numbers)" for p in audit.not_recomputed]
    lines += list(audit.notes)
    lines += [_difference_words(d) for d in audit.differences[:MOST_LISTED]]
    if len(audit.differences) > MOST_LISTED:
        lines.append(f"… and {len(audit.differences) - MOST_LISTED:,} more differences")
    agree = sum(part.agree for part in audit.parts)
    lines.append(
        f"{agree:,} numbers and {audit.hashes:,} hashes agree"
        + (f"; {len(audit.differences):,} differences" if audit.differences else "; no difference")
    )
    return Group(table, *(Text(visible(line)) for line in lines))


def _difference_words(difference: DifferenceLine) -> str:
    field = f" {difference.field}" if difference.field else ""
    return f"{difference.file}{field}: expected {difference.expected}, got {difference.got}"
