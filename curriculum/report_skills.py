"""The skills of a run over its rounds, as a table: rates on gate and probe, states, and the change on the final split.

Takes a report; returns rows of values and sentences, not escaped for any medium, as `report_words` does.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from curriculum.records import Rate
from curriculum.report import RoundReport, RunReport
from curriculum.report_words import decision_words, percent
from curriculum.round_records import GateSkill, SkillProfile

P = TypeVar("P", GateSkill, SkillProfile)

MOST_NAMED = 4
"""Skills that a sentence names."""

EXPLAINED = (
    "Gate: the candidate of each round on the gate split, which selects (round 0: the base). Probe: the adapter a "
    "round began with, on the split that finds what is missing. The mark beside a rate is the skill's state before "
    "that round's teaching, by all probe answers so far. Final: accepted adapter less base on items that selected "
    "nothing, bold where p, adjusted for the number of skills, is at most 0.05."
)
STATES = {
    "unmeasured": "never measured",
    "missing": "missing",
    "learning": "learning",
    "mastered": "mastered",
    "retested": "mastered, re-tested",
    "slipped": "slipped",
}


class SkillCell(NamedTuple):
    """One skill in one round."""

    gate: Rate | None
    probe: Rate | None
    state: str
    """A key of `STATES`; empty where nothing is remembered."""


class SkillRow(NamedTuple):
    """One skill over all rounds, at one difficulty or (none) at all of them."""

    skill: str
    difficulty: int | None
    state: str
    """The latest one."""
    cells: tuple[SkillCell, ...]
    """One a round."""
    final: GateSkill | None


def round_heads(report: RunReport) -> list[tuple[str, str]]:
    """What each round is called, and what became of its candidate."""
    return [("Base" if r.round == 0 else f"Round {r.round}", decision_words(r)) for r in report.rounds]


def skill_rows(report: RunReport) -> list[SkillRow]:
    """A row a skill, each followed by a row for each of its difficulties."""
    gates = [_by_cell((*r.skills, *r.cells)) for r in report.rounds]
    probes = [_by_cell((*r.probe.skills, *r.probe.cells) if r.probe else ()) for r in report.rounds]
    finals = _by_cell((*report.final.skills, *report.final.cells) if report.final else ())
    memory = [r.mastery.by_skill if r.mastery else {} for r in report.rounds]
    keys = {key for of in gates for key in of} | {key for of in probes for key in of} | finals.keys()
    rows = []
    for skill, level in sorted(keys, key=lambda key: (key[0], key[1] or 0)):
        states = [of[skill].state if skill in of else "" for of in memory]
        cells = tuple(
            SkillCell(
                gate=_gate_rate(r, gate.get((skill, level))),
                probe=of_probe.accuracy if (of_probe := probe.get((skill, level))) else None,
                state=state,
            )
            for r, gate, probe, state in zip(report.rounds, gates, probes, states, strict=True)
        )
        latest = next((state for state in reversed(states) if state), "")
        rows.append(SkillRow(skill, level, latest, cells, finals.get((skill, level))))
    return rows


def difficulties(rows: Iterable[SkillRow]) -> list[int]:
    """The difficulties that rows have, least first."""
    return sorted({row.difficulty for row in rows if row.difficulty is not None})


def states(rows: Iterable[SkillRow]) -> list[str]:
    """The states that rows have, in the order of `STATES`."""
    seen = {row.state for row in rows}
    return [state for state in STATES if state in seen]


def next_words(report: RunReport) -> str:
    """What is still missing, and what happens next."""
    rows = [row for row in skill_rows(report) if row.difficulty is None and row.cells]
    mastered = [row for row in rows if row.state in ("mastered", "retested")]
    latest = sorted((rate.rate, row.skill) for row in rows if (rate := row.cells[-1].probe) and rate.rate is not None)
    words = []
    if any(row.state for row in rows):
        words.append(f"{len(mastered)} of {len(rows)} skills are mastered.")
    if latest:
        named = ", ".join(f"{skill} {percent(rate)}" for rate, skill in latest[:MOST_NAMED])
        words.append(f"Lowest on the last probe: {named}.")
    if report.status == "running":
        words.append(f"Next: tutelage resume runs/{report.run} goes on with round {len(report.rounds)}.")
    elif report.status == "finished":
        words.append(f"Next: all planned rounds are done; tutelage resume runs/{report.run} --extend N adds rounds.")
    else:
        words.append("Next: nothing; the run ended by its own rule.")
    return " ".join(words)


def _gate_rate(round_: RoundReport, part: GateSkill | None) -> Rate | None:
    if part is None:
        return None
    return part.after if round_.candidate else part.before


def _by_cell(parts: Iterable[P]) -> dict[tuple[str, int | None], P]:
    return {(part.skill, part.difficulty): part for part in parts}
