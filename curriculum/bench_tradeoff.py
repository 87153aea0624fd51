"""What a bench says of difficulty and budget, as tables and words: the trade-off, the slices, the extra sets.

Takes a report and returns plain text, not escaped for any medium. The plots of the same numbers are in `bench_plots`.

Source: Liu et al. 2026 (arXiv 2605.12906): at one budget accuracy over difficulty is an inverted U, whose peak moves to
harder rows as the budget grows.
"""

from collections.abc import Callable, Sequence

from curriculum.bench_budgets import budget_words
from curriculum.bench_records import BenchReport, BudgetResult
from curriculum.bench_words import even_rates
from curriculum.difficulty import BINS
from curriculum.records import Rate
from curriculum.report_words import NONE, rate_short

ALL = "all"
"""Rows of every difficulty: even rows, of uniform and uniform_again together."""
READING = (
    "Right of the final items, %, by how hard the training rows were; all: even rows, uniform and uniform_again "
    "together. In brackets the lowest and the highest training; of a single one its count and 95 % interval."
)
EXTRA = (
    "Each adapter answered each extra set once. They choose nothing and show what carries over to other items. Nothing "
    "is tested here."
)
SLICED = {
    "difficulty": "by the difficulty that their data or labels give",
    "worked-solution length": "in thirds by the words of their worked solution",
}


def axis(report: BenchReport) -> list[str]:
    """Easy, middle and hard, as far as they were trained on, then all; empty where none was."""
    trained = {s.strategy for budget in report.budgets for s in budget.strategies}
    bins = [name for name in BINS if name in trained]
    return [*bins, ALL] if bins else []


def final_rates(budget: BudgetResult, column: str) -> list[Rate]:
    """Of each training with such rows, on the final items."""
    if column == ALL:
        return even_rates(budget)
    return [t.accuracy for s in budget.strategies if s.strategy == column for t in s.trainings]


def slice_rates(budget: BudgetResult, column: str, name: str) -> list[Rate]:
    """The same, on one slice of the final items."""
    own = ("uniform", "uniform_again") if column == ALL else (column,)
    slices = [of for s in budget.strategies if s.strategy in own for of in s.slices]
    return [rate for of in slices if of.slice == name for rate in of.trainings]


def mean_rate(rates: Sequence[Rate]) -> float:
    """The mean over trainings, in shares of 1; all answered the same items."""
    return sum(rate.correct for rate in rates) / sum(rate.n for rate in rates)


def spread(rates: Sequence[Rate]) -> tuple[float, float]:
    """The lowest and the highest training; of a single one its 95 % Wilson interval."""
    if len(rates) == 1:
        return rates[0].low or 0.0, rates[0].high or 0.0
    return min(rate.rate or 0.0 for rate in rates), max(rate.rate or 0.0 for rate in rates)


def cell(rates: Sequence[Rate]) -> str:
    """`26.7 (22.2–31.1)`: the mean and the spread in percent; of a single training its count as well."""
    if len(rates) < 2:
        return rate_short(rates[0]) if rates else NONE
    low, high = spread(rates)
    return f"{100 * mean_rate(rates):.1f} ({100 * low:.1f}–{100 * high:.1f})"


def narrow_cell(rates: Sequence[Rate]) -> str:
    """`26.7 (22–31)`: the same for a narrow terminal, without the count."""
    low, high = spread(rates) if rates else (0.0, 0.0)
    return f"{100 * mean_rate(rates):.1f} ({100 * low:.0f}–{100 * high:.0f})" if rates else NONE


def mean_cell(rates: Sequence[Rate]) -> str:
    """`26.7`: the mean alone."""
    return f"{100 * mean_rate(rates):.1f}" if rates else NONE


Worded = Callable[[Sequence[Rate]], str]


def tradeoff_heads(report: BenchReport) -> list[str]:
    """The heads of the table of difficulty and budget."""
    return ["budget", "tokens", *axis(report)]


def tradeoff_rows(report: BenchReport, worded: Worded = cell) -> list[list[str]]:
    """A row a budget: what each difficulty of training rows gave."""
    return [
        [f"×{budget_words(b.share)}", f"{b.tokens:,}", *(worded(final_rates(b, column)) for column in axis(report))]
        for b in report.budgets
    ]


def peak_words(report: BenchReport) -> str:
    """Where the highest of easy, middle and hard lay at each budget; empty where there is nothing to compare."""
    bins = [column for column in axis(report) if column != ALL]
    whole = all(final_rates(budget, column) for budget in report.budgets for column in bins)
    if len(bins) < 2 or not whole or report.trainings < report.wanted:
        return ""
    peaks = []
    for budget in report.budgets:
        means = {column: mean_rate(final_rates(budget, column)) for column in bins}
        first = " and ".join(column for column, mean in means.items() if mean == max(means.values()))
        peaks.append(f"{first} at ×{budget_words(budget.share)}" if len(report.budgets) > 1 else first)
    said = f"Of {', '.join(bins[:-1])} and {bins[-1]} rows the highest mean was that of {', '.join(peaks)}."
    if len(report.budgets) > 1:
        said += (
            " With more rows it is expected to move to harder ones (arXiv 2605.12906); whether it did is not tested."
        )
    return said


def sliced_words(report: BenchReport) -> str:
    """What the slices are."""
    if report.sliced_by is None:
        return (
            "No slices: they need final items of several difficulties, declared or labelled, or with a worked solution "
            "each."
        )
    return (
        f"The final items are sliced {SLICED[report.sliced_by]}. What to look for: rows that are too easy for the "
        "budget lift easy slices alone, rows that are too hard lower all. Nothing is tested here."
    )


def part_heads(budget: BudgetResult, what: str) -> list[str]:
    """The heads of a table by slice, or by extra set."""
    return [what, "items", "base", *(s.strategy.replace("_", " ") for s in budget.strategies)]


def slice_rows(report: BenchReport, budget: BudgetResult, worded: Worded = cell) -> list[list[str]]:
    """Slice, items, the base, and each strategy: percent right."""
    return [
        [
            of.slice,
            str(of.items),
            worded([of.base]),
            *(worded(slice_rates(budget, s.strategy, of.slice)) for s in budget.strategies),
        ]
        for of in report.slices
    ]


def extra_rows(report: BenchReport, budget: BudgetResult, worded: Worded = cell) -> list[list[str]]:
    """Extra set, items, the base, and each strategy: percent right."""
    return [
        [
            of.name,
            f"{of.items}" + (f" (without {of.left_out})" if of.left_out else ""),
            worded([of.base]),
            *(
                worded([r for made in s.extra if made.name == of.name for r in made.trainings])
                for s in budget.strategies
            ),
        ]
        for of in report.extra
    ]
