r"""Finding the answer in what a student wrote. Nothing here ever sees the gold answer.

*Strict* is the taught format: the last line is exactly `Answer: X`. *Lenient* tries, in one fixed order,
the strict line, the last `\boxed{}`, `#### x`, `Answer: x`, `the answer is x`, `= x` at the end, and then
whatever the kind of answer allows. Only the last few thousand characters are looked at, in linear time.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Literal

from curriculum.numerals import find_number
from curriculum.records import Example

ANSWER_MARK = "Answer:"
MAX_TAIL = 4000
"""Characters from the end of a text that are looked at."""

AnswerKind = Literal["number", "expression", "letter", "text", "open"]

_WRAPPING = " \t\r\n\"'“”‘’`*_"
_ANSWER_COLON = re.compile(r"(?i)\banswer(?: is)? ?\*{0,2} ?: ?\*{0,2}")
_ANSWER_IS = re.compile(r"(?i)\banswer ?\*{0,2} (?:is|would be|=)(?!\w) ?:?")
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|\n")
_EQUALS = re.compile(r"(?<![<>!=])=(?!=)")
_MATH = re.compile(r"\$([^$]+)\$|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]")
_MATH_AT_END = re.compile(r"\$([^$\n]+)\$[ .*]*\Z")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm)\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?<![\w'])(?:[(\[]([A-Ja-j])[)\]]|([A-Ja-j])\)|(?:[Oo]ption|[Cc]hoice) ([A-Ja-j])(?![\w'])"
    # A lone `A` or `I` before a lower-case word is an English word, not an option.
    r"|([B-HJ])(?![\w'])|([AI])(?![\w']| [a-z]))"
)


def format_target(gold: str, solution: str | None) -> str:
    """What the student is taught to write: the worked solution, if any, then the answer line."""
    line = f"{ANSWER_MARK} {gold}"
    return f"{solution}\n{line}" if solution else line


def has_solution(target: str) -> bool:
    """Whether a taught text is a worked solution with its answer line, and not the answer line alone."""
    return f"\n{ANSWER_MARK} " in target


def taught_texts(example: Example) -> list[str]:
    """What a student is taught to write for an example, one text for each worked solution, in turn."""
    return [format_target(example.gold, solution) for solution in example.solutions or (None,)]


def taught_text(example: Example) -> str:
    """The first of its `taught_texts`: with the first worked solution, if any."""
    return taught_texts(example)[0]


def answer_kind(example: Example) -> AnswerKind:
    """What an example's answers look like; generated examples declare it as `metadata["answer_kind"]`."""
    kinds: dict[str, AnswerKind] = {
        "numeric": "number",
        "math": "expression",
        "choice": "letter",
        "exact": "text",
        "regex": "text",
        "python": "text",
        "judge": "open",
        "reasoning_gym": "number" if example.metadata.get("answer_kind") == "number" else "text",
    }
    return kinds[example.grader]


def extract_strict(text: str) -> str | None:
    """The X of a last line that is exactly `Answer: X`; only white space may follow it."""
    line = text.rstrip().rpartition("\n")[2]
    answer = line.removeprefix(f"{ANSWER_MARK} ")
    return answer.strip() or None if len(answer) < len(line) <= MAX_TAIL else None


def extract_open(text: str) -> str | None:
    """An open answer: all that follows the last line's beginning that is `Answer:`, over as many lines as it takes."""
    _, mark, answer = f"\n{text}".rpartition(f"\n{ANSWER_MARK} ")
    return answer.strip() or None if mark else None


def extract_lenient(text: str, kind: AnswerKind) -> str | None:
    """The answer of a finished text: a marked one if there is any, else the last that looks like one."""
    found = _marked(text, kind)
    return found if found is not None else _unmarked(_tail(text), kind)


def extract_cut(text: str, kind: AnswerKind) -> str | None:
    """The marked answer of a text that was cut at the token limit.

    What was cut may be the answer itself, so only whole lines count, and for numbers and letters whole
    sentences. An unmarked number is a step on the way, never the answer.
    """
    if kind in ("number", "letter"):
        ends = [m.end() for m in _SENTENCE_END.finditer(text, max(0, len(text) - MAX_TAIL)) if m.end() < len(text)]
        return _marked(text[: ends[-1]], kind) if ends else None
    return _marked(text[: text.rfind("\n") + 1], kind)


def searched_text(text: str, *, cut: bool) -> str:
    """The part of a text that the user's pattern is searched in; of a cut text whole lines only."""
    return text[: text.rfind("\n") + 1][-MAX_TAIL:] if cut else text[-MAX_TAIL:]


def _tail(text: str) -> str:
    return re.sub(r"[ \t\r]+", " ", text[-MAX_TAIL:])


def _marked(text: str, kind: AnswerKind) -> str | None:
    for span in _marks(text):
        found = _read(span, kind)
        if found is not None:
            return found
    return None


def _marks(text: str) -> Iterator[str]:
    """The spans that a mark says hold the answer, the surest mark first, the last of each mark."""
    strict = extract_strict(text)
    if strict:
        yield strict
    tail = _tail(text)
    boxed = _boxed(tail)
    if boxed:
        yield boxed
    _, hashes, line = tail.rpartition("####")
    if hashes:
        yield line.partition("\n")[0]
    # The answer may stand on the line below its mark.
    yield _after_last(_ANSWER_COLON, tail).lstrip().partition("\n")[0]
    yield _SENTENCE_END.split(_after_last(_ANSWER_IS, tail), maxsplit=1)[0]


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def _after_last(pattern: re.Pattern[str], text: str) -> str:
    """What follows the last match; nothing when there is none."""
    found = _last(pattern, text)
    return text[found.end() :] if found else ""


def _boxed(text: str) -> str | None:
    r"""What the last `\boxed{…}` holds; `None` when it is never closed."""
    _, mark, after = text.rpartition("\\boxed{")
    depth = 1 if mark else 0
    for index, character in enumerate(after):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return after[:index] if mark else None
    return None


def _read(span: str, kind: AnswerKind) -> str | None:
    """The answer in a marked span."""
    if kind == "number":
        return find_number(_after_last(_EQUALS, span) or span, last=False)
    if kind == "letter":
        return _letter(span)
    if kind == "expression":
        math = _MATH.search(span)
        span = next(filter(None, math.groups())) if math else span
    else:
        span = _LATEX_TEXT.sub(r"\1", span)
    return _clean(span) or None


def _unmarked(tail: str, kind: AnswerKind) -> str | None:
    """The answer of a finished text without a mark."""
    line = tail.rstrip().rpartition("\n")[2]
    if kind == "letter":
        return _letter(line) or _letter(tail)
    after = _after_last(_EQUALS, line)
    found = _read(after, kind) if after else None
    if found is not None:
        return found
    if kind == "text":
        return None if _ANSWER_COLON.search(line) else _read(line, kind)
    math = _MATH_AT_END.search(tail) if kind == "expression" else None
    return _clean(math[1]) if math else find_number(tail, last=True)


def _letter(span: str) -> str | None:
    """The last stand-alone option letter, in upper case."""
    alone = _clean(span)
    if len(alone) == 1 and alone.upper() in "ABCDEFGHIJ":
        return alone.upper()
    found = _last(_LETTER, span)
    return next(filter(None, found.groups())).upper() if found else None


def _clean(span: str) -> str:
    """Without the quotes, markdown and full stop around it."""
    return span.strip(_WRAPPING).removesuffix(".").rstrip(_WRAPPING)
