"""What became of the probe items that were failed: each with its answers, and whether a later adapter was right.

Pure functions from records to the part `failed` of a run's report. Every failed item is counted; of many a few of
each skill are shown, with long texts cut. Reads no file and decides nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from curriculum.records import Diagnosis, Example, Grade, Part, SkillLabel, StudentAnswer, Verdict
from curriculum.report_samples import cut, spread

MOST_ITEMS = 400
"""Failed items shown in full; more would make a page that is slow to open."""
MOST_ANSWER = 400
"""Characters shown of an answer, and of a diagnosis."""

Outcome = Literal["fixed", "open", "lost", "asked once"]
"""`fixed`: wrong, and right by the last adapter asked; `lost`: right by an earlier one and wrong by the last; `open`:
never right; `asked once`: no other adapter was asked, so nobody knows."""


class FailedAnswer(Part):
    """What one adapter answered to an item."""

    adapter: str
    round: int = Field(description="the first round that began with this adapter")
    verdict: Verdict | None = Field(description="none: five drawn answers that all differ, and no gold answer")
    answer: str | None = Field(default=None, description="none for right answers, and for those between the shown ones")
    extracted: str | None = None
    missing_skills: tuple[str, ...] = ()
    diagnosis: str | None = None


class FailedItem(Part):
    """A probe item that some adapter failed, and what every adapter made of it."""

    example_id: str
    skills: tuple[str, ...]
    difficulty: int
    question: str
    gold: str | None = Field(description="none where nobody knows what is right")
    outcome: Outcome
    answers: tuple[FailedAnswer, ...] = Field(description="one an adapter, in the order of the rounds")


class SkillFailures(Part):
    """How many probe items of a skill were ever failed, and what became of them; an item counts for each skill."""

    skill: str
    items: int
    fixed: int
    open: int
    lost: int
    asked_once: int


class FailedItems(Part):
    """The probe items that were failed in any round."""

    items: int = Field(description="failed by at least one adapter")
    by_skill: tuple[SkillFailures, ...] = Field(description="of all of them, most failed first")
    shown: tuple[FailedItem, ...] = Field(description="a few of each skill where there are too many")


class ProbeLook(NamedTuple):
    """What one adapter answered on the probe split, by example id, from the first round that began with it."""

    adapter: str
    round: int
    answers: Mapping[str, StudentAnswer]
    """Those to items without a gold answer among them, the first of several drawn."""
    grades: Mapping[str, Grade]
    diagnoses: Mapping[str, Diagnosis]


def failed_items(
    looks: Sequence[ProbeLook], examples: Mapping[str, Example], labels: Mapping[str, SkillLabel]
) -> FailedItems:
    """Gathers every item that has a diagnosis, with what each adapter answered.

    Args:
        looks: one an adapter, in the order of the rounds.
        examples: example id → example, for every probe item.
        labels: example id → label, for every probe item.
    """
    failed = sorted({id_ for look in looks for id_ in look.diagnoses})
    answers = {id_: [a for look in looks if (a := _answer(look, id_)) is not None] for id_ in failed}
    outcomes = {id_: _outcome(of_item) for id_, of_item in answers.items()}
    counts: dict[str, Counter[Outcome]] = defaultdict(Counter)
    for id_ in failed:
        for skill in labels[id_].skills:
            counts[skill][outcomes[id_]] += 1
    by_skill = [
        SkillFailures(
            skill=skill,
            items=of.total(),
            fixed=of["fixed"],
            open=of["open"],
            lost=of["lost"],
            asked_once=of["asked once"],
        )
        for skill, of in sorted(counts.items(), key=lambda pair: (-pair[1].total(), pair[0]))
    ]
    chosen = spread(failed, lambda id_: labels[id_].skills[0], MOST_ITEMS)
    shown = [
        FailedItem(
            example_id=id_,
            skills=labels[id_].skills,
            difficulty=labels[id_].difficulty,
            question=cut(examples[id_].question),
            gold=cut(examples[id_].gold, MOST_ANSWER) or None,
            outcome=outcomes[id_],
            answers=_shown(answers[id_]),
        )
        for id_ in chosen
    ]
    return FailedItems(items=len(failed), by_skill=tuple(by_skill), shown=tuple(shown))


def _answer(look: ProbeLook, id_: str) -> FailedAnswer | None:
    """What an adapter answered; none where nothing is known, as after a failure on our side."""
    grade, diagnosis, answer = look.grades.get(id_), look.diagnoses.get(id_), look.answers.get(id_)
    if answer is None or (grade is None and diagnosis is None) or (grade and grade.verdict is Verdict.FAILED):
        return None
    right = grade is not None and grade.verdict is Verdict.CORRECT
    return FailedAnswer(
        adapter=look.adapter,
        round=look.round,
        verdict=grade.verdict if grade else None,
        answer=None if right else cut(answer.text, MOST_ANSWER),
        extracted=cut(grade.extracted, MOST_ANSWER) if grade and grade.extracted is not None else None,
        missing_skills=diagnosis.missing_skills if diagnosis else (),
        diagnosis=cut(diagnosis.reason, MOST_ANSWER) if diagnosis else None,
    )


def _outcome(answers: Sequence[FailedAnswer]) -> Outcome:
    right = [a.verdict is Verdict.CORRECT for a in answers]
    if len(right) < 2:
        return "asked once"
    if right[-1]:
        return "fixed"
    return "lost" if any(right) else "open"


def _shown(answers: Sequence[FailedAnswer]) -> tuple[FailedAnswer, ...]:
    """Every adapter's verdict, but the texts of the first and the last wrong answer only: the others are in the run."""
    wrong = [a for a in answers if a.verdict is not Verdict.CORRECT]
    told = (wrong[0], wrong[-1]) if wrong else ()
    nothing = {"answer": None, "extracted": None, "diagnosis": None}
    return tuple(a if any(a is t for t in told) or a not in wrong else a.model_copy(update=nothing) for a in answers)
