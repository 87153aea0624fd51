"""A bench's report in the terminal, as Markdown and as a page.

Takes a report; returns texts and renderables, escaped for their medium. Computes no result; the wording is in
`bench_words` and `bench_tradeoff`, the plots' coordinates in `bench_plots`.
"""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from curriculum import bench_plots as plots
from curriculum import bench_tradeoff as tradeoff
from curriculum import bench_words as words
from curriculum.bench_records import BenchReport, BudgetResult
from curriculum.report_html import html_environment
from curriculum.report_text import add_row, markdown_environment, narrow_table, safe_text

MOST_COLUMNS = 5
"""Strategies whose skills fit a terminal of 80 columns; those of more are on the page only."""


def render_terminal(report: BenchReport) -> RenderableType:
    """The tables and the sentences, for a rich console."""
    parts: list[RenderableType] = [safe_text(words.headline(report), "bold")]
    if words.results(report):
        parts.append(_table("Strategies, on the final items", words.SHORT_HEADS, words.short_rows(report)))
        if tradeoff.axis(report):
            title, rows = (
                "Right by difficulty of the training rows, %",
                tradeoff.tradeoff_rows(report, tradeoff.narrow_cell),
            )
            parts.append(_table(title, tradeoff.tradeoff_heads(report), rows))
        parts.append(_table("What a training got, on average", words.COST_HEADS, words.cost_rows(report)))
        for budget in report.budgets:
            parts += _budget_tables(report, budget)
    peak = tradeoff.peak_words(report)
    return Group(*parts, *(safe_text(text) for text in (*words.sentences(report), peak) if text))


def _budget_tables(report: BenchReport, budget: BudgetResult) -> Iterator[RenderableType]:
    if not budget.strategies or len(budget.strategies) > MOST_COLUMNS:
        return
    if len(report.budgets) == 1:
        title = "Right by skill, %; * differs from the control"
        yield _wide_table(title, words.skill_heads(budget), words.skill_rows(budget))
    if report.slices:
        title = f"{words.named(report, budget, 'Right by slice')}, %"
        yield _wide_table(
            title, tradeoff.part_heads(budget, "slice"), tradeoff.slice_rows(report, budget, tradeoff.mean_cell)
        )
    if report.extra:
        title = f"{words.named(report, budget, 'Extra sets (never select)')}, %"
        yield _wide_table(
            title, tradeoff.part_heads(budget, "set"), tradeoff.extra_rows(report, budget, tradeoff.mean_cell)
        )


def _wide_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = _table(title, heads, rows)
    for column in table.columns[2:]:
        column.no_wrap, column.min_width = False, max(len(word) for word in str(column.header).split())
    return table


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = narrow_table(title, heads)
    for cells in rows:
        add_row(table, cells)
    return table


def render_markdown(report: BenchReport) -> str:
    """The whole report as one Markdown document."""
    return markdown_environment().get_template("bench.md.jinja").render(report=report, words=words, tradeoff=tradeoff)


def render_html(report: BenchReport) -> str:
    """The whole page: no script, no network."""
    template = html_environment().get_template("bench.html.jinja")
    return template.render(report=report, words=words, tradeoff=tradeoff, plots=plots)
