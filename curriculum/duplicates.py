"""When two questions are the same one: exact and near duplicates, and the leak check of a training set.

Takes questions (examples or training rows) and says which repeats which. Used to drop duplicates before
the splits are made, and to stop a training set that touches a held-out split. Compares text only: no
embeddings, no paraphrases.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Set
from functools import cached_property
from typing import NamedTuple, Protocol

from curriculum.errors import LeakError
from curriculum.records import Message

GENERATED = "reasoning_gym:"
"""How the `source` of a generated question begins."""

LEAST_PART = 8
"""Word 3-grams that a question must have to be looked for inside others."""

_FILLERS = frozenset(
    ["a", "also", "an", "just", "kindly", "now", "please", "really", "simply", "so", "the", "then", "very"]
)
_NUMBER_WORDS = frozenset(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"])
_NUMBER_WORDS |= {"twenty", "thirty", "forty", "fifty", "sixty", "hundred", "thousand", "dozen"}
_NUMBER_WORDS |= {"half", "third", "quarter", "twice", "double", "triple"}
_SIGNS = frozenset("#+-*/%=<>^|&~()[]{}")
_SAME_SIGN = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "÷": "/", "⁄": "/"})
_HYPHEN = re.compile(r"(?<=\w)-(?=[^\W\d_]{2})|(?<=[^\W\d_]{2})-(?=\w)")
_TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)*|\d+(?:\.\d+)*|(?<!\w)\.\d+|[^\W\d_]+|\S")


class Asked(Protocol):
    """What is compared: an example or a training row."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def history(self) -> tuple[Message, ...]: ...  # noqa: D102
    @property
    def question(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102


def normalise(text: str) -> str:
    """The text as it is compared: NFKC, case folded, tokens joined by one space.

    Kept are words, numbers (without thousands separators), mathematical signs, brackets and symbols such
    as emoji, because a question that differs in one of them is another question. Punctuation, currency
    signs and hyphens inside words are dropped.
    """
    return " ".join(_tokens(text))


def _tokens(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_SAME_SIGN)
    tokens = _TOKEN.findall(_HYPHEN.sub(" ", folded))
    return [t.replace(",", "") if t[0].isdigit() else t for t in tokens if len(t) > 1 or _is_content(t)]


def _is_number(token: str) -> bool:
    return token[-1].isdigit() or token in _NUMBER_WORDS


def _is_content(char: str) -> bool:
    category = unicodedata.category(char)
    return char in _SIGNS or category[0] in "LMN" or category in ("Sm", "So")


class Match(NamedTuple):
    """What a question repeats, and how."""

    reason: str
    duplicate_of: str


class SeenQuestions:
    """The questions seen so far, indexed so that a copy is found without comparing all pairs.

    Two questions with the same history are

    - *exact duplicates* when their normalised texts are the same;
    - *near duplicates* when one is the other with one filler word (`the`, `please`, ...) put in;
    - *near duplicates* too when they hold the same numbers (digits or words), at least two, and share half of
      their word 3-grams (Jaccard); where the numbers come in another order, half of the 3-grams with a number, too:
      sentences may change places, numbers may not;
    - *near duplicates* too when one is part of the other: its numbers follow each other in the other, and
      so do 0.8 of its 3-grams, eight at least. A part has two numbers or more, a part that came later three.

    The last two rules are not asked of two generated questions. They share a template, which is most of their
    3-grams, and differ in what matters by one name. Questions with fewer than two numbers are compared by
    the first two rules only: a long shared instruction would make all of them look alike. How often the
    rules err is in `benchmarks/leak_checks.py`.
    """

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], str] = {}
        self._shortened: dict[tuple[str, str], str] = {}
        self._by_numbers: dict[tuple[str, tuple[str, ...]], list[_Words]] = defaultdict(list)
        self._beginning: dict[tuple[str, tuple[str, ...]], list[_Words]] = defaultdict(list)
        self._holding: dict[tuple[str, tuple[str, ...]], list[_Words]] = defaultdict(list)

    def find(self, item: Asked) -> Match | None:
        """The question seen before that this one repeats, or `None` when it is new."""
        return self._match(_Words(item))

    def add(self, item: Asked) -> Match | None:
        """Remembers a new question; a duplicate is not remembered, and what it repeats is returned."""
        words = _Words(item)
        match = self._match(words)
        if match is None:
            self._exact[words.history, words.text] = item.id
            for short in words.without_filler():
                self._shortened.setdefault((words.history, short), item.id)
            if len(words.numbers) >= 2:
                self._by_numbers[words.history, words.sorted_numbers].append(words)
                self._beginning[words.history, words.numbers[:3]].append(words)
                for run in words.runs(3):
                    self._holding[words.history, run].append(words)
        return match

    def _match(self, words: "_Words") -> Match | None:
        history = words.history
        if (history, words.text) in self._exact:
            return Match("exact duplicate", self._exact[history, words.text])
        near = self._shortened.get((history, words.text))
        near = near or next(
            (self._exact[history, s] for s in words.without_filler() if (history, s) in self._exact), None
        )
        near = near or self._overlapping(words) or self._contained(words)
        return Match("near duplicate", near) if near else None

    def _overlapping(self, words: "_Words") -> str | None:
        for other in self._by_numbers.get((words.history, words.sorted_numbers), ()):
            if not (other.generated and words.generated) and _alike(words.grams, other.grams):
                in_order = other.numbers == words.numbers
                if in_order or _alike(words.number_grams, other.number_grams):
                    return other.id
        return None

    def _contained(self, words: "_Words") -> str | None:
        runs = {run for length in (2, 3) for run in words.runs(length)}
        parts = (other for run in sorted(runs) for other in self._beginning.get((words.history, run), ()))
        wholes = self._holding.get((words.history, words.numbers[:3]), ())
        pairs = [(other, words, other) for other in parts] + [(words, other, other) for other in wholes]
        for part, whole, other in pairs:
            if not (part.generated and whole.generated) and part.is_part_of(whole):
                return other.id
        return None


def _alike(one: Set[str], other: Set[str]) -> bool:
    """Whether two sets share half of their members."""
    return 2 * len(one & other) >= len(one | other)


class _Words:
    """A question taken apart; most meet no other with the same numbers, and their 3-grams are never made."""

    def __init__(self, item: Asked) -> None:
        self.id = item.id
        self.tokens = _tokens(item.question)
        self.history = "\n".join(f"{turn.role}: {normalise(turn.content)}" for turn in item.history)
        self.text = " ".join(self.tokens)
        self.numbers = tuple(filter(_is_number, self.tokens))
        self.sorted_numbers = tuple(sorted(self.numbers))
        self.generated = item.source.startswith(GENERATED)

    @cached_property
    def grams(self) -> frozenset[str]:
        """Its word 3-grams."""
        return frozenset(" ".join(self.tokens[i : i + 3]) for i in range(max(1, len(self.tokens) - 2)))

    @cached_property
    def number_grams(self) -> frozenset[str]:
        """Those of them that hold a number."""
        return frozenset(gram for gram in self.grams if any(map(_is_number, gram.split(" "))))

    def runs(self, length: int) -> list[tuple[str, ...]]:
        """The runs of so many numbers that follow each other."""
        return [self.numbers[i : i + length] for i in range(len(self.numbers) - length + 1)]

    def is_part_of(self, whole: "_Words") -> bool:
        """Whether the other question holds this one."""
        return (
            len(self.tokens) < len(whole.tokens)
            and self.numbers in whole.runs(len(self.numbers))
            and len(self.grams) >= LEAST_PART
            and 5 * len(self.grams & whole.grams) >= 4 * len(self.grams)
        )

    def without_filler(self) -> list[str]:
        """The text with each of its filler words left out in turn."""
        places = [i for i, token in enumerate(self.tokens) if token in _FILLERS]
        return [" ".join([*self.tokens[:i], *self.tokens[i + 1 :]]) for i in places]


def leaks(candidates: Iterable[Asked], held_out: Iterable[Asked]) -> dict[str, str]:
    """The candidates that repeat a held-out question: id → reason. Sameness is that of the splits."""
    seen = SeenQuestions()
    for item in held_out:
        seen.add(item)
    found = {item.id: seen.find(item) for item in candidates}
    return {
        id_: f"{match.reason} of held-out {match.duplicate_of}" for id_, match in found.items() if match is not None
    }


def assert_no_leak(rows: Iterable[Asked], held_out: Iterable[Asked]) -> None:
    """Stops a training set that touches a held-out split.

    Raises:
        LeakError: with the number of such rows and the first five.
    """
    found = leaks(rows, held_out)
    if found:
        first = "; ".join(f"row {id_}: {reason}" for id_, reason in list(found.items())[:5])
        raise LeakError(f"expected a training set without held-out items, got {len(found)} row(s) of them: {first}")
