"""What a run took beside what was forecast, what each round cost, and the price of a recovered point.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from math import ceil, floor

from curriculum.report import RoundReport, RunReport, Timings
from curriculum.report_allocation import tokens_a_point
from curriculum.report_words import NONE, change_short, decision_words, duration
from curriculum.teacher_words import money_words

HEADS = (
    "Round", "Decision", "Time", "Rows", "Training tokens", "Teacher tokens", "Money", "Gate change", "Tokens a point",
)  # fmt: skip
FORECAST_HEADS = ("What", "Forecast", "Actual")
BASIS = (
    "Forecast from the config alone, as tutelage forecast prints it, every adapter accepted: the dearest course. "
    "Minutes were timed with the quickstart's student on two CPU cores."
)


def forecast_rows(report: RunReport, timings: Timings) -> list[tuple[str, str, str]]:
    """Answers, rows and minutes, in the words of `FORECAST_HEADS`; empty where a run does not say."""
    work = report.work
    if work is None:
        return []
    minutes = work.forecast_minutes
    waits = ", the teacher's not counted" if report.teaching else ""
    took = sum(t.seconds for t in timings.stages)
    return [
        ("Student answers", f"at most {work.forecast_answers:,}", f"{work.all_answers:,}"),
        ("Rows through training", f"at most {work.forecast_rows:,}", f"{work.rows:,}"),
        (
            "Time in all stages",
            NONE if minutes is None else f"{floor(minutes[0])} to {ceil(minutes[1])} min{waits}",
            duration(took) if timings.stages else NONE,
        ),
    ]


def cost_rows(report: RunReport, timings: Timings) -> list[tuple[str, ...]]:
    """What each round cost, in the words of `HEADS`; last what is of no round, and all together."""
    rows = [_round_row(report, r, timings) for r in report.rounds]
    outside = sum(t.seconds for t in timings.stages if t.round is None)
    spent = [s for s in report.teaching.spend if s.round is None] if report.teaching else []
    tokens, money = sum(s.prompt_tokens + s.completion_tokens for s in spent), sum(s.money for s in spent)
    rows.append(
        (
            "other", "preparation, answers, final test", duration(outside) if timings.stages else NONE,
            NONE, NONE, _count(tokens), money_words(money), NONE, NONE,
        )
    )  # fmt: skip
    total = report.teaching.total if report.teaching else None
    trained = [r.training for r in report.rounds if r.training]
    taught = sum(t.training_tokens for t in trained)
    rows.append(
        (
            "all",
            "",
            duration(sum(t.seconds for t in timings.stages)) if timings.stages else NONE,
            _count(sum(t.rows for t in trained)),
            _count(taught),
            _count(total.prompt_tokens + total.completion_tokens if total else 0),
            money_words(total.money if total else 0),
            f"{change_short(report.final.change)} final" if report.final else NONE,
            _each(taught, report.final.change.change if report.final else None),
        )
    )
    return rows


def _round_row(report: RunReport, round_: RoundReport, timings: Timings) -> tuple[str, ...]:
    spent = [s for s in report.teaching.spend if s.round == round_.round] if report.teaching else []
    tokens = round_.training.training_tokens if round_.training else 0
    seconds = [t.seconds for t in timings.stages if t.round == round_.round]
    return (
        str(round_.round),
        decision_words(round_),
        duration(sum(seconds)) if seconds else NONE,
        _count(round_.training.rows if round_.training else 0),
        _count(tokens),
        _count(sum(s.prompt_tokens + s.completion_tokens for s in spent)),
        money_words(sum(s.money for s in spent)),
        change_short(round_.change),
        _each(tokens, round_.change.change if round_.change else None),
    )


def point_words(report: RunReport, timings: Timings) -> str:
    """Time and money for each point gained on the final split; empty where none was gained or nothing was timed."""
    gain = report.final.change.change if report.final else None
    if gain is None or gain <= 0 or not timings.stages:
        return ""
    seconds = sum(t.seconds for t in timings.stages) / (100 * gain)
    money = report.teaching.total.money / (100 * gain) if report.teaching else 0
    words = f"A point recovered on the final split took {duration(seconds)}"
    if not report.teaching:
        return f"{words}; the offline teacher costs nothing."
    return f"{words}; " + (f"its teaching cost {money_words(money)}." if money else "no price of the teacher is known.")


def _count(number: int) -> str:
    return f"{number:,}" if number else NONE


def _each(tokens: int, gain: float | None) -> str:
    return NONE if gain is None or gain <= 0 or not tokens else tokens_a_point(tokens, gain)


REJECTION_HEADS = ("Round", "Rows to write", "Kept", "Rejected written", "Rejected pool", "Short")


def rejection_rows(report: RunReport) -> list[tuple[str, ...]]:
    """How many rows each round ordered from the teacher, kept and rejected; empty where nothing was planned."""
    rows = []
    for r in report.rounds:
        if r.plan is None or r.plan.action == "stop":
            continue
        kept = sum(cell.rows for cell in r.mixture if cell.origin == "written")
        rejected = {origin: sum(d.rows for d in r.dropped if d.origin == origin) for origin in ("written", "pool")}
        short = max(0, r.plan.written_rows - kept)
        rows.append(tuple(map(str, (r.round, r.plan.written_rows, kept, rejected["written"], rejected["pool"], short))))
    return rows
