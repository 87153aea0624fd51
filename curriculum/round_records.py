"""What a round is made of: profile, plan, training rows, adapter, and the gate's decision.

Records as those of `records`, under the same rules: identity is content, no rate without its count.
"""

from typing import Literal

from pydantic import Field

from curriculum.difficulty_records import DifficultyPlan
from curriculum.merge_records import Merged
from curriculum.method_records import Binding
from curriculum.records import Change, Message, Origin, Part, Rate, Record, ShrunkRate


class VerdictCounts(Part):
    """How many answers got each verdict."""

    correct: int = 0
    wrong: int = 0
    unparsed: int = 0
    truncated: int = 0
    failed: int = 0

    @property
    def graded(self) -> int:
        """Answers that enter a rate: all but `failed`."""
        return self.correct + self.wrong + self.unparsed + self.truncated


class ItemSignals(Record):
    """How hard one item is for a student that draws its answers."""

    example_id: str
    adapter: str
    samples: int = Field(ge=0, description="answers drawn and graded; those that failed on our side do not count")
    correct: int = Field(ge=0)
    entropy: float | None = Field(ge=0, description="nats at the first token of an answer; none where none was begun")


class ItemConsistency(Record):
    """Whether a student that is asked several times gives one answer twice, to a question without a gold answer."""

    example_id: str
    adapter: str
    samples: int = Field(ge=0, description="answers drawn; those that failed on our side do not count")
    agreeing: int = Field(ge=0, description="the most of them that agree")
    difficult: bool = Field(description="all were drawn, and no two agree")

    @property
    def undecided(self) -> bool:
        """Whether answers that are missing could have changed it."""
        return not self.difficult and self.agreeing < 2


class ConsistencyCounts(Part):
    """How many items without a gold answer are difficult."""

    items: int
    difficult: int
    undecided: int = Field(description="not counted as difficult: some of their answers failed on our side")


class SignalMeans(Part):
    """Signals of several items."""

    items: int = Field(ge=1)
    samples: int = Field(ge=1)
    pass_rate: float = Field(ge=0, le=1, description="mean over items of the share of right samples")
    low: float
    high: float
    entropy: float | None = Field(ge=0, description="mean over the items that have one")


class SkillProfile(Part):
    """One skill, over all difficulties (`difficulty` is `None`) or at one difficulty."""

    skill: str
    difficulty: int | None
    counts: VerdictCounts
    missing: int = Field(ge=0, description="diagnoses that name the skill as missing")
    accuracy: Rate
    shrunk: ShrunkRate | None = Field(
        default=None,
        description="the accuracy drawn towards that of the other skills; of whole skills, where there are two or more",
        exclude_if=lambda value: value is None,
    )
    signals: SignalMeans | None = Field(
        default=None, description="of drawn answers, with student.signals", exclude_if=lambda value: value is None
    )
    without_gold: ConsistencyCounts | None = Field(
        default=None,
        description="probe items without a gold answer; in no rate",
        exclude_if=lambda value: value is None,
    )


class MissingSkillProfile(Record):
    """What the student could not do on the probe split in one round."""

    round: int
    adapter: str
    overall: Rate
    counts: VerdictCounts
    skills: tuple[SkillProfile, ...] = Field(description="one a skill, sorted by skill")
    cells: tuple[SkillProfile, ...] = Field(description="one a skill and difficulty, sorted by both")


Rule = Literal["even", "failures", "learnability", "expected_gain"]
"""How new rows are split over skills; see `allocation`."""

Status = Literal["open", "mastered", "parked"]
"""What the learning curves say of a skill. Parked: no gain is expected of further rows in this form."""


class RuleShares(Part):
    """One skill's share of a round's new rows under every rule."""

    even: float | None = Field(default=None, ge=0, le=1, description="none in reports of versions without that rule")
    failures: float = Field(ge=0, le=1)
    learnability: float = Field(ge=0, le=1)
    expected_gain: float = Field(ge=0, le=1)


class SkillAllocation(Part):
    """What the rules would give one skill, and what its learning curve says."""

    skill: str
    shares: RuleShares
    status: Status
    rows: float = Field(ge=0, description="effective rows of it that the current adapter was trained on")
    flat: float = Field(ge=0, le=1, description="probability that rows in this form gain nothing; a cautious one")
    gain: float = Field(description="accuracy that this round's rows by the run's own rule are expected to gain")
    gain_low: float = Field(description="lower end of the central range with 80 % of the probability")
    gain_high: float


class Allocation(Record):
    """Every skill's share of a round's new rows under each rule, for the skills that can be taught."""

    round: int
    rule: Rule = Field(description="the one the plan starts from; rollbacks and persons may change what it gives")
    points: int = Field(ge=1, description="adapters whose probe answers the curves are fitted to, the base included")
    decay: float = Field(ge=0, lt=1, description="share of earlier rows' effect that a round is taken to undo")
    skills: tuple[SkillAllocation, ...] = Field(description="sorted by skill")


class SkillPlan(Part):
    """What one round does about one skill."""

    skill: str
    missing: int = Field(ge=0)
    share: float = Field(ge=0, le=1, description="the skill's share of this round's new rows")
    pool_rows: int = Field(ge=0, description="pool rows to draw for it (STAT-Sel)")
    written_rows: dict[int, int] = Field(description="rows to write for it (STAT-Syn), by difficulty")
    reason: str


class RoundPlan(Record):
    """What a round will do. A person may edit the approved copy."""

    round: int
    by: Literal["rule", "llm"] = Field(default="rule", description="who gave the rows to the skills")
    reason: str | None = Field(
        default=None, description="of an LLM that planned, for the whole plan", exclude_if=lambda value: value is None
    )
    fallback: str | None = Field(
        default=None,
        description="why the rule planned although an LLM was asked",
        exclude_if=lambda value: value is None,
    )
    action: Literal["train", "stop"]
    stop_reason: str | None = None
    skills: tuple[SkillPlan, ...] = ()
    replay_rows: int = Field(default=0, ge=0, description="rows of earlier accepted rounds trained again")
    replay_first: tuple[str, ...] = Field(
        default=(), description="skills whose rows are replayed before others", exclude_if=lambda value: not value
    )
    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)
    seed: int
    difficulty: DifficultyPlan | None = Field(default=None, exclude_if=lambda value: value is None)
    changed: str | None = Field(default=None, description="after a rollback: what this plan does differently")

    @property
    def new_rows(self) -> int:
        """Rows this round adds: drawn from the pool and written."""
        return sum(s.pool_rows for s in self.skills) + self.written_rows

    @property
    def written_rows(self) -> int:
        """Rows this round orders from the teacher."""
        return sum(sum(s.written_rows.values()) for s in self.skills)


class TrainingRow(Record):
    """One row the student is trained on, with where it came from and what chose it."""

    id: str
    example_id: str
    round: int = Field(description="the round that first added it")
    origin: Origin
    skill: str = Field(description="the skill it was chosen for")
    skills: tuple[str, ...] = Field(description="every skill it needs")
    difficulty: int
    repeat: int = Field(ge=0, description="0 for the first use of the example, 1 for the second, …")
    weight: float = Field(gt=0)
    layer: str = Field(description="which layer of the score chose it")
    history: tuple[Message, ...] = ()
    question: str
    target: str = Field(description="what the student is taught to answer, in the first epoch if there are others")
    other_targets: tuple[str, ...] = Field(
        default=(),
        description="of an example with several worked solutions: what is taught in the next epochs, in turn",
        exclude_if=lambda value: not value,
    )
    solution: int | None = Field(
        default=None,
        ge=0,
        description="which of several worked solutions `target` has, 0 for the first; the others follow in turn",
        exclude_if=lambda value: value is None,
    )
    binding: Binding | None = Field(
        default=None,
        description="words that the question declares, which the target is in, too",
        exclude_if=lambda value: value is None,
    )
    source: str

    @property
    def targets(self) -> tuple[str, ...]:
        """What the epochs teach, in turn."""
        return (self.target, *self.other_targets)


class DroppedRow(Record):
    """A candidate row that was not trained on, with the reason."""

    example_id: str
    skill: str
    origin: Origin
    reason: str


class Adapter(Record):
    """A LoRA adapter, trained or merged. Its name is unique for ever: run, round and a hash of its files or parts."""

    name: str
    run: str
    round: int
    base: str
    base_hash: str
    files: dict[str, str] = Field(description="file name → SHA-256")
    training_set_hash: str
    rows: int
    training_tokens: int = Field(description="tokens that went through the model, prompts included, all epochs")
    target_tokens: int = Field(description="tokens that carried loss, all epochs")
    steps: int
    first_loss: float
    last_loss: float
    merged: Merged | None = Field(
        default=None,
        description="what it was made of after the round's training, which the other fields are of",
        exclude_if=lambda value: value is None,
    )


class GateSkill(Part):
    """One skill on the gate split, before and after, on the same items."""

    skill: str
    difficulty: int | None = Field(
        default=None, description="none: all of them together", exclude_if=lambda value: value is None
    )
    before: Rate
    after: Rate
    change: Change
    p_value: float | None = Field(
        description="two-sided exact McNemar test, adjusted over the skills (BH), or over the skills and difficulties"
    )


class RetentionPart(Part):
    """One part of the retention set, before and after, on the same items."""

    kind: Literal["skill", "set", "all"] = Field(description="a mastered skill's gate items, a named set, or all")
    name: str
    before: Rate
    after: Rate
    change: Change
    p_alone: float | None = Field(description="one-sided exact test that a retrain with another seed falls as far")
    p_value: float | None = Field(description="the same, adjusted over the parts (BH)")
    fell: bool = Field(description="whether it rolls the candidate back")
    replay: tuple[str, ...] = Field(description="skills whose rows the next plan replays first")


class GateDecision(Record):
    """Whether a candidate adapter replaces the current one, with the evidence."""

    round: int
    decision: Literal["baseline", "accepted", "rolled_back", "stopped"]
    reason: str
    current: str
    candidate: str | None
    before: Rate
    after: Rate | None
    change: Change | None
    p_value: float | None
    level: float | None = Field(default=None, description="the p-value up to which this round accepts; see `looks`")
    level_used: float | None = Field(
        default=None, description="of the level, what a retrain could reach with so many discordant items"
    )
    last_round: int | None = Field(default=None, description="the last round that was planned and shares alpha")
    rule: str
    false_accept_rate: float | None = Field(description="for a same-recipe retrain with another seed")
    detectable_gain: float | None = Field(description="smallest true gain accepted with 80 % power, in shares of 1")
    skills: tuple[GateSkill, ...]
    retention: tuple[RetentionPart, ...] = Field(default=(), exclude_if=lambda value: not value)
