"""The missing-skill profile: what the student got right, got wrong and was missing, per skill and difficulty.

Takes one round's probe grades and diagnoses with the labels of their examples; returns a
`MissingSkillProfile` that does not depend on the order of rows. Chooses nothing: the plan does.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from curriculum.errors import DataError
from curriculum.records import Diagnosis, Grade, SkillCatalogue, SkillLabel, Verdict
from curriculum.round_records import ItemConsistency, ItemSignals, MissingSkillProfile, SkillProfile, VerdictCounts
from curriculum.shrinkage import shrunk_rates
from curriculum.signals import consistency_counts, signal_means
from curriculum.statistics import wilson

Cell = tuple[str, int]
"""A skill at one difficulty, or at all of them together."""

Drawn = TypeVar("Drawn", ItemSignals, ItemConsistency)

ALL = 0
"""In place of a difficulty: all of them."""


def build_profile(
    round_: int,
    adapter: str,
    labels: Mapping[str, SkillLabel],
    grades: Iterable[Grade],
    diagnoses: Iterable[Diagnosis],
    catalogue: SkillCatalogue,
    signals: Iterable[ItemSignals] = (),
    consistency: Iterable[ItemConsistency] = (),
) -> MissingSkillProfile:
    """Counts verdicts and missing skills per skill × difficulty, per skill, and over all answers.

    An answer counts once for each skill its example needs. `failed` answers are counted and enter no rate.
    Every skill of the catalogue has an entry; without probe answers its rate is `None`. A skill that only
    diagnoses name at a difficulty gets a cell with no answers. The shrunk rates are for readers: no plan uses them.

    Args:
        round_: the round whose probe answers these are.
        adapter: the adapter that answered, or `base`.
        labels: example id → label, for every graded and diagnosed example.
        grades: one a probe answer.
        diagnoses: at most one a failed answer; its skills are missing at the example's difficulty.
        catalogue: the skills of the run.
        signals: of the probe items, where several answers to each were drawn.
        consistency: of the probe items without a gold answer; they are counted apart and enter no rate.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), stage 2; `missing` is their n_s.
    """
    overall: Counter[Verdict] = Counter()
    answered: defaultdict[Verdict, Counter[Cell]] = defaultdict(Counter)
    missing: Counter[Cell] = Counter()
    for grade in grades:
        label = labels[grade.example_id]
        overall[grade.verdict] += 1
        tally = answered[grade.verdict]
        for skill in set(label.skills):
            tally[skill, label.difficulty] += 1
    for diagnosis in diagnoses:
        difficulty = labels[diagnosis.example_id].difficulty
        missing.update((skill, difficulty) for skill in set(diagnosis.missing_skills))
    drawn, unsure = _by_cell(signals, labels), _by_cell(consistency, labels)
    tallies = (missing, *answered.values())
    cells = sorted({cell for tally in (*tallies, unsure) for cell in tally if cell[1] != ALL})
    for tally in tallies:
        for (skill, _), count in list(tally.items()):
            tally[skill, ALL] += count

    def profile(skill: str, difficulty: int) -> SkillProfile:
        counts = _counts({verdict: tally[skill, difficulty] for verdict, tally in answered.items()})
        return SkillProfile(
            skill=skill,
            difficulty=None if difficulty == ALL else difficulty,
            counts=counts,
            missing=missing[skill, difficulty],
            accuracy=wilson(counts.correct, counts.graded),
            signals=signal_means(drawn.get((skill, difficulty), ())),
            without_gold=consistency_counts(unsure.get((skill, difficulty), ())),
        )

    total = _counts(overall)
    return MissingSkillProfile(
        round=round_,
        adapter=adapter,
        overall=wilson(total.correct, total.graded),
        counts=total,
        skills=_with_shrunk([profile(skill.id, ALL) for skill in sorted(catalogue.skills, key=lambda s: s.id)]),
        cells=tuple(profile(*cell) for cell in cells),
    )


def check_profile_set(name: str | None, ids: Collection[str], labels: Iterable[SkillLabel]) -> None:
    """Refuses an extra set as the source of profiles when fewer than half of its items got a skill of the pool.

    Raises:
        DataError: with what to do.
    """
    labelled = len({label.example_id for label in labels} & set(ids))
    if name is not None and 2 * labelled < len(ids):
        raise DataError(
            f"extra.{name}.profile_from: expected items whose skills the pool has, got {labelled} such of {len(ids)}. "
            "Declare the pool's skills for them (columns.skills), or have an LLM teacher label them: `teacher.labels: "
            "teacher`"
        )


def _with_shrunk(skills: Sequence[SkillProfile]) -> tuple[SkillProfile, ...]:
    shrunk = shrunk_rates([(skill.counts.correct, skill.counts.graded) for skill in skills])
    return tuple(s.model_copy(update={"shrunk": rate}) for s, rate in zip(skills, shrunk, strict=True))


def _by_cell(items: Iterable[Drawn], labels: Mapping[str, SkillLabel]) -> Mapping[Cell, list[Drawn]]:
    """The items of each skill at each difficulty, and at all of them together."""
    cells: defaultdict[Cell, list[Drawn]] = defaultdict(list)
    for item in items:
        label = labels[item.example_id]
        for skill in set(label.skills):
            cells[skill, label.difficulty].append(item)
            cells[skill, ALL].append(item)
    return cells


def _counts(verdicts: Mapping[Verdict, int]) -> VerdictCounts:
    return VerdictCounts(**{verdict.value: count for verdict, count in verdicts.items()})
