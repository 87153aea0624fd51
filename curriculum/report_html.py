"""The report as one self-contained HTML page: no network, readable on a phone and on paper, light and dark.

Takes a report and its times, returns the page's text. Every value is escaped by jinja2; here are only the
coordinates of the drawings, and the one script (`templates/report.js`: sorting, filtering, paging), which a
content security policy allows by its hash, so that nothing else can run. Without it the page is whole.
Computes no rate.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, NamedTuple

from jinja2 import Environment
from markupsafe import Markup, escape

from curriculum import report_words as words
from curriculum.records import Rate
from curriculum.report import RoundReport, RunReport, Timings
from curriculum.report_templates import templates

# Drawn here and not by a library: what matplotlib, altair or plotly write is heavy (0.1 to 4 MB), brings styles or
# scripts that the policy would have to allow, and cannot follow the reader's light or dark. These are a few lines.
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 204, 62, 22, 34
"""The chart of accuracy over rounds, in SVG units: its size, and the room around the plot."""

LOSS_WIDTH, LOSS_HEIGHT = 240, 70
"""A curve of one round's training, in SVG units."""

MOST_POINTS = 240
"""Points of a curve; a longer one is averaged over its neighbours, for no screen shows more."""


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
    value: str
    """The accuracy in percent, to stand above the interval."""


class Chart(NamedTuple):
    """Gate accuracy over rounds: every candidate with its interval, and the line of what was kept."""

    points: tuple[Point, ...]
    line: str
    ticks: tuple[tuple[float, str], ...]


def render_html(report: RunReport, timings: Timings) -> str:
    """The whole page."""
    environment = html_environment()
    script = script_text(environment)
    return environment.get_template("report.html.jinja").render(
        report=report,
        timings=timings,
        sections=_sections(report),
        script=Markup(script),
        script_hash=script_hash(script),
        chart=chart(report.rounds),
        curve=curve,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        loss_width=LOSS_WIDTH,
        loss_height=LOSS_HEIGHT,
    )


def _sections(report: RunReport) -> list[tuple[str, str]]:
    """The sections that have something to show, each the name of its template and its title in the contents."""
    shown = {
        "overview": ("Overview", True),
        "skills": ("Skills", True),
        "final": ("Final test", report.final is not None),
        "taught": ("Taught", any(r.probe or r.mixture for r in report.rounds)),
        "failures": ("Failures", report.failed is not None),
        "gate": ("Gate", bool(report.rounds)),
        "forgetting": ("Forgetting", bool(report.rounds)),
        "teacher": ("Teacher", True),
        "cost": ("Cost", bool(report.rounds)),
        "training": ("Training", any(r.training for r in report.rounds)),
        "adapters": ("Adapters", bool(report.adapters)),
        "reproduce": ("Reproduce", True),
    }
    return [(name, title) for name, (title, there) in shown.items() if there]


def html_environment() -> Environment:
    """Templates of pages: every value is escaped, with its hidden characters visible."""
    environment = templates(_show)
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after its underscores where a column is narrow."""
    return Markup(escape(words.visible(name)).replace("_", Markup("_<wbr>")))


def _show(value: Any) -> Any:
    """What jinja2 prints for a value, before it escapes it: hidden characters become visible."""
    return value if isinstance(value, Markup | int | float) else words.visible(str(value))


def script_text(environment: Environment) -> str:
    """The page's own script, as it stands between its tags."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, "report.js")[0]


def script_hash(script: str) -> str:
    """How a content security policy names an inline script: the base64 of the SHA-256 of its text (CSP Level 3)."""
    return f"sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def chart(rounds: Sequence[RoundReport]) -> Chart:
    """Places every round's adapter; the vertical scale ends at the next full ten percent."""
    shown = [(r, r.before if r.after is None else r.after) for r in rounds]
    shown = [(r, rate) for r, rate in shown if rate.rate is not None]
    top = max((ceil(10 * (rate.high or 0)) / 10 for _, rate in shown), default=1.0)
    inset = 30  # between the plot's sides and the first and last dot
    step = (WIDTH - LEFT - 2 * inset) / max(len(shown) - 1, 1)

    def y(share: float | None) -> float:
        return round(HEIGHT - BOTTOM - (share or 0) / top * (HEIGHT - BOTTOM - TOP), 1)

    points = tuple(_point(r, rate, round(LEFT + inset + i * step, 1), y) for i, (r, rate) in enumerate(shown))
    line = " ".join(f"{p.x},{y(words.kept(r).rate)}" for p, (r, _) in zip(points, shown, strict=True))
    ticks = tuple((y(top * part / 2), f"{100 * top * part / 2:.0f} %") for part in range(3))
    return Chart(points, line, ticks)


def _point(round_: RoundReport, rate: Rate, x: float, y: Callable[[float | None], float]) -> Point:
    label = f"Round {round_.round}, {words.decision_words(round_)}: {words.rate_words(rate)}"
    return Point(
        round_.round,
        x,
        y(rate.rate),
        y(rate.low),
        y(rate.high),
        round_.decision,
        label,
        f"{100 * (rate.rate or 0):.1f}",
    )


def curve(values: Sequence[float]) -> str:
    """The points of a polyline through a training's values, from 0 at the bottom to the largest at the top."""
    each = ceil(len(values) / MOST_POINTS)
    parts = [values[at : at + each] for at in range(0, len(values), each)]
    means = [sum(part) / len(part) for part in parts]
    top = max(values) or 1.0
    means = means if len(means) > 1 else means * 2  # one step alone is a level line
    step = LOSS_WIDTH / (len(means) - 1)
    return " ".join(f"{i * step:.1f},{LOSS_HEIGHT * (1 - value / top):.1f}" for i, value in enumerate(means))
