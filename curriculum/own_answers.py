"""Selective self-to-supervised targets: a student is taught in its own words where these are right.

Takes the student's answers and paraphrases with their grades; returns what each example is taught with, and why. Asks
nobody.

Source: Gupta et al. 2025, selective self-to-supervised fine-tuning (S3FT, arXiv 2502.08130): the student's own answer
where it is judged right, else its paraphrase of the gold answer where that is, else gold. The cap on own answers is
ours: what a student answers right already teaches it nothing new. So is the rule that a paraphrase keeps the solution's
numbers: a weak student's is right and says no more than "The answer is 12", which unlearns the steps.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import floor
from typing import NamedTuple

from curriculum.columns import is_usable
from curriculum.duplicates import normalise
from curriculum.extraction import ANSWER_MARK, extract_strict, format_target, taught_text, taught_texts
from curriculum.method_records import WordingChoice, WordingReport
from curriculum.records import Example, Grade, StudentAnswer, Verdict, content_id
from curriculum.round_records import TrainingRow

Graded = tuple[StudentAnswer, Grade]


class Wording(NamedTuple):
    """What an example is taught with, and why."""

    choice: WordingChoice
    texts: tuple[str, ...]


class Usable(NamedTuple):
    """A student's text as a target, in the taught form."""

    text: str
    completed: bool
    """Whether its last line was put to it."""


def usable_text(answer: StudentAnswer, grade: Grade) -> Usable | None:
    """A whole and right answer as a target; none if it was cut, is not right, or has control characters.

    What is right by the strict extraction stays as it is. What is right by the lenient one alone gets the taught last
    line, with the answer that was found in it, in the place of a last line that tried to be one.
    """
    text = answer.text.strip()
    if answer.finish_reason != "stop" or grade.verdict is not Verdict.CORRECT or not is_usable(text):
        return None
    if grade.strict_verdict is Verdict.CORRECT:
        return Usable(text, completed=False)
    body = text.rpartition("\n")[0].rstrip() if extract_strict(text) is not None else text
    found = grade.extracted or ""
    made = format_target(found, body or None)
    return Usable(made, completed=True) if extract_strict(made) == found else None


def takes_own(examples: Sequence[Example], own: Mapping[str, Graded], cap: float, seed: int) -> list[str]:
    """The ids of the examples that are taught by their own answers: of the usable ones, a seeded part within the cap.

    Args:
        examples: distinct ones; the share is of all of them.
        own: example id → the student's answer.
        cap: from 0 to 1.
        seed: of the plan.
    """
    usable = [e.id for e in examples if e.id in own and usable_text(*own[e.id]) is not None]
    return sorted(usable, key=lambda id_: content_id([seed, "own", id_]))[: floor(cap * len(examples))]


def says_more(text: str) -> bool:
    """Whether a text has more than the line of its answer: a paraphrase that has not is none."""
    return bool(text.rpartition("\n")[0].strip())


def keeps_numbers(text: str, solution: str) -> bool:
    """Whether every number of a worked solution stands in its paraphrase, at least once; thousands separators aside."""
    kept, wanted = ({word for word in normalise(of).split() if word[0].isdigit()} for of in (text, solution))
    return wanted <= kept


def choose_wordings(
    examples: Sequence[Example],
    own: Mapping[str, Graded],
    taken: Iterable[str],
    paraphrases: Mapping[str, Graded],
    paraphrase: bool,
) -> dict[str, Wording]:
    """The targets of new pool examples, by id: own answers that were `taken`, else right paraphrases, else gold.

    Args:
        examples: distinct ones.
        own: example id → the student's own answer; those that were not asked may be missing.
        taken: from `takes_own`.
        paraphrases: example id → the student's paraphrase of the worked solution; those not asked may be missing.
        paraphrase: whether any are asked for.
    """
    kept, made = set(taken), {}
    for example in examples:
        answered, rewritten = own.get(example.id), paraphrases.get(example.id)
        usable = usable_text(*answered) if answered else None
        why = [_own_words(answered, usable, example.id in kept)] if answered else []
        source, target = "own", usable if example.id in kept else None
        if target is None and paraphrase:
            source, (target, said) = "paraphrase", _paraphrased(rewritten, taught_text(example))
            why.append(said)
        if target is None:
            source = "gold"
        choice = WordingChoice.model_validate(
            {
                "example_id": example.id,
                "source": source,
                "reason": "; ".join(why),
                "own": answered[1].verdict if answered else None,
                "paraphrase": rewritten[1].verdict if rewritten else None,
                "completed": target is not None and target.completed,
            }
        )
        made[example.id] = Wording(choice, (target.text,) if target else tuple(taught_texts(example)))
    return made


def _own_words(answered: Graded, usable: Usable | None, kept: bool) -> str:
    if usable is None:
        return f"own answer {_fault(answered)}"
    return "own answer right" if kept else "own answer right, but over the cap"


def _paraphrased(rewritten: Graded | None, solution: str) -> tuple[Usable | None, str]:
    """A paraphrase as a target, none where it cannot be one, and why."""
    if rewritten is None:
        return None, "no worked solution to paraphrase"
    made = usable_text(*rewritten)
    if made is None:
        return None, f"paraphrase {_fault(rewritten)}"
    if not says_more(made.text):
        return None, f"paraphrase has nothing but the line {ANSWER_MARK}"
    if not keeps_numbers(made.text, solution):
        return None, "paraphrase leaves out numbers of the solution"
    return made, "paraphrase right"


def _fault(answered: Graded) -> str:
    """Why an answer is not used."""
    answer, grade = answered
    if answer.finish_reason == "length":
        return "cut at the token limit"
    return "cannot be put into the taught form" if grade.verdict is Verdict.CORRECT else str(grade.verdict)


def wording_report(cap: float, choices: Sequence[WordingChoice], rows: Iterable[TrainingRow]) -> WordingReport:
    """What a round's choices were, over its new pool rows: an example counts as often as it is a row."""
    by_id = {choice.example_id: choice for choice in choices}
    right = [c for c in choices if c.source == "own" or "over the cap" in c.reason]
    return WordingReport(
        cap=cap,
        examples=len(choices),
        rows=dict(sorted(Counter(by_id[row.example_id].source for row in rows if row.origin == "pool").items())),
        asked=sum(c.own is not None for c in choices),
        right=len(right),
        over_cap=sum(c.source != "own" for c in right),
        paraphrased=sum(c.paraphrase is not None for c in choices),
        completed=sum(c.completed for c in choices),
    )
