"""How much an LLM teacher will be asked, at the cheap and at the dear end, and how large that is: nothing is sent.

At the cheap end all goes well; at the dear end all goes as badly as it can while every request gets a reply. Sizes are
those of the real prompts.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from math import ceil
from typing import NamedTuple

from agents.asking import REPAIR_CHARS, Question
from agents.ledger import upper_bound
from agents.llm_teacher import LLMTeacher
from agents.wire import request_body
from curriculum.config import Config
from curriculum.records import Example, Message, Skill, SkillCatalogue
from curriculum.teacher_config import Endpoint

SKILL_CHARS = (20, 160)
"""Of a skill's description in a catalogue that is not there yet, as assumed."""
FAULT_CHARS = 300
"""Of what a repair turn says is wrong, as assumed."""
BYTES_PER_TOKEN = 6
"""Of a faulty reply and of a student's answer, at most, as assumed."""
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
        """That train."""

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

    @property
    def answer(self) -> str:
        """A student's answer: nothing, or as many tokens as it may have."""
        return "x" * (BYTES_PER_TOKEN * self.config.student.max_new_tokens if self.most else 0)

    def step(self, count: int, question: Callable[[int], Question], groups: int = 1) -> Work:
        """`count` requests that may be under way together, in so many groups that wait for one another.

        At the dear end each is followed by its repair turn.
        """
        if count <= 0:
            return Work()
        shown = min(count, MOST_RENDERED)
        asked = [question(i * count // shown) for i in range(shown)]
        concurrency = self._endpoint(asked[0]).concurrency
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

    def _endpoint(self, question: Question) -> Endpoint:
        return question.endpoint or self.config.teacher.endpoint(question.purpose.role)

    def _size(self, question: Question, repair: bool) -> tuple[int, int, int]:
        asker, endpoint = self.teacher.asker, self._endpoint(question)
        turns: tuple[Message, ...] = (Message(role="user", content=question.text),)
        if repair:
            chars = min(REPAIR_CHARS, BYTES_PER_TOKEN * endpoint.max_tokens)
            turns = asker.repair(turns, "x" * chars, "x" * FAULT_CHARS)
        body = request_body(endpoint, asker.call(question, turns), self.config.seed)
        text = sum(len(turn["content"].encode("utf-8", "surrogatepass")) for turn in body["messages"])
        return text, upper_bound(endpoint, body).tokens - endpoint.max_tokens, len(question.wanted)
