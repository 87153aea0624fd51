"""What a person is shown of a proposed plan: the record behind `plan.html` and the terminal.

A view of the run as it is when the plan waits: it holds forecasts, and nothing that decides reads it but the
checks of an edited plan, which the run makes again.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from curriculum.approval import decision_faults
from curriculum.mastery import MasteryState
from curriculum.plan_check import check_edited
from curriculum.plan_config import Ranking
from curriculum.plan_file import PlanApproval
from curriculum.records import Part, Rate, Record, SkillCatalogue
from curriculum.round_records import RoundPlan, SkillPlan
from curriculum.teacher_records import TeacherForecast


class SampleRow(Part):
    """One row of the sample of what would be taught; long texts are cut."""

    kind: Literal["pool", "replay", "generated", "seed"] = Field(
        description="a pool row, a replayed row, a generated one; or only a pool question the writer may be shown"
    )
    skill: str
    example_id: str
    difficulty: int
    question: str
    target: str
    layer: str = Field(description="which layer of the score chose it; empty of what is not chosen yet")
    uses: int = Field(ge=0, description="how often it was taught before, this round's earlier uses included")
    expected: float | None = Field(
        default=None, ge=0, description="of a pool row: how often the plan draws it on average over seeds"
    )


class ProposedSkill(Part):
    """What the plan does about one skill, and what a reviewer needs to judge it."""

    plan: SkillPlan
    name: str
    description: str
    merged: tuple[str, ...] = Field(description="other names that were merged into it, by the teacher or a person")
    probe: Rate | None = Field(description="right on the probe split before this round's teaching")
    state: MasteryState | None
    pool_items: int = Field(ge=0, description="labelled examples of it in the pool")
    rows: tuple[SampleRow, ...] = Field(description="a few of the rows that would be taught")
    drawn: int = Field(ge=0, description="pool rows that this plan draws for it; fewer than planned where none is left")


class MethodForecast(Part):
    """What one method of the config takes in the rest of a round."""

    what: str = Field(description="the method, with its key of the config")
    many: str = Field(description="how many of what it reads, and the minutes, in words")
    minutes: tuple[float, float] | None = Field(description="least and most; none: not known")


class RoundForecast(Part):
    """What the rest of a round will take if the plan is approved as it is."""

    written_rows: int
    training_rows: int = Field(description="rows through training, all epochs, replay and the control's included")
    answers: int = Field(description="answers of the candidate, and of the adapters it is compared with")
    minutes: tuple[float, float] | None = Field(description="least and most, without the teacher's; none: unknown")
    basis: str = Field(description="where the minutes are from")
    methods: tuple[MethodForecast, ...] = Field(
        default=(), description="what rankings, weights and forms of targets take of that"
    )
    teacher: TeacherForecast | None = Field(description="of an LLM teacher: least and most")
    teacher_left_out: str = Field(default="", description="what of an LLM teacher's work is not counted")


class Proposal(Record):
    """A proposed plan with all that is shown of it."""

    run: str
    round: int
    rounds: int
    base: str
    teacher: str = Field(description="`offline`, or the model of an LLM teacher")
    plan: RoundPlan
    skills: tuple[ProposedSkill, ...] = Field(description="in the plan's order, those most often missing first")
    dropped_skills: tuple[str, ...] = Field(description="skills that a person dropped from the catalogue")
    replay: tuple[SampleRow, ...] = Field(description="a few of the rows of earlier rounds that are taught again")
    short_of_rows: int = Field(ge=0, description="planned pool rows that the whole pool cannot hold")
    ranked_by: Ranking = Field(default="random", description="what will choose among the pool items of a skill")
    not_ranked: str = Field(default="", description="why plan.rank will rank nothing; empty where it will")
    forecast: RoundForecast
    asked_anew: str = Field(default="", description="why a decision of another run does not hold here; empty: none")
    catalogue: SkillCatalogue
    pool_sizes: dict[str, dict[int, int]]
    written_levels: dict[str, tuple[int, ...]]

    @property
    def written_word(self) -> str:
        """What newly made rows are called: the offline teacher is no LLM, its rows come from a generator."""
        return "generated" if self.teacher == "offline" else "written"

    def faults(self, approval: PlanApproval) -> Sequence[str]:
        """Every reason why an approval of this plan cannot be followed; empty when it can be."""
        edited = check_edited(self.plan, approval.plan, self.pool_sizes, self.catalogue, self.written_levels)
        return [*decision_faults(self.plan, approval), *edited]
