"""How a report words what is remembered of skills, and what was or was not forgotten.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from curriculum.mastery import Mastery, SkillMastery
from curriculum.report import FinalReport, RoundReport
from curriculum.report_words import NONE
from curriculum.retention import regressed
from curriculum.round_records import GateSkill


def state_words(part: SkillMastery) -> str:
    """`mastered since round 2, tested again from round 5`: a skill's state and since when."""
    if part.state == "unmeasured":
        return "never measured"
    words = f"{'mastered' if part.mastered else part.state} since round {part.since}"
    if part.mastered:
        passed = f", {part.retests} re-test{'' if part.retests == 1 else 's'} passed" if part.retests else ""
        words += f"{passed}, tested again from round {part.due}"
    return words + (f", slips: {part.slips}" if part.slips > (part.state == "slipped") else "")


def state_of(mastery: Mastery | None, skill: str) -> str:
    """A skill's state and since when; a dash where nothing is remembered."""
    known = mastery.by_skill.get(skill) if mastery else None
    return NONE if known is None else state_words(known)


def mastery_words(round_: RoundReport) -> str:
    """Every skill's state in one sentence, those that hold or held first; empty where nothing is remembered."""
    if round_.mastery is None:
        return ""
    order = {"slipped": 0, "mastered": 1, "retested": 1}
    parts = sorted(round_.mastery.skills, key=lambda part: (order.get(part.state, 2), part.state, part.skill))
    return f"Mastery: {'; '.join(f'{part.skill} {state_words(part)}' for part in parts)}."


def retention_rows(round_: RoundReport) -> list[GateSkill]:
    """The parts of the retention set, as rows of a table of skills."""
    return [
        GateSkill(
            skill=part.name if part.kind == "skill" else f"{part.name}{' (set)' if part.kind == 'set' else ''}",
            before=part.before,
            after=part.after,
            change=part.change,
            p_value=part.p_value,
        )
        for part in round_.retention
    ]


def retention_words(round_: RoundReport) -> str:
    """What fell on the retention set, and what follows; empty where nothing had to be kept."""
    if not round_.retention:
        return ""
    fell = [part.name for part in round_.retention if part.fell]
    words = f"Fell significantly: {', '.join(fell)}. " if fell else "Nothing fell significantly. "
    again = regressed(round_.retention)
    words += f"The next round replays rows of {', '.join(again)} first. " if again else ""
    return words + RETENTION


RETENTION = (
    "The retention set: gate items of mastered skills, and the sets marked so. p: one-sided for a fall, exact, for a "
    "retrain of the same recipe with another seed, adjusted over these rows; at 0.05 or less the candidate is rolled "
    "back, which happens to at most one in twenty that lost nothing."
)


def replay_words(round_: RoundReport) -> str:
    """Whose rows were replayed first; empty where there was no order."""
    if not round_.plan or not round_.plan.replay_first:
        return ""
    rows = sum(cell.rows for cell in round_.mixture if cell.origin == "replay")
    return f"Replay ({rows} rows) took rows of {', '.join(round_.plan.replay_first)} first: they slipped or regressed."


def extra_words(final: FinalReport) -> str:
    """Which extra sets select."""
    kept = [s.name for s in final.extra if s.retention]
    if not kept:
        return NEVER_SELECT
    words = f"On {', '.join(kept)} (retention) a significant fall rolled candidates back; no training row repeats them."
    return words if len(kept) == len(final.extra) else f"{words} {NEVER_SELECT.replace('Extra', 'The other', 1)}"


def extra_title(final: FinalReport) -> str:
    """The heading of the extra sets."""
    return "Extra sets" if any(s.retention for s in final.extra) else "Extra sets (never select)"


NEVER_SELECT = (
    "Extra sets never select: no profile, plan, training set, gate or stop rule saw them, and no training row repeats "
    "one of their questions."
)
