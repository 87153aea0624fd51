"""One of the teachers that are compared: who it is, where its replies are kept, and what it can cost at most."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from agents.asking import Asker
from agents.bound import DryClient, bound_words, capped
from agents.chat import ChatClient
from agents.compare_sample import RunSample, Sample
from agents.ledger import Ledger
from agents.llm_teacher import LLMTeacher
from agents.naming import NAMES_PER_CALL, merge_question
from agents.progress import ProgressPrinter
from agents.session import check_keys
from agents.teacher import Failure, OfflineTeacher, Teacher
from agents.wire import request_body
from curriculum.config import Config
from curriculum.errors import UserError
from curriculum.grading import Grader
from curriculum.records import Message, Skill, SkillCatalogue, SkillLabel, Verdict, content_id
from curriculum.teacher_config import ROLES, Endpoint, Role, TeacherConfig

COMPARED: tuple[Role, ...] = ("label", "diagnose")


class Contender:
    """One teacher: who it is, where its replies are kept, and what it said."""

    def __init__(self, name: str, config: Config, folder: Path) -> None:
        # A teacher that fails much is a finding here: nothing stops before all was asked.
        settings = config.teacher.model_copy(update={"max_failed_share": 1.0})
        self.name, self.config = name, config.model_copy(update={"teacher": settings})
        self.llm = config.teacher.kind == "llm"
        self.path = folder / "teachers" / identity(config) / "calls.jsonl"
        self.announced = ""
        self.taken_over = False
        self.ledger: Ledger | None = Ledger(self.path, config.teacher.budget) if self.llm else None

    def teacher(self, progress: ProgressPrinter, client: ChatClient | None = None) -> Teacher:
        """The teacher; with a client of its own where one is given."""
        if self.ledger is None:
            return OfflineTeacher(self.config)
        quiet: Callable[..., None] = lambda *_: None  # noqa: E731
        shown = quiet if client else progress
        return LLMTeacher(self.config, self.ledger, Grader(), shown, quiet, lambda: None, client)

    @property
    def models(self) -> dict[str, str]:
        """Role → model, of the roles that a run would ask."""
        return {role: self.config.teacher.endpoint(role).model for role in self.config.roles} if self.llm else {}


def identity(config: Config) -> str:
    """What makes a teacher another one: its settings and addresses."""
    addresses = [config.teacher.endpoint(role).base_url for role in ROLES] if config.teacher.kind == "llm" else []
    return content_id([config.identity()["teacher"], addresses], 12)


def announce(sides: Sequence[Contender], sample: Sample, progress: ProgressPrinter) -> None:
    """Says what each teacher can cost at most, and caps its budget there.

    Raises:
        UserError: a teacher's key is not in the environment.
    """
    largest = sample.catalogue
    for side in sides:
        side.taken_over = sample.run is not None and _is_of_run(side, sample.run)
        if side.ledger is None and largest is None:
            largest = side.teacher(progress).propose_skills(sample.pool)  # the first one names them
        if side.ledger is None or side.taken_over:
            side.announced = "nothing is sent: " + ("its replies are the run's" if side.llm else "it is no LLM")
        else:
            check_keys(side.config)
            dry = DryClient(side.ledger, side.config.teacher, side.config.seed, repairs=True)
            with closing(_llm(side.teacher(progress, dry))) as teacher:
                if largest is None:
                    largest = _largest_catalogue(side, sample, teacher, dry)
                list(teacher.label(sample.examples, largest))
                if sample.run is not None:
                    list(teacher.diagnose(failures_of(sample, sample.run.labels), largest, 0))
            side.ledger = Ledger(side.path, capped(side.config.teacher.budget, side.ledger, dry.bound))
            side.announced = bound_words(dry.bound, dry.known, any(e.prices for e in side.config.endpoints))
        progress.say(f"{side.name}: {side.announced}")


def _llm(teacher: Teacher) -> LLMTeacher:
    assert isinstance(teacher, LLMTeacher)
    return teacher


def _is_of_run(side: Contender, run: RunSample) -> bool:
    """Whether the run's labels and diagnoses are this teacher's: same model, settings and prompts as now."""
    settings = side.config.teacher
    if not side.llm or not run.diagnosed or settings.labels == "data" or run.teacher is None:
        return False
    if run.teacher.kind == "offline" or any(_way(settings, role) != _way(run.teacher, role) for role in COMPARED):
        return False
    with closing(_llm(side.teacher(ProgressPrinter()))) as teacher:
        prompts = {role: teacher.identity[f"prompt.{role}"] for role in COMPARED}
    made = {("label", r.teacher, r.prompt_hash) for i, r in run.labels.items() if i in run.grades}
    made |= {("diagnose", d.teacher, d.prompt_hash) for d in run.diagnoses}
    return made <= {(role, side.models[role], prompt) for role, prompt in prompts.items()}


def _way(teacher: TeacherConfig, role: Role) -> tuple[Endpoint, int]:
    """All that makes a role's replies what they are, but for the address: one model may be served at several."""
    endpoint = teacher.endpoint(role)
    return endpoint._replace(base_url="", key_variable=None, concurrency=0, prices=None), teacher.rows_per_call


def _largest_catalogue(side: Contender, sample: Sample, teacher: LLMTeacher, dry: DryClient) -> SkillCatalogue:
    """The catalogue, or before the skills are named one that no prompt can be longer with; counts the naming."""
    try:
        return teacher.propose_skills(sample.pool)
    except UserError:  # the names are not bought yet
        settings, endpoint = side.config.teacher.catalogue, side.config.teacher.endpoint("skills")
    widest = "\U00010400" * 60  # of four bytes
    names, merges = 5 * settings.sample, 0
    while merges == 0 or names > NAMES_PER_CALL:
        chunks = -(-names // NAMES_PER_CALL)
        merges, names = merges + chunks, min(names - 1, chunks * settings.most)
    asker = Asker(side.config, dry, lambda *_: None)
    question = merge_question(asker, [widest] * NAMES_PER_CALL, settings.least, settings.most)
    call = asker.call(question, (Message(role="user", content=question.text),))
    for _ in range(merges + 1):
        dry.count(endpoint, request_body(endpoint, call, side.config.seed), repair=True)
    skills = (
        Skill(id=f"{widest}{n}", name=widest, description=widest * 7, writable=True) for n in range(settings.most)
    )
    return SkillCatalogue(teacher="largest", skills=tuple(skills))


def failures_of(sample: Sample, labels: Mapping[str, SkillLabel]) -> list[Failure]:
    """The base's answers that were not right, with these labels."""
    run = sample.run
    assert run is not None
    wrong = [e for e in sample.examples if run.grades[e.id].verdict is not Verdict.CORRECT]
    return [Failure(e, run.answers[e.id], run.grades[e.id], labels[e.id]) for e in wrong if e.id in labels]


def close_teacher(teacher: Teacher) -> None:
    """Closes the connections of a teacher that has some."""
    if isinstance(teacher, LLMTeacher):
        teacher.close()
