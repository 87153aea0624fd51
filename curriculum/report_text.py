"""The report as Markdown and in the terminal.

Takes a report and its times; returns Markdown text, or a renderable for a rich console. Whatever came from
data, students or teachers is escaped for the medium: no raw HTML, no images, no control sequences, no markup.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from curriculum import report_allocation, report_evidence, report_methods, report_probe, report_ranking, teacher_words
from curriculum import report_words as words
from curriculum.errors import UserError
from curriculum.report import FinalReport, RoundReport, RunReport, Timings
from curriculum.report_templates import templates
from curriculum.round_records import GateSkill
from curriculum.teacher_records import TeacherReport

MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&$!@]|:(?=//))")
"""What starts something in Markdown in the middle of a line; no value stands at a line's start."""


def render_markdown(report: RunReport, timings: Timings) -> str:
    """The whole report as one Markdown document."""
    return markdown_environment().get_template("report.md.jinja").render(report=report, timings=timings)


def markdown_environment() -> Environment:
    """Where Markdown templates are rendered: every value is escaped, and the filter `fenced` makes a code block."""
    environment = templates(_escape_value)
    environment.filters["fenced"] = fenced
    return environment


def _escape_value(value: Any) -> Markup:
    """Marks the escaped text as safe, so that jinja2's escaping for HTML leaves it alone."""
    return value if isinstance(value, Markup) else Markup(escape_markdown(str(value)))


def escape_markdown(text: str) -> str:
    """The text as it reads inside a line or a table cell: hidden characters shown, line breaks as spaces."""
    return MARKDOWN_SPECIAL.sub(r"\\\1", words.visible(" ".join(text.split())))


def fenced(text: str) -> Markup:
    """The text as a code block, whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}text\n{words.visible(text)}\n{fence}")


def print_terminal(report: RunReport, timings: Timings, round_: int | None = None) -> None:
    """Prints what `render_terminal` returns; lines are as wide as the terminal."""
    Console(highlight=False).print(render_terminal(report, timings, round_))


def render_terminal(report: RunReport, timings: Timings, round_: int | None = None) -> RenderableType:
    """What the terminal shows: the verdict, rounds and skills, or one round in full.

    Raises:
        UserError: the run has no such round.
    """
    if round_ is not None:
        chosen = [r for r in report.rounds if r.round == round_]
        if not chosen:
            known = ", ".join(str(r.round) for r in report.rounds) or "none yet"
            raise UserError(f"run {report.run}: expected one of its rounds ({known}), got --round {round_}")
        return _one_round(report, chosen[0], timings)
    parts: list[RenderableType] = [safe_text(words.headline(report), "bold")]
    parts += [safe_text(note, "dim") for note in report.notes]
    if report.stop_reason:
        parts.append(safe_text(f"The run stopped: {report.stop_reason}"))
    parts.append(_rounds_table(report.rounds))
    if report.final:
        parts.append(_skill_table("Skills on the final split, base → adapter", report.final.skills))
        parts.append(safe_text(words.format_words(report.final)))
        if report.final.control:
            parts += _said(*report_evidence.control_words(report, report.final.control, "final"))
        if report.final.extra:
            parts.append(_extra_table(report.final))
            parts += _said(*report_evidence.old_rules_words(report.final))
    elif report.rounds:
        last = report.rounds[-1]
        parts.append(_skill_table(f"Skills on the gate split (selected on), round {last.round}", last.skills))
    parts += _teaching_parts(report, timings)
    if timings.stages:
        parts.append(safe_text(f"Time in all stages: {words.duration(sum(t.seconds for t in timings.stages))}", "dim"))
    return Group(*parts)


def _teaching_parts(report: RunReport, timings: Timings) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if report.teaching:
        parts.append(_spend_table(report.teaching))
        if report.teaching.forecast:
            parts.append(_forecast_table(report, timings))
        parts.append(safe_text(teacher_words.teaching_words(report.teaching)))
    if report.judging:
        parts.append(safe_text(teacher_words.judging_words(report.judging)))
    return parts + [
        safe_text(f"Round {r.round}: {told}") for r in report.rounds if (told := teacher_words.plan_words(r))
    ]


def _one_round(report: RunReport, round_: RoundReport, timings: Timings) -> RenderableType:
    parts: list[RenderableType] = [
        safe_text(f"Round {round_.round}: {words.decision_words(round_)}. {round_.reason}.", "bold"),
        safe_text(round_.rule, "dim"),
        _skill_table("Skills on the gate split (selected on)", round_.skills),
    ]
    if round_.retention:
        parts.append(_skill_table("Retention set, p one-sided", report_evidence.retention_rows(round_)))
    changed = f"Changed after the rollback: {round_.plan.changed}" if round_.plan and round_.plan.changed else ""
    parts += _said(
        report_evidence.retention_words(round_),
        teacher_words.plan_words(round_),
        report_ranking.ranking_words(round_),
        changed,
    )
    if round_.probe or round_.mixture:
        parts.append(_work_table(report, round_))
    parts += _said(report_evidence.mastery_words(round_), report_evidence.replay_words(round_))
    if round_.allocation:
        parts.append(_allocation_table(round_))
    parts += _said(
        report_allocation.expected_words(round_),
        report_allocation.price_words(report, round_),
        report_probe.probe_words(round_),
        words.health_words(round_.training) if round_.training else "",
        report_methods.methods_words(round_, timings),
    )
    if round_.control:
        parts.append(_skill_table("Control → targeted, on the gate split", round_.control.skills))
        parts += _said(*report_evidence.control_words(report, round_.control, "gate"))
    for failure in round_.failures:
        parts.append(safe_text(f"\n{words.failure_words(failure)} · {', '.join(failure.skills)}", "bold"))
        parts.append(safe_text(failure.question))
        parts.append(safe_text(f"{words.expected_words(failure)}: {failure.diagnosis}", "dim"))
    of_round = [t for t in timings.stages if t.round == round_.round]
    parts += [safe_text(f"{t.stage}: {words.duration(t.seconds)}", "dim") for t in of_round]
    return Group(*parts)


def _said(*texts: str) -> list[RenderableType]:
    """The sentences that say something."""
    return [safe_text(text) for text in texts if text]


def _rounds_table(rounds: Sequence[RoundReport]) -> Table:
    table = narrow_table(
        "Rounds, on the gate split (selected on)", ["round", "decision", "accuracy, %", "change, points", "p"]
    )
    for r in rounds:
        accuracy = words.rate_short(r.before if r.after is None else r.after)
        change, p_value = words.change_short(r.change), words.p_words(r.p_value)
        add_row(table, [str(r.round), words.decision_words(r), accuracy, change, p_value])
    return table


def _skill_table(title: str, skills: Iterable[GateSkill]) -> Table:
    table = narrow_table(title, ["skill", "before, %", "after, %", "change, points", "p"])
    for s in skills:
        before, after, change = words.rate_short(s.before), words.rate_short(s.after), words.change_short(s.change)
        add_row(table, [s.skill, before, after, change, words.p_words(s.p_value)])
    return table


def _extra_table(final: FinalReport) -> Table:
    heads = ["set", "base, %", "few-shot, %", "adapter, %", "change, points"]
    table = narrow_table(f"{report_evidence.extra_title(final)}, base → adapter", heads)
    for s in final.extra:
        rates = [words.rate_short(rate) for rate in (s.base, s.base_few_shot, s.adapter)]
        add_row(table, [s.name, *rates, words.change_short(s.change)])
    return table


def _spend_table(teaching: TeacherReport) -> Table:
    heads = ["role", "model", "requests", "prompt", "cached", "completion", "reasoning", "cost"]
    table = narrow_table("The teacher, tokens", heads)
    for row in teacher_words.spend_by_role(teaching):
        tokens = (row.requests, row.prompt_tokens, row.cached_tokens, row.completion_tokens, row.reasoning_tokens)
        model = teaching.models.get(row.role, words.NONE)
        add_row(table, [row.role, model, *map(str, tokens), teacher_words.money_words(row.money)])
    return table


def _forecast_table(report: RunReport, timings: Timings) -> Table:
    heads = ["role", "requests", "prompt", "completion", "cost", "minutes"]
    table = narrow_table("The teacher, actual (forecast)", heads)
    for row in teacher_words.forecast_rows(report, timings):
        add_row(table, row)
    return table


def _work_table(report: RunReport, round_: RoundReport) -> Table:
    heads = ["skill", "probe, %", "missing", "pool", words.written_words(report), "replay"]
    table = narrow_table("What was missing and what was taught, rows", heads)
    for w in words.skill_work(round_):
        missing = str(w.probe.missing) if w.probe else words.NONE
        probe = words.rate_short(w.probe.accuracy if w.probe else None)
        add_row(table, [w.skill, probe, missing, str(w.pool), str(w.written), str(w.replay)])
    return table


def _allocation_table(round_: RoundReport) -> Table:
    heads = ["skill", "even", "fail", "learn", "gain", "given", "expected", "a point", "curve"]
    table = narrow_table("Shares: even, by failures, learnability, expected gain, %; points and tokens", heads)
    for row in report_allocation.allocation_rows(round_):
        add_row(table, [row.skill, *row.cells, row.status.partition(":")[0]])
    return table


def narrow_table(title: str, heads: Sequence[str]) -> Table:
    """An empty table whose first column may fold."""
    table = Table(title=safe_text(title, "bold"), title_justify="left", box=None, pad_edge=False)
    for place, head in enumerate(heads):
        # Numbers stay on one line; a long name in the first column may fold.
        table.add_column(safe_text(head, "dim"), overflow="fold", no_wrap=place > 0, min_width=len(head))
    return table


def add_row(table: Table, cells: Sequence[str]) -> None:
    """Adds a row of texts, escaped."""
    table.add_row(*(safe_text(cell) for cell in cells))


def safe_text(text: str, style: str = "") -> Text:
    """Plain text for the terminal: `Text` parses no markup, and control sequences are shown, not sent."""
    return Text(words.visible(text), style=style)
