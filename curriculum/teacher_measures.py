"""The records of what was measured of teachers: what a model can be held to, and how far two teachers agree."""

from typing import Literal

from pydantic import Field

from curriculum.agreement import Agreement, Repeatability
from curriculum.records import Part, Rate, Record
from curriculum.teacher_config import Role, Structured
from curriculum.teacher_records import SpendRow


class Finding(Part):
    """What was tried, and what came of it."""

    verdict: Literal["yes", "no", "refused", "unclear"]
    said: str


class ModelCheck(Part):
    """One model at one address."""

    model: str
    base_url: str
    roles: tuple[Role, ...]
    served: tuple[str, ...] = Field(description="the names under which the server said it answered")
    structured: Structured = Field(description="as the config says")
    json_schema: Finding
    json_object: Finding
    log_probabilities: Finding
    seed: Finding


class RoleCheck(Part):
    """A role's own questions, each put twice with nothing changed."""

    role: Role
    model: str
    usable: Rate = Field(description="first replies that could be used without a repair turn")
    bare: Rate = Field(description="replies that are one JSON object and nothing else")
    faults: dict[str, int] = Field(description="kind → replies that could not be used, of both times")
    seconds: float | None = Field(description="median of a request, one at a time")
    seconds_most: float | None
    prompt_tokens: float | None = Field(description="mean of a request")
    completion_tokens: float | None
    price: float | None = Field(description="mean of a request; none without prices")
    same_text: Rate = Field(description="questions that got the same text both times")
    repeat: Repeatability = Field(description="of what is used of a reply: skills, the answer, the questions")


class TeacherCheck(Record):
    """All that `teacher check` found."""

    folder: str
    announced: str = Field(description="what was said before anything was sent")
    models: tuple[ModelCheck, ...]
    roles: tuple[RoleCheck, ...]
    spend: tuple[SpendRow, ...]
    advice: tuple[str, ...]


class Labeller(Part):
    """One of those that are compared."""

    name: str
    models: dict[str, str] = Field(description="role → model; empty for recorded labels")
    labelled: int
    diagnosed: int
    failed: dict[str, int] = Field(description="kind → items without a usable reply")
    taken_over: bool = Field(description="labels and diagnoses are those of the run, bought before")
    spend: tuple[SpendRow, ...]


class Pair(Part):
    """Two of them on the same items."""

    first: str
    second: str
    labels: Agreement
    diagnoses: Agreement | None = Field(default=None, description="missing skills; none without a run")


class PlannedSkill(Part):
    """What each teacher's labels and diagnoses would have planned for a skill."""

    skill: str
    missing: tuple[int, int]
    shares: tuple[float, float] = Field(description="of the first round's new rows")


class TeacherComparison(Record):
    """All that `teacher compare` found."""

    folder: str
    run: str | None = Field(description="the run whose base answers were diagnosed")
    announced: str = Field(description="what was said before anything was sent")
    items: int
    labellers: tuple[Labeller, ...]
    pairs: tuple[Pair, ...]
    plan: tuple[PlannedSkill, ...] = Field(description="empty without diagnoses of both")
    moved: float | None = Field(description="share of the first round's new rows that another skill would get")
    notes: tuple[str, ...]
