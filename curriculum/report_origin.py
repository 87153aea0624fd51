"""Where a run's results come from: its adapters with their hashes, what it was expected to take, how to make it again.

The parts `adapters`, `work` and `reproduction` of a run's report. No times: those are in `report.Timings`.
"""

from typing import Any, Literal

from pydantic import Field

from curriculum.records import Part
from curriculum.serving_records import Canary


class ServedWeights(Part):
    """Which weights a server answered with, and how that was made sure."""

    engine: str = Field(description="name and version")
    dtype: str
    how: Literal["base", "merged", "runtime"]
    files: dict[str, str] = Field(description="file name → SHA-256")
    canary: Canary | None = Field(description="none for the base, where there is no adapter to tell apart")


class AdapterReport(Part):
    """The base, or one adapter that was trained: where it comes from and what became of it."""

    name: str = Field(description="`base` for the student without an adapter")
    round: int
    start: str | None = Field(
        description="what its training went on from, or what a merged one was made of: `base` or adapters; none for "
        "`base`"
    )
    became: Literal["base", "accepted", "rolled_back", "control", "merged", "not decided"] = Field(
        description="merged: another adapter was made of it, which the gate judged in its place"
    )
    rows: int = 0
    training_set_hash: str | None = None
    files: dict[str, str] = Field(description="file name → SHA-256; of the base one hash over its weights")
    served: ServedWeights | None = Field(default=None, description="none where the trainer's own weights answered")


class Work(Part):
    """What was forecast from the config alone, every adapter accepted, and what the run did."""

    all_answers: int = Field(description="the student's answers that were graded, of every adapter and split")
    rows: int = Field(description="rows that went through training, all epochs, controls included")
    forecast_answers: int = Field(description="the most there can be")
    forecast_rows: int = Field(description="the most there can be")
    forecast_minutes: tuple[float, float] | None = Field(
        description="least and most on two CPU cores; none for a student that was never timed"
    )


class Ancestor(Part):
    """A run that this one was forked from."""

    run: str
    round: int = Field(description="the last round that is shared")
    changed: dict[str, tuple[Any, Any]] = Field(description="config key → what it was and what it became")


class Reproduction(Part):
    """What somebody needs to make the run again."""

    commands: tuple[str, ...] = Field(description="in this order, from a checkout with the packages installed")
    python: str
    libraries: dict[str, str] = Field(description="name → version")
    uncommitted_changes: bool | None = Field(description="whether the code differed from its commit; none if unknown")
    ancestors: tuple[Ancestor, ...] = Field(default=(), description="of a fork, the oldest first")
    config: str = Field(description="the identity keys of the config as YAML")
