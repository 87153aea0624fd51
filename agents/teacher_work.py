"""What each role of an LLM teacher will be asked in a run, at the cheap and at the dear end: nothing is sent.

Requests are counted from the config and the examples, and their sizes are those of the real prompts. At the cheap end
all goes well; at the dear end all goes as badly as it can while every request gets a reply.
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from math import ceil
from typing import NamedTuple

from agents.asking import REPAIR_CHARS, Question
from agents.ledger import Purpose, upper_bound
from agents.llm_teacher import ANSWER_CHARS, LLMTeacher
from agents.naming import MOST_PASSES, NAMES_PER_CALL, fine_question, merge_question, sampled
from agents.teacher import WriteOrder
from agents.wire import request_body
from agents.writing import QUESTIONS_PER_CALL, SEEDS, SOLUTIONS, WAVES, draft_example
from curriculum.config import Config
from curriculum.duplicates import SeenQuestions
from curriculum.records import Example, Message, Skill, SkillCatalogue
from curriculum.teacher_config import Role

SKILL_CHARS = (20, 160)
"""Of a skill's description in a catalogue that is not there yet, as assumed."""
NAMES_PER_QUESTION = (1, 5)
"""Fine skill names; the most is what a reply may have."""
NAME_CHARS = (8, 40)
FAULT_CHARS = 300
"""Of what a repair turn says is wrong, as assumed."""
BYTES_PER_TOKEN = 6
"""Of a faulty reply and of a student's answer, at most, as assumed."""
LEVELS = 5
MOST_RENDERED = 200
"""Requests of one step whose prompts are made; of more, as many evenly spread ones stand for all."""


class Known(NamedTuple):
    """What a run has already that its teacher is not asked for again."""

    rounds: int = 0
    """Rounds after the baseline that were taken over."""
    catalogue: SkillCatalogue | None = None
    labelled: bool = False


class Work(NamedTuple):
    """What a role is asked, at one end of the range."""

    requests: int = 0
    turns: int = 0
    """Requests one after another, when as many as may be are under way at once."""
    text_bytes: int = 0
    """Of all messages."""
    bound: int = 0
    """Tokens of all prompts by `upper_bound`: schemas and what goes around a turn included."""
    rows: int = 0
    """Rows that the replies are to have."""

    def plus(self, other: "Work") -> "Work":
        """The one after the other."""
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, count: int) -> "Work":
        """The same so many times, one after another."""
        return Work(*(count * part for part in self))


class End:
    """One end of the range: all goes well, or all goes as badly as it can."""

    def __init__(self, config: Config, examples: Sequence[Example], teacher: LLMTeacher, known: Known, most: bool):
        self.config, self.examples, self.teacher, self.known, self.most = config, examples, teacher, known, most
        self.pool = [e for e in examples if e.split == "pool"]
        self.probe = sorted((e for e in examples if e.split == "probe"), key=lambda e: len(e.question))
        left = max(0, config.rounds - known.rounds)
        # As many rollbacks in a row as the controller has patience for, some of which a fork may have taken over.
        least = min(left, 1 if known.rounds else config.plan.patience)
        self.rounds = left if most else least

    @cached_property
    def catalogue(self) -> SkillCatalogue:
        """The skills, as far as they are known; else as many as there may be, of an assumed size."""
        settings = self.config.teacher.catalogue
        if self.known.catalogue is not None:
            return self.known.catalogue
        if settings.source == "data":
            return self.teacher.propose_skills(self.pool)
        count, chars = (settings.most if self.most else settings.least), SKILL_CHARS[self.most]
        ids = [f"{number}".rjust(chars // 4, "s") for number in range(count)]
        made = [Skill(id=id_, name=id_, description="d" * chars, writable=True) for id_ in ids]
        return SkillCatalogue(teacher="", skills=tuple(made))

    def step(self, count: int, question: Callable[[int], Question], groups: int = 1) -> Work:
        """`count` requests that may be under way together, in so many groups that wait for one another.

        At the dear end each is followed by its repair turn.
        """
        if count <= 0:
            return Work()
        shown = min(count, MOST_RENDERED)
        asked = [question(i * count // shown) for i in range(shown)]
        concurrency = self.config.teacher.endpoint(asked[0].purpose.role).concurrency
        turns = min(count, (count - min(groups, count)) // concurrency + groups)
        repairs = (False, True) if self.most else (False,)
        made: dict[int, list[tuple[int, int, int]]] = {}
        for one in asked:
            if id(one) not in made:  # one question may stand for many
                made[id(one)] = [self._size(one, repair) for repair in repairs]
        sizes = [size for one in asked for size in made[id(one)]]
        text, bound, rows = (ceil(sum(part) * count / shown) for part in zip(*sizes, strict=True))
        each = 1 + self.most
        return Work(each * count, each * turns, text, bound, rows)

    def _size(self, question: Question, repair: bool) -> tuple[int, int, int]:
        asker, endpoint = self.teacher.asker, self.config.teacher.endpoint(question.purpose.role)
        turns: tuple[Message, ...] = (Message(role="user", content=question.text),)
        if repair:
            chars = min(REPAIR_CHARS, BYTES_PER_TOKEN * endpoint.max_tokens)
            turns = asker.repair(turns, "x" * chars, "x" * FAULT_CHARS)
        body = request_body(endpoint, asker.call(question, turns), self.config.seed)
        text = sum(len(turn["content"].encode("utf-8", "surrogatepass")) for turn in body["messages"])
        return text, upper_bound(endpoint, body).tokens - endpoint.max_tokens, len(question.wanted)


def skills_work(end: End) -> Work:
    """Fine names on a sample, then merges until one request holds all names."""
    settings = end.config.teacher.catalogue
    if settings.source == "data" or end.known.catalogue is not None or not end.pool:
        return Work()
    asker, batches = end.teacher.asker, sampled(end.config, end.pool)
    made = end.step(len(batches), lambda i: fine_question(asker, batches[i]))
    left = NAMES_PER_QUESTION[end.most] * sum(map(len, batches))
    if not end.most:
        left = min(left, settings.least)
    for _ in range(MOST_PASSES):
        chunks = [min(NAMES_PER_CALL, left - at) for at in range(0, left, NAMES_PER_CALL)]
        names = [str(number).rjust(NAME_CHARS[end.most], "n") for number in range(max(chunks))]

        def merge(i: int, chunks: Sequence[int] = chunks, names: Sequence[str] = names) -> Question:
            return merge_question(asker, names[: chunks[i]], settings.least, settings.most)

        made = made.plus(end.step(len(chunks), merge, groups=len(chunks)))
        if len(chunks) == 1:
            break
        left = sum(min(settings.most, chunk) for chunk in chunks)
    return made


def label_work(end: End) -> Work:
    """Every example once, and every new question blind."""
    made = _blind_labels(end)
    if end.config.teacher.labels == "data" or end.known.labelled:
        return made
    batches = end.teacher.label_batches(sorted(end.examples, key=lambda e: e.id))
    return made.plus(
        end.step(len(batches), lambda i: end.teacher.label_question(batches[i], end.catalogue, Purpose("label")))
    )


def diagnose_work(end: End) -> Work:
    """The failed probe answers of each adapter that is examined; those of one adapter are diagnosed once.

    Round 1 examines the base as the baseline did, and a round after a rollback the adapter before it.
    """
    probe, answer = end.probe, ""
    if end.most:
        count = len(probe)
        answer = "x" * min(ANSWER_CHARS, BYTES_PER_TOKEN * end.config.student.max_new_tokens)
    else:  # a student with something to learn
        count = int((1 - end.config.plan.target_rate) * len(probe))
    twice = min(count, end.config.teacher.repeat_diagnoses)
    one = end.step(count + twice, lambda i: end.teacher.diagnose_question(probe[i % count], answer, end.catalogue, 1))
    return one.times(end.rounds if end.most else min(1, end.rounds))


class _Orders(NamedTuple):
    """The new questions of one wave of a round."""

    waves: int
    """Of all rounds."""
    orders: int
    """A skill at a difficulty each."""
    calls: int
    drafts: int


def _orders(end: End) -> _Orders:
    rows = end.config.plan.written_rows if end.pool else 0
    if not rows:
        return _Orders(0, 0, 0, 0)
    orders = min(rows, LEVELS * len(end.catalogue.skills)) if end.most else 1
    # At most Σ ⌈rows of an order / questions of a request⌉ over the orders.
    calls = (rows + (QUESTIONS_PER_CALL - 1) * orders) // QUESTIONS_PER_CALL
    return _Orders(end.rounds * (WAVES if end.most else 1), orders, calls, QUESTIONS_PER_CALL * calls)


def _order(end: End, place: int) -> WriteOrder:
    skills = end.catalogue.skills
    skill, rows = skills[place % len(skills)], end.config.plan.written_rows
    return WriteOrder(1, skill, 3, rows, 0, frozenset(), end.pool, SeenQuestions(), frozenset())


def _draft(end: End, order: WriteOrder) -> Example:
    """A new question: as long as a short one of the pool, or twice as long as a long one (by its quartiles)."""
    ordered = sorted(end.pool, key=lambda e: len(e.question))
    seed = ordered[(len(ordered) - 1) * (3 if end.most else 1) // 4]
    text = f"{seed.question} {seed.question}" if end.most else seed.question
    return draft_example(text, seed, order, "")


def _blind_labels(end: End) -> Work:
    made, size = _orders(end), end.config.teacher.rows_per_call
    if not made.drafts:
        return Work()
    order = _order(end, 0)
    draft = _draft(end, order)
    calls = min(made.drafts, (made.drafts + (size - 1) * made.orders) // size)

    @cache
    def asked(rows: int) -> Question:
        return end.teacher.label_question([draft] * rows, end.catalogue, Purpose("label", 1, order.skill.id))

    rest = made.drafts - size * (calls - 1)
    last = size if end.most else min(size, rest)
    return end.step(calls, lambda i: asked(last if i == calls - 1 else size), made.orders).times(made.waves)


def write_work(end: End) -> Work:
    """New questions, order by order; at the dear end none of them is ever kept."""
    made, pool = _orders(end), end.pool

    def question(i: int) -> Question:
        seeds = [pool[(SEEDS * i + place) % len(pool)] for place in range(min(SEEDS, len(pool)))]
        return end.teacher.writer.write_question(_order(end, i), seeds, 0)

    return end.step(made.calls, question, made.orders).times(made.waves)


def solve_work(end: End) -> Work:
    """Independent solutions of every new question."""
    made = _orders(end)
    if not made.drafts:
        return Work()
    order = _order(end, 0)
    asked = end.teacher.writer.solve_question(order, _draft(end, order), 0)
    return end.step(SOLUTIONS * made.drafts, lambda _: asked, made.orders).times(made.waves)


WORK: dict[Role, Callable[[End], Work]] = {
    "skills": skills_work,
    "label": label_work,
    "diagnose": diagnose_work,
    "write": write_work,
    "solve": solve_work,
}
"""What each role is asked; a role that is new to a run gets a function here."""
