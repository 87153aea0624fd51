"""The ledger of a run's teacher calls: what was bought, what was spent, what may still be spent.

An intent is written before a request is sent, its reply before it is used: a reply is never bought twice, and
an intent whose end nobody saw counts as spent. Reservations keep parallel requests below the limits together.
"""

import time
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from curriculum.errors import BudgetReached, RunDirError
from curriculum.records import content_id
from curriculum.rundir import append_journal, open_journal, read_journal
from curriculum.teacher_config import Budget, Endpoint, Prices, Role
from curriculum.teacher_records import CallEvent, FailureKind, FaultCount, Reply, SpendRow

LEDGER = Path("teacher", "calls.jsonl")
"""In a run's folder: not canonical, it says what was spent."""
NANO = 10**9
TOKENS_PER_TURN = 32
"""More than a chat template puts around a turn."""


class Amount(NamedTuple):
    """Requests, tokens, and money in 1e-9 of the currency: integers, so that sums are exact."""

    requests: int = 0
    tokens: int = 0
    nano: int = 0

    def plus(self, other: "Amount") -> "Amount":
        """The sum."""
        return Amount(self.requests + other.requests, self.tokens + other.tokens, self.nano + other.nano)

    def minus(self, other: "Amount") -> "Amount":
        """The difference."""
        return Amount(self.requests - other.requests, self.tokens - other.tokens, self.nano - other.nano)


class Purpose(NamedTuple):
    """What a call is made for: how its cost is told."""

    role: Role
    round: int | None = None
    skill: str = ""


def call_key(endpoint: Endpoint, body: Mapping[str, Any], purpose: str, sample: int) -> str:
    """The identity of a call: everything that determines its reply, and which of several samples it is."""
    return content_id([endpoint.base_url, body, endpoint.role, purpose, sample], 64)


def cost_nano(prices: Prices | None, prompt: int, cached: int, completion: int) -> int:
    """Money for tokens, rounded up; `cached` of the prompt tokens at their own price. 0 without prices."""
    if prices is None:
        return 0
    each = [Fraction(str(p)) for p in (prices.input, prices.input, prices.output)]
    if prices.cached_input is not None:
        each[1] = Fraction(str(prices.cached_input))
    cached = min(cached, prompt)
    per_million = (prompt - cached) * each[0] + cached * each[1] + completion * each[2]
    return ceil(per_million * NANO / 1_000_000)


def upper_bound(endpoint: Endpoint, body: Mapping[str, Any]) -> Amount:
    """The most that a request can cost: a byte of text is at least one token's, and the reply has its limit."""
    texts = [turn["content"] for turn in body["messages"]] + [str(body.get("response_format", ""))]
    prompt = sum(len(text.encode("utf-8", "surrogatepass")) + TOKENS_PER_TURN for text in texts)
    prices = endpoint.prices
    if prices is not None and prices.cached_input is not None and prices.cached_input > prices.input:
        prices = prices.model_copy(update={"input": prices.cached_input})
    return Amount(1, prompt + endpoint.max_tokens, cost_nano(prices, prompt, 0, endpoint.max_tokens))


class Ledger:
    """The calls of a run, on disk as JSON lines, and the budget they count against."""

    def __init__(self, path: Path, budget: Budget, read_only: bool = False) -> None:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._replies: dict[str, Reply] = {}
        self._open: dict[int, CallEvent] = {}
        self._mine: set[int] = set()
        self._rows: dict[Purpose, Counter[str]] = {}
        self._faults: dict[tuple[str, FailureKind], Role] = {}
        self._number = 0
        money = None if budget.money is None else int(Fraction(str(budget.money)) * NANO)
        self._limits = {"requests": budget.requests, "tokens": budget.tokens, "nano": money}
        self.spent = Amount()
        """What is settled, and every intent that is not."""
        for event in (read_journal if read_only else open_journal)(path, CallEvent):
            self._take_in(event)

    def find(self, key: str) -> Reply | None:
        """The committed reply of a call."""
        return self._replies.get(key)

    @property
    def limits(self) -> tuple[int | None, int | None, int | None]:
        """The most requests, tokens, and money in 1e-9 of the currency; none where there is no limit."""
        return self._limits["requests"], self._limits["tokens"], self._limits["nano"]

    @property
    def in_flight(self) -> bool:
        """Whether requests of this process are unsettled: what they reserved may be given back."""
        return bool(self._mine)

    def fits(self, need: Amount) -> bool:
        """Whether a request that costs so much keeps all limits."""
        after = self.spent.plus(need)._asdict()
        return all(limit is None or after[name] <= limit for name, limit in self._limits.items())

    def over(self, need: Amount) -> BudgetReached:
        """What to raise when a request does not fit: the limits it would break."""
        after = self.spent.plus(need)._asdict()
        names = [name for name, limit in self._limits.items() if limit is not None and after[name] > limit]
        said = {
            "requests": f"teacher.budget.requests is {self._limits['requests']}, {self.spent.requests} were sent",
            "tokens": f"teacher.budget.tokens is {self._limits['tokens']}, {self.spent.tokens} are spent and the next "
            f"request may take {need.tokens}",
            "nano": f"teacher.budget.money is {(self._limits['nano'] or 0) / NANO:g}, {self.spent.nano / NANO:.6g} is "
            f"spent and the next request may take {need.nano / NANO:.6g}",
        }
        return BudgetReached(
            "; ".join(said[name] for name in names), tuple("money" if name == "nano" else name for name in names)
        )

    def intend(self, key: str, purpose: Purpose, need: Amount) -> int:
        """Writes an intent and reserves its cost; returns the request's number.

        Raises:
            BudgetReached: it does not fit. Nothing is written.
        """
        if not self.fits(need):
            raise self.over(need)
        event = CallEvent(
            event="intent",
            key=key,
            number=self._number,
            **purpose._asdict(),
            tokens=need.tokens,
            money_nano=need.nano,
        )
        self._append(event)
        self._mine.add(event.number)
        return event.number

    def commit(self, number: int, reply: Reply, prices: Prices | None) -> None:
        """Writes the reply of a request and charges its usage; where the server did not say, the reservation."""
        intent = self._open[number]
        tokens, nano = intent.tokens, intent.money_nano
        if reply.prompt_tokens is not None and reply.completion_tokens is not None:
            tokens = reply.prompt_tokens + reply.completion_tokens
            nano = cost_nano(prices, reply.prompt_tokens, reply.cached_tokens, reply.completion_tokens)
        self._append(intent.model_copy(update={"event": "reply", "tokens": tokens, "money_nano": nano, "reply": reply}))

    def fail(self, number: int, reason: str, billed: bool) -> None:
        """Writes that a request ended in an error. What may have been billed is charged as reserved."""
        intent = self._open[number]
        charge = {} if billed else {"tokens": 0, "money_nano": 0}
        self._append(intent.model_copy(update={"event": "error", "reason": reason[:300], **charge}))

    def abandon(self, number: int) -> None:
        """A request whose end nobody will see: its intent stays, and counts as spent."""
        self._mine.discard(number)

    def note_fault(self, key: str, role: Role, kind: FailureKind) -> None:
        """Counts a faulty reply; once a kind for each call, however often it is read."""
        if (key, kind) not in self._faults:
            self._append(CallEvent(event="fault", key=key, number=0, role=role, reason=kind))

    def spend(self) -> tuple[SpendRow, ...]:
        """What was spent, by role, round and skill."""
        orphans: dict[Purpose, Counter[str]] = {}
        for event in self._open.values():
            row = orphans.setdefault(Purpose(event.role, event.round, event.skill), Counter())
            row.update(orphans=1, charged_tokens=event.tokens, money=event.money_nano)
        rows = []
        for purpose in sorted(self._rows, key=lambda p: (-1 if p.round is None else p.round, p.role, p.skill)):
            counts = self._rows[purpose] + orphans.get(purpose, Counter())
            rows.append(SpendRow(**purpose._asdict(), **{**counts, "money": counts["money"] / NANO}))
        return tuple(rows)

    def faults(self) -> tuple[FaultCount, ...]:
        """How many replies were faulty, by role and kind."""
        counts = Counter((role, kind) for (_, kind), role in self._faults.items())
        return tuple(FaultCount(role=role, kind=kind, replies=n) for (role, kind), n in sorted(counts.items()))

    def _append(self, event: CallEvent) -> None:
        event = event.model_copy(update={"at": round(time.time(), 3)})
        append_journal(self._path, event)
        self._take_in(event)

    def _take_in(self, event: CallEvent) -> None:
        """One line's effect on what is known; the same for a line just written and one read from disk."""
        if event.event == "fault":
            self._faults[event.key, event.reason] = event.role  # type: ignore[index]
            return
        row = self._rows.setdefault(Purpose(event.role, event.round, event.skill), Counter())
        if event.event == "intent":
            self._open[event.number] = event
            self._number = max(self._number, event.number + 1)
            self.spent = self.spent.plus(Amount(1, event.tokens, event.money_nano))
            row["requests"] += 1
            return
        intent = self._open.pop(event.number, None)
        if intent is None:
            raise RunDirError(
                f"{self._path}: request {event.number} ends without having begun. Put the file back as it was"
            )
        self._mine.discard(event.number)
        self.spent = self.spent.minus(Amount(0, intent.tokens, intent.money_nano))
        self.spent = self.spent.plus(Amount(0, event.tokens, event.money_nano))
        row.update(charged_tokens=event.tokens, money=event.money_nano)
        if event.reply is None:
            row["errors"] += 1
            return
        self._replies[event.key] = event.reply
        row["replies"] += 1
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"):
            row[name] += getattr(event.reply, name) or 0
