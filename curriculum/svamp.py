"""What SVAMP leaves unsaid: the steps behind an equation, the joined text, and which rows vary one problem.

Pure functions on its texts; nothing here reads a file, and an equation is parsed, never evaluated as code.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from curriculum.duplicates import normalise
from curriculum.records import Example

SAME_PROBLEM = 0.5
"""Share of words in common from which two SVAMP rows count as variations of one problem."""

_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?|\S")
_QUESTION_WORD = re.compile(r"(?:How|What|Which|Who|When|Where|Total)\b")


def join(body: str, question: str) -> str:
    """Body and question as one text; many bodies end within the sentence (`If he had $ 4 at the start`)."""
    if body[-1] in ".?!":
        return f"{body} {question}"
    if _QUESTION_WORD.match(question):
        question = question[0].lower() + question[1:]
    return f"{body.rstrip(',')}, {question}"


def work_out(equation: str) -> tuple[Fraction, list[str]]:
    """The value of an equation such as `( ( 4.0 + 13.0 ) * 15.0 )`, and its steps, one operation each.

    Raises:
        ValueError: it is no bracketed equation of numbers, or it divides by zero.
    """
    stack: list[str | Fraction] = []
    steps: list[str] = []
    for token in ["(", *_TOKEN.findall(equation), ")"]:
        if token != ")":
            stack.append(Fraction(token) if token[0].isdigit() else token)
            continue
        match stack:
            case [*_, "(", Fraction() as left, "+" | "-" | "*" | "/" as sign, Fraction() as right]:
                value = _apply(left, str(sign), right)
                steps.append(f"{plain(left)} {sign} {plain(right)} = {plain(value)}")
                stack[-4:] = [value]
            case [*_, "(", Fraction() as value]:
                stack[-2:] = [value]
    match stack:
        case [Fraction() as value]:
            return value, steps
    raise ValueError(f"`Equation` is not understood: {equation[:80]}")


def _apply(left: Fraction, sign: str, right: Fraction) -> Fraction:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    if right == 0:
        raise ValueError("`Equation` divides by zero")
    return left / right


def plain(value: Fraction) -> str:
    """A number as people write it: `51`, `2.5`, and `(7/3)` where the decimals do not end."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    return f"{decimal.normalize():f}" if Fraction(decimal) == value else f"({value})"


def group_variations(examples: Sequence[Example]) -> list[Example]:
    """Puts the variations of one problem into one group.

    SVAMP varies about 100 seed problems and does not say which row comes from which. Rows that share half
    of their words (Jaccard, numbers aside), directly or through others, count as one problem.
    """
    words = [frozenset(w for w in normalise(e.question).split() if len(w) > 3 and w.isalpha()) for e in examples]
    problem: list[int] = []
    for row, own in enumerate(words):
        shared = (len(own & other) for other in words[:row])
        near = {
            problem[place]
            for place, n in enumerate(shared)
            if 0 < n >= SAME_PROBLEM * (len(own) + len(words[place]) - n)
        }
        problem = [row if p in near else p for p in problem] + [row]
    names: dict[int, str] = {}
    for p, example in zip(problem, examples, strict=True):
        names[p] = min(names.get(p, example.id), example.id)
    return [e.model_copy(update={"group": names[p]}) for p, e in zip(problem, examples, strict=True)]
