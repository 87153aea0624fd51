"""Asking a role for checked rows: one request, one repair turn that carries the error, then a failure on the item."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from agents.chat import ChatClient, NoReply
from agents.ledger import Purpose
from agents.prompting import data_block, load_prompts
from agents.replies import ONLY, Checked, Fault, check_reply, json_schema
from agents.wire import Call
from curriculum.config import Config
from curriculum.errors import TutelageError, UserError
from curriculum.records import Message
from curriculum.teacher_config import Endpoint, Role
from curriculum.teacher_records import TeacherFailure
from student.interface import Progress

REPAIR_CHARS = 6000
"""Of the faulty reply that are shown in the repair turn."""
ITEMS_PER_SLOT = 3
"""Items under way for each request at once: some wait to repeat a request, some for their repair turn."""
LEAST_FAILURES = 5
"""A few failures among a few items stop nothing."""
T = TypeVar("T")


class Question(NamedTuple):
    """What is asked of a role, and how its reply is checked. Without a `batch` the reply is the one row `ONLY`."""

    purpose: Purpose
    prompt: str
    text: str
    model: type[Any]
    check: Callable[[Any], Any]
    batch: str = ""
    wanted: Sequence[str] = (ONLY,)
    enums: Mapping[str, Sequence[str]] | None = None
    sample: int = 0
    endpoint: Endpoint | None = None
    """In place of the role's own."""
    what: str = ""
    """Tells questions apart that would be the same request."""


class Asker:
    """Asks questions of the roles, many at once."""

    def __init__(self, config: Config, client: ChatClient, progress: Callable[[str, Progress], None]) -> None:
        self._config = config.teacher
        self._client = client
        self._progress = progress
        self.prompts = load_prompts()
        self._items: Counter[Role] = Counter()
        self._failed: dict[Role, list[TeacherFailure]] = {}

    async def ask(self, question: Question) -> Checked[Any]:
        """The good rows of the reply, after one repair turn if it needs one.

        Raises:
            TutelageError: what stops a run, see `ChatClient.ask`.
        """
        messages = (Message(role="user", content=question.text),)
        first = await self._reply(question, messages, "")
        if isinstance(first, Fault):
            return Checked({}, dict.fromkeys(question.wanted, first))
        checked, text = first
        mendable = {id_: fault for id_, fault in checked.faults.items() if fault.kind != "refusal"}
        if not mendable:
            return checked
        said = "\n".join(dict.fromkeys(f"{_at(id_)}{fault.reason}" for id_, fault in mendable.items()))
        second = await self._reply(question, self.repair(messages, text, said), "repair")
        if isinstance(second, Fault):
            return checked
        mended, _ = second
        rows = {**mended.rows, **checked.rows}  # what was good the first time stays
        faults = {id_: mended.faults.get(id_, f) for id_, f in checked.faults.items() if id_ not in rows}
        return Checked(rows, faults, checked.tokens + mended.tokens)

    def call(self, question: Question, messages: Sequence[Message], what: str = "") -> Call:
        """The request that a question, or its `repair`, makes."""
        schema = json_schema(question.model, question.batch, question.enums)
        hash_ = self.prompts[question.prompt].hash
        what = f"{question.what} {what}".strip()
        return Call(question.purpose, messages, question.prompt, schema, hash_, what, question.sample)

    def repair(self, messages: Sequence[Message], text: str, said: str) -> tuple[Message, ...]:
        """The turns that ask again, after a reply of this text and with what is wrong with it."""
        return (
            *messages,
            Message(role="assistant", content=text[:REPAIR_CHARS] or "(empty)"),
            Message(role="user", content=self.prompts["repair"].render(fault=data_block("fault", said))),
        )

    async def _reply(
        self, question: Question, messages: Sequence[Message], what: str
    ) -> Fault | tuple[Checked[Any], str]:
        endpoint = question.endpoint or self._config.endpoint(question.purpose.role)
        try:
            key, reply = await self._client.ask(endpoint, self.call(question, messages, what))
        except NoReply as no:
            return Fault(no.kind, no.reason)
        checked = check_reply(reply, question.model, question.batch, question.wanted, question.check)
        for fault in checked.faults.values():
            self._client.ledger.note_fault(key, question.purpose.role, fault.kind)
        tokens = (reply.prompt_tokens or 0) + (reply.completion_tokens or 0)
        return checked._replace(tokens=tokens), reply.text

    async def together(
        self,
        what: str,
        role: Role,
        asked: Sequence[Coroutine[Any, Any, T]],
        items: int,
        failures: Callable[[T], Sequence[TeacherFailure]],
    ) -> list[T]:
        """All results, in order; shows how many are there under `what`, and stops the run when too many items fail.

        What stops the run lets the requests that are under way finish first: their replies are paid for.

        Raises:
            UserError: more than `max_failed_share` of the role's items so far failed; with counts and reasons.
            TutelageError: what stops a run, see `ChatClient.ask`.
        """
        done = 0
        self._items[role] += items
        bad = self._failed.setdefault(role, [])

        # Not all at once: repairs come before new items, so that a teacher that fails is found out early.
        under_way = asyncio.Semaphore(ITEMS_PER_SLOT * self._config.endpoint(role).concurrency)

        async def each(one: Coroutine[Any, Any, T]) -> T:
            nonlocal done
            async with under_way:
                result = await one
            bad.extend(failures(result))
            if len(bad) >= LEAST_FAILURES and len(bad) > self._config.max_failed_share * self._items[role]:
                raise self._client.halt(self._too_many(role, bad))
            done += 1
            if what:
                self._progress(what, Progress(done, len(asked), ""))
            return result

        results = await asyncio.gather(*(each(one) for one in asked), return_exceptions=True)
        broken = [r for r in results if isinstance(r, BaseException)]
        if broken:
            raise next((e for e in broken if not isinstance(e, TutelageError)), broken[0])
        return [r for r in results if not isinstance(r, BaseException)]

    def _too_many(self, role: Role, failures: Sequence[TeacherFailure]) -> UserError:
        kinds = Counter(f.kind for f in failures).most_common(3)
        return UserError(
            f"role {role}: {len(failures)} of {self._items[role]} items got no usable reply, at most "
            f"{self._config.max_failed_share:.0%} may: "
            + ", ".join(f"{n} {kind}" for kind, n in kinds)
            + f". The first: {failures[0].reason[:200]}. Replies are kept: take another model for this role in a new "
            "run, or allow more with: tutelage resume RUN --set teacher.max_failed_share=SHARE"
        )


def failed(item_id: str, role: Role, fault: Fault) -> TeacherFailure:
    """The record of an item without a usable reply."""
    return TeacherFailure(item_id=item_id, role=role, kind=fault.kind, reason=fault.reason[:500])


def reply_failures(reply: Checked[Any], role: Role) -> list[TeacherFailure]:
    """The records of all items of a reply that got nothing usable."""
    return [failed(id_, role, fault) for id_, fault in reply.faults.items()]


def _at(id_: str) -> str:
    return "" if id_ == ONLY else f"{id_}: "
