"""The index of a folder of runs: one row a run, one a bench, and what is neither, with the reason.

Takes what `run.json`, `report.json` and their like say, which may be anything; a document that does not say what it
should is a row with a note, never an exception.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from curriculum.bench_records import BenchReport
from curriculum.bench_words import headline
from curriculum.records import Change, Part, Rate, Record
from curriculum.report import RunReport


class IndexRow(Part):
    """One run."""

    name: str = Field(description="its folder's")
    page: bool = Field(description="whether it has a report.html")
    status: str
    waits: str = Field(description="what a person has to approve, in words; empty where nobody is waited for")
    plan_page: str | None = Field(description="the page of the plan that waits, within its folder")
    created: str | None = Field(description="when it was begun, in UTC, by its run.json")
    base: str | None
    teacher: str | None
    rounds: int = Field(ge=0, description="rounds that trained")
    accepted: int = Field(ge=0)
    rolled_back: int = Field(ge=0)
    before: Rate | None = Field(description="the base on the final split")
    after: Rate | None = Field(description="the accepted adapter on the final split")
    change: Change | None
    forked_from: tuple[str, ...] = Field(description="its ancestors with the last round taken over, the nearest last")
    seconds: float | None = Field(description="in all stages that it did itself or took over")
    requests: int | None = Field(description="sent to an LLM teacher; none for the offline one")
    money: float | None = Field(description="what they cost, where prices are known")
    notes: tuple[str, ...] = Field(description="what of it cannot be read, and why")


class BenchRow(Part):
    """One bench."""

    name: str
    page: bool
    status: str
    created: str | None
    base: str | None
    trainings: str
    finding: str
    notes: tuple[str, ...]


class OtherFolder(Part):
    """A folder that is neither."""

    name: str
    reason: str


class RunIndex(Record):
    """Everything in a folder of runs, the newest first."""

    folder: str
    runs: tuple[IndexRow, ...]
    benches: tuple[BenchRow, ...]
    others: tuple[OtherFolder, ...]


class _Teacher(BaseModel):
    kind: str
    model: str | None = None


class _Student(BaseModel):
    base: str


class _Identity(BaseModel):
    student: _Student
    teacher: _Teacher


class _Fork(BaseModel):
    run: str
    round: int


class _Facts(BaseModel):
    """What the index needs of a `run.json`, or of a bench's; other keys are left alone."""

    created: datetime
    identity: _Identity
    lineage: tuple[_Fork, ...] = ()

    @property
    def teacher(self) -> str:
        """`offline`, or the model of an LLM teacher."""
        teacher = self.identity.teacher
        return teacher.model or teacher.kind if teacher.kind != "offline" else "offline"

    @property
    def began(self) -> str:
        """When, in UTC: texts of it sort by time."""
        return self.created.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


class Found(BaseModel):
    """What was found in a folder: its documents as plain values, none where one is missing."""

    name: str
    facts: Any
    report: Any = None
    page: bool = False
    seconds: float | None = None
    waits: str = ""
    plan_page: str | None = None
    faults: tuple[str, ...] = ()


def run_row(found: Found) -> IndexRow:
    """A run's row, with a note on each document that does not say what it should."""
    notes = list(found.faults)
    facts, report = _facts(found, notes), None
    if found.report is not None:
        report = _checked(RunReport, found.report, "report.json", notes)
    decisions = [r.decision for r in report.rounds] if report else []
    final = report.final if report else None
    teaching = report.teaching.total if report and report.teaching else None
    return IndexRow(
        name=found.name,
        page=found.page,
        status=_status(report, found, notes),
        waits=found.waits,
        plan_page=found.plan_page,
        created=facts.began if facts else None,
        base=report.base if report else facts.identity.student.base if facts else None,
        teacher=report.teacher if report else facts.teacher if facts else None,
        rounds=sum(d in ("accepted", "rolled_back") for d in decisions),
        accepted=decisions.count("accepted"),
        rolled_back=decisions.count("rolled_back"),
        before=final.base if final else None,
        after=final.adapter if final else None,
        change=final.change if final else None,
        forked_from=tuple(f"{fork.run}, round {fork.round}" for fork in facts.lineage) if facts else (),
        seconds=found.seconds,
        requests=teaching.requests if teaching else None,
        money=(teaching.money or None) if teaching else None,
        notes=tuple(notes),
    )


def bench_row(found: Found) -> BenchRow:
    """A bench's row."""
    notes = list(found.faults)
    facts, report = _facts(found, notes), None
    if found.report is not None:
        report = _checked(BenchReport, found.report, "bench.json", notes)
    return BenchRow(
        name=found.name,
        page=found.page,
        status="waiting" if found.waits else report.status if report else "not known" if notes else "begun",
        created=facts.began if facts else None,
        base=report.base if report else facts.identity.student.base if facts else None,
        trainings=f"{report.trainings} of {report.wanted}" if report else "0",
        finding=headline(report) if report else "",
        notes=tuple(notes),
    )


def newest_first(rows: list[Any]) -> tuple[Any, ...]:
    """Rows by when they were begun, those of unknown age last, then by name."""
    return tuple(sorted(sorted(rows, key=lambda r: str(r.name)), key=lambda r: str(r.created or ""), reverse=True))


def _status(report: RunReport | None, found: Found, notes: list[str]) -> str:
    if found.waits:
        return "waiting"
    if report is None:
        return "not known" if notes else "begun"
    return "unfinished" if report.status == "running" else report.status


def _facts(found: Found, notes: list[str]) -> _Facts | None:
    return _checked(_Facts, found.facts, "its first file", notes) if isinstance(found.facts, Mapping) else None


def _checked(kind: Any, value: Any, what: str, notes: list[str]) -> Any:
    """The document as a record; else `None`, with a note."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        notes.append(f"{what}: {error.error_count()} faults, the first in {where}: {first['msg']}")
    except RecursionError:
        notes.append(f"{what}: nested too deeply")
    return None
