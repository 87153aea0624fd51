"""What the loop asks of a teacher, and the teacher that is no LLM.

The offline teacher takes skills and difficulty from the data set's own metadata, calls a failed
example's skills the missing ones, and writes new examples only where the data come from a generator
with a verifier. It is free and exact, and it is never presented as an LLM.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from curriculum.config import Config
from curriculum.data_config import GeneratorData
from curriculum.generator import write_examples
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


class Failure(NamedTuple):
    """A probe answer that was not correct, with what a diagnosis may look at."""

    example: Example
    answer: StudentAnswer
    grade: Grade
    label: SkillLabel


class Teacher(Protocol):
    """Names skills, labels examples, diagnoses failures, and writes new examples."""

    name: str

    def propose_skills(self, pool: Sequence[Example]) -> SkillCatalogue:
        """The skills that the pool's questions need."""
        ...

    def label(self, examples: Iterable[Example], catalogue: SkillCatalogue) -> Iterator[SkillLabel]:
        """Up to five skills of the catalogue and a difficulty from 1 to 5 for each example."""
        ...

    def diagnose(self, failures: Iterable[Failure]) -> Iterator[Diagnosis]:
        """One to three missing skills for each failure."""
        ...

    def levels(self, skill: str) -> Sequence[int]:
        """The difficulties at which it can write examples of a skill; empty when it cannot write any."""
        ...

    def write(self, skill: str, difficulty: int, count: int, seed: int, taken: Set[str]) -> list[Example]:
        """At most `count` new verified examples of a skill; none whose normalised question is in `taken`."""
        ...


_ERROR_KINDS: Mapping[Verdict, str] = {Verdict.UNPARSED: "format", Verdict.TRUNCATED: "truncated"}


class OfflineTeacher:
    """The teacher without an LLM."""

    name = "offline"

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

    def diagnose(self, failures: Iterable[Failure]) -> Iterator[Diagnosis]:
        """Every skill of a failed example is missing."""
        for failure in failures:
            yield Diagnosis.model_validate(
                {
                    "answer_id": failure.answer.id,
                    "example_id": failure.example.id,
                    "teacher": self.name,
                    "prompt_hash": self._rule_hash,
                    "missing_skills": failure.label.skills[:3],
                    "error_kind": _ERROR_KINDS.get(failure.grade.verdict, "wrong"),
                    "reason": f"the answer is {failure.grade.verdict.value} and the question needs these skills",
                }
            )

    def levels(self, skill: str) -> Sequence[int]:
        """The levels of the skill's own task, or else of the composed tasks that need it."""
        if not isinstance(self._data, GeneratorData):
            return ()
        tasks = self._data.tasks
        names = [skill] if skill in tasks else [task for task in tasks if skill in task.split("+")]
        return sorted({level.difficulty for name in names for level in tasks[name]})

    def write(self, skill: str, difficulty: int, count: int, seed: int, taken: Set[str]) -> list[Example]:
        """Fresh items from the skill's generator, right by construction."""
        if not isinstance(self._data, GeneratorData):
            return []
        return write_examples(self._data, skill, difficulty, count, seed, taken)
