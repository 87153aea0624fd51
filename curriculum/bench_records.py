"""The published schema of `bench.json`: budgets, strategies, their trainings, skills, slices and extra sets.

Holds no times, so a bench that was killed and went on has the same bytes.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from curriculum.bench_responses import ResponseSaving
from curriculum.crossed import Calibration, Difference
from curriculum.records import Part, Rate
from curriculum.strategies import Strategy

Verdict = Literal["better", "worse", "no difference seen", "not tested"]
SlicedBy = Literal["difficulty", "worked-solution length"]


class BenchTraining(Part):
    """What one training got and what it answered."""

    seed: int
    adapter: str
    rows: int
    written_rows: int
    training_tokens: int = Field(description="tokens that went through the model, prompts included, all epochs")
    target_tokens: int = Field(description="tokens that carried loss, all epochs")
    steps: int
    last_loss: float
    accuracy: Rate = Field(description="on the final items that every training answered; lenient extraction")


class BenchSkill(Part):
    """One strategy on the final items of one skill, over its trainings."""

    skill: str
    items: int = Field(ge=1)
    rows: float = Field(ge=0, description="rows of its own choice that a training got, on average")
    accuracy: float = Field(ge=0, le=1, description="mean over trainings")
    against: Difference | None = Field(description="the control; none where seeds are too few")
    p_value: float | None = Field(description="of `against`, adjusted over the skills (BH)")


class BenchSlice(Part):
    """One strategy on the final items of one difficulty."""

    slice: str
    items: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1, description="mean over trainings")
    trainings: tuple[Rate, ...] = Field(min_length=1, description="one a training, sorted by seed")


class BenchExtra(Part):
    """One strategy on an extra set, which chooses nothing."""

    name: str
    accuracy: float = Field(ge=0, le=1, description="mean over trainings")
    trainings: tuple[Rate, ...] = Field(min_length=1, description="one a training, sorted by seed")


class StrategyResult(Part):
    """One strategy over its trainings."""

    strategy: Strategy
    said: str
    control: Strategy | None
    trainings: tuple[BenchTraining, ...] = Field(min_length=1, description="sorted by seed")
    accuracy: float = Field(ge=0, le=1, description="mean over trainings")
    gain: float | None = Field(description="over the control, in shares of 1")
    against: Difference | None = Field(description="the control; none where seeds are too few")
    p_value: float | None = Field(
        description="of `against`, adjusted over the strategies at all budgets (BH); uniform_again's is not"
    )
    verdict: Verdict
    skills: tuple[BenchSkill, ...]
    slices: tuple[BenchSlice, ...] = Field(description="by difficulty of the final items, easiest first")
    extra: tuple[BenchExtra, ...] = Field(description="the extra sets, sorted by name")
    responses: ResponseSaving | None = Field(
        default=None,
        description="beside uniform, whose rows have worked solutions; of strategies with shorter targets",
        exclude_if=lambda value: value is None,
    )


class BudgetResult(Part):
    """All strategies at one budget: what is compared is compared inside it."""

    share: float = Field(gt=0, description="of the tokens that `plan.rows_per_round` rows cost")
    tokens: int = Field(ge=1, description="training tokens each training was to get, the warm-up's included")
    seed_sd: float | None = Field(description="standard deviation of true accuracy from seed to seed, in shares of 1")
    calibration: Calibration | None
    strategies: tuple[StrategyResult, ...]


class FinalSlice(Part):
    """The final items of one difficulty, and what the base answers of them."""

    slice: str
    items: int = Field(ge=1)
    base: Rate


class ExtraSet(Part):
    """An extra set's items that the base and every training have a verdict on, and what the base answers of them."""

    name: str
    items: int = Field(ge=0)
    left_out: int = Field(ge=0, description="items without one: our own faults")
    base: Rate


class BenchReport(Part):
    """A whole bench."""

    schema_version: Literal[2] = 2
    bench: str
    status: Literal["running", "finished"]
    trainings: int = Field(ge=0, description="finished")
    wanted: int = Field(ge=0)
    screening: bool
    base: str
    base_hash: str
    config_hash: str
    items: int = Field(ge=0, description="final items that the base and every training have a verdict on")
    left_out: int = Field(ge=0, description="final items without one: our own faults")
    base_accuracy: Rate
    sliced_by: SlicedBy | None = Field(description="what orders the final items; none where nothing is known of them")
    slices: tuple[FinalSlice, ...] = Field(description="easiest first")
    extra: tuple[ExtraSet, ...] = Field(description="sorted by name; they choose nothing")
    budgets: tuple[BudgetResult, ...] = Field(min_length=1, description="the smallest first")
    estimator: str
    scope: str
    notes: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, value: Any) -> Any:
        """A document of schema 1, which has one budget and no extra sets, as one of schema 2."""
        if not isinstance(value, Mapping) or value.get("schema_version") != 1 or "strategies" not in value:
            return value
        of_budget = {name: value.get(name) for name in ("seed_sd", "calibration", "strategies")}
        rest = {name: of for name, of in value.items() if name not in ("budget", *of_budget)}
        of_budget["strategies"] = [_strategy_of_schema_1(made) for made in value["strategies"]]
        budget = {"share": 1.0, "tokens": value.get("budget"), **of_budget}
        return rest | {"schema_version": 2, "sliced_by": None, "slices": (), "extra": (), "budgets": [budget]}


def _strategy_of_schema_1(value: Any) -> Any:
    """Its accuracies by level have no counts, so they are left out."""
    if not isinstance(value, Mapping):
        return value
    return {name: of for name, of in value.items() if name != "levels"} | {"slices": (), "extra": ()}
