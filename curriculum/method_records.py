"""The records of what the layers of a training did: which demonstrations weighed a row, which form its target took.

Records as those of `records`, under the same rules.
"""

from typing import Literal

from pydantic import Field

from curriculum.records import Part, Record, Verdict

Complexity = Literal["easy", "middle", "hard"]
"""Parts of a round's new examples by the student's entropy at the first token of an answer."""


class Demonstration(Record):
    """An example of the holdout as it is shown before a question."""

    example_id: str
    question: str
    answer: str


class RowDemonstrations(Record):
    """Which demonstrations a training row's loss is looked at after."""

    row_id: str
    nearest: tuple[str, ...] = Field(description="ids of examples, the nearest first")
    random: tuple[str, ...]


class RowWeight(Record):
    """What one scoring of a training set said of one row. Losses are means over its target tokens, in nats."""

    row_id: str
    example_id: str
    refresh: int = Field(ge=0, description="which scoring of the training")
    step: int = Field(ge=0, description="optimizer steps before it")
    alone: float
    shown: float = Field(description="after its nearest demonstrations")
    random: float | None = Field(description="after random ones, where their score is subtracted")
    demonstrations: tuple[str, ...] = Field(description="the nearest that fitted")
    score: float
    weight: float = Field(gt=0, description="what the loss of the row is multiplied by until the next scoring")


class WeightsReport(Part):
    """What in-context approximation made of a round's rows; weights and scores of the last scoring."""

    rows: int
    scorings: int
    neighbours: int
    holdout: int = Field(description="pool examples set aside for demonstrations")
    subtract_random: bool
    mean_score: float = Field(description="nats a target token")
    worse: int = Field(description="rows with a higher loss after their demonstrations than alone")
    lowest: float = Field(description="least weight; the mean is 1")
    highest: float


class TargetChoice(Record):
    """What decided the form of one new example's target."""

    example_id: str
    entropy: float | None = Field(description="nats at the first answer token, exact; none where chance decides")
    part: Complexity
    form: Literal["answer", "solution"]
    reason: str
    answer_tokens: int = Field(description="of the short target, its end of turn included")
    solution_tokens: int = Field(description="of the first worked solution; of the short target where there is none")


class TargetsReport(Part):
    """The form of a round's new targets, and what all worked solutions would have been in tokens of one epoch."""

    rule: Literal["complexity", "complexity_random"]
    rows: dict[Complexity, int] = Field(description="new rows by part")
    solutions: int = Field(description="new rows with a worked solution")
    without: int = Field(
        description="new rows of the hard part whose examples have no solution that the grader accepts"
    )
    tokens: int = Field(description="response tokens of the new rows, one epoch")
    all_solutions: int = Field(description="what they would be with a worked solution for each row that has one")


Wording = Literal["own", "paraphrase", "gold"]
"""Whose words a target is in: the student's own answer, its paraphrase of the solution, or the data's."""


class WordingChoice(Record):
    """Whose words one new pool example is taught in."""

    example_id: str
    source: Wording
    reason: str
    own: Verdict | None = Field(description="on the student's own answer; none where it was not asked for")
    paraphrase: Verdict | None = Field(description="on its paraphrase; none where it was not asked for")
    completed: bool = Field(description="the answer was right but not in the taught form: its last line was put to it")


class WordingReport(Part):
    """Whose words a round's new pool rows teach, and what became of the answers."""

    cap: float = Field(ge=0, le=1, description="most of the examples that may be taught by own answers")
    examples: int
    rows: dict[Wording, int] = Field(description="new pool rows; those of written examples keep their teacher's words")
    asked: int = Field(description="examples whose own answer was asked for")
    right: int = Field(description="those whose own answer is whole and right")
    over_cap: int = Field(description="those of them that the cap did not take")
    paraphrased: int = Field(description="examples whose paraphrase was asked for")
    completed: int = Field(description="taught texts that the last line was put to")


class Binding(Part):
    """The words that a question declares in the place of its operators, or of the answers that it may have."""

    kind: Literal["operators", "labels"]
    words: dict[str, str] = Field(description="word → the operator, with its spaces, or the answer; sorted")


class BindingsReport(Part):
    """How many of a round's new pool rows declare words of their own."""

    share: float = Field(ge=0, le=1, description="of the rows that can be bound")
    rows: int
    bound: dict[Literal["operators", "labels"], int]
    nothing: int = Field(description="rows that have nothing to bind")


class MethodsReport(Part):
    """What the layers on top of the choice of rows did in a round."""

    weights: WeightsReport | None = None
    targets: TargetsReport | None = None
    wording: WordingReport | None = Field(default=None, exclude_if=lambda value: value is None)
    bindings: BindingsReport | None = Field(default=None, exclude_if=lambda value: value is None)
    dft_rows: int | None = Field(default=None, description="rows that get the loss dft")
    first_probability: float | None = Field(
        default=None, description="mean probability of the targets taught by dft, in the first step that has any"
    )
