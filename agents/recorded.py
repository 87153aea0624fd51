"""Student, teacher, planner and graders that give what a run recorded of them, so that its stages can be made again.

Nothing here answers, trains, asks a model or runs code that a run names. What only a record can say (an answer, an
LLM's diagnosis, the verdict of a judge or of a user's own grader) is taken from the records; what follows from other
records (kinds of errors, what an LLM's plan comes to over the floor, verdicts of the built-in graders) is not.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import TypeVar

from agents.loop import FAILED
from agents.own_answers import OWN
from agents.planning import planned, reply_of
from agents.teacher import Failure, OfflineTeacher, PlannerView, Solved, WriteOrder, Written
from curriculum.config import Config
from curriculum.data_config import Source
from curriculum.errors import NotRecomputed, RunDirError, StudentError
from curriculum.grading import Grader
from curriculum.judging import Judgements, OpenAnswer
from curriculum.neighbours import Vectors
from curriculum.plan_file import PROPOSED, read_proposed
from curriculum.prompts import Prompt
from curriculum.records import (
    Diagnosis,
    Example,
    Grade,
    Record,
    Sampling,
    SkillCatalogue,
    SkillLabel,
    StudentAnswer,
)
from curriculum.round_records import DroppedRow, RoundPlan, TrainingRow
from curriculum.rundir import DONE, RunDir, read_json, read_record, read_records
from curriculum.serving_records import Serving
from curriculum.teacher_records import TeacherFailure
from student.blanks import blank_answers
from student.interface import (
    AdapterFiles,
    Encoded,
    Influence,
    MergeResult,
    Progress,
    Scaled,
    Target,
    TrainingResult,
    TrainingSettings,
)
from student.interface import Prompt as Asked

R = TypeVar("R", bound=Record)


class RecordedPrompt(Prompt):
    """A prompt of which the hash is known, and not the text."""

    recorded: str

    @property
    def hash(self) -> str:
        """As it was recorded."""
        return self.recorded


class RecordedAnswers:
    """All answers and grades of a run, by adapter and answer."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self.answers = cache(self._answers)
        self.grades = cache(self._grades)

    def _answers(self, adapter: str) -> Mapping[str, StudentAnswer]:
        found = (a for path in self._files(adapter, "answers.jsonl") for a in read_records(path, StudentAnswer))
        return {a.id: a for a in found if a.adapter == adapter}

    def _grades(self, adapter: str) -> Mapping[str, Grade]:
        found = (g for path in self._files(adapter, "grades.jsonl") for g in read_records(path, Grade))
        return {g.answer_id: g for g in found if g.adapter == adapter}

    def _files(self, adapter: str, name: str) -> list[Path]:
        folders = self._run.stage_path("answers")
        built = self._run.path.glob(f"round_*/*/{OWN}*/{name}")  # what was asked for where rows were built
        return sorted([*(p for p in folders.glob(f"*/*/{name}") if p.parts[-3] == adapter), *built])

    def grade(self, answer: StudentAnswer) -> Grade:
        """The recorded grade of an answer."""
        grade = self.grades(answer.adapter).get(answer.id)
        if grade is None:
            raise StudentError(f"the answer {answer.id} to {answer.example_id} has no grade")
        return grade


class RecordedStudent:
    """Gives the recorded answers again."""

    def __init__(self, config: Config, base_hash: str, recorded: RecordedAnswers) -> None:
        self.base_name = config.student.base
        self._base_hash, self._recorded = base_hash, recorded

    def base_hash(self) -> str:
        """As the first stage recorded it."""
        return self._base_hash

    def check(self, log: Path) -> None:
        """There is no model."""

    def encode(self, rows: Sequence[tuple[Asked, str]], show: bool, log: Path) -> Iterator[Encoded]:
        """There is no tokenizer."""
        raise NotRecomputed("tokens: the base's tokenizer is not in the bundle")

    def answer(
        self,
        prompts: Sequence[Asked],
        adapter: AdapterFiles,
        sampling: Sampling,
        finished: Set[str],
        log: Path,
        samples: int | None = None,
    ) -> Iterator[StudentAnswer]:
        """The recorded answer to every prompt, found by what identifies it; one that is missing is left out."""
        known = self._recorded.answers(adapter.name)
        wanted = blank_answers(prompts, adapter, sampling, samples)
        yield from (known[id_] for id_ in wanted if id_ in known and id_ not in finished)

    def embed(self, prompts: Sequence[Asked], adapter: AdapterFiles, log: Path) -> Vectors:
        """There are no weights."""
        raise NotRecomputed("embeddings: no weights answer here")

    def influence(
        self,
        candidates: Sequence[tuple[Asked, Sequence[str]]],
        targets: Sequence[Target],
        how: Influence,
        adapter: AdapterFiles,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> dict[str, float]:
        """There are no weights."""
        raise NotRecomputed("gradients: no weights answer here")

    def first_token_entropies(
        self, rows: Sequence[tuple[Asked, str]], adapter: AdapterFiles, log: Path, exact: bool = True
    ) -> list[float]:
        """There are no weights."""
        raise NotRecomputed("entropies: no weights answer here")

    def serving(self) -> Serving | None:
        """What a server said of itself is taken from the record."""
        return None

    def train(
        self,
        rows: Sequence[TrainingRow],
        settings: TrainingSettings,
        folder: Path,
        log: Path,
        progress: Callable[[Progress], None],
    ) -> TrainingResult:
        """Nothing is trained."""
        raise NotRecomputed("weights: a training is not repeated")

    def merge(self, parts: Sequence[Scaled], limit: int | None, folder: Path, log: Path) -> MergeResult:
        """There are no weights."""
        raise NotRecomputed("weights: nothing is merged again")


class RecordedTeacher:
    """Gives again what an LLM teacher said, where the run kept it."""

    def __init__(self, config: Config, run: RunDir) -> None:
        self.name = str(config.teacher.model)
        self.identity: Mapping[str, str] = {}
        self._run = run
        self._ordered: set[tuple[int, str]] = set()

    def propose_skills(self, pool: Sequence[Example]) -> SkillCatalogue:
        """The catalogue as it was proposed."""
        return read_record(self._run.stage_path("catalogue") / "proposed.json", SkillCatalogue)

    def label(self, examples: Iterable[Example], catalogue: SkillCatalogue) -> Iterator[SkillLabel | TeacherFailure]:
        """The recorded labels, in the skills of the edited catalogue."""
        folder = self._run.stage_path("label")
        known = {r.example_id: r for r in read_records(folder / "labels.jsonl", SkillLabel)}
        failed = {f.item_id: f for f in _optional(folder / FAILED, TeacherFailure)}
        for example in examples:
            if example.id in known or example.id in failed:
                yield known.get(example.id) or failed[example.id]

    def diagnose(
        self, failures: Iterable[Failure], catalogue: SkillCatalogue, round_: int, sample: int = 0
    ) -> Iterator[Diagnosis | TeacherFailure]:
        """The recorded diagnoses, with the kinds of errors that the grades say."""
        folder = self._run.round_stage(round_, "diagnose")
        known = {d.answer_id: d for d in read_records(folder / "diagnoses.jsonl", Diagnosis)}
        failed = {f.item_id: f for f in _optional(folder / FAILED, TeacherFailure)}
        for failure in failures:
            id_ = failure.answer.id
            if id_ in known:
                yield known[id_].model_copy(update={"error_kind": failure.error_kind, "example_id": failure.example.id})
            elif id_ in failed:
                yield failed[id_]

    def levels(self, skill: str) -> Sequence[int]:
        """As an LLM teacher's."""
        return (1, 2, 3, 4, 5)

    def write(self, order: WriteOrder, catalogue: SkillCatalogue, moved: Mapping[str, str | None]) -> Written:
        """What was kept of a skill, with the first order of it; what was not, with the first order of the round."""
        folder = self._run.round_stage(order.round, "build")
        first, of_skill = (order.round, "") not in self._ordered, (order.round, order.skill.id) not in self._ordered
        self._ordered |= {(order.round, ""), (order.round, order.skill.id)}
        rows = read_records(folder / "training_set.jsonl", TrainingRow)
        skills = {row.example_id: row.skill for row in rows if row.origin == "written"}
        made = [e for e in read_records(folder / "written.jsonl", Example) if skills.get(e.id) == order.skill.id]
        made = made if of_skill else []
        labels = {r.example_id: r for r in read_records(folder / "labels.jsonl", SkillLabel)}
        dropped = read_records(folder / "dropped.jsonl", DroppedRow) if first else []
        failures = _optional(folder / FAILED, TeacherFailure) if first else []
        return Written(made, [labels[e.id] for e in made], dropped, failures)

    def solve(self, examples: Sequence[Example], round_: int) -> Solved:
        """What is recorded of it follows from entropies or tokens, which are not made again."""
        raise NotRecomputed("worked solutions: an LLM is not asked again")


class RecordedPlanner:
    """Gives an LLM's plans again: its rows and reasons are recorded, what they come to is made anew."""

    def __init__(self, run: RunDir) -> None:
        self._run = run

    def budget_words(self, kept: int) -> str:
        """Nobody is told."""
        return ""

    def plan(self, view: PlannerView, by_rule: RoundPlan) -> tuple[RoundPlan, list[TeacherFailure]]:
        """The plan that the recorded rows make within the bounds; or the rule's, where it stood in.

        Raises:
            Rejected: the rows break a bound.
        """
        folder = self._run.round_stage(by_rule.round, "plan")
        recorded = read_proposed(folder / PROPOSED)
        if recorded.fallback is not None:
            return by_rule.model_copy(update={"fallback": recorded.fallback}), _optional(
                folder / FAILED, TeacherFailure
            )
        return planned(reply_of(recorded, view), view, by_rule), []


class RecordedGrader(Grader):
    """The built-in graders; a user's own grader never runs, and no judge is asked: their verdicts are the recorded."""

    def __init__(self, source: Source, recorded: RecordedAnswers) -> None:
        self._recorded = recorded
        self.own = getattr(source, "grader_function", None) is not None
        super().__init__(
            pattern=getattr(source, "grader_pattern", None),
            rubric=getattr(source, "grader_rubric", None) or "",
            judge=self._judged_before,
            check=getattr(source, "grader_check", None),
        )
        self._by_id: dict[str, Grade] = {}

    def grade(self, answers: Sequence[tuple[Example, StudentAnswer]]) -> list[Grade]:
        """As the run's grader; recorded verdicts where that was no built-in one."""
        self._by_id = {a.id: self._recorded.grade(a) for e, a in answers if e.grader in ("judge", "python")}
        built_in = iter(super().grade([pair for pair in answers if pair[0].grader != "python"]))
        return [self._by_id[a.id] if e.grader == "python" else next(built_in) for e, a in answers]

    def check_gold(self, examples: Sequence[Example]) -> dict[str, str]:
        """As the run's grader; nothing is said of what a user's own grader is for."""
        return super().check_gold([e for e in examples if e.grader != "python"])

    def agree(self, example: Example, first: StudentAnswer, second: StudentAnswer) -> bool:
        """As the run's grader.

        Raises:
            NotRecomputed: only a user's own grader can say.
        """
        if example.grader == "python":
            raise NotRecomputed("user grader")
        return super().agree(example, first, second)

    def _judged_before(self, rubric: str, answers: Sequence[OpenAnswer]) -> list[Judgements]:
        judged = [self._by_id[answer.id].judged for answer in answers]
        if None in judged:
            raise StudentError("an answer that a judge was asked about has no judgement")
        return [Judgements(j.first, j.second) for j in judged if j is not None]


def recorded_teacher(config: Config, run: RunDir) -> "OfflineTeacher | RecordedTeacher":
    """The teacher of a run: the offline one works as it did."""
    return OfflineTeacher(config) if config.teacher.kind == "offline" else RecordedTeacher(config, run)


def recorded_inputs(run: RunDir) -> Mapping[str, str]:
    """What the run's first stage was made from.

    Raises:
        RunDirError: a version of Tutelage began it that did not record all of that.
    """
    done = run.stage_path("prepare") / DONE
    inputs = dict(read_json(done)["inputs"])
    if not {"base", "prompt", "identity"} <= inputs.keys():
        raise RunDirError(f"{done}: an older Tutelage began this run. Use the version that its run.json names")
    return inputs


def _optional(path: Path, kind: type[R]) -> list[R]:
    return read_records(path, kind) if path.exists() else []
