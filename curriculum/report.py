"""The report of a run: the published schema of `report.json`, and the times that go beside it.

A report holds no times, so a run that was killed and resumed has the same bytes; times are `Timings`, for
the views only. `report_build` gathers a report from records; `report_html` and `report_text` show it.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from curriculum.agreement import Repeatability
from curriculum.approval import PlanDecision
from curriculum.control import ControlReport
from curriculum.difficult import DifficultFound
from curriculum.judging import JudgeReport
from curriculum.mastery import Mastery
from curriculum.method_records import MethodsReport
from curriculum.ranking import RankingReport
from curriculum.records import Change, Origin, Part, Rate, Record, Verdict
from curriculum.report_items import FailedItems
from curriculum.report_origin import AdapterReport, Reproduction, Work
from curriculum.report_rows import TaughtRows
from curriculum.resampling import DrawnChange
from curriculum.round_records import Allocation, GateDecision, GateSkill, RoundPlan, SkillProfile, VerdictCounts
from curriculum.rundir import read_json
from curriculum.teacher_config import Role
from curriculum.teacher_records import TeacherReport


class ArmRates(Part):
    """One rate for each arm of the final test."""

    base: Rate
    base_few_shot: Rate
    adapter: Rate


class ArmVerdicts(Part):
    """The verdicts of each arm of the final test."""

    base: VerdictCounts
    base_few_shot: VerdictCounts
    adapter: VerdictCounts


class ArmsReport(Part):
    """What the three arms answered on the same items, and how they differ."""

    base: Rate = Field(description="by the lenient extraction, as all rates but `strict`")
    base_few_shot: Rate
    adapter: Rate
    strict: ArmRates = Field(description="the same answers by the strict extraction")
    change: Change = Field(description="adapter − base on the same items")
    change_few_shot: Change = Field(description="adapter − base prompted with examples on the same items")
    verdicts: ArmVerdicts


class ExtraReport(ArmsReport):
    """An extra evaluation set, answered by the arms of the final test. It selects nothing, unless so marked."""

    name: str
    retention: bool = Field(
        default=False,
        description="part of the retention set: a fall on it rolled candidates back",
        exclude_if=lambda value: not value,
    )
    old_rules: ArmRates | None = Field(
        default=None,
        description="of a set in held-out words: its items whose answer is a word, by the answer they had before. A "
        "high rate says that the student does not read what the words mean",
        exclude_if=lambda value: value is None,
    )


class FinalReport(ArmsReport):
    """The final test: the base, the base prompted with examples, and the last accepted adapter."""

    adapter_name: str = Field(description="the last accepted adapter, or `base` when none was accepted")
    format_share: float | None = Field(
        description="gain over the base by the strict extraction minus the gain by the lenient one, in shares of 1: "
        "what learning the answer format alone bought. The gain by the lenient extraction does not contain it"
    )
    skills: tuple[GateSkill, ...] = Field(description="base and adapter on the final split, one a skill")
    cells: tuple[GateSkill, ...] = Field(default=(), description="the same, one a skill and difficulty")
    opened: str = Field(description="for whom the final split was opened, and where every opening is logged")
    control: ControlReport | None = Field(
        default=None,
        description="the last candidate that has a control, accepted or not, against it",
        exclude_if=lambda value: value is None,
    )
    extra: tuple[ExtraReport, ...] = Field(default=(), description="the extra sets, sorted by name")


def _empty(value: object) -> bool:
    return not value


class ProbeReport(Part):
    """What the current adapter could not do on the probe split, before this round's teaching."""

    adapter: str
    overall: Rate
    verdicts: VerdictCounts
    skills: tuple[SkillProfile, ...]
    cells: tuple[SkillProfile, ...] = Field(default=(), description="one a skill and difficulty")
    drawn: tuple[DrawnChange, ...] = Field(
        default=(), description="drawn answers beside those of the base, with student.signals", exclude_if=_empty
    )
    repeated: Repeatability | None = Field(
        default=None,
        description="of a sample of the diagnoses, asked for twice",
        exclude_if=lambda value: value is None,
    )
    difficult: DifficultFound | None = Field(
        default=None,
        description="which questions were diagnosed, where gold answers do not say",
        exclude_if=lambda value: value is None,
    )


class MixtureCell(Part):
    """How many training rows of one skill, origin and difficulty a round was trained on."""

    skill: str
    origin: Origin
    difficulty: int
    rows: int


class DroppedCount(Part):
    """How many candidate rows of one origin were not trained on for one reason."""

    origin: Origin
    reason: str
    rows: int


class SkillTokens(Part):
    """About how many of a training's tokens were in rows chosen for one skill."""

    skill: str
    tokens: int


class TrainingReport(Part):
    """One training: its size, its curves, and whether it was healthy."""

    rows: int
    training_tokens: int
    target_tokens: int
    skill_tokens: tuple[SkillTokens, ...] = Field(
        default=(), description="the training tokens, split over skills by the length of their rows' texts"
    )
    steps: int
    losses: tuple[float, ...] = Field(description="one an optimizer step, in nats a target token")
    gradient_norms: tuple[float, ...] = Field(default=(), description="one an optimizer step, before clipping")
    phase_steps: tuple[int, ...] = Field(
        default=(), description="steps of each phase, where there are two", exclude_if=lambda value: not value
    )
    first_loss: float | None = Field(default=None, description="mean of the first ten steps")
    last_loss: float | None = Field(default=None, description="mean of the last ten steps, of the last phase")
    divergence_margin: float | None = Field(
        default=None,
        description="nats a token by which the loss, smoothed over ten steps, stayed below what stops a training; none "
        "where DFT may raise it",
    )
    clipped_steps: int | None = Field(default=None, description="steps whose gradient was cut to max_grad_norm")


class FailureReport(Part):
    """One failed probe answer with its diagnosis; long texts are cut."""

    example_id: str
    skills: tuple[str, ...]
    difficulty: int
    question: str
    answer: str
    gold: str | None = Field(description="none: none was looked at, five drawn answers all differ")
    extracted: str | None
    verdict: Verdict | None
    missing_skills: tuple[str, ...]
    diagnosis: str


class RoundReport(GateDecision):
    """A round: its gate decision with the evidence, and what led to the candidate.

    `before`, `after` and `skills` are on the gate split, which selected the adapter: see `final` for rates
    on items that selected nothing.
    """

    verdicts_before: VerdictCounts = Field(description="of the current adapter on the gate split")
    verdicts_after: VerdictCounts | None = Field(description="of the candidate on the gate split")
    cells: tuple[GateSkill, ...] = Field(default=(), description="as `skills`, one a skill and difficulty")
    probe: ProbeReport | None
    plan: RoundPlan | None
    approval: PlanDecision | None = Field(
        default=None,
        description="who approved the plan, where a person did",
        exclude_if=lambda value: value is None,
    )
    allocation: Allocation | None = Field(default=None, description="shares of the skills under every rule")
    control: ControlReport | None = Field(
        default=None,
        description="the candidate against its control on the gate split; it decides nothing",
        exclude_if=lambda value: value is None,
    )
    mastery: Mastery | None = Field(
        default=None, description="each skill's state by the probe answers before this round's teaching"
    )
    ranking: RankingReport | None = Field(
        default=None,
        description="what ranked the pool rows inside each skill, with plan.rank",
        exclude_if=lambda value: value is None,
    )
    mixture: tuple[MixtureCell, ...]
    dropped: tuple[DroppedCount, ...]
    training: TrainingReport | None
    methods: MethodsReport | None = Field(
        default=None,
        description="what weighed the rows, formed their targets and made their loss, where that is not the default",
        exclude_if=lambda value: value is None,
    )
    failures: tuple[FailureReport, ...]


class RunReport(Record):
    """`report.json`: everything a run found out, without times."""

    run: str
    status: Literal["finished", "stopped", "running"]
    stop_reason: str | None
    base: str
    base_hash: str
    teacher: str = Field(description="`offline`, or the model of an LLM teacher")
    teaching: TeacherReport | None = Field(default=None, description="what an LLM teacher cost and failed at")
    judging: JudgeReport | None = Field(
        default=None,
        description="of the grader `judge`: its verdicts, and whether others agree with it",
        exclude_if=lambda value: value is None,
    )
    data: str = Field(description="where the examples come from")
    split_sizes: dict[str, int] = Field(description="split → items")
    extra_sizes: dict[str, int] = Field(default={}, description="extra set → items; they never select, but for:")
    retention_sets: tuple[str, ...] = Field(
        default=(),
        description="extra sets on which a fall rolls a candidate back",
        exclude_if=lambda value: not value,
    )
    config_hash: str
    tutelage_version: str
    git_commit: str | None
    notes: tuple[str, ...] = Field(description="what a reader must know of the base, the teacher or the data")
    final: FinalReport | None
    rounds: tuple[RoundReport, ...]
    failed: FailedItems | None = Field(
        default=None, description="probe items that were failed, and what became of them"
    )
    taught: tuple[TaughtRows, ...] = Field(default=(), description="a sample of the rows of each round")
    adapters: tuple[AdapterReport, ...] = Field(default=(), description="the base and what was trained, by round")
    work: Work | None = Field(default=None, description="answers and rows, forecast and actual")
    reproduction: Reproduction | None = None


class StageTiming(Part):
    """What one stage took."""

    stage: str
    round: int | None = Field(description="none for stages that a run does once")
    seconds: float
    tokens: int | None = None
    scoring_seconds: float | None = Field(default=None, description="of them, for weighing rows")


class RoleTiming(Part):
    """How long requests of one of the teacher's roles were under way, several at once counted once."""

    role: Role
    seconds: float


class Timings(Part):
    """What every finished stage took; never part of a report's bytes."""

    stages: tuple[StageTiming, ...] = ()
    roles: tuple[RoleTiming, ...] = ()


def read_timings(run: Path) -> Timings:
    """Reads every `timing.json` under a run's folder (`seconds`, and `tokens` if it has them), sorted by path."""
    stages = []
    for path in sorted(run.rglob("timing.json")):
        *folders, _ = path.relative_to(run).parts
        in_round = folders[0].startswith("round_")
        measured = read_json(path)
        stages.append(
            StageTiming(
                stage=" / ".join(folders[1:] if in_round else folders),
                round=int(folders[0].removeprefix("round_")) if in_round else None,
                seconds=measured["seconds"],
                tokens=measured.get("tokens"),
                scoring_seconds=measured.get("scoring_seconds"),
            )
        )
    return Timings(stages=tuple(stages))
