"""How a teacher's plans, verdicts and cost, forecast and actual, are worded, the same in every view.

Takes values of a report and returns plain text, not escaped for any medium: each view does that.
"""

from collections.abc import Callable
from typing import NamedTuple

from curriculum.agreement import Estimate
from curriculum.approval import decision_words
from curriculum.judging import JudgeReport
from curriculum.report import RoundReport, RunReport, Timings
from curriculum.report_difficulty import difficulty_words
from curriculum.report_words import NONE, rate_words
from curriculum.round_records import RoundPlan
from curriculum.teacher_config import ROLES, Budget, Role
from curriculum.teacher_records import Forecast, SpendRow, TeacherForecast, TeacherReport


def teaching_words(teaching: TeacherReport) -> str:
    """What the teacher cost, in one sentence, and what it failed at in another."""
    t = teaching.total
    sentence = (
        f"The teacher was sent {t.requests} requests and answered {t.replies}: {t.prompt_tokens} prompt tokens "
        f"({t.cached_tokens} cached), {t.completion_tokens} completion tokens ({t.reasoning_tokens} reasoning), "
        f"cost {money_words(t.money)}."
    )
    if t.errors or t.orphans:
        sentence += (
            f" {t.errors} requests failed and {t.orphans} ended unseen; {t.charged_tokens} tokens count against the "
            "budget, upper bounds where usage is unknown."
        )
    mended = ", ".join(f"{f.replies} {f.kind} ({f.role})" for f in teaching.faults)
    failed = ", ".join(f"{f.items} {f.kind} ({f.role})" for f in teaching.failed)
    sentence += f" Faulty replies, mended ones included: {mended}." if mended else ""
    return sentence + (f" Items without a usable reply: {failed}." if failed else "")


def money_words(money: float) -> str:
    """Money in the currency of the config's prices; a dash where nothing was priced."""
    return f"{money:.4f}" if money else NONE


def plan_words(round_: RoundReport) -> str:
    """Who planned a round, where an LLM was asked, how hard its rows were to be, and who approved it; else empty."""
    difficulty = difficulty_words(round_.plan.difficulty if round_.plan else None)
    said = (_planned_by(round_.plan), difficulty, decision_words(round_.approval))
    return " ".join(words for words in said if words)


def _planned_by(plan: RoundPlan | None) -> str:
    if plan is None or (plan.by == "rule" and plan.fallback is None):
        return ""
    if plan.fallback is not None:
        return f"The rule planned this round, for the LLM's plan could not be used: {plan.fallback}"
    return f"An LLM planned this round: {plan.reason or NONE}"


def judging_words(judging: JudgeReport) -> str:
    """What the judge said, and whether it can be believed."""
    graded = judging.answers - judging.unsure - judging.failed
    sentences = [
        f"A judge gave a verdict on {graded} of {judging.answers} answers; on {judging.unsure} it was unsure, on "
        f"{judging.failed} it gave no usable reply. Those are failed and enter no rate."
    ]
    if not judging.agreement:
        sentences.append(
            "Nobody checked the judge: data.grader_check or teacher.second_judge would show whether it can be believed."
        )
    for a in judging.agreement:
        sentences.append(
            f"{a.against} agrees with it on {rate_words(a.agree)} of the answers both graded, Cohen's kappa "
            f"{estimate_words(a.kappa)}; {a.only_judge} are right only by the judge, {a.only_other} only by {a.against}"
            + (f"; on {a.no_verdict} more one of the two has no verdict." if a.no_verdict else ".")
        )
    return " ".join(sentences)


def estimate_words(made: Estimate) -> str:
    """A coefficient with its 95 % interval: `0.62 (0.40 to 0.80)`."""
    if made.value is None:
        return NONE
    interval = "" if made.low is None else f" ({made.low:.2f} to {made.high:.2f})"
    return f"{made.value:.2f}{interval}".replace("-", "−")


def count_words(count: float) -> str:
    """Three digits of a number: `412`, `12.3k`, `1.23M`."""
    if count >= 999_500:
        return f"{count / 1e6:.3g}M"
    if count >= 10_000:
        return f"{count / 1e3:.3g}k"
    return f"{count:.0f}" if count >= 10 or count == int(count) else f"{count:.2g}"


def range_words(ends: tuple[float, float] | None) -> str:
    """`250–12.3k`: least and most."""
    if ends is None:
        return NONE
    low, high = map(count_words, ends)
    return low if low == high else f"{low}–{high}"


def total_words(forecast: TeacherForecast) -> str:
    """`250–1200 requests, 80.1k–2.31M tokens, cost 0.02–1.3, 2–60 minutes`."""
    t = forecast.total
    tokens = (t.prompt_tokens[0] + t.completion_tokens[0], t.prompt_tokens[1] + t.completion_tokens[1])
    cost = f"cost {range_words(t.money)}" if t.money else "no cost known without prices"
    return f"{range_words(t.requests)} requests, {range_words(tokens)} tokens, {cost}, {range_words(t.minutes)} minutes"


def short_of(budget: Budget, made: TeacherForecast) -> list[str]:
    """The limits of the budget that even the cheapest course reaches."""
    total = made.total
    least = {
        "requests": (budget.requests, total.requests[0]),
        "tokens": (budget.tokens, total.prompt_tokens[0] + total.completion_tokens[0]),
        "money": (budget.money, total.money[0] if total.money else 0),
    }
    return [
        f"teacher.budget.{name} is {limit:,}, and the least that is forecast is {need:,.6g}: the run will stop at it. "
        "Raise it, or ask for less (plan.rows_per_round, plan.write_share, the splits)."
        for name, (limit, need) in least.items()
        if limit is not None and need > limit
    ]


class ForecastRow(NamedTuple):
    """What a role was asked and cost, each with its forecast in brackets."""

    role: str
    requests: str
    prompt: str
    completion: str
    cost: str
    minutes: str


def forecast_rows(report: RunReport, timings: Timings) -> list[ForecastRow]:
    """Forecast and actual of each role and of all together; none where a run made no forecast."""
    teaching = report.teaching
    if teaching is None or teaching.forecast is None:
        return []
    forecast, spent = teaching.forecast, {row.role: row for row in spend_by_role(teaching)}
    seconds = {timing.role: timing.seconds for timing in timings.roles}
    finished = report.status != "running"
    made: dict[Role, Forecast] = {one.role: forecast.of(one.role) for one in forecast.roles}
    rows = [
        _forecast_row(role, made.get(role), spent.get(role), seconds.get(role), finished)
        for role in ROLES
        if role in made or role in spent
    ]
    together = sum(seconds.values()) if seconds else None
    return [*rows, _forecast_row("all", forecast.total, teaching.total, together, finished)]


def _forecast_row(
    name: str, ends: Forecast | None, actual: SpendRow | None, seconds: float | None, finished: bool
) -> ForecastRow:
    def cell(value: float | None, of: Callable[[Forecast], tuple[float, float] | None]) -> str:
        said, forecast = NONE if value is None else count_words(value), of(ends) if ends else None
        if forecast is None:
            return said
        above = value is not None and value > forecast[1]
        below = value is not None and value < forecast[0] and finished
        return f"{said} ({range_words(forecast)}{', above' if above else ', below' if below else ''})"

    spend = actual or SpendRow(role="skills", round=None, skill="")
    priced = ends is None or ends.money is not None
    return ForecastRow(
        name,
        cell(spend.requests, lambda f: f.requests),
        cell(spend.prompt_tokens, lambda f: f.prompt_tokens),
        cell(spend.completion_tokens, lambda f: f.completion_tokens),
        cell(spend.money if priced else None, lambda f: f.money),
        cell(None if seconds is None else seconds / 60, lambda f: f.minutes),
    )


def spend_by_role(teaching: TeacherReport) -> list[SpendRow]:
    """The spend of each role over all rounds and skills."""
    roles = sorted({row.role for row in teaching.spend}, key=ROLES.index)
    return [
        TeacherReport(
            models={}, spend=tuple(r for r in teaching.spend if r.role == role), faults=(), failed=()
        ).total.model_copy(update={"role": role})
        for role in roles
    ]
