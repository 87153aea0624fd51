"""Judged answers: what a judge is asked, what its verdict makes of a grade, and how far others agree with it.

The judge itself is a model, asked in `agents`; here is only what surrounds it. An unsure judge is no verdict:
the answer is `failed` and enters no rate.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pydantic import Field

from curriculum.agreement import Estimate, cohen_kappa
from curriculum.extraction import extract_open
from curriculum.records import Example, Grade, Judged, Judgement, Part, Rate, StudentAnswer, Verdict
from curriculum.statistics import wilson
from curriculum.teacher_records import TeacherFailure

VERDICTS = {
    "correct": Verdict.CORRECT,
    "wrong": Verdict.WRONG,
    "unsure": Verdict.FAILED,
    "failed": Verdict.FAILED,
}


class OpenAnswer(NamedTuple):
    """An answer for the judge; its example's gold answer is the reference."""

    example: Example
    id: str
    text: str


class Judgements(NamedTuple):
    """The verdict that decides, and a second judge's where it was asked."""

    first: Judgement
    second: Judgement | None = None


Judge = Callable[[str, Sequence[OpenAnswer]], list[Judgements]]
"""Called with the rubric and answers; returns one judgement an answer, in order."""


class JudgeAgreement(Part):
    """How far somebody who saw the same answers agrees with the judge, on right or not right."""

    against: str = Field(description="the grader that data.grader_check names, or the second judge's model")
    agree: Rate = Field(description="answers on which both say the same, of those on which both have a verdict")
    kappa: Estimate = Field(description="Cohen's")
    only_judge: int = Field(description="answers that only the judge calls right")
    only_other: int = Field(description="answers that only the other one calls right")
    no_verdict: int = Field(description="answers on which one of the two has no verdict")


class JudgeReport(Part):
    """What the judge did over all answers of a run, and whether it can be believed."""

    answers: int = Field(description="that were judged")
    unsure: int
    failed: int = Field(description="answers without a usable reply")
    agreement: tuple[JudgeAgreement, ...]


def open_answer(example: Example, answer: StudentAnswer) -> OpenAnswer | None:
    """What a judge is asked about: what follows `Answer:`, or all of the text; `None` where there is nothing to judge.

    Nothing of a text that was cut at the token limit is: what is missing may be what matters.
    """
    if answer.finish_reason != "stop" or not answer.text.strip():
        return None
    return OpenAnswer(example, answer.id, extract_open(answer.text) or answer.text.strip())


def judged_grade(
    example: Example, answer: StudentAnswer, judgements: Judgements | None, check: Verdict | None
) -> Grade:
    """The grade of an open answer. Strict wants the line that begins with `Answer:`, else it is unparsed."""
    found = None if judgements is None else open_answer(example, answer)
    extracted, strict_extracted = (found.text, extract_open(answer.text)) if found else (None, None)
    judged = None
    if judgements is not None:
        first = judgements.first
        verdict, reason = VERDICTS[first.verdict], f"{first.verdict}: {first.reason}"
        judged = Judged(first=first, second=judgements.second, check=check)
    elif answer.finish_reason == "error":
        verdict, reason = Verdict.FAILED, answer.error or "the student's engine gave no answer"
    else:
        verdict, reason = Verdict.TRUNCATED if answer.finish_reason == "length" else Verdict.UNPARSED, ""
    unmarked = strict_extracted is None and verdict in (Verdict.CORRECT, Verdict.WRONG)
    return Grade(
        answer_id=answer.id,
        example_id=example.id,
        adapter=answer.adapter,
        grader="judge",
        verdict=verdict,
        strict_verdict=Verdict.UNPARSED if unmarked else verdict,
        extracted=extracted,
        strict_extracted=strict_extracted,
        reason=reason,
        judged=judged,
    )


def judge_failures(item_id: str, *judgements: Judgement | None) -> list[TeacherFailure]:
    """The records of judgements of an answer that got no usable reply."""
    told = ({"item_id": item_id, "role": "judge", "kind": j.fault, "reason": j.reason} for j in judgements if j)
    return [TeacherFailure.model_validate(one) for one in told if one["kind"] is not None]


def judge_report(grades: Iterable[Grade], check: str | None, second: str | None) -> JudgeReport | None:
    """Counts the judge's verdicts and its agreement with others; `None` where nothing was judged.

    Args:
        grades: all of a run; those of other graders are passed over.
        check: the grader whose verdicts stand beside the judge's, if there is one.
        second: the second judge's model, if there is one.
    """
    judged = [g.judged for g in grades if g.judged is not None]
    if not judged:
        return None
    firsts = [j.first.verdict for j in judged]
    checked = [(j.first.verdict, VERDICT_WORDS[j.check]) for j in judged if j.check is not None]
    twice = [(j.first.verdict, j.second.verdict) for j in judged if j.second is not None]
    return JudgeReport(
        answers=len(judged),
        unsure=firsts.count("unsure"),
        failed=firsts.count("failed"),
        agreement=tuple(
            judge_agreement(against, pairs)
            for against, pairs in ((check, checked), (second, twice))
            if against is not None
        ),
    )


VERDICT_WORDS = dict.fromkeys(Verdict, "wrong") | {Verdict.CORRECT: "correct", Verdict.FAILED: "failed"}
"""A grader's verdict as a judge would say it: not right is wrong, whatever the cause."""


def judge_agreement(against: str, pairs: Sequence[tuple[str, str]]) -> JudgeAgreement:
    """Agreement of the judge's verdicts (first of each pair) with another's, on right or not right."""
    told = Counter((a == "correct", b == "correct") for a, b in pairs if {a, b} <= {"correct", "wrong"})
    both, only_judge, only_other, neither = (told[judge, other] for judge in (True, False) for other in (True, False))
    return JudgeAgreement(
        against=against,
        agree=wilson(both + neither, told.total()),
        kappa=cohen_kappa(both, only_judge, only_other, neither),
        only_judge=only_judge,
        only_other=only_other,
        no_verdict=len(pairs) - told.total(),
    )
