"""The index of runs as a page and in the terminal, escaped for their medium.

Links are relative, so that the page can be moved with its folder.
"""

import os
from collections.abc import Sequence
from urllib.parse import quote

from rich.console import Group, RenderableType

from curriculum import report_words as words
from curriculum.report_html import html_environment
from curriculum.report_text import add_row, narrow_table, safe_text
from curriculum.run_index import IndexRow, RunIndex


def render_html(index: RunIndex) -> str:
    """The whole page."""
    template = html_environment().get_template("index.html.jinja")
    return template.render(
        index=index,
        headline=headline(index),
        link=link,
        rounds_words=rounds_words,
        cost_words=cost_words,
        time_words=time_words,
    )


def link(name: str, page: str) -> str:
    """The address of a run's page from the index beside it, whatever characters the folder's name has."""
    return f"./{quote(os.fsencode(name), safe='')}/{page}"


def headline(index: RunIndex) -> str:
    """How many of what there are."""
    counts = [(len(index.runs), "run"), (len(index.benches), "bench")]
    said = [f"{n} {noun}{'' if n == 1 else 'es' if noun == 'bench' else 's'}" for n, noun in counts if n]
    return f"{' and '.join(said) or 'No run yet'} in {index.folder}"


def rounds_words(row: IndexRow) -> str:
    """`1 accepted, 2 rolled back`."""
    counts = [(row.accepted, "accepted"), (row.rolled_back, "rolled back")]
    return ", ".join(f"{n} {what}" for n, what in counts if n)


def time_words(seconds: float | None) -> str:
    """`12 s`, `7 min` or `1 h 05 min`."""
    if seconds is None:
        return words.NONE
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def cost_words(row: IndexRow) -> str:
    """What an LLM teacher was sent and cost; empty for the offline one."""
    if row.requests is None:
        return ""
    return f"{row.requests} requests" + (f", cost {row.money:.2f}" if row.money else "")


def render_terminal(index: RunIndex) -> RenderableType:
    """The same table for a rich console."""
    parts: list[RenderableType] = [safe_text(headline(index), "bold")]
    if index.runs:
        heads = ["run", "begun", "status", "kept", "final, %", "change, points", "time"]
        table = narrow_table("Runs: rounds accepted, base → adapter on the final split", heads)
        for row in index.runs:
            rates = [_final_short(row), words.change_short(row.change), time_words(row.seconds)]
            kept = f"{row.accepted}/{row.rounds}" if row.rounds else words.NONE
            add_row(table, [row.name, (row.created or words.NONE)[:10], row.status, kept, *rates])
        parts += [table, *_said(index.runs)]
    if index.benches:
        table = narrow_table("Benches", ["bench", "status", "started", "trainings"])
        for bench in index.benches:
            add_row(table, [bench.name, bench.status, (bench.created or words.NONE)[:10], bench.trainings])
        parts.append(table)
        parts += [safe_text(f"{b.name}: {text}") for b in index.benches for text in (b.finding, *b.notes) if text]
    parts += [safe_text(f"{other.name}: {other.reason}", "dim") for other in index.others]
    return Group(*parts)


def _final_short(row: IndexRow) -> str:
    """`7.2 → 23.7`."""
    if row.before is None or row.after is None or row.before.rate is None or row.after.rate is None:
        return words.NONE
    return f"{100 * row.before.rate:.1f} → {100 * row.after.rate:.1f}"


def _said(runs: Sequence[IndexRow]) -> list[RenderableType]:
    """What does not fit a cell: the teacher's cost, ancestors, what cannot be read."""
    said: list[RenderableType] = []
    for row in runs:
        forks = [f"forked from {'; '.join(row.forked_from)}"] if row.forked_from else []
        cost = [f"{row.teacher}, {cost_words(row)}"] if row.requests is not None else []
        waits = [f"waits {row.waits}"] if row.waits else []
        if texts := [*waits, *forks, *cost, *row.notes]:
            said.append(safe_text(f"{row.name}: {'. '.join(texts)}", "dim"))
    return said
