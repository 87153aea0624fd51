"""A comparison of two runs as Markdown and in the terminal; whatever came from data or runs is escaped."""

import json

from pydantic import JsonValue
from rich.console import Group, RenderableType

from curriculum import report_words as words
from curriculum.report_text import add_row, markdown_environment, narrow_table, safe_text
from curriculum.run_comparison import RunComparison, Side
from curriculum.teacher_words import money_words

ALPHA = 0.05
"""A difference is told where the exact test finds it and the 95 % interval is on one side of 0."""
MOST_CHARACTERS = 60
"""Shown of a config's value."""


def comparison_markdown(made: RunComparison) -> str:
    """The comparison as one Markdown document."""
    from curriculum import run_comparison_text as texts

    return markdown_environment().get_template("comparison.md.jinja").render(made=made, words=words, texts=texts)


def comparison_terminal(made: RunComparison) -> RenderableType:
    """What the terminal shows: the verdict, what to know before believing it, and the tables."""
    parts: list[RenderableType] = [
        safe_text(f"A: {side_words(made.a)}"),
        safe_text(f"B: {side_words(made.b)}"),
        safe_text(verdict(made), "bold"),
        *(safe_text(note, "dim") for note in made.notes),
    ]
    if made.items:
        heads = ["skill", "A, %", "B, %", "B − A, points", "p"]
        table = narrow_table(f"The same {made.items.common} items of the {made.items.split} split", heads)
        for s in made.items.skills:
            rates = [words.rate_short(s.before), words.rate_short(s.after)]
            add_row(table, [s.skill, *rates, words.change_short(s.change), words.p_words(s.p_value)])
        all_ = made.items
        rates = [words.rate_short(all_.a), words.rate_short(all_.b)]
        add_row(table, ["all", *rates, words.change_short(all_.change), words.p_words(all_.p_value)])
        parts.append(table)
    table = narrow_table("What differs between the runs", ["key", "A", "B", "kind"])
    for d in made.differences:
        add_row(table, [d.key, value_words(d.a), value_words(d.b), d.kind])
    for column in table.columns:
        column.no_wrap = False
    parts.append(table if made.differences else safe_text("Nothing differs between the configs of the runs."))
    table = narrow_table("What the whole runs took", ["", "A", "B"])
    for row in spent_rows(made):
        add_row(table, row)
    parts.append(table)
    return Group(*parts)


def side_words(side: Side) -> str:
    """`quickstart-1, round 2: quickstart-1-r02-2fbae529`."""
    return f"{side.run}{'' if side.round is None else f', round {side.round}'}: {side.adapter}"


def verdict(made: RunComparison) -> str:
    """The comparison in one sentence."""
    items = made.items
    if items is None or items.p_value is None or items.change.low is None or items.change.high is None:
        return "Nothing can be said: the two answered no item in common."
    told = items.p_value <= ALPHA and (items.change.low > 0 or items.change.high < 0)
    better = "B is better" if items.change.low > 0 else "A is better"
    return (
        f"On {items.common} common items of the {items.split} split A answers {words.percent(items.a.rate)}, B "
        f"{words.percent(items.b.rate)}: {words.change_words(items.change)} points, p = "
        f"{words.p_words(items.p_value)}: {better if told else 'no difference can be told'}."
    )


def value_words(value: JsonValue) -> str:
    """A config's value as JSON, cut where it is long; a text as it is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def spent_rows(made: RunComparison) -> list[list[str]]:
    """What the runs took, a row each: what, A, B. A fork's time has that of the rounds it took over."""
    a, b = made.spent_a, made.spent_b
    rows = [
        ["time", words.duration(a.seconds), words.duration(b.seconds)],
        ["… answering", words.duration(a.seconds_answering), words.duration(b.seconds_answering)],
        ["… training", words.duration(a.seconds_training), words.duration(b.seconds_training)],
        ["rounds that trained", str(a.rounds), str(b.rounds)],
        ["training tokens", str(a.training_tokens), str(b.training_tokens)],
    ]
    if a.teacher_requests is not None or b.teacher_requests is not None:
        rows.append(["teacher requests", _count(a.teacher_requests), _count(b.teacher_requests)])
        rows.append(["teacher tokens", _count(a.teacher_tokens), _count(b.teacher_tokens)])
        rows.append(["teacher cost", *(money_words(s.teacher_money or 0.0) for s in (a, b))])
    return rows


def _count(number: int | None) -> str:
    return words.NONE if number is None else str(number)
