"""How a report words failed items, served weights, and how to make a run again.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

import json

from curriculum.report_items import FailedAnswer, FailedItem, FailedItems, Outcome
from curriculum.report_origin import AdapterReport, Ancestor, Reproduction, ServedWeights

OUTCOMES: dict[Outcome, str] = {
    "open": "never right",
    "lost": "right, then lost",
    "fixed": "fixed",
    "asked once": "asked once",
}


def failed_words(failed: FailedItems) -> str:
    """How many probe items were failed, what became of them, and how many of them are shown."""
    if not failed.items:
        return "No probe item was failed."
    shown = len(failed.shown)
    what = (
        "all of them are shown" if shown == failed.items else f"{shown} of them are shown, in turns one of each skill"
    )
    return (
        f"{failed.items} probe items were failed in some round; {what}. Fixed: the last adapter that was asked is "
        "right; a last round's candidate is asked only when another round follows. All are in answers/ and "
        "round_NN/diagnose/."
    )


def fate_words(item: FailedItem) -> str:
    """What became of an item, adapter by adapter: `base wrong, r01 correct: fixed`."""
    return f"{', '.join(f'{a.adapter} {verdict_words(a)}' for a in item.answers)}: {OUTCOMES[item.outcome]}"


def verdict_words(answer: FailedAnswer) -> str:
    """The verdict on an answer."""
    return "five answers, all different" if answer.verdict is None else answer.verdict.value


def adapter_words(adapter: AdapterReport) -> str:
    """What became of an adapter: `rolled back`."""
    return adapter.became.replace("_", " ")


def served_words(served: ServedWeights) -> str:
    """Which weights a server answered with, and what the canary said."""
    words = f"Served by {served.engine} in {served.dtype}, {served.how} weights."
    if served.canary is not None:
        apart = ", ".join(f"{value:.2g} from {name}" for name, value in served.canary.others.items())
        words += (
            f" Canary: {served.canary.verdict}; its log-probabilities of {served.canary.tokens} tokens are "
            f"{served.canary.served:.1g} nats a token from the trainer's own, which are {apart or 'none'}."
        )
    return words


def reproduction_words(made: Reproduction) -> str:
    """What else has to be the same."""
    words = (
        "On the same kind of CPU, with as many threads and the same versions of the libraries, an offline teacher's "
        "run gives the same bytes; elsewhere roundings differ, and a live teacher writes other rows."
    )
    if made.uncommitted_changes:
        words += " The code had changes that were not committed: the commit alone may give another result."
    return words


def ancestor_words(ancestor: Ancestor) -> str:
    """What a fork shares and what it changed."""
    changes = ", ".join(f"{key} {json.dumps(was)} → {json.dumps(now)}" for key, (was, now) in ancestor.changed.items())
    return f"Forked from {ancestor.run} after round {ancestor.round}; from then on: {changes or 'nothing changed'}."
