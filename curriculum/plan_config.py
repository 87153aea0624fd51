"""The config's section on plans: how a round's rows are chosen."""

from typing import Literal

from pydantic import Field, model_validator

from curriculum.data_config import OPERATIONAL, Section
from curriculum.round_records import Rule


class MasteryConfig(Section):
    """When a skill counts as mastered, beside `plan.target_rate`, and when that is doubted; see `mastery`."""

    low: float = Field(
        default=0.7,
        ge=0,
        lt=1,
        description="least lower end of the 95 % interval with which a skill becomes mastered: 9 right of 9, 19 of 20",
    )
    retest_items: int = Field(default=5, ge=1, description="graded probe answers below which a re-test is put off")
    slip_weight: int = Field(default=2, ge=1, description="what a failure counts of a skill that was mastered before")


class PlanConfig(Section):
    """How a round's rows are chosen."""

    rows_per_round: int = Field(gt=0, le=10_000_000, description="new rows each round")
    draws_per_failure: int | None = Field(
        default=None,
        ge=1,
        description="rows for each missing skill of each difficult question, rows_per_round at most (STAT's k is 5); "
        "null takes rows_per_round",
    )
    allocation: Rule = Field(default="even", description="what splits the new rows over skills that are missing")
    difficulty: Literal["any", "adaptive"] = Field(
        default="any",
        description="adaptive: pool rows by how hard they are for the student (by drawn answers to the whole pool with "
        "student.signals, else by the length of worked solutions), easier or harder by what the last training did",
    )
    write_share: float = Field(default=0.5, ge=0, le=1, description="share of the new rows that are written")
    uniform_floor: float = Field(default=0.15, ge=0, le=1, description="share of the rows spread evenly over skills")
    max_repeats: int = Field(default=4, ge=1, description="most uses of one example in a training set")
    replay_rows: int | None = Field(default=None, ge=0, description="accepted rows trained again; null takes all")
    patience: int = Field(default=3, ge=1, description="rollbacks in a row that stop the run")
    target_rate: float = Field(default=0.95, gt=0, le=1, description="probe accuracy at which a skill is mastered")
    mastery: MasteryConfig = MasteryConfig()
    by: Literal["rule", "llm"] = Field(
        default="rule", description="who plans: the rule, or the role `plan` of an LLM teacher within the rule's bounds"
    )
    approve: bool = Field(default=False, description="wait for a person after each plan", json_schema_extra=OPERATIONAL)

    @property
    def floor_rows(self) -> int:
        """Rows that an LLM does not plan: they are spread evenly over the skills."""
        return round(self.uniform_floor * self.rows_per_round)

    @property
    def written_rows(self) -> int:
        """New rows of a round that are to be written, as far as the skills allow."""
        return round(self.write_share * self.rows_per_round)

    @model_validator(mode="after")
    def _leaves_rows(self) -> "PlanConfig":
        if self.by == "llm" and self.floor_rows == self.rows_per_round:
            raise ValueError(
                "`plan.by: llm` has no row to plan: lower plan.uniform_floor, or raise plan.rows_per_round"
            )
        if self.by == "llm" and self.draws_per_failure is not None:
            raise ValueError("`plan.draws_per_failure` is for the rule: an LLM plans `plan.rows_per_round` rows")
        return self
