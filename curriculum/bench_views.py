"""A bench's report in the terminal, as Markdown and as a page: tables, and the plot's coordinates.

Takes a report; returns texts and renderables, escaped for their medium. Computes no result; the wording is in
`bench_words`.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table

from curriculum import bench_words as words
from curriculum.bench_report import BenchReport
from curriculum.report_html import html_environment
from curriculum.report_text import add_row, markdown_environment, narrow_table, safe_text

WIDTH, LEFT, RIGHT, ROW, TOP = 720, 160, 20, 34, 14
"""The plot, in SVG units: a row a strategy."""
MOST_COLUMNS = 5
"""Strategies whose skills fit a terminal of 80 columns; those of more are on the page only."""


def render_terminal(report: BenchReport) -> RenderableType:
    """The tables and the sentences, for a rich console."""
    parts: list[RenderableType] = [safe_text(words.headline(report), "bold")]
    if report.strategies:
        parts.append(_table("Strategies, on the final items", words.SHORT_HEADS, words.short_rows(report)))
        parts.append(_table("What a training got, on average", words.COST_HEADS, words.cost_rows(report)))
        if len(report.strategies) <= MOST_COLUMNS:
            parts.append(_skill_table(report))
    return Group(*parts, *(safe_text(text) for text in words.sentences(report)))


def _skill_table(report: BenchReport) -> Table:
    heads = words.skill_heads(report)
    table = _table("Right by skill, %; * differs from the control", heads, words.skill_rows(report))
    for column in table.columns[2:]:
        column.no_wrap, column.min_width = False, max(len(word) for word in str(column.header).split())
    return table


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = narrow_table(title, heads)
    for cells in rows:
        add_row(table, cells)
    return table


class Mark(NamedTuple):
    """One strategy in the plot, in SVG units."""

    label: str
    title: str
    y: float
    x: float
    low: float | None
    high: float | None
    dots: tuple[float, ...]
    """Its trainings."""


class Plot(NamedTuple):
    """Differences from the control: a mark a strategy, a dot a training."""

    height: int
    zero: float
    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]


def plot(report: BenchReport) -> Plot | None:
    """Places every strategy that has a control; none where none has."""
    shown = [s for s in report.strategies if s.gain is not None]
    if not shown:
        return None
    spread = {s.strategy: [(t.accuracy.rate or 0) - s.accuracy + (s.gain or 0) for t in s.trainings] for s in shown}
    ends = [abs(end) for s in shown if s.against for end in (s.against.low or 0, s.against.high or 0)]
    most = max(0.02, *ends, *(abs(at) for of in spread.values() for at in of))
    step = max(1, ceil(100 * most / 4))
    limit = step * ceil(100 * most / step) / 100

    def x(share: float) -> float:
        return round(LEFT + (share + limit) / (2 * limit) * (WIDTH - LEFT - RIGHT), 1)

    marks = tuple(
        Mark(
            label=s.strategy,
            title=f"{s.strategy} less {s.control}: {words.difference_words(s.against, s.gain)} points",
            y=TOP + ROW * at + ROW / 2,
            x=x(s.gain or 0),
            low=x(s.against.low) if s.against and s.against.low is not None else None,
            high=x(s.against.high) if s.against and s.against.high is not None else None,
            dots=tuple(x(of) for of in spread[s.strategy]),
        )
        for at, s in enumerate(shown)
    )
    whole = round(100 * limit)
    ticks = tuple((x(at / 100), f"{at:+d}".replace("-", "−") if at else "0") for at in range(-whole, whole + 1, step))
    return Plot(TOP + ROW * len(shown) + 30, x(0), marks, ticks)


def render_markdown(report: BenchReport) -> str:
    """The whole report as one Markdown document."""
    return markdown_environment().get_template("bench.md.jinja").render(report=report, words=words)


def render_html(report: BenchReport) -> str:
    """The whole page: no script, no network."""
    template = html_environment().get_template("bench.html.jinja")
    return template.render(report=report, words=words, plot=plot(report), width=WIDTH)
