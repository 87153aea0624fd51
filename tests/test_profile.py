from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from curriculum.profile import build_profile
from curriculum.records import Diagnosis, Grade, Skill, SkillCatalogue, SkillLabel, Verdict
from curriculum.round_records import MissingSkillProfile, SkillProfile

CATALOGUE = SkillCatalogue(
    teacher="t", skills=tuple(Skill(id=s, name=s, writable=True) for s in ("add", "count", "sort"))
)


def label(example: str, *skills: str, difficulty: int = 1) -> SkillLabel:
    return SkillLabel(example_id=example, teacher="t", prompt_hash="h", skills=skills, difficulty=difficulty, reason="")


def grade(example: str, verdict: Verdict) -> Grade:
    return Grade(
        answer_id=f"answer-{example}",
        example_id=example,
        adapter="base",
        grader="exact",
        verdict=verdict,
        strict_verdict=verdict,
        extracted=None,
        strict_extracted=None,
    )


def diagnosis(example: str, *skills: str) -> Diagnosis:
    return Diagnosis(
        answer_id=f"answer-{example}",
        example_id=example,
        teacher="t",
        prompt_hash="h",
        missing_skills=skills,
        error_kind="wrong",
        reason="",
    )


LABELS = {
    "both": label("both", "add", "sort", difficulty=2),
    "easy": label("easy", "add", difficulty=1),
    "hard": label("hard", "add", difficulty=5),
    "sort": label("sort", "sort", difficulty=2),
}
GRADES = [
    grade("both", Verdict.WRONG),
    grade("easy", Verdict.CORRECT),
    grade("hard", Verdict.FAILED),
    grade("sort", Verdict.UNPARSED),
]
DIAGNOSES = [diagnosis("both", "add", "count"), diagnosis("sort", "sort")]


def made(grades: Sequence[Grade] = GRADES, diagnoses: Sequence[Diagnosis] = DIAGNOSES) -> MissingSkillProfile:
    return build_profile(1, "base", LABELS, grades, diagnoses, CATALOGUE)


def part(profile: MissingSkillProfile, skill: str, difficulty: int | None = None) -> SkillProfile:
    return next(p for p in (*profile.skills, *profile.cells) if (p.skill, p.difficulty) == (skill, difficulty))


def test_an_example_counts_for_each_of_its_skills_and_once_overall() -> None:
    profile = made()
    assert (part(profile, "add").accuracy.correct, part(profile, "add").accuracy.n) == (1, 2)
    assert (part(profile, "sort").accuracy.correct, part(profile, "sort").accuracy.n) == (0, 2)
    assert part(profile, "add", 2).counts == part(profile, "sort", 2).counts.model_copy(update={"unparsed": 0})
    assert (profile.overall.correct, profile.overall.n) == (1, 3)


def test_our_own_failures_are_counted_and_enter_no_rate() -> None:
    cell = part(made(), "add", 5)
    assert cell.counts.failed == 1
    assert (cell.accuracy.n, cell.accuracy.rate, cell.accuracy.low, cell.accuracy.high) == (0, None, None, None)


def test_a_missing_format_is_not_counted_as_a_wrong_answer() -> None:
    counts = part(made(), "sort").counts
    assert (counts.wrong, counts.unparsed) == (1, 1)


def test_missing_counts_the_diagnoses_at_the_difficulty_of_their_example() -> None:
    profile = made()
    assert {p.skill: p.missing for p in profile.skills} == {"add": 1, "count": 1, "sort": 1}
    assert [(p.skill, p.difficulty) for p in profile.cells if p.missing] == [("add", 2), ("count", 2), ("sort", 2)]
    assert part(profile, "count", 2).accuracy.n == 0


def test_every_skill_of_the_catalogue_is_there_without_data_without_a_rate() -> None:
    profile = made([], [])
    assert [p.skill for p in profile.skills] == ["add", "count", "sort"]
    assert {(p.accuracy.n, p.accuracy.rate, p.missing) for p in profile.skills} == {(0, None, 0)}
    assert (profile.overall.n, profile.overall.rate, profile.cells) == (0, None, ())


@given(st.permutations(GRADES), st.permutations(DIAGNOSES))
def test_row_order_is_irrelevant(grades: list[Grade], diagnoses: list[Diagnosis]) -> None:
    assert made(grades, diagnoses) == made()


@given(st.lists(st.sampled_from(Verdict), max_size=20))
def test_cells_add_up_to_their_skill(verdicts: list[Verdict]) -> None:
    labels = {str(i): label(str(i), "add", difficulty=1 + i % 5) for i in range(len(verdicts))}
    grades = [grade(str(i), verdict) for i, verdict in enumerate(verdicts)]
    profile = build_profile(1, "base", labels, grades, [], CATALOGUE)
    overall = part(profile, "add")
    assert overall.counts.graded + overall.counts.failed == len(verdicts)
    assert (
        sum(cell.counts.correct for cell in profile.cells) == overall.counts.correct == verdicts.count(Verdict.CORRECT)
    )
    assert sum(cell.accuracy.n for cell in profile.cells) == overall.accuracy.n
    assert (overall.accuracy.rate is None) == (overall.accuracy.n == 0)


def test_skills_are_shrunk_towards_each_other_and_cells_are_not() -> None:
    skills = {s.skill: s.shrunk for s in made().skills}
    assert skills["count"] is None, "no answers, nothing to shrink"
    add, sort = skills["add"], skills["sort"]
    assert add is not None and sort is not None
    assert 0 < sort.rate < add.rate < 0.5, "0 of 2, 1 of 2"
    assert all(cell.shrunk is None for cell in made().cells)
