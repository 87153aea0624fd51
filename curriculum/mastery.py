"""Mastery memory: which skills are missing, learning, mastered, re-tested or slipped, and since when.

Takes the missing-skill profiles of all rounds so far, and nothing else, so that a resumed run remembers the same;
returns a `Mastery`. Hysteresis: a skill becomes mastered when its probe answers reach `plan.target_rate` *and* leave
little doubt (the interval's lower end is at `plan.mastery.low` or above); it slips only when they refute that rate (the
upper end is below it). Between the two it stays what it is.

The probe is answered every round, and every look is a chance to be fooled. So a mastered skill is looked at again only
in its re-tests: 1 round later, then 2, then 4, … as long as it passes them. A re-test needs an adapter that has not
been tested yet (the same one gives the same answers) and `plan.mastery.retest_items` graded answers; until there are
both it is put off. With the defaults, on 9 to 120 items, by the binomial distribution: a skill whose true accuracy is
80 % becomes mastered by luck in at most 14 % of looks (70 %: 5 %), and one that is truly right in 95 % slips by luck in
at most 11 % of its re-tests. The spacing is that of Leitner's boxes of cards.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from curriculum.plan_config import PlanConfig
from curriculum.records import Part, Rate, Record
from curriculum.round_records import MissingSkillProfile, SkillProfile

MasteryState = Literal["unmeasured", "missing", "learning", "mastered", "retested", "slipped"]
"""`learning`: not mastered, but surely above what was measured first. `retested`: mastered, and it passed re-tests.
`slipped`: it was mastered and a re-test refuted it; its failures count more until it is mastered again."""


class SkillMastery(Part):
    """What is remembered of one skill."""

    skill: str
    state: MasteryState
    since: int = Field(
        description="the round whose probe answers put it there; of a re-tested skill, that it was mastered in"
    )
    accuracy: Rate = Field(description="of the latest probe answers, whether or not they were a re-test")
    first: float | None = Field(description="the rate that was measured first")
    tested: str | None = Field(default=None, description="the adapter whose answers decided last")
    due: int | None = Field(default=None, description="of a mastered skill: the round from which it is tested again")
    retests: int = Field(default=0, ge=0, description="re-tests passed since it was last mastered")
    slips: int = Field(default=0, ge=0, description="how often it was mastered and refuted")

    @property
    def mastered(self) -> bool:
        """Whether it keeps the floor only."""
        return self.state in ("mastered", "retested")


class Mastery(Record):
    """What is remembered of every skill, by the probe answers up to one round."""

    round: int
    skills: tuple[SkillMastery, ...] = Field(description="sorted by skill")

    @property
    def by_skill(self) -> dict[str, SkillMastery]:
        """Skill → what is remembered of it."""
        return {part.skill: part for part in self.skills}


def remember(profiles: Sequence[MissingSkillProfile], config: PlanConfig) -> Mastery:
    """The states after the last of the profiles.

    Args:
        profiles: of the rounds so far, oldest first, at least one; each has every skill of the catalogue.
        config: its `target_rate` and `mastery` are used.
    """
    known: Mapping[str, SkillMastery] = {}
    for profile in profiles:
        known = {part.skill: _after(known.get(part.skill), part, profile, config) for part in profile.skills}
    return Mastery(round=profiles[-1].round, skills=tuple(known[skill] for skill in sorted(known)))


def demand(part: SkillMastery, missing: int, config: PlanConfig) -> int:
    """What a skill's failures count when rows are given out: nothing once it is mastered, more after a slip."""
    if part.mastered:
        return 0
    return missing * config.mastery.slip_weight if part.state == "slipped" else missing


def at_target(part: SkillProfile, config: PlanConfig) -> bool:
    """Whether the answers reach `target_rate`, and items without a gold answer give no reason to doubt it."""
    asked = part.without_gold
    unsure = asked is not None and asked.difficult > (1 - config.target_rate) * asked.items
    return part.accuracy.rate is not None and part.accuracy.rate >= config.target_rate and not unsure


def _after(
    before: SkillMastery | None, part: SkillProfile, profile: MissingSkillProfile, config: PlanConfig
) -> SkillMastery:
    """What is remembered of a skill once a round's probe answers are in."""
    round_, rate = profile.round, part.accuracy
    if before is None:
        before = SkillMastery(skill=part.skill, state="unmeasured", since=round_, accuracy=rate, first=rate.rate)
    known = before.model_copy(update={"accuracy": rate, "first": rate.rate if before.first is None else before.first})
    if rate.rate is None or rate.low is None or rate.high is None:
        return known
    if before.due is not None:
        if round_ < before.due or profile.adapter == before.tested or rate.n < config.mastery.retest_items:
            return known
        if rate.high < config.target_rate:
            slipped = {"state": "slipped", "since": round_, "due": None, "slips": before.slips + 1}
            return known.model_copy(update={**slipped, "tested": profile.adapter})
        passed = before.retests + 1
        again = {"state": "retested", "retests": passed, "due": round_ + 2**passed}
        return known.model_copy(update={**again, "tested": profile.adapter})
    if at_target(part, config) and rate.low >= config.mastery.low:
        entered = {"state": "mastered", "since": round_, "due": round_ + 1, "retests": 0}
        return known.model_copy(update={**entered, "tested": profile.adapter})
    state = "slipped" if before.state == "slipped" else _unmastered(before, rate.rate, rate.low, known.first)
    return known if state == before.state else known.model_copy(update={"state": state, "since": round_})


def _unmastered(before: SkillMastery, rate: float, low: float, first: float | None) -> MasteryState:
    """Surely above the first rate to begin learning; merely above it to go on."""
    start = rate if first is None else first
    return "learning" if (rate if before.state == "learning" else low) > start else "missing"
