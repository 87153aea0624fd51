"""The records of what the layers of a training did: which demonstrations weighed a row, which form its target took.

Records as those of `records`, under the same rules.
"""

from typing import Literal

from pydantic import Field

from curriculum.merge_records import LinesChoice, SoupChoice
from curriculum.records import Part, Record, Verdict

Complexity = Literal["easy", "middle", "hard"]
"""Parts of a round's new examples by the student's entropy at the first token of an answer."""

EntropyKind = Literal["exact", "approximate, 20 likeliest"]
"""Whether an entropy is of the whole vocabulary, or of what a server names of it, the rest counted as one token."""


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
    weight: float = Field(
        gt=0,
        description="what the loss of the row is multiplied by until the next scoring; its mean, where each step "
        "has its own weights",
    )


class WeightsReport(Part):
    """What in-context approximation made of a round's rows; weights and scores of the last scoring."""

    rows: int
    scorings: int
    neighbours: int
    holdout: int = Field(description="pool examples set aside for demonstrations")
    subtract_random: bool
    normalise: Literal["set", "batch"] = Field(
        default="set",
        description="whether weights are max–min over the training set, or over the rows of each step",
        exclude_if=lambda value: value == "set",
    )
    mean_score: float = Field(description="nats a target token")
    worse: int = Field(description="rows with a higher loss after their demonstrations than alone")
    lowest: float = Field(description="least weight; the mean is 1")
    highest: float


class TargetChoice(Record):
    """What decided the form of one new example's target."""

    example_id: str
    entropy: float | None = Field(description="nats at the first answer token; none where chance decides")
    entropy_is: EntropyKind | None = Field(
        default=None,
        description="none where there is none, and in records of versions that had the exact one only",
        exclude_if=lambda value: value is None,
    )
    part: Complexity | None = Field(description="none where all have the answer alone")
    form: Literal["answer", "solution"]
    reason: str
    solution_from: Literal["example", "teacher"] | None = Field(
        default=None,
        description="where its accepted worked solution is from: it came with the example, or was asked for; none "
        "where there is none, and in records of versions that asked nobody",
        exclude_if=lambda value: value is None,
    )
    answer_tokens: int = Field(description="of the short target, its end of turn included")
    solution_tokens: int = Field(description="of the first worked solution; of the short target where there is none")


class SolvedExample(Record):
    """What a teacher made of one hard example that came without a worked solution."""

    example_id: str
    attempts: int = Field(ge=0, description="solutions asked for, one after another, until one was right")
    answers: tuple[str, ...] = Field(description="of the replies, the right one last")
    refused: tuple[str, ...] = Field(default=(), description="why, of each attempt that was not taken")
    solution: str | None = Field(description="whose answer the grader accepts; none where none of them was right")
    tokens: int = Field(ge=0, description="of prompts and replies, whichever training they were first bought for")


class SolvingReport(Part):
    """What a teacher's worked solutions of hard examples took, and what those of all would have, as estimated."""

    asked: int = Field(description="examples")
    solved: int = Field(description="with a solution that the grader accepts")
    attempts: int
    tokens: int = Field(description="of prompts and replies")
    without: int = Field(description="distinct new examples that came without an accepted solution, those asked too")
    all_tokens: int = Field(description="estimate: to solve all of them, at the mean of those asked")
    all_response_tokens: int | None = Field(
        description="estimate: of the new rows in one epoch, with solutions as long as the mean of those solved for "
        "rows that have none; none where none was solved"
    )


class PhaseReport(Part):
    """One phase of a training: which form of targets it taught, replayed rows among them."""

    form: Literal["answer", "solution"]
    rows: int
    steps: int
    first_loss: float = Field(description="mean of its first ten steps, in nats a target token")
    last_loss: float = Field(description="mean of its last ten steps")


class TargetsReport(Part):
    """The form of a round's new targets, and what all worked solutions would have been in tokens of one epoch."""

    rule: Literal["complexity", "complexity_random", "answers"]
    entropy_is: EntropyKind | None = Field(
        default=None, description="as in `TargetChoice`", exclude_if=lambda value: value is None
    )
    rows: dict[Complexity, int] = Field(description="new rows by part")
    solutions: int = Field(description="new rows with a worked solution")
    without: int = Field(
        description="new rows of the hard part whose examples have no solution that the grader accepts"
    )
    tokens: int = Field(description="response tokens of the new rows, one epoch")
    all_solutions: int = Field(description="what they would be with a worked solution for each row that has one")
    solving: SolvingReport | None = Field(
        default=None,
        description="where a teacher was asked for worked solutions",
        exclude_if=lambda value: value is None,
    )
    phases: tuple[PhaseReport, ...] = Field(
        default=(), description="where rows were not mixed, in order", exclude_if=lambda value: not value
    )


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
    lines: LinesChoice | None = Field(default=None, exclude_if=lambda value: value is None)
    soup: SoupChoice | None = Field(default=None, exclude_if=lambda value: value is None)
    wording: WordingReport | None = Field(default=None, exclude_if=lambda value: value is None)
    bindings: BindingsReport | None = Field(default=None, exclude_if=lambda value: value is None)
    dft_rows: int | None = Field(default=None, description="rows that get the loss dft")
    first_probability: float | None = Field(
        default=None, description="mean probability of the targets taught by dft, in the first step that has any"
    )

    @property
    def tried(self) -> list[str]:
        """The adapters that were compared after the training, in the order of their answers."""
        scaled = [candidate.adapter for candidate in self.lines.candidates] if self.lines else []
        if self.soup is None:
            return scaled
        return [*scaled, self.soup.adapter, *(name for step in self.soup.steps for name in (step.adapter, step.soup))]
