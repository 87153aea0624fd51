"""The requests of a teacher's check: what a server can be held to, and every role's own questions, put twice."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agents.asking import Question
from agents.chat import ChatClient, NoReply
from agents.ledger import Purpose
from agents.llm_teacher import LLMTeacher
from agents.naming import fine_question
from agents.teacher import WriteOrder
from agents.wire import Call
from agents.writing import QUESTIONS_PER_CALL, SEEDS
from curriculum.config import Config
from curriculum.data import UNLABELLED
from curriculum.data_config import FileSource
from curriculum.duplicates import SeenQuestions
from curriculum.judging import OpenAnswer
from curriculum.prompts import Prompt, load_prompt
from curriculum.records import Example, Message, Skill, SkillCatalogue
from curriculum.teacher_config import Endpoint, Role
from curriculum.teacher_records import Reply
from student.interface import Progress

MARKS = ("tk7q", "w9zx")
"""No model says one of these to a question about clouds unless it is held to."""
FORM_SCHEMA = {
    "type": "object",
    "properties": {"mark": {"type": "string", "enum": list(MARKS)}},
    "required": ["mark"],
    "additionalProperties": False,
}
SEED_SCHEMA = {
    "type": "object",
    "properties": {"sentence": {"type": "string"}},
    "required": ["sentence"],
    "additionalProperties": False,
}
TRIES = 2
"""Requests for each way of structured output, and seeds that are each sent twice."""
WRONG_ANSWER = "I am not sure. I think the answer is 0.\nAnswer: 0"
"""What the diagnosis is shown: no student was asked."""
FALLBACK_SKILLS = ("arithmetic", "counting", "logic", "reading_carefully", "units", "working_in_steps")
"""Stand for a catalogue where the data declare fewer than two skills."""
DIFFICULTY = 3
"""Of the questions that are to be written."""
AGAIN = "again"


class Probe(NamedTuple):
    """A request: where it goes, what it tries, and for a role's own question how its reply is read."""

    endpoint: Endpoint
    call: Call
    way: str
    question: Question | None = None

    @property
    def model(self) -> tuple[str, str]:
        """The model it goes to."""
        return self.endpoint.base_url, self.endpoint.model


class Heard(NamedTuple):
    """A probe with its reply, or why there is none."""

    probe: Probe
    reply: Reply | None
    fault: NoReply | None


async def hear(client: ChatClient, probes: Sequence[Probe], progress: Callable[[str, Progress], None]) -> list[Heard]:
    """Asks one probe after another, so that no request waits for another.

    Raises:
        TutelageError: what stops a run, see `ChatClient.ask`.
    """
    heard = []
    try:
        for probe in probes:
            try:
                _, reply = await client.ask(probe.endpoint, probe.call)
                heard.append(Heard(probe, reply, None))
            except NoReply as fault:
                heard.append(Heard(probe, None, fault))
            progress("checking", Progress(len(heard), len(probes), probe.call.purpose.role))
    finally:
        await client.close()
    return heard


def all_probes(config: Config, teacher: LLMTeacher, examples: Sequence[Example], items: int) -> list[Probe]:
    """Every request there will be: a model's own under the first role that uses it."""
    models: dict[tuple[str, str], Endpoint] = {}
    for endpoint in config.endpoints:
        models.setdefault((endpoint.base_url, endpoint.model), endpoint)
    probes = [probe for endpoint in models.values() for probe in _form_probes(endpoint)]
    for role, questions in _role_questions(config, teacher, examples, items).items():
        for question in questions:
            turns = (Message(role="user", content=question.text),)
            calls = (teacher.asker.call(question, turns, what) for what in ("", AGAIN))
            probes += [Probe(config.teacher.endpoint(role), call, "role", question) for call in calls]
    return probes


def _form_probes(endpoint: Endpoint) -> list[Probe]:
    """What the server can be held to, whatever the config says of it."""
    extra = endpoint.extra_body
    schema = endpoint._replace(structured="json_schema")
    # Without the schema in the words: they ask for a sentence.
    json_object = schema._replace(extra_body={**extra, "response_format": {"type": "json_object"}})
    logprobs = endpoint._replace(structured="prompt", extra_body={**extra, "logprobs": True, "top_logprobs": 2})
    drawn = endpoint._replace(structured="prompt", seed=True)
    if endpoint.temperature is not None:  # else the model may take none
        drawn = drawn._replace(temperature=1.0)
    form, seed = load_prompt("check_form"), load_prompt("check_seed")

    def probe(at: Endpoint, prompt: Prompt, schema: Mapping[str, Any], way: str, sample: int, what: str = "") -> Probe:
        turns = (Message(role="user", content=prompt.text),)
        call = Call(Purpose(endpoint.role), turns, "check", schema, prompt.hash, f"check {way}{what}", sample)
        return Probe(at, call, way)

    return [
        *(probe(schema, form, FORM_SCHEMA, "json_schema", n) for n in range(TRIES)),
        *(probe(json_object, form, FORM_SCHEMA, "json_object", n) for n in range(TRIES)),
        probe(logprobs, form, FORM_SCHEMA, "logprobs", 0),
        *(probe(drawn, seed, SEED_SCHEMA, "seed", n, what) for n in range(TRIES) for what in ("", AGAIN)),
    ]


def _role_questions(
    config: Config, teacher: LLMTeacher, examples: Sequence[Example], items: int
) -> dict[Role, list[Question]]:
    """The questions that the roles of a run are asked, on pool items; the planner has none of its own here."""
    catalogue = _catalogue(examples)
    chosen = examples[:items]

    def order(seeds: Sequence[Example]) -> WriteOrder:
        rows, seen, nothing = QUESTIONS_PER_CALL, SeenQuestions(), frozenset[str]()
        return WriteOrder(0, catalogue.skills[0], DIFFICULTY, rows, config.seed, nothing, seeds, seen, nothing)

    seeds = [[*examples[at:], *examples[:at]][:SEEDS] for at in range(len(chosen))]
    writer = teacher.writer
    questions: dict[Role, list[Question]] = {
        "skills": [fine_question(teacher.asker, [e]) for e in chosen],
        "label": [teacher.label_question([e], catalogue, Purpose("label")) for e in chosen],
        "diagnose": [teacher.diagnose_question(e, WRONG_ANSWER, catalogue, 0) for e in chosen],
        "write": [writer.write_question(order(of), of, 0) for of in seeds],
        "solve": [writer.solve_question(order(of), of[0], 0) for of in seeds],
    }
    if isinstance(config.data, FileSource) and config.data.grader_rubric:
        rubric, answers = config.data.grader_rubric, [OpenAnswer(e, e.id, WRONG_ANSWER) for e in chosen]
        questions["judge"] = [teacher.judging.question(rubric, a, Purpose("judge")) for a in answers]
    return questions


def _catalogue(examples: Sequence[Example]) -> SkillCatalogue:
    names = sorted({skill for e in examples for skill in e.skills} - {UNLABELLED})
    names = names if len(names) > 1 else list(FALLBACK_SKILLS)
    skills = (Skill(id=name, name=name.replace("_", " "), writable=True) for name in names)
    return SkillCatalogue(teacher="check", skills=tuple(skills))
