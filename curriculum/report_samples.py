"""What a report shows of much: texts cut to their beginning, a few of each kind before more of any."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

MAX_CHARACTERS = 600
"""Characters shown of a question, an answer or a reason."""

T = TypeVar("T")


def cut(text: str, most: int = MAX_CHARACTERS) -> str:
    """The beginning of a text, with an ellipsis where it was cut."""
    return text if len(text) <= most else text[:most] + " …"


def spread(things: Iterable[T], kind: Callable[[T], str], most: int) -> list[T]:
    """At most so many things, in turns one of each kind, the commonest kinds first; within a kind in their order."""
    by_kind: dict[str, list[T]] = defaultdict(list)
    for thing in things:
        by_kind[kind(thing)].append(thing)
    ranked = [
        (place, -len(of_kind), name, thing) for name, of_kind in by_kind.items() for place, thing in enumerate(of_kind)
    ]
    return [thing for *_, thing in sorted(ranked, key=lambda r: r[:3])[:most]]
