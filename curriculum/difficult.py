"""Which probe questions are difficult for a student, without a look at a gold answer: STAT's first stage.

Takes an answer's text and the scores that a process reward model gives its steps; returns whether the question is
difficult, and how far such a choice agrees with gold answers where there are any. Five drawn answers that all differ
are the other way: see `signals`. Asks no model.
"""

import re
from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Literal

from pydantic import Field

from curriculum.records import Grade, Record, Verdict

Method = Literal["gold", "disagreement", "prm"]
"""What tells difficult questions: the grader, five drawn answers that all differ, a process reward model."""


class StepScores(Record):
    """What a process reward model gives each step of one answer."""

    answer_id: str
    example_id: str
    model: str
    scores: tuple[float, ...] = Field(description="P(+) against P(-) after each step, from 0 to 1; none for no step")


class DifficultFound(Record):
    """How many probe questions were called difficult, and how far gold answers agree."""

    method: Method
    items: int = Field(ge=0, description="questions that were looked at")
    difficult: int = Field(ge=0)
    graded: int = Field(ge=0, description="of the questions, those whose answer was graded by a gold answer")
    graded_difficult: int = Field(ge=0)
    wrong: int = Field(ge=0, description="of the graded, those answered wrongly")
    wrong_difficult: int = Field(ge=0)

    @property
    def precision(self) -> float | None:
        """Share of the graded difficult ones that were answered wrongly."""
        return self.wrong_difficult / self.graded_difficult if self.graded_difficult else None

    @property
    def recall(self) -> float | None:
        """Share of the wrongly answered ones that were called difficult."""
        return self.wrong_difficult / self.wrong if self.wrong else None


def answer_steps(text: str, found: str | None) -> list[str]:
    """The steps of an answer: its paragraphs, and what was found as its final answer, if anything was.

    Source: the code of AdaptMI (the predecessor of STAT by the same authors), which splits on blank lines.
    """
    steps = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return [*steps, f"The final answer is {found}."] if found is not None else steps


def step_turns(question: str, steps: Sequence[str]) -> list[str]:
    """The user's turns that a process reward model reads: the question stands before the first step."""
    return [f"{question} {steps[0]}", *steps[1:]] if steps else []


def is_difficult(scores: Sequence[float], tau1: float, tau2: float) -> bool:
    """Whether the last score or their mean is at most `tau1`, or an earlier one at most `tau2`; so is no step at all.

    Args:
        scores: r_1 … r_t, each from 0 to 1.
        tau1: of the last step and of the mean.
        tau2: of each step but the last.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), stage 1.
    """
    if not scores:
        return True
    return scores[-1] <= tau1 or fmean(scores) <= tau1 or any(score <= tau2 for score in scores[:-1])


def compared_with_gold(
    method: Method, items: int, difficult: Collection[str], grades: Sequence[Grade]
) -> DifficultFound:
    """How a choice of difficult questions agrees with the grades of the same questions; `failed` ones do not count."""
    graded = [grade for grade in grades if grade.verdict is not Verdict.FAILED]
    wrong = [grade for grade in graded if grade.verdict is not Verdict.CORRECT]
    return DifficultFound(
        method=method,
        items=items,
        difficult=len(difficult),
        graded=len(graded),
        graded_difficult=sum(grade.example_id in difficult for grade in graded),
        wrong=len(wrong),
        wrong_difficult=sum(grade.example_id in difficult for grade in wrong),
    )
