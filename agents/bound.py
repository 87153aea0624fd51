"""The most that a step's requests can cost, counted before any is sent, and kept as a limit while they are.

A dry client takes the place of the real one: what is in the ledger is answered from it, everything else is counted and
left unanswered.
"""

from collections.abc import Mapping
from typing import Any

from agents.asking import REPAIR_CHARS
from agents.chat import ChatClient, NoReply
from agents.ledger import NANO, Amount, Ledger, call_key, upper_bound
from agents.wire import Call, request_body
from curriculum.teacher_config import Budget, Endpoint, TeacherConfig
from curriculum.teacher_records import Reply

FAULT_BYTES = 4000
"""Of what a repair turn says is wrong."""


class DryClient(ChatClient):
    """Asks nobody. With `repairs` every request is counted together with the repair turn it may need."""

    def __init__(self, ledger: Ledger, config: TeacherConfig, seed: int, repairs: bool) -> None:
        super().__init__(ledger, config, seed, lambda: None)
        self._repairs = repairs
        self._counted: set[str] = set()
        self.known = 0
        """Requests whose replies are there."""
        self.bound = Amount()
        """Of all others."""

    async def ask(self, endpoint: Endpoint, call: Call) -> tuple[str, Reply]:
        """The reply that is there; raises `NoReply` where none is, and counts what it would cost at most."""
        body = request_body(endpoint, call, self._seed)
        key = call_key(endpoint, body, call.what, call.sample)
        reply = self.ledger.find(key)
        if reply is not None:
            self.known += key not in self._counted
            self._counted.add(key)
            return key, reply
        if key not in self._counted:
            self._counted.add(key)
            self.count(endpoint, body, self._repairs and call.what != "repair")
        raise NoReply("no_reply", "nobody was asked")

    def count(self, endpoint: Endpoint, body: Mapping[str, Any], repair: bool) -> None:
        """Adds a request to the bound, and its repair turn where it may need one."""
        self.bound = self.bound.plus(upper_bound(endpoint, body))
        if repair:
            turns = ({"content": "x" * 4 * REPAIR_CHARS}, {"content": "x" * FAULT_BYTES})
            self.bound = self.bound.plus(upper_bound(endpoint, {**body, "messages": [*body["messages"], *turns]}))


def capped(budget: Budget, ledger: Ledger, bound: Amount) -> Budget:
    """The budget with no more tokens and money than are spent and announced: nothing beyond that can be bought."""
    tokens, nano = ledger.spent.tokens + bound.tokens, ledger.spent.nano + bound.nano
    money = (nano + 1) / NANO  # a float may be below what it was made from
    return budget.model_copy(
        update={
            "tokens": tokens if budget.tokens is None else min(tokens, budget.tokens),
            "money": money if budget.money is None else min(money, budget.money),
        }
    )


def bound_words(bound: Amount, known: int, priced: bool) -> str:
    """What a person is told before anything is sent."""
    if bound.requests == 0:
        return f"nothing is sent: all {known} replies are there already"
    money = f" and {bound.nano / NANO:.4f} in the currency of `prices`" if priced else "; no `prices`, no money counted"
    kept = f"; {known} replies are there already" if known else ""
    return f"at most {bound.requests} requests (and repeats of failed ones), {bound.tokens:,} tokens{money}{kept}"
