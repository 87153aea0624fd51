"""How a bench's numbers and findings are worded, the same in every view.

Takes values of a report and returns plain text, not escaped for any medium: each view does that.
"""

from collections.abc import Sequence

from curriculum.bench_report import SCREENING_SEEDS, BenchReport, StrategyResult
from curriculum.crossed import Difference
from curriculum.report_words import NONE, p_words, percent, points, rate_words


def headline(report: BenchReport) -> str:
    """What the bench found, in a sentence or two."""
    if report.trainings < report.wanted:
        return f"{report.trainings} of {report.wanted} trainings are done; what stands here may change."
    tested = [s for s in report.strategies if s.strategy not in ("uniform", "uniform_again")]
    found = []
    for verdict, said in (("better", "Better than"), ("worse", "Worse than")):
        found += [
            f"{said} {s.control}: {s.strategy}, by {points(abs(s.gain or 0)).lstrip('+')} points."
            for s in tested
            if s.verdict == verdict
        ]
    if unseen := [s.strategy for s in tested if s.verdict == "no difference seen"]:
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
    tested = [s.against for s in report.strategies if s.against and s.strategy != "uniform_again"]
    seen = [found.detectable for found in tested if found.detectable]
    if not seen:
        return "The smallest effect that could have been seen is not known: too few seeds, or nothing varied."
    least, most = f"{100 * min(seen):.1f}", f"{100 * max(seen):.1f}"
    size = least if least == most else f"{least} to {most}"
    seen_words = f"The smallest true difference it could have seen with 80 % power: {size} points, before adjusting."
    if report.seed_sd is None:
        return seen_words
    return f"{seen_words} Beyond item noise, seeds scatter by {100 * report.seed_sd:.1f} points."


def calibration_words(report: BenchReport) -> str:
    """What random against random gave."""
    made = report.calibration
    again = next((s for s in report.strategies if s.strategy == "uniform_again"), None)
    if made is None or again is None or again.against is None:
        return "Random against random: not known, it needs two seeds of uniform and of uniform_again."
    called = "different" if again.against.p_value <= 0.05 else "not different"
    return (
        f"Random against random: uniform_again less uniform is {difference_words(again.against, again.gain)} points, "
        f"called {called}; of the {made.splits} ways to halve those trainings {made.different} "
        f"({percent(made.different / made.splits)}) would be called different, where 5 % is meant."
    )


def equal_words(report: BenchReport) -> str:
    """What was made equal, and how nearly."""
    trainings = [t for s in report.strategies for t in s.trainings]
    if not trainings:
        return f"Each training gets {report.budget:,} tokens."
    tokens, steps = [t.training_tokens for t in trainings], [t.steps for t in trainings]
    rows = [t.rows for t in trainings]
    mean = sum(tokens) / len(tokens)
    off = max(abs(t - mean) for t in tokens) / mean if mean else 0.0
    return (
        f"Equal for all: student, pool, recipe, and the tokens of a training ({mean:,.0f} on average, at most "
        f"{percent(off)} off; {report.budget:,} were meant). Rows and steps follow from them: "
        f"{_range(rows)} rows, {_range(steps)} steps."
    )


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def base_words(report: BenchReport) -> str:
    """What the untrained base answers."""
    left = f"; {report.left_out} more have no verdict somewhere and are left out" if report.left_out else ""
    return f"The base answers {rate_words(report.base_accuracy)} of the final items{left}."


def sentences(report: BenchReport) -> list[str]:
    """Everything beside the tables, in order."""
    made = [screening_words(report), base_words(report), equal_words(report), power_words(report)]
    made += [calibration_words(report), control_words(report), *map(response_words, report.strategies)]
    return [text for text in (*made, report.scope, *report.notes) if text]


def control_words(report: BenchReport) -> str:
    """What is compared with something else than uniform; empty where nothing is."""
    others = [f"{s.strategy} with {s.control}" for s in report.strategies if s.control not in (None, "uniform")]
    return f"Compared with uniform, but {', '.join(others)}." if others else ""


def response_words(result: StrategyResult) -> str:
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
        f"{result.strategy} takes {_fewer(made.saved)} response tokens a training than uniform, whose rows have worked "
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
    """The first table, a row a strategy."""
    return [
        [
            s.strategy,
            str(len(s.trainings)),
            accuracy_words(s),
            s.control or NONE,
            difference_words(s.against, s.gain),
            p_words(s.p_value),
            detectable_words(s),
            s.verdict if s.control else NONE,
            mean_words(s, "target_tokens"),
        ]
        for s in report.strategies
    ]


def short_rows(report: BenchReport) -> list[list[str]]:
    """The first table for a narrow terminal: the mean alone, and no words that the headline says."""
    pairs = zip(report.strategies, result_rows(report), strict=True)
    return [[*row[:2], f"{100 * s.accuracy:.1f}", *row[4:7]] for s, row in pairs]


def cost_rows(report: BenchReport) -> list[list[str]]:
    """The second table, a row a strategy: means over trainings."""
    counts = ("rows", "written_rows", "training_tokens", "target_tokens", "steps")
    return [[s.strategy, *(mean_words(s, what) for what in counts)] for s in report.strategies]


def skill_heads(report: BenchReport) -> list[str]:
    """The heads of the table of skills."""
    return ["skill", "items", *(s.strategy.replace("_", " ") for s in report.strategies)]


def skill_rows(report: BenchReport) -> list[list[str]]:
    """Skill, items, and each strategy's mean accuracy in percent; `*` where it differs from the control."""
    rows = []
    for at, skill in enumerate(report.strategies[0].skills if report.strategies else ()):
        cells = [skill.skill, str(skill.items)]
        for result in report.strategies:
            of = result.skills[at]
            cells.append(f"{100 * of.accuracy:.0f}" + ("*" if of.p_value is not None and of.p_value <= 0.05 else ""))
        rows.append(cells)
    return rows


def level_heads(report: BenchReport) -> list[str]:
    """The heads of the table of difficulties."""
    return ["difficulty", *skill_heads(report)[1:]]


def level_rows(report: BenchReport) -> list[list[str]]:
    """Difficulty, items, and each strategy's mean accuracy in percent."""
    return [
        [str(level.difficulty), str(level.items), *(f"{100 * s.levels[at].accuracy:.0f}" for s in report.strategies)]
        for at, level in enumerate(report.strategies[0].levels if report.strategies else ())
    ]


def training_rows(report: BenchReport) -> list[list[str]]:
    """The last table, a row a training."""
    return [
        [
            f"{s.strategy} {t.seed}",
            rate_words(t.accuracy),
            str(t.rows),
            f"{t.training_tokens:,}",
            str(t.steps),
            f"{t.last_loss:.2f}",
            t.adapter,
        ]
        for s in report.strategies
        for t in s.trainings
    ]
