"""The records of an LLM teacher: what was asked and answered, what failed, what it cost."""

from typing import Annotated, Any, Literal

from pydantic import Field

from curriculum.records import Part, Record
from curriculum.teacher_config import Role

FailureKind = Literal[
    "no_reply", "refused_request", "too_large", "refusal", "truncated", "empty", "no_json", "duplicate_keys", "schema",
    "wrong_ids", "unknown_skill", "missing_row", "no_majority", "bad_plan", "over_budget",
]  # fmt: skip
"""Why an item has no usable reply. `no_reply`: every attempt failed; `refused_request`: the server did not take it."""


class Reply(Part):
    """What a model answered, as it came."""

    text: str
    finish_reason: str | None
    refusal: str | None = None
    model: str | None = Field(default=None, description="as the server names it")
    fingerprint: str | None = None
    request_id: str | None = None
    prompt_hash: str
    prompt_tokens: int | None = Field(default=None, ge=0, description="none where the server did not say")
    cached_tokens: int = Field(default=0, ge=0, description="of the prompt tokens")
    completion_tokens: int | None = Field(default=None, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0, description="of the completion tokens")
    logprob_tokens: int = Field(default=0, ge=0, description="tokens that came with their log-probability")
    seconds: float | None = Field(default=None, ge=0, description="from sending the request to the reply's last byte")


class CallEvent(Record):
    """One line of the ledger. An intent stands before its request is sent; a reply or an error settles it."""

    event: Literal["intent", "reply", "error", "fault"]
    key: str = Field(description="hash of everything that determines the reply")
    number: int = Field(ge=0, description="of the request within the run")
    role: Role
    round: int | None = None
    skill: str = ""
    tokens: int = Field(default=0, ge=0, description="intent: reserved, an upper bound; otherwise: charged")
    money_nano: int = Field(default=0, ge=0, description="the same in 1e-9 of the currency")
    reason: str = ""
    reply: Reply | None = None
    at: float | None = Field(default=None, description="Unix time in seconds when the line was written")


class TeacherFailure(Record):
    """An item that got no usable reply, with the reason."""

    item_id: str
    role: Role
    kind: FailureKind
    reason: str


class SpendRow(Part):
    """What one role cost in one round for one skill."""

    role: Role
    round: int | None = Field(description="none: before the rounds")
    skill: str = Field(description="empty where the calls are for no skill in particular")
    requests: int = Field(default=0, description="sent, answered or not")
    replies: int = 0
    errors: int = Field(default=0, description="requests that ended in an error")
    orphans: int = Field(default=0, description="requests whose end nobody saw; charged at their upper bound")
    prompt_tokens: int = 0
    cached_tokens: int = Field(default=0, description="of the prompt tokens")
    completion_tokens: int = 0
    reasoning_tokens: int = Field(default=0, description="of the completion tokens")
    charged_tokens: int = Field(
        default=0, description="counted against the budget: upper bounds where usage is unknown"
    )
    money: float = Field(default=0.0, description="in the currency of prices; 0 where no prices are given")


class FaultCount(Part):
    """How often replies of a role were faulty in one way; a repair may have mended them."""

    role: Role
    kind: FailureKind
    replies: int


class FailedCount(Part):
    """How many items of a role ended without a usable reply for one reason."""

    role: Role
    kind: FailureKind
    items: int


Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class Forecast(Part):
    """What a teacher will be asked and cost, each as (least, most)."""

    requests: tuple[Count, Count] = Field(description="without those that fail and are sent again")
    prompt_tokens: tuple[Count, Count]
    completion_tokens: tuple[Count, Count] = Field(description="reasoning tokens among them")
    money: tuple[Amount, Amount] | None = Field(description="in the currency of prices; none where no prices are given")
    minutes: tuple[Amount, Amount]


class RoleForecast(Forecast):
    """The share of one role."""

    role: Role
    model: str


class TeacherForecast(Record):
    """What a run will ask of its teacher, made before its first request."""

    rounds: int
    roles: tuple[RoleForecast, ...]
    basis: tuple[str, ...] = Field(description="what least and most stand for, and where the figures are from")

    @property
    def total(self) -> Forecast:
        """All roles together, asked one after another; no money unless every role has prices."""
        return self.of(*(role.role for role in self.roles))

    def of(self, *roles: Role) -> Forecast:
        """Some roles together; a role that two models have is both of them."""
        chosen = [role for role in self.roles if role.role in roles]

        def add(name: str) -> tuple[Any, Any]:
            ranges = [getattr(role, name) for role in chosen]
            return sum(low for low, _ in ranges), sum(high for _, high in ranges)

        priced = all(role.money is not None for role in chosen)
        return Forecast(
            **{name: add(name) for name in Forecast.model_fields if name != "money"},
            money=add("money") if priced else None,
        )


class TeacherReport(Part):
    """What an LLM teacher cost and where it failed."""

    models: dict[str, str] = Field(description="role → model")
    forecast: TeacherForecast | None = Field(default=None, description="none for runs that began without one")
    spend: tuple[SpendRow, ...]
    faults: tuple[FaultCount, ...] = Field(description="faulty replies, mended ones included")
    failed: tuple[FailedCount, ...] = Field(description="items without a usable reply, after repair")

    @property
    def total(self) -> SpendRow:
        """All spend together."""
        sums = {
            name: sum(getattr(row, name) for row in self.spend)
            for name in SpendRow.model_fields
            if name not in ("role", "round", "skill")
        }
        return SpendRow(role="skills", round=None, skill="", **sums)
