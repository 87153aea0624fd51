"""Ranks the pool items of a skill for this student: from probe failures to scores, ranks and the words beside a row.

Pure: what scores mean is the student's (`student.influence`, `student.gradient_similarity`, `student.embeddings`).
Scores of different methods, models or rounds cannot be compared; ranks inside a skill can.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from curriculum.errors import UserError
from curriculum.extraction import format_target
from curriculum.mixture import Pool
from curriculum.neighbours import Vectors
from curriculum.plan_config import PreferenceWeight, Ranking
from curriculum.records import Example, Grade, Record, StudentAnswer, Verdict
from curriculum.round_records import RoundPlan, TrainingRow

NAMES: Mapping[Ranking, str] = {"prism": "PRISM", "less": "LESS", "embed_sel": "embedding"}
"""As rows and reports call what ranked them."""


class Failed(NamedTuple):
    """A probe item that was not answered right, and the right answer in the form of the student's own."""

    example: Example
    right: str
    wrong: str | None
    """The student's answer; none where no pair of answers is wanted."""


class Failures(NamedTuple):
    """What candidates are compared with, and why other failures were left out."""

    used: list[Failed]
    left_out: dict[str, int]
    """Reason → failures."""


class RankedExample(Record):
    """One pool item among those of one skill."""

    example_id: str
    skill: str
    score: float | None = Field(description="higher is more helpful; none where the item is too long to be trained on")
    rank: int = Field(ge=1, description="1 is the best of the skill")
    of: int = Field(ge=1, description="the skill's items")

    @property
    def standing(self) -> float:
        """The rank as a share: 1 for the best, 0 for the last, ½ on average."""
        return 1 - (self.rank - 1) / (self.of - 1) if self.of > 1 else 1.0


class RankingFacts(Record):
    """What ranked the pool in one round, and what came of it."""

    method: Ranking
    weight: PreferenceWeight | None = Field(description="of PRISM: what a failure counts")
    adapter: str = Field(description="whose failures and gradients, or hidden states, they were")
    failures: int = Field(ge=0, description="probe failures that candidates were compared with")
    left_out: dict[str, int] = Field(description="reason → failures that could not be used")
    scored: int = Field(ge=0, description="pool items")
    too_long: int = Field(ge=0, description="pool items without a score")
    not_ranked: str | None = Field(
        default=None,
        description="why the round's pool rows were drawn at random after all",
        exclude_if=lambda value: value is None,
    )


class RankingReport(RankingFacts):
    """The same, with where the rows that were drawn stand."""

    rows: int = Field(ge=0, description="new pool rows")
    standing: float | None = Field(description="their mean standing among their skill's items; ½ by chance, 1 is best")


def probe_failures(
    examples: Mapping[str, Example], answers: Sequence[StudentAnswer], grades: Sequence[Grade], method: Ranking
) -> Failures:
    """The failures of a probe that a method can use.

    PRISM needs the student's own wrong answer beside the right one, so only answers that could be read serve; LESS and
    embeddings need no more than the question and the right answer. Answers that failed on our side are no failures of
    the student.

    Args:
        examples: example id → example.
        answers: to the probe items, with a grade each, in the same order.
        grades: theirs.
        method: not `random`.
    """
    used, left_out = [], Counter[str]()
    for answer, grade in zip(answers, grades, strict=True):
        example = examples[grade.example_id]
        if grade.verdict is Verdict.CORRECT:
            continue
        if grade.verdict is Verdict.FAILED:
            left_out["failed on our side"] += 1
        elif method != "prism":
            used.append(Failed(example, same_form(answer.text, grade.extracted, example.gold)[0], None))
        elif grade.verdict is Verdict.WRONG and grade.extracted is not None:
            right, wrong = same_form(answer.text, grade.extracted, example.gold)
            if right == wrong:
                left_out["the wrong answer is spelt as the right one"] += 1
            else:
                used.append(Failed(example, right, wrong))
        else:
            left_out[grade.verdict.value] += 1
    return Failures(used, dict(sorted(left_out.items())))


def same_form(text: str, extracted: str | None, gold: str) -> tuple[str, str]:
    """The right answer and the wrong one, which differ in nothing but the answer: no form is preferred, only content.

    The right one is the student's own text with the gold in place of the last mention of what was extracted. Where
    that is not found as it stands, or there is nothing to find, both are bare answer lines.

    Args:
        text: what the student wrote.
        extracted: its answer; none where none could be read, and then the wrong one is the text itself.
        gold: the right answer.
    """
    if extracted is None:
        return format_target(gold, None), text
    mentions = list(re.finditer(rf"(?<![\w.]){re.escape(extracted)}(?!\w|\.\d)", text)) if extracted else []
    if not mentions:
        return format_target(gold, None), format_target(extracted, None)
    begin, end = mentions[-1].span()
    return f"{text[:begin]}{gold}{text[end:]}", text


def why_not_ranked(found: Failures, method: Ranking) -> str | None:
    """Why there is nothing to rank pool items by; none where there is a failure that can be used.

    The normal case of a base that does not know the answer's form yet, and of a student that knows everything.
    """
    if found.used:
        return None
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
    if not reasons:
        return "every answer to the probe was right"
    what = "no wrong answer to the probe could be read" if method == "prism" else "no failure on the probe can be used"
    return f"{what} ({reasons})"


def require_failures(found: Failures, method: Ranking, where: str) -> list[Failed]:
    """The failures that can be used, where a method has to be what it is called: in a bench.

    Raises:
        UserError: there is none.
    """
    if (why := why_not_ranked(found, method)) is None:
        return found.used
    raise UserError(
        f"{where}: expected failures on the probe split to rank the pool by, but {why}: its rows would be those of "
        "uniform. Leave the strategy out, or begin another bench (--name) with --set bench.warm_up_rows=N: so many "
        "even rows teach the answer's form first"
    )


def nearness(failures: Vectors, candidates: Vectors) -> list[float]:
    """Each candidate's cosine with the failure nearest to it.

    Args:
        failures: `failures × dimensions`, at least one.
        candidates: `candidates × dimensions`.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), the baseline Embed-Sel, which takes the five nearest of each.
    """
    one, other = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (candidates, failures))
    nearest: list[float] = (one @ other.T).max(axis=1).tolist()
    return nearest


def rank_cells(pool: Pool, candidates: Sequence[str], scores: Mapping[str, float]) -> list[RankedExample]:
    """Every candidate among those of each of its skills, by score, ties by id; those without a score come last."""
    ranked, wanted = [], set(candidates)
    for skill, members in sorted(pool.members.items()):
        ids = [id_ for at in members.tolist() if (id_ := pool.ids[at]) in wanted]
        ids.sort(key=lambda id_: (-scores.get(id_, -np.inf), id_))
        ranked += [
            RankedExample(example_id=id_, skill=skill, score=scores.get(id_), rank=at, of=len(ids))
            for at, id_ in enumerate(ids, 1)
        ]
    return ranked


def planned_items(plan: RoundPlan, pool: Pool) -> list[str]:
    """The pool items that a plan can draw: those of the skills it gives pool rows to, sorted."""
    wanted = [pool.members[part.skill] for part in plan.skills if part.pool_rows and part.skill in pool.members]
    return [pool.ids[at] for at in sorted(set(np.concatenate(wanted).tolist()))] if wanted else []


def with_standings(
    rows: Sequence[TrainingRow], ranked: Sequence[RankedExample], method: Ranking, round_: int
) -> list[TrainingRow]:
    """The rows of a round, of which those it drew from the pool say where they stand among their skill's items.

    Where nothing could be ranked they say that.
    """
    places = {(r.example_id, r.skill): r for r in ranked}
    marked = []
    for row in rows:
        place = places.get((row.example_id, row.skill)) if row.origin == "pool" and row.round == round_ else None
        said = f"; {NAMES[method]} {place.standing:.2f}, rank {place.rank} of {place.of}" if place else ""
        if not ranked and row.origin == "pool" and row.round == round_:
            said = f"; at random, not by {NAMES[method]}"
        marked.append(row.model_copy(update={"layer": row.layer + said}) if said else row)
    return marked


def ranking_report(
    facts: RankingFacts, ranked: Sequence[RankedExample], rows: Sequence[TrainingRow], round_: int
) -> RankingReport:
    """What ranked a round's rows, and where those it drew stand."""
    places = {(r.example_id, r.skill): r.standing for r in ranked}
    drawn = [row for row in rows if row.origin == "pool" and row.round == round_]
    standings = [places[key] for row in drawn if (key := (row.example_id, row.skill)) in places]
    mean = sum(standings) / len(standings) if standings else None
    return RankingReport(**facts.model_dump(), rows=len(drawn), standing=mean)
