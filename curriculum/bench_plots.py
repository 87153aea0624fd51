"""Where the marks of a bench's plots stand: differences, difficulty against budget, and the slices.

Takes a report; returns coordinates in SVG units with the numbers they stand for. Computes no result: every number is
the report's, and is in a table beside the plot.
"""

from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import NamedTuple

from curriculum import bench_words as words
from curriculum.bench_budgets import budget_words
from curriculum.bench_records import BenchReport, BudgetResult
from curriculum.bench_tradeoff import axis, cell, final_rates, mean_rate, slice_rates, spread
from curriculum.difficulty import BINS
from curriculum.records import Rate

WIDTH, RIGHT = 400, 14
"""Every plot, so that text is as large as the page's on a phone."""
ROW, TOP = 44, 6
"""The differences: a row a strategy, its name above its mark."""
LEFT, HEIGHT, BOTTOM = 48, 210, 26
"""Difficulty against budget: the room at the left and below, and the height."""
SLICE_ROW = 33
"""The slices by strategy: the name's line, before a line a budget."""
SLICE_LINE = 14
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
"""Between ticks, in shares of 1."""
STYLES = 5
"""Colours and shapes of budgets in the style sheet; more begin anew."""


class Mark(NamedTuple):
    """One strategy's difference from its control, in SVG units."""

    label: str
    title: str
    y: float
    x: float
    low: float | None
    high: float | None
    dots: tuple[float, ...]
    """Its trainings."""


class Plot(NamedTuple):
    """Differences from the control: a mark a strategy and budget, a dot a training."""

    height: int
    zero: float
    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]


def plot(report: BenchReport) -> Plot | None:
    """Places every strategy that has a control; none where none has."""
    shown = [(b, s) for b, s in words.results(report) if s.gain is not None]
    if not shown:
        return None
    spreads = [[(t.accuracy.rate or 0) - s.accuracy + (s.gain or 0) for t in s.trainings] for _, s in shown]
    ends = [abs(end) for _, s in shown if s.against for end in (s.against.low or 0, s.against.high or 0)]
    most = max(0.02, *ends, *(abs(at) for of in spreads for at in of))
    step = max(1, ceil(100 * most / 4))
    limit = step * ceil(100 * most / step) / 100

    def x(share: float) -> float:
        return round(RIGHT + (share + limit) / (2 * limit) * (WIDTH - 2 * RIGHT), 1)

    marks = tuple(
        Mark(
            label=words.named(report, b, s.strategy),
            title=f"{words.named(report, b, s.strategy)} less {s.control}: "
            f"{words.difference_words(s.against, s.gain)} points",
            y=TOP + ROW * at + ROW * 0.75,
            x=x(s.gain or 0),
            low=x(s.against.low) if s.against and s.against.low is not None else None,
            high=x(s.against.high) if s.against and s.against.high is not None else None,
            dots=tuple(x(of) for of in spreads[at]),
        )
        for at, (b, s) in enumerate(shown)
    )
    whole = round(100 * limit)
    ticks = tuple((x(at / 100), f"{at:+d}".replace("-", "−") if at else "0") for at in range(-whole, whole + 1, step))
    return Plot(TOP + ROW * len(shown) + 30, x(0), marks, ticks)


class Dot(NamedTuple):
    """The mean of some trainings."""

    x: float
    y: float
    low: float
    high: float
    """Of the trainings, or of a single one's interval: along y, or along x where strategies are rows."""
    accuracy: float
    """What it stands for, in shares of 1."""
    title: str


class Line(NamedTuple):
    """One budget."""

    style: int
    dots: tuple[Dot, ...]
    points: str
    """Of a polyline through easy, middle and hard; what has no order is not joined."""


class Panel(NamedTuple):
    """One plot of accuracies."""

    title: str
    height: int
    lines: tuple[Line, ...]
    columns: tuple[tuple[float, str], ...]
    """Names of what is compared, and where they stand: along x, or along y where strategies are rows."""
    ticks: tuple[tuple[float, str], ...]
    base: float | None
    """Where the base's accuracy is; none where it lies outside."""


def key(report: BenchReport) -> list[tuple[int, str]]:
    """The style of each budget, and what it is."""
    return [(at % STYLES, f"×{budget_words(b.share)}, {b.tokens:,} tokens") for at, b in enumerate(report.budgets)]


def tradeoff(report: BenchReport) -> Panel | None:
    """Accuracy on all final items by difficulty of the training rows, a line a budget; none without such rows."""
    columns = axis(report)
    found = [[final_rates(budget, column) for column in columns] for budget in report.budgets]
    shown = [spread(rates) for of in found for rates in of if rates]
    if not shown:
        return None
    low, high = min(low for low, _ in shown), max(high for _, high in shown)
    return _panel(report, "all final items", columns, found, _ticks(low, high), report.base_accuracy)


def slices(report: BenchReport) -> list[Panel]:
    """The same on each slice of the final items, all with one scale; empty without slices or such rows."""
    columns = axis(report)
    found = {
        of.slice: [[slice_rates(budget, column, of.slice) for column in columns] for budget in report.budgets]
        for of in report.slices
    }
    highs = [spread(rates)[1] for of in found.values() for row in of for rates in row if rates]
    if not columns or not highs:
        return []
    ticks = _ticks(0.0, max(highs))
    return [
        _panel(report, f"{of.slice}, {of.items} items", columns, found[of.slice], ticks, of.base)
        for of in report.slices
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around a range, at most seven of them."""
    for step in STEPS:
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first <= 6:
            break
    return [round(at * step, 4) for at in range(first, last + 1)]


def _scale(ticks: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    return lambda share: round(start + (share - ticks[0]) / (ticks[-1] - ticks[0]) * (end - start), 2)


def _panel(
    report: BenchReport,
    title: str,
    columns: Sequence[str],
    found: Sequence[Sequence[Sequence[Rate]]],
    ticks: Sequence[float],
    base: Rate,
) -> Panel:
    y = _scale(ticks, HEIGHT - BOTTOM, 10)
    each = (WIDTH - LEFT - RIGHT) / len(columns)
    places = [LEFT + each * (at + 0.5) for at in range(len(columns))]
    apart = min(10.0, each / 2 / len(report.budgets))  # beside each other, so that no interval hides another
    lines = []
    for at, (budget, row) in enumerate(zip(report.budgets, found, strict=True)):
        shift = apart * (at - (len(report.budgets) - 1) / 2)
        pairs = [(column, place + shift, rates) for column, place, rates in zip(columns, places, row, strict=True)]
        dots = {column: _dot(report, budget, column, rates, x, y) for column, x, rates in pairs if rates}
        points = " ".join(f"{dot.x:g},{dot.y:g}" for column, dot in dots.items() if column in BINS)
        lines.append(Line(at % STYLES, tuple(dots.values()), points))
    named = tuple((round(place, 1), column) for place, column in zip(places, columns, strict=True))
    return Panel(title, HEIGHT, tuple(lines), named, _named_ticks(ticks, y), _inside(base, ticks, y))


def _dot(
    report: BenchReport, budget: BudgetResult, column: str, rates: Sequence[Rate], x: float, y: Callable[[float], float]
) -> Dot:
    (low, high), mean = spread(rates), mean_rate(rates)
    title = f"{words.named(report, budget, column)}: {cell(rates)} %"
    return Dot(round(x, 1), y(mean), y(low), y(high), mean, title)


def _named_ticks(ticks: Sequence[float], place: Callable[[float], float]) -> tuple[tuple[float, str], ...]:
    return tuple((place(tick), f"{100 * tick:g} %") for tick in ticks)


def _inside(base: Rate, ticks: Sequence[float], place: Callable[[float], float]) -> float | None:
    inside = base.rate is not None and ticks[0] <= base.rate <= ticks[-1]
    return place(base.rate) if inside and base.rate is not None else None


def strategy_slices(report: BenchReport) -> list[Panel]:
    """The slices where strategies are rows, a line a budget under each name; empty where `slices` has them all."""
    names = list(dict.fromkeys(s.strategy for _, s in words.results(report)))
    if not set(names).difference(BINS, ("uniform", "uniform_again")):
        return []
    found = {
        of.slice: [(n, b, slice_rates(b, n, of.slice)) for n in names for b in report.budgets] for of in report.slices
    }
    highs = [spread(rates)[1] for of in found.values() for _, _, rates in of if rates]
    if not highs:
        return []
    ticks = _ticks(0.0, max(highs))
    x = _scale(ticks, RIGHT, WIDTH - RIGHT - 8)
    each = SLICE_ROW + SLICE_LINE * (len(report.budgets) - 1)
    made = []
    for of in report.slices:
        dots: dict[int, list[Dot]] = {at: [] for at in range(len(report.budgets))}
        for name, budget, rates in found[of.slice]:
            at = report.budgets.index(budget)
            y = names.index(name) * each + 24.0 + SLICE_LINE * at
            if rates:
                (low, high), mean = spread(rates), mean_rate(rates)
                title = f"{words.named(report, budget, name)}: {cell(rates)} %"
                dots[at].append(Dot(x(mean), y, x(low), x(high), mean, title))
        lines = tuple(Line(at % STYLES, tuple(found_dots), "") for at, found_dots in dots.items())
        rows = tuple((each * at + 13.0, name) for at, name in enumerate(names))
        title = f"{of.slice}, {of.items} items"
        height = each * len(names) + 40
        made.append(Panel(title, height, lines, rows, _named_ticks(ticks, x), _inside(of.base, ticks, x)))
    return made
