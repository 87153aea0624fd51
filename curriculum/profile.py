"""The missing-skill profile: what the student got right, got wrong and was missing, per skill and difficulty.

Takes one round's probe grades and diagnoses with the labels of their examples; returns a
`MissingSkillProfile` that does not depend on the order of rows. Chooses nothing: the plan does.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from curriculum.records import Diagnosis, Grade, SkillCatalogue, SkillLabel, Verdict
from curriculum.round_records import MissingSkillProfile, SkillProfile, VerdictCounts
from curriculum.statistics import wilson

Cell = tuple[str, int | None]
"""A skill at one difficulty, or at all of them (`None`)."""


def build_profile(
    round_: int,
    adapter: str,
    labels: Mapping[str, SkillLabel],
    grades: Iterable[Grade],
    diagnoses: Iterable[Diagnosis],
    catalogue: SkillCatalogue,
) -> MissingSkillProfile:
    """Counts verdicts and missing skills per skill × difficulty, per skill, and over all answers.

    An answer counts once for each skill its example needs. `failed` answers are counted and enter no rate.
    Every skill of the catalogue has an entry; without probe answers its rate is `None`. A skill that only
    diagnoses name at a difficulty gets a cell with no answers.

    Args:
        round_: the round whose probe answers these are.
        adapter: the adapter that answered, or `base`.
        labels: example id → label, for every graded and diagnosed example.
        grades: one a probe answer.
        diagnoses: at most one a failed answer; its skills are missing at the example's difficulty.
        catalogue: the skills of the run.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), stage 2; `missing` is their n_s.
    """
    overall: Counter[Verdict] = Counter()
    verdicts: dict[Cell, Counter[Verdict]] = {}
    missing: Counter[Cell] = Counter()
    for grade in grades:
        overall[grade.verdict] += 1
        label = labels[grade.example_id]
        for cell in _cells(label.skills, label.difficulty):
            verdicts.setdefault(cell, Counter())[grade.verdict] += 1
    for diagnosis in diagnoses:
        missing.update(_cells(diagnosis.missing_skills, labels[diagnosis.example_id].difficulty))

    def profile(skill: str, difficulty: int | None) -> SkillProfile:
        counts = _counts(verdicts.get((skill, difficulty), Counter()))
        return SkillProfile(
            skill=skill,
            difficulty=difficulty,
            counts=counts,
            missing=missing[skill, difficulty],
            accuracy=wilson(counts.correct, counts.graded),
        )

    cells = {(skill, difficulty) for skill, difficulty in {*verdicts, *missing} if difficulty is not None}
    counts = _counts(overall)
    return MissingSkillProfile(
        round=round_,
        adapter=adapter,
        overall=wilson(counts.correct, counts.graded),
        counts=counts,
        skills=tuple(profile(skill.id, None) for skill in sorted(catalogue.skills, key=lambda s: s.id)),
        cells=tuple(profile(skill, difficulty) for skill, difficulty in sorted(cells)),
    )


def _cells(skills: Iterable[str], difficulty: int) -> set[Cell]:
    """The cells an example counts in: each of its skills once, at its difficulty and over all."""
    return {(skill, level) for skill in skills for level in (difficulty, None)}


def _counts(verdicts: Mapping[Verdict, int]) -> VerdictCounts:
    return VerdictCounts(**{verdict.value: count for verdict, count in verdicts.items()})
