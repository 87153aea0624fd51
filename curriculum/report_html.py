"""The report as one self-contained HTML page: no script, no network, readable on a phone, light and dark.

Takes a report and its times, returns the page's text. Every value is escaped by jinja2; here are only the
coordinates of the two drawings. Computes no rate.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, NamedTuple

from jinja2 import Environment
from markupsafe import Markup

from curriculum import report_words as words
from curriculum.records import Rate
from curriculum.report import RoundReport, RunReport, Timings
from curriculum.report_templates import templates

WIDTH, HEIGHT, MARGIN = 640, 220, 40
"""The chart of accuracy over rounds, in SVG units."""

LOSS_WIDTH, LOSS_HEIGHT = 220, 48
"""A curve of one round's training, in SVG units."""


class Point(NamedTuple):
    """One adapter's gate accuracy in the chart, in SVG units."""

    round: int
    x: float
    y: float
    y_low: float
    y_high: float
    kind: str
    """`baseline`, `accepted`, `rolled_back` or `stopped`: the decision, a class of the style sheet."""
    label: str


class Chart(NamedTuple):
    """Gate accuracy over rounds: every candidate with its interval, and the line of what was kept."""

    points: tuple[Point, ...]
    line: str
    ticks: tuple[tuple[float, str], ...]


def render_html(report: RunReport, timings: Timings) -> str:
    """The whole page."""
    template = html_environment().get_template("report.html.jinja")
    return template.render(
        report=report,
        timings=timings,
        chart=chart(report.rounds),
        curve=curve,
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
        loss_width=LOSS_WIDTH,
        loss_height=LOSS_HEIGHT,
    )


def html_environment() -> Environment:
    """Templates of pages: every value is escaped, with its hidden characters visible."""
    return templates(_show)


def _show(value: Any) -> Any:
    """What jinja2 prints for a value, before it escapes it: hidden characters become visible."""
    return value if isinstance(value, Markup | int | float) else words.visible(str(value))


def chart(rounds: Sequence[RoundReport]) -> Chart:
    """Places every round's adapter; the vertical scale ends at the next full ten percent."""
    shown = [(r, r.before if r.after is None else r.after) for r in rounds]
    shown = [(r, rate) for r, rate in shown if rate.rate is not None]
    top = max((ceil(10 * (rate.high or 0)) / 10 for _, rate in shown), default=1.0)
    step = (WIDTH - 2 * MARGIN) / max(len(shown) - 1, 1)

    def y(share: float | None) -> float:
        return round(HEIGHT - MARGIN - (share or 0) / top * (HEIGHT - 2 * MARGIN), 1)

    points = tuple(_point(r, rate, round(MARGIN + i * step, 1), y) for i, (r, rate) in enumerate(shown))
    line = " ".join(f"{p.x},{y(words.kept(r).rate)}" for p, (r, _) in zip(points, shown, strict=True))
    ticks = tuple((y(top * part / 2), f"{100 * top * part / 2:.0f} %") for part in range(3))
    return Chart(points, line, ticks)


def _point(round_: RoundReport, rate: Rate, x: float, y: Callable[[float | None], float]) -> Point:
    label = f"Round {round_.round}, {words.decision_words(round_)}: {words.rate_words(rate)}"
    return Point(round_.round, x, y(rate.rate), y(rate.low), y(rate.high), round_.decision, label)


def curve(values: Sequence[float]) -> str:
    """The points of a polyline through a training's values, from 0 at the bottom to the largest at the top."""
    top = max(values) or 1.0
    step = LOSS_WIDTH / max(len(values) - 1, 1)
    return " ".join(f"{i * step:.1f},{LOSS_HEIGHT * (1 - value / top):.1f}" for i, value in enumerate(values))
