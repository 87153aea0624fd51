"""The config's section on plans: how a round's rows are chosen."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from curriculum.data_config import OPERATIONAL, Section
from curriculum.round_records import Rule

Ranking = Literal["random", "prism", "less", "embed_sel"]
"""What chooses rows among the pool items of one skill."""
PreferenceWeight = Literal["pi", "1-pi", "uniform"]
"""What a pair of answers counts in PRISM's target direction: see `influence.preference_weight`."""


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


class LessConfig(Section):
    """The warm-up and the features of `rank: less`."""

    warm_up_share: float = Field(default=0.05, gt=0, le=1, description="share of the pool, drawn at random")
    epochs: int = Field(default=4, ge=1, le=100, description="of the warm-up; gradients are compared after each")
    dimensions: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description="that gradients are projected to, 8192 in the paper; null compares them as they are",
    )


class UnwantedConfig(Section):
    """A behaviour that no row shall teach, as pairs of answers."""

    pairs: Path = Field(description="JSONL file: `question`, `wanted`, `unwanted`")
    drop_share: float = Field(
        default=0.05, gt=0, lt=1, description="most of a training set's rows that are dropped, the worst first"
    )


class ComplexityConfig(Section):
    """How a round's new examples are split by the student's entropy at the first answer token."""

    easy: float = Field(default=0.25, ge=0, le=1, description="share with the lowest entropy")
    hard: float = Field(default=0.25, gt=0, le=1, description="share with the highest: it gets worked solutions")
    entropy: Literal["exact", "served"] = Field(
        default="exact",
        description="over the whole vocabulary, by the trainer; or approximately, of the 20 likeliest tokens that a "
        "server names",
    )
    solve: bool = Field(
        default=False, description="an LLM teacher solves hard examples that have no solution the grader accepts"
    )
    order: Literal["mixed", "two_phase"] = Field(
        default="mixed", description="two_phase: all rows with answers alone first, then all with worked solutions"
    )

    @model_validator(mode="after")
    def _fit(self) -> "ComplexityConfig":
        if self.easy + self.hard > 1:
            raise ValueError("the shares `easy` and `hard` of plan.complexity are more than 1 together: lower one")
        return self


class OwnConfig(Section):
    """Whose words a round's new pool examples are taught in, with `targets: own`."""

    cap: float = Field(
        default=0.5, ge=0, le=1, description="most of the examples taught by the student's own answer; 0 asks for none"
    )
    paraphrase: bool = Field(
        default=True, description="whether the student rewrites the worked solution where its own answer is not taken"
    )

    @model_validator(mode="after")
    def _something_of_its_own(self) -> "OwnConfig":
        if not self.cap and not self.paraphrase:
            raise ValueError("plan.own leaves gold targets alone: raise `cap`, set `paraphrase`, or plan.targets: gold")
        return self

    @property
    def mostly_own(self) -> bool:
        """Whether own answers may be more than half."""
        return self.cap > 0.5


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
    rank: Ranking = Field(default="random", description="which pool items of a skill come first")
    prism_weight: PreferenceWeight = Field(
        default="pi", description="what a failure counts by how far the right answer is preferred already"
    )
    less: LessConfig = LessConfig()
    unwanted: UnwantedConfig | None = Field(
        default=None, description="drops the rows whose gradients push towards unwanted answers (PRISM, turned round)"
    )
    difficulty: Literal["any", "adaptive"] = Field(
        default="any",
        description="adaptive: pool rows by how hard they are for the student (by drawn answers to the whole pool with "
        "student.signals, else by the length of worked solutions, else by the entropy of the first answer token), "
        "easier or harder by what the last training did",
    )
    write_share: float = Field(default=0.5, ge=0, le=1, description="share of the new rows that are written")
    uniform_floor: float = Field(default=0.15, ge=0, le=1, description="share of the rows spread evenly over skills")
    max_repeats: int = Field(default=4, ge=1, description="most uses of one example in a training set")
    replay_rows: int | None = Field(default=None, ge=0, description="accepted rows trained again; null takes all")
    patience: int = Field(default=3, ge=1, description="rollbacks in a row that stop the run")
    target_rate: float = Field(default=0.95, gt=0, le=1, description="probe accuracy at which a skill is mastered")
    mastery: MasteryConfig = MasteryConfig()
    targets: Literal["gold", "answers", "complexity", "complexity_random", "own"] = Field(
        default="gold",
        description="what new rows teach: the worked solution, where there is one, and the answer; or the answer "
        "alone; or that but for the examples that this student is least sure of (or, as a control, for random ones); "
        "or, of pool rows, the student's own right answer, else its paraphrase of the solution, else gold",
    )
    complexity: ComplexityConfig = ComplexityConfig()
    own: OwnConfig = OwnConfig()
    bindings: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the new pool rows that declare random words for their operators, or for answers such as "
        "yes and no, of the rows where that can be done",
    )
    by: Literal["rule", "llm"] = Field(
        default="rule", description="who plans: the rule, or the role `plan` of an LLM teacher within the rule's bounds"
    )
    approve: bool = Field(default=False, description="wait for a person after each plan", json_schema_extra=OPERATIONAL)

    def own_answers(self, rows: int) -> int:
        """The most answers and paraphrases that so many new pool rows take with `targets: own`."""
        return rows * (int(self.own.cap > 0) + int(self.own.paraphrase)) if self.targets == "own" else 0

    @property
    def two_phase(self) -> bool:
        """Whether rows with answers alone are taught before those with worked solutions."""
        return self.targets in ("complexity", "complexity_random") and self.complexity.order == "two_phase"

    @property
    def solves(self) -> bool:
        """Whether a teacher is asked for worked solutions of hard examples."""
        return self.targets in ("complexity", "complexity_random") and self.complexity.solve

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
