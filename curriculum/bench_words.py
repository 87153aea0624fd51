"""How a bench's numbers and findings are worded, the same in every view.

Takes values of a report and returns plain text, not escaped for any medium: each view does that.
"""

from collections.abc import Sequence

from curriculum.bench_budgets import budget_words
from curriculum.bench_records import BenchReport, BudgetResult, StrategyResult
from curriculum.bench_report import SCREENING_SEEDS
from curriculum.crossed import Difference
from curriculum.records import Rate
from curriculum.report_words import NONE, p_words, percent, points, rate_words


def results(report: BenchReport) -> list[tuple[BudgetResult, StrategyResult]]:
    """Every strategy at every budget, the smallest budget first."""
    return [(budget, of) for budget in report.budgets for of in budget.strategies]


def named(report: BenchReport, budget: BudgetResult, what: str) -> str:
    """`hard`, or `hard ×0.25` where the bench has several budgets."""
    return f"{what} ×{budget_words(budget.share)}" if len(report.budgets) > 1 else what


def at(report: BenchReport, budget: BudgetResult) -> str:
    """`Budget ×0.25, 1,003 tokens a training`; empty for the only one."""
    if len(report.budgets) == 1:
        return ""
    return f"Budget ×{budget_words(budget.share)}, {budget.tokens:,} tokens a training"


def said(report: BenchReport) -> list[tuple[str, str]]:
    """What each strategy is."""
    return list({s.strategy: s.said for _, s in results(report)}.items())


def headline(report: BenchReport) -> str:
    """What the bench found, in a sentence or two."""
    if report.trainings < report.wanted:
        return f"{report.trainings} of {report.wanted} trainings are done; what stands here may change."
    tested = [(b, s) for b, s in results(report) if s.strategy not in ("uniform", "uniform_again")]
    found = []
    for verdict, said in (("better", "Better than"), ("worse", "Worse than")):
        found += [
            f"{said} {s.control}: {named(report, b, s.strategy)}, by {points(abs(s.gain or 0)).lstrip('+')} points."
            for b, s in tested
            if s.verdict == verdict
        ]
    if unseen := [named(report, b, s.strategy) for b, s in tested if s.verdict == "no difference seen"]:
        found.append(f"No difference from the control was seen: {', '.join(unseen)}.")
    if not found:
        found.append("Nothing was tested: an interval needs two seeds of a strategy and of its control.")
    return " ".join(["Screening.", *found] if report.screening else found)


def screening_words(report: BenchReport) -> str:
    """What a screening is good for; empty for a bench with more seeds."""
    if not report.screening:
        return ""
    return (
        f"With {SCREENING_SEEDS} seeds a strategy or fewer this is a screening: it may choose what to confirm on other "
        "tasks and confirms nothing."
    )


def difference_words(found: Difference | None, gain: float | None) -> str:
    """`+2.1 (−0.4 to +4.6)`: points with the 95 % interval; without one where it cannot be had."""
    if found is None or found.low is None or found.high is None:
        return points(gain)
    return f"{points(found.difference)} ({points(found.low)} to {points(found.high)})"


def accuracy_words(result: StrategyResult) -> str:
    """`24.3 (22.9–25.6)`: the mean of the trainings in percent, the lowest and the highest."""
    rates = [100 * (t.accuracy.rate or 0) for t in result.trainings]
    return f"{100 * result.accuracy:.1f}" + (f" ({min(rates):.1f}–{max(rates):.1f})" if len(rates) > 1 else "")


def power_words(report: BenchReport) -> str:
    """The smallest effect that could have been seen."""
    tested = [s.against for _, s in results(report) if s.against and s.strategy != "uniform_again"]
    seen = [found.detectable for found in tested if found.detectable]
    if not seen:
        return "The smallest effect that could have been seen is not known: too few seeds, or nothing varied."
    seen_words = (
        f"The smallest true difference it could have seen with 80 % power: {_from_to(seen)} points, before adjusting."
    )
    scatter = [budget.seed_sd for budget in report.budgets if budget.seed_sd is not None]
    if not scatter:
        return seen_words
    return f"{seen_words} Beyond item noise, seeds scatter by {_from_to(scatter)} points."


def _from_to(shares: Sequence[float]) -> str:
    least, most = f"{100 * min(shares):.1f}", f"{100 * max(shares):.1f}"
    return least if least == most else f"{least} to {most}"


def calibration_words(report: BenchReport) -> list[str]:
    """What random against random gave, at each budget."""
    found = [said for budget in report.budgets if (said := _calibration(report, budget))]
    return found or ["Random against random: not known, it needs two seeds of uniform and of uniform_again."]


def _calibration(report: BenchReport, budget: BudgetResult) -> str:
    made = budget.calibration
    again = next((s for s in budget.strategies if s.strategy == "uniform_again"), None)
    if made is None or again is None or again.against is None:
        return ""
    called = "different" if again.against.p_value <= 0.05 else "not different"
    return (
        f"Random against random: {named(report, budget, 'uniform_again')} less uniform is "
        f"{difference_words(again.against, again.gain)} points, "
        f"called {called}; of the {made.splits} ways to halve those trainings {made.different} "
        f"({percent(made.different / made.splits)}) would be called different, where 5 % is meant."
    )


def equal_words(report: BenchReport) -> list[str]:
    """What was made equal, and how nearly."""
    return [_equal(report, budget) for budget in report.budgets]


def _equal(report: BenchReport, budget: BudgetResult) -> str:
    where = f"{at(report, budget)}. " if len(report.budgets) > 1 else ""
    trainings = [t for s in budget.strategies for t in s.trainings]
    if not trainings:
        return f"{where}Each training gets {budget.tokens:,} tokens."
    tokens, steps = [t.training_tokens for t in trainings], [t.steps for t in trainings]
    rows = [t.rows for t in trainings]
    mean = sum(tokens) / len(tokens)
    off = max(abs(t - mean) for t in tokens) / mean if mean else 0.0
    return (
        f"{where}Equal for all: student, pool, recipe, and the tokens of a training ({mean:,.0f} on average, "
        f"at most {percent(off)} off; {budget.tokens:,} were meant). Rows and steps follow from them: "
        f"{_range(rows)} rows, {_range(steps)} steps."
    )


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def tested_words(report: BenchReport) -> str:
    """How many comparisons the p-values are adjusted for; empty for one budget, where it is the table's rows."""
    tested = [s for _, s in results(report) if s.p_value is not None and s.strategy not in ("uniform", "uniform_again")]
    if len(report.budgets) == 1 or not tested:
        return ""
    return (
        f"Strategies are compared inside each budget, {len(tested)} comparisons at {len(report.budgets)} budgets; "
        "p-values are adjusted for all of them together, intervals are not."
    )


def base_words(report: BenchReport) -> str:
    """What the untrained base answers."""
    left = f"; {report.left_out} more have no verdict somewhere and are left out" if report.left_out else ""
    return f"The base answers {rate_words(report.base_accuracy)} of the final items{left}."


def sentences(report: BenchReport) -> list[str]:
    """Everything beside the tables, in order."""
    return [*leading(report), *conditions(report)]


def leading(report: BenchReport) -> list[str]:
    """What belongs beside the headline: what it is worth, and who led."""
    made = [screening_words(report), *leader_words(report), tested_words(report), base_words(report)]
    return [text for text in made if text]


def conditions(report: BenchReport) -> list[str]:
    """What was equal, what could have been seen, what random against random gave, and notes."""
    made = [*equal_words(report), power_words(report), *calibration_words(report), control_words(report)]
    made += [response_words(s, named(report, budget, s.strategy)) for budget, s in results(report)]
    return [text for text in (*made, report.scope, *report.notes) if text]


def leader_words(report: BenchReport) -> list[str]:
    """Which strategy's mean was highest at each budget, and what that is worth; nothing of a bench under way."""
    if report.trainings < report.wanted:
        return []
    told = [said for budget in report.budgets if (said := _leader(report, budget))]
    if not told:
        return []
    most = max(len(budget.strategies) - 1 for budget in report.budgets)
    return [*told, f"A leader is the highest of up to {most} means: chance alone makes one, and its lead flatters."]


def _leader(report: BenchReport, budget: BudgetResult) -> str:
    means = {s.strategy: s.accuracy for s in budget.strategies if s.strategy not in ("uniform", "uniform_again")}
    even = even_rates(budget)
    if not means or not even:
        return ""
    means = {"uniform": sum(t.rate or 0 for t in even) / len(even), **means}
    first, *others = [s for s, mean in means.items() if round(mean - max(means.values()), 9) == 0]
    where = f"At budget {budget_words(budget.share)} ({budget.tokens:,} tokens)" if len(report.budgets) > 1 else "Here"
    led = f"{where} {' and '.join([first, *others])} led with {percent(means[first])}"
    if others:
        return f"{led}, level."
    if first == "uniform":
        return f"{led}, together with uniform_again: no strategy's mean was as high."
    of = next(s for s in budget.strategies if s.strategy == first)
    p_value = f", adjusted p {p_words(of.p_value)}" if of.p_value is not None else ""
    return f"{led}: {difference_words(of.against, of.gain)} points against {of.control}{p_value}, {of.verdict}."


def even_rates(budget: BudgetResult) -> list[Rate]:
    """The trainings of uniform and uniform_again, which are one recipe."""
    return [t.accuracy for s in budget.strategies if s.strategy in ("uniform", "uniform_again") for t in s.trainings]


def control_words(report: BenchReport) -> str:
    """What is compared with something else than uniform; empty where nothing is."""
    others = {f"{s.strategy} with {s.control}": None for _, s in results(report) if s.control not in (None, "uniform")}
    return f"Compared with uniform, but {', '.join(others)}." if others else ""


def response_words(result: StrategyResult, name: str) -> str:
    """What a strategy saves of uniform's response tokens, at which difference; empty for targets that are not shorter.

    `complexity takes 44 % fewer response tokens a training than uniform (…), at a difference of +1.2 points (…). …`
    """
    made = result.responses
    if made is None:
        return ""
    counts = f"{made.tokens:,.0f} against {made.uniform_tokens:,.0f}"
    at = f"{difference_words(made.against, made.gain)} points"
    at += "" if made.against else ", of which no interval is known: it needs two seeds"
    more = "more" if made.rows > made.uniform_rows else "not more"
    return (
        f"{name} takes {_fewer(made.saved)} response tokens a training than uniform, whose rows have worked "
        f"solutions where the data do ({counts}), at a difference of {at}. Trainings are equal in all tokens, prompts "
        f"too, so it has {more} rows ({made.rows:,.0f} against {made.uniform_rows:,.0f}); row by row it takes "
        f"{_fewer(made.row_saved)}."
    )


def _fewer(saved: float | None) -> str:
    if saved is None:
        return "no fewer"
    return f"{percent(abs(saved))} {'fewer' if saved >= 0 else 'more'}"


def detectable_words(result: StrategyResult) -> str:
    """The smallest difference seen with 80 % power, in points."""
    return NONE if result.against is None else f"{100 * result.against.detectable:.1f}"


def mean_words(result: StrategyResult, what: str) -> str:
    """The mean of a count over a strategy's trainings."""
    return f"{sum(getattr(t, what) for t in result.trainings) / len(result.trainings):,.0f}"


HEADS = ("strategy", "seeds", "right, %", "against", "points (95 %)", "p", "sees", "verdict", "response tokens")
SHORT_HEADS = ("strategy", "seeds", "right, %", "points (95 %)", "p", "sees")
COST_HEADS = ("strategy", "rows", "written", "tokens", "response", "steps")
TRAINING_HEADS = ("training", "right", "rows", "tokens", "steps", "last loss", "adapter")


def result_rows(report: BenchReport) -> list[list[str]]:
    """The first table, a row a strategy and budget."""
    return [
        [
            named(report, b, s.strategy),
            str(len(s.trainings)),
            accuracy_words(s),
            s.control or NONE,
            difference_words(s.against, s.gain),
            p_words(s.p_value),
            detectable_words(s),
            s.verdict if s.control else NONE,
            mean_words(s, "target_tokens"),
        ]
        for b, s in results(report)
    ]


def short_rows(report: BenchReport) -> list[list[str]]:
    """The first table for a narrow terminal: the mean alone, and no words that the headline says."""
    pairs = zip(results(report), result_rows(report), strict=True)
    return [[*row[:2], f"{100 * s.accuracy:.1f}", *row[4:7]] for (_, s), row in pairs]


def cost_rows(report: BenchReport) -> list[list[str]]:
    """The second table, a row a strategy and budget: means over trainings."""
    counts = ("rows", "written_rows", "training_tokens", "target_tokens", "steps")
    return [[named(report, b, s.strategy), *(mean_words(s, what) for what in counts)] for b, s in results(report)]


def skill_heads(budget: BudgetResult) -> list[str]:
    """The heads of the table of skills."""
    return ["skill", "items", *(s.strategy.replace("_", " ") for s in budget.strategies)]


def skill_rows(budget: BudgetResult) -> list[list[str]]:
    """Skill, items, and each strategy's mean accuracy in percent; `*` where it differs from the control."""
    rows = []
    for at, skill in enumerate(budget.strategies[0].skills if budget.strategies else ()):
        cells = [skill.skill, str(skill.items)]
        for result in budget.strategies:
            of = result.skills[at]
            cells.append(f"{100 * of.accuracy:.0f}" + ("*" if of.p_value is not None and of.p_value <= 0.05 else ""))
        rows.append(cells)
    return rows


def training_rows(report: BenchReport) -> list[list[str]]:
    """The last table, a row a training."""
    return [
        [
            named(report, b, f"{s.strategy} {t.seed}"),
            rate_words(t.accuracy),
            str(t.rows),
            f"{t.training_tokens:,}",
            str(t.steps),
            f"{t.last_loss:.2f}",
            t.adapter,
        ]
        for b, s in results(report)
        for t in s.trainings
    ]
