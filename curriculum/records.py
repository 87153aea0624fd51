"""The records of examples, labels, answers, grades and diagnoses: frozen, unknown keys refused, units in the names.

Those of rounds are in `round_records`.

Identity is content: `content_id` hashes what a record says, never where it stood in a file. Derived
values are properties and are not stored. No rate travels without its count and interval; where there
are no data a rate is `None`, never 0.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Split = Literal["pool", "probe", "gate", "final"]
GraderName = Literal["exact", "choice", "numeric", "math", "regex", "python", "judge", "reasoning_gym"]
Origin = Literal["pool", "written", "replay"]
Arm = Literal["plain", "few_shot", "paraphrase"]

BASE = "base"
"""The name of the student without an adapter, wherever an adapter's name is expected."""


def canonical_json(value: object) -> str:
    """One text for one value: keys sorted, no spaces, no NaN; floats as Python's shortest repr."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_id(value: object, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of a JSON value's canonical text."""
    # A lone surrogate cannot be encoded strictly; it must still get a stable identity.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:length]


class Part(BaseModel):
    """A value inside a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(Part):
    """A line or a document of a run directory."""

    schema_version: Literal[1] = 1


class Message(Part):
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class Rate(Part):
    """A share of `n` items with its 95 % interval; all three values are `None` when `n` is 0."""

    n: int = Field(ge=0)
    correct: int = Field(ge=0)
    rate: float | None
    low: float | None
    high: float | None


class ShrunkRate(Part):
    """A skill's share with its 95 % interval, drawn towards the shares of the other skills: see `shrinkage`."""

    rate: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    borrowed: float = Field(ge=0, le=1, description="how much of the way from its own rate to that of all skills")


class Change(Part):
    """A paired difference after − before on the same `n` items, in shares of 1, with its 95 % interval."""

    n: int = Field(ge=0)
    gained: int = Field(ge=0, description="items wrong before and right after")
    lost: int = Field(ge=0, description="items right before and wrong after")
    change: float | None
    low: float | None
    high: float | None


class Verdict(StrEnum):
    """What a grade says. `failed` is our own fault and enters no rate; the last three of the student's
    own stay apart, so that a missing format is not read as a missing skill.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    TRUNCATED = "truncated"
    FAILED = "failed"


class Example(Record):
    """A question with its gold answer. All examples of a `group` stay in one split."""

    id: str
    question: str
    history: tuple[Message, ...] = Field(default=(), description="earlier chat turns, oldest first")
    gold: str = Field(description="empty where there is none, which only probe items may have")
    solutions: tuple[str, ...] = Field(default=(), description="worked solutions without the final answer line")
    group: str
    skills: tuple[str, ...] = Field(default=(), description="skills the data set itself declares")
    difficulty: int | None = Field(default=None, ge=1, le=5, description="declared difficulty, 1 easy to 5 hard")
    grader: GraderName
    split: Split | None = None
    source: str = Field(description="where the row came from: a file and line, or a generator with its seed")
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="what the grader or generator needs")

    @classmethod
    def make(
        cls,
        *,
        question: str,
        gold: str,
        grader: GraderName,
        source: str,
        history: tuple[Message, ...] = (),
        solutions: tuple[str, ...] = (),
        group: str | None = None,
        skills: tuple[str, ...] = (),
        difficulty: int | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> "Example":
        """An example whose id is the hash of its content; without a group it is its own group."""
        id_ = _example_id(question, gold, grader, history, solutions)
        return cls(
            id=id_,
            question=question,
            history=history,
            gold=gold,
            solutions=solutions,
            group=group or id_,
            skills=skills,
            difficulty=difficulty,
            grader=grader,
            source=source,
            metadata=dict(metadata or {}),
        )

    @property
    def content_hash(self) -> str:
        """The id that its content gives."""
        return _example_id(self.question, self.gold, self.grader, self.history, self.solutions)


def _example_id(
    question: str, gold: str, grader: GraderName, history: tuple[Message, ...], solutions: tuple[str, ...]
) -> str:
    """What is asked, what is right, and how that is graded."""
    turns = [m.model_dump() for m in history]
    return content_id({"history": turns, "question": question, "gold": gold, "solutions": solutions, "grader": grader})


class QuarantinedRow(Record):
    """A row of the data set that cannot be used, with the reason."""

    source: str
    reason: str
    text: str = Field(description="the beginning of the row, at most 200 characters")


class Skill(Part):
    """A skill of the catalogue. Ids are stable: a rename changes the name, a merge adds aliases."""

    id: str
    name: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    writable: bool = Field(description="the teacher can write new verified examples of it")


class SkillCatalogue(Record):
    """The skills of a run, sorted by id."""

    teacher: str
    skills: tuple[Skill, ...]


class SkillLabel(Record):
    """Which skills an example needs, and how hard it is, according to a teacher."""

    example_id: str
    teacher: str
    prompt_hash: str
    skills: tuple[str, ...] = Field(min_length=1, max_length=5)
    difficulty: int = Field(ge=1, le=5)
    reason: str


class Sampling(Part):
    """How answers are decoded. Temperature 0 is greedy."""

    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0


class StudentAnswer(Record):
    """One answer of the student. `arm` tells how it was prompted: plain, with few-shot examples, or to paraphrase."""

    example_id: str
    adapter: str = Field(description="the adapter's name, or `base`")
    arm: Arm = "plain"
    sampling: Sampling
    sample_index: int = Field(default=0, ge=0)
    text: str
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    error: str | None = Field(default=None, description="what broke, when the finish reason is `error`")
    entropy: float | None = Field(
        default=None,
        ge=0,
        description="nats at the first token, before temperature, from the 20 likeliest; none where nothing was said",
        exclude_if=lambda value: value is None,
    )

    @property
    def id(self) -> str:
        """Identity: example, adapter, arm, sampling and sample index; never the text."""
        return content_id(self.model_dump(include={"example_id", "adapter", "arm", "sampling", "sample_index"}))


class Judgement(Part):
    """What a judge said of one answer. `failed`: no usable reply came, and `fault` is why."""

    judge: str = Field(description="the model")
    prompt_hash: str
    verdict: Literal["correct", "wrong", "unsure", "failed"]
    reason: str
    fault: str | None = Field(default=None, description="the kind of failure")


class Judged(Part):
    """What stands behind a verdict of the grader `judge`, and what others say of the same answer."""

    first: Judgement = Field(description="decides")
    second: Judgement | None = Field(default=None, description="of another judge, asked on a sample")
    check: Verdict | None = Field(default=None, description="of the grader that data.grader_check names")


class Grade(Record):
    """The verdict on one answer. `verdict` uses the lenient extraction, `strict_verdict` the strict one."""

    answer_id: str
    example_id: str
    adapter: str
    grader: GraderName
    verdict: Verdict
    strict_verdict: Verdict
    extracted: str | None = Field(description="what the lenient extraction found")
    strict_extracted: str | None
    reason: str = Field(default="", description="why, when the verdict is `failed`; a judge's reason for any verdict")
    judged: Judged | None = Field(
        default=None, description="of the grader `judge`", exclude_if=lambda value: value is None
    )


class Diagnosis(Record):
    """Which skills a failed answer shows to be missing."""

    answer_id: str
    example_id: str
    teacher: str
    prompt_hash: str
    missing_skills: tuple[str, ...] = Field(min_length=1, max_length=3)
    error_kind: Literal["wrong", "format", "truncated", "inconsistent", "doubtful"]
    reason: str
