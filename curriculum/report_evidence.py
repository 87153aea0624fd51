"""How a report words what is remembered of skills.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from curriculum.mastery import Mastery, SkillMastery
from curriculum.report import RoundReport
from curriculum.report_words import NONE


def state_words(part: SkillMastery) -> str:
    """`mastered since round 2, tested again from round 5`: a skill's state and since when."""
    if part.state == "unmeasured":
        return "never measured"
    words = f"{'mastered' if part.mastered else part.state} since round {part.since}"
    if part.mastered:
        passed = f", {part.retests} re-test{'' if part.retests == 1 else 's'} passed" if part.retests else ""
        words += f"{passed}, tested again from round {part.due}"
    elif part.slips and part.state != "slipped":
        words += f", slipped {part.slips} times"
    return words


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
