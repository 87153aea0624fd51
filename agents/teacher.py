"""What the loop asks of a teacher, and the teacher that is no LLM.

The offline teacher takes skills and difficulty from the data set's own metadata, calls a failed
example's skills the missing ones, and writes new examples only where the data come from a generator
with a verifier. It is free and exact, and it is never presented as an LLM.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from curriculum.config import Config
from curriculum.data_config import GeneratorData
from curriculum.difficult import Method
from curriculum.duplicates import SeenQuestions
from curriculum.generator import write_examples
from curriculum.mastery import Mastery
from curriculum.method_records import SolvedExample
from curriculum.plan_config import PlanConfig
from curriculum.records import (
    Diagnosis,
    Example,
    Grade,
    Skill,
    SkillCatalogue,
    SkillLabel,
    StudentAnswer,
    Verdict,
    content_id,
)
from curriculum.round_records import DroppedRow, GateDecision, MissingSkillProfile, RoundPlan
from curriculum.teacher_records import TeacherFailure


class Failure(NamedTuple):
    """A probe answer that was not correct, with what a diagnosis may look at."""

    example: Example
    answer: StudentAnswer
    grade: Grade | None
    """None where no gold answer made it difficult."""
    label: SkillLabel
    found_by: Method = "gold"
    """What made it difficult; by disagreement it is the first of five answers that all differ."""

    @property
    def error_kind(self) -> str:
        """The kind of error that is known without a diagnosis."""
        if self.grade is None:
            return "doubtful" if self.found_by == "prm" else "inconsistent"
        return ERROR_KINDS.get(self.grade.verdict, "wrong")


class WriteOrder(NamedTuple):
    """New examples of one skill at one difficulty."""

    round: int
    skill: Skill
    difficulty: int
    rows: int
    seed: int
    taken: Set[str]
    """Normalised questions that no new example may have."""
    seeds: Sequence[Example]
    """Pool examples of the skill."""
    seen: SeenQuestions
    """What a new example may not come near: the pool, what was written before, and every held-out item."""
    held_out: Set[str]
    """The ids of the held-out items in `seen`."""


class Written(NamedTuple):
    """New examples with their labels, what was thrown away, and what the teacher failed at."""

    examples: list[Example]
    labels: list[SkillLabel]
    dropped: list[DroppedRow]
    failures: list[TeacherFailure]


class Solved(NamedTuple):
    """What became of questions with a known answer that were to be solved, one record each, sorted by example."""

    examples: list[SolvedExample]
    failures: list[TeacherFailure]


class RoundFacts(NamedTuple):
    """An earlier round as a planner sees it."""

    plan: RoundPlan
    decision: GateDecision
    kept: int
    """Written rows that were kept."""
    dropped: Mapping[str, int]
    """Why written rows were thrown away → how many."""


class PlannerView(NamedTuple):
    """What a planner is shown: counts, and the skills by name."""

    config: PlanConfig
    profile: MissingSkillProfile
    catalogue: SkillCatalogue
    pool_sizes: Mapping[str, Mapping[int, int]]
    written_levels: Mapping[str, Sequence[int]]
    past: Sequence[RoundFacts]
    """Every earlier round that trained, oldest first."""
    budget: str
    mastery: Mastery | None = None


class Planner(Protocol):
    """Plans rounds in place of the rule."""

    def budget_words(self, kept: int) -> str:
        """What may still be spent; `kept` written rows were kept so far."""
        ...

    def plan(self, view: PlannerView, by_rule: RoundPlan) -> tuple[RoundPlan, list[TeacherFailure]]:
        """The plan of the round that the rule planned so; the rule's, with the cause, where it makes none."""
        ...


class Teacher(Protocol):
    """Names skills, labels examples, diagnoses failures, and writes new examples.

    Skills in its answers are those of the catalogue it is given. An item it fails on is a `TeacherFailure`.
    """

    name: str
    identity: Mapping[str, str]
    """Hashes of what it works by (its prompts), for the inputs of the first stage; empty for the offline teacher."""

    def propose_skills(self, pool: Sequence[Example]) -> SkillCatalogue:
        """The skills that the pool's questions need."""
        ...

    def label(self, examples: Iterable[Example], catalogue: SkillCatalogue) -> Iterator[SkillLabel | TeacherFailure]:
        """Up to five skills of the catalogue and a difficulty from 1 to 5 for each example."""
        ...

    def diagnose(
        self, failures: Iterable[Failure], catalogue: SkillCatalogue, round_: int, sample: int = 0
    ) -> Iterator[Diagnosis | TeacherFailure]:
        """One to three missing skills for each failure; another `sample` asks once more."""
        ...

    def levels(self, skill: str) -> Sequence[int]:
        """The difficulties at which it can write examples of a skill; empty when it cannot write any."""
        ...

    def write(self, order: WriteOrder, catalogue: SkillCatalogue, moved: Mapping[str, str | None]) -> Written:
        """At most as many new verified examples as ordered; `moved` maps the catalogue's ids to the order's."""
        ...

    def solve(self, examples: Sequence[Example], round_: int) -> Solved:
        """Worked solutions of examples with gold answers, as far as it finds right ones."""
        ...


ERROR_KINDS: Mapping[Verdict, str] = {Verdict.UNPARSED: "format", Verdict.TRUNCATED: "truncated"}
"""The kind of error that a verdict alone says; any other is `wrong`."""


class OfflineTeacher:
    """The teacher without an LLM."""

    name = "offline"
    identity: Mapping[str, str] = {}

    def __init__(self, config: Config) -> None:
        self._data = config.data
        # What stands where an LLM teacher has the hash of its prompt: the rule below, by version.
        self._rule_hash = content_id({"teacher": "offline", "rule": 1})

    def propose_skills(self, pool: Sequence[Example]) -> SkillCatalogue:
        """The declared skills, as they are."""
        declared = {skill for example in pool for skill in example.skills}
        if isinstance(self._data, GeneratorData):
            declared |= {skill for task in self._data.tasks for skill in task.split("+")}
        skills = tuple(Skill(id=s, name=s.replace("_", " "), writable=bool(self.levels(s))) for s in sorted(declared))
        return SkillCatalogue(teacher=self.name, skills=skills)

    def label(self, examples: Iterable[Example], catalogue: SkillCatalogue) -> Iterator[SkillLabel]:
        """The declared skills and difficulty; a row that declares no difficulty gets 3."""
        for example in examples:
            yield SkillLabel(
                example_id=example.id,
                teacher=self.name,
                prompt_hash=self._rule_hash,
                skills=example.skills,
                difficulty=example.difficulty or 3,
                reason="declared by the data set",
            )

    def diagnose(
        self, failures: Iterable[Failure], catalogue: SkillCatalogue, round_: int, sample: int = 0
    ) -> Iterator[Diagnosis]:
        """Every skill of a failed example is missing."""
        for failure in failures:
            unsure = "its steps are scored low" if failure.found_by == "prm" else "five drawn answers all differ"
            what = "the answer is " + failure.grade.verdict.value if failure.grade else unsure
            yield Diagnosis.model_validate(
                {
                    "answer_id": failure.answer.id,
                    "example_id": failure.example.id,
                    "teacher": self.name,
                    "prompt_hash": self._rule_hash,
                    "missing_skills": failure.label.skills[:3],
                    "error_kind": failure.error_kind,
                    "reason": f"{what} and the question needs these skills",
                }
            )

    def levels(self, skill: str) -> Sequence[int]:
        """The levels of the skill's own task, or else of the composed tasks that need it."""
        if not isinstance(self._data, GeneratorData):
            return ()
        tasks = self._data.tasks
        names = [skill] if skill in tasks else [task for task in tasks if skill in task.split("+")]
        return sorted({level.difficulty for name in names for level in tasks[name]})

    def write(self, order: WriteOrder, catalogue: SkillCatalogue, moved: Mapping[str, str | None]) -> Written:
        """Fresh items from the skill's generator, right by construction."""
        if not isinstance(self._data, GeneratorData):
            return Written([], [], [], [])
        made = write_examples(self._data, order.skill.id, order.difficulty, order.rows, order.seed, order.taken)
        return Written(made, list(self.label(made, catalogue)), [], [])

    def solve(self, examples: Sequence[Example], round_: int) -> Solved:
        """None of them: it calls nobody."""
        return Solved([], [])
