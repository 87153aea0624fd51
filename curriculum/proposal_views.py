"""A proposed plan as a page and in the terminal: tables and sentences, escaped for their medium.

Takes a proposal, and the decision on it once there is one; computes no row and no forecast.
"""

import shlex
from collections.abc import Mapping

from rich.console import Group, RenderableType

from curriculum import report_words as words
from curriculum.approval import PlanDecision, decision_words, levels_said
from curriculum.proposal import Proposal, ProposedSkill, SampleRow
from curriculum.report_html import html_environment
from curriculum.report_text import add_row, narrow_table, safe_text
from curriculum.teacher_words import range_words, total_words

KINDS: Mapping[str, str] = {
    "pool": "from the pool",
    "replay": "replayed",
    "generated": "generated",
    "seed": "seed only, not taught",
}
"""What a sample row is."""
MINUTES_SHOWN = 1.0
"""Shorter times are said in seconds."""


def render_html(proposal: Proposal, decision: PlanDecision | None, run_path: str) -> str:
    """The whole page; `run_path` stands in the commands that it shows."""
    template = html_environment().get_template("plan.html.jinja")
    return template.render(
        proposal=proposal,
        plan=proposal.plan,
        decided=decision_words(decision),
        kinds=KINDS,
        headline=headline(proposal),
        forecast=forecast_rows(proposal),
        known=sample_words(proposal),
        approve_command=approve_command(run_path),
        resume_command=f"tutelage resume {shlex.quote(run_path)}",
        levels_said=levels_said,
        range_words=range_words,
        why=row_words,
        short=shortfall_words(proposal),
        shown_words=shown_words,
    )


def approve_command(run_path: str) -> str:
    """The command that approves what waits in a run."""
    return f"tutelage approve {shlex.quote(run_path)} --by NAME --reason TEXT"


def headline(proposal: Proposal) -> str:
    """What the round would teach, in a sentence."""
    plan = proposal.plan
    taught = [part for part in plan.skills if part.pool_rows or any(part.written_rows.values())]
    replayed = f", and {plan.replay_rows} rows of earlier rounds again" if plan.replay_rows else ""
    return (
        f"Round {plan.round} would teach {plan.new_rows} new rows of {_count(len(taught), 'skill')}: "
        f"{plan.new_rows - plan.written_rows} from the pool and {plan.written_rows} {proposal.written_word}{replayed}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def forecast_rows(proposal: Proposal) -> list[tuple[str, str]]:
    """What the rest of the round will take: what, and how much."""
    made, plan = proposal.forecast, proposal.plan
    rows = [
        ("Time" if made.teacher is None else "Student's time", f"{_time_words(made.minutes)}. {made.basis}"),
        ("Rows through training", f"{made.training_rows:,} in {_count(plan.epochs, 'epoch')}, at most"),
        ("Student's answers", f"{made.answers:,} to decide on the candidate"),
        *((f"Of the time, {method.what}", method.many) for method in made.methods),
    ]
    if made.teacher is None:
        return [*rows, ("Teacher", "no request and no cost: the offline teacher calls nobody")]
    asked = total_words(made.teacher) if made.teacher.roles else "no request"
    return [*rows, ("Teacher", " ".join(part for part in (asked, made.teacher_left_out) if part))]


def _time_words(minutes: tuple[float, float] | None) -> str:
    if minutes is None:
        return "Not known"
    low, high = minutes
    if high < MINUTES_SHOWN:
        return f"Less than a minute ({range_words((60 * low, 60 * high))} s)"
    return f"{range_words(minutes)} minutes"


def sample_words(proposal: Proposal) -> list[str]:
    """What of the sample is exact, and what is not known yet."""
    said = [
        "Pool rows are those that this plan draws with its seed: approved unchanged, they are taught as shown. They "
        "are a few of each skill's, by their ids; an edit of the rows draws anew. Which of a skill's rows count as the "
        "uniform floor's is settled once all rows are there."
    ]
    if proposal.not_ranked:
        said.append(f"They are drawn at random, not by plan.rank {proposal.ranked_by}: {proposal.not_ranked}.")
    elif proposal.ranked_by != "random":
        said = [
            f"Pool rows are a few of each skill's, at random: plan.rank {proposal.ranked_by} ranks a skill's items "
            "once the plan is approved, and then the best of them are taught."
        ]
    if proposal.plan.written_rows and proposal.teacher == "offline":
        said.append(
            "Generated rows are made by the plan's seed, one for each skill and difficulty: they will be made again, "
            "and taught unless a check or an earlier row of the round takes their place. The others are not made yet."
        )
    elif proposal.plan.written_rows:
        said.append(
            "What the teacher will write is not known: nothing is asked before the plan is approved. Shown is a pool "
            "question that its first request for that skill holds as an example; the new ones are solved, compared and "
            "checked before they are taught, and fewer than ordered may be kept."
        )
    if proposal.plan.replay_rows:
        said.append("Replayed rows were taught in an accepted round before; the plan's seed picks them.")
    return said


def shortfall_words(proposal: Proposal) -> str:
    """What the plan asks of the pool and the pool does not hold; empty where it holds all."""
    moved = [s for s in proposal.skills if s.drawn != s.plan.pool_rows]
    if not moved:
        return ""
    skills = ", ".join(f"{s.plan.skill} {s.plan.pool_rows} planned, {s.drawn} drawn" for s in moved)
    short = f" {proposal.short_of_rows} rows find no item at all." if proposal.short_of_rows else ""
    return f"No item is taught more often than plan.max_repeats allows, so rows move to other skills: {skills}.{short}"


def row_words(row: SampleRow) -> str:
    """Why a row is in the sample."""
    if row.kind == "seed":
        return "An example that the writer will be shown."
    if row.kind == "generated":
        return "Made by the generator for this skill and difficulty."
    before = "" if row.uses == 0 else f" Taught {row.uses} time{'' if row.uses == 1 else 's'} before."
    if row.kind == "replay":
        return f"Chosen for {row.skill}: {row.layer}.{before}"
    weight = "" if row.expected is None else f" With other seeds the plan draws it {row.expected:.2g} times on average."
    return f"Chosen by {row.layer}.{weight}{before}"


def shown_words(skill: ProposedSkill, written: str) -> str:
    """How many rows of a skill's are shown: `3 rows and 2 seeds shown, of 8 from the pool and 8 written`."""
    seeds = sum(row.kind == "seed" for row in skill.rows)
    shown = [_count(len(skill.rows) - seeds, "row")] + ([_count(seeds, "seed")] if seeds else [])
    ordered = sum(skill.plan.written_rows.values())
    return f"{' and '.join(shown)} shown, of {skill.plan.pool_rows} from the pool and {ordered} {written}"


def merged_words(skill: ProposedSkill) -> str:
    """The names that were merged into a skill; empty where there are none."""
    return f"merges {', '.join(skill.merged)}" if skill.merged else ""


def render_terminal(proposal: Proposal) -> RenderableType:
    """The summary that a person decides by in the terminal."""
    plan = proposal.plan
    table = narrow_table("Skills", ["skill", "probe, %", "missing", "share, %", "pool", proposal.written_word])
    for skill in proposal.skills:
        part = skill.plan
        cells = [words.rate_short(skill.probe), str(part.missing), f"{100 * part.share:.1f}", str(part.pool_rows)]
        add_row(table, [part.skill, *cells, levels_said(part.written_rows)])
    said = [f"{s.plan.skill}: {'; '.join(x for x in (s.plan.reason, merged_words(s)) if x)}" for s in proposal.skills]
    parts: list[RenderableType] = [safe_text(headline(proposal), "bold")]
    parts += [safe_text(text) for text in (proposal.asked_anew, plan.reason or "", plan.fallback or "") if text]
    if plan.changed:
        parts.append(safe_text(f"Changed after the rollback: {plan.changed}"))
    if proposal.dropped_skills:
        parts.append(safe_text(f"Dropped from the catalogue: {', '.join(proposal.dropped_skills)}"))
    parts += [table, *(safe_text(text, "dim") for text in said)]
    if short := shortfall_words(proposal):
        parts.append(safe_text(short))
    training = ("Training", f"learning rate {plan.learning_rate:g}, {_count(plan.epochs, 'epoch')}")
    return Group(*parts, *(safe_text(f"{what}: {text}") for what, text in (*forecast_rows(proposal), training)))
