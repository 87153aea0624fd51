"""How a report words the split of rows over skills: every rule's shares, the expected gain, and prices in tokens.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from typing import NamedTuple

from curriculum.records import Change
from curriculum.report import RoundReport, RunReport
from curriculum.report_words import NONE, percent, points
from curriculum.round_records import SkillAllocation

LEAST_GAIN = 0.001
"""Expected gain below which a price says nothing."""

HEADS = (
    "Skill",
    "Even",
    "By failures",
    "By learnability",
    "By expected gain",
    "Given",
    "Expected gain, points",
    "Tokens a point",
)

EXPLAINED = (
    "Shares of the new rows under each rule, in percent, and what was given after rollbacks and edits. The gain is "
    "what the learning curve expects of this round's rows by the run's own rule, on parsed answers, with a range that "
    "holds four times in five. Tokens a point: training tokens of the skill, split by length of text, per point of it."
)


class AllocationRow(NamedTuple):
    """One skill in the words of `HEADS`, and what its learning curve says."""

    skill: str
    cells: tuple[str, ...]
    status: str


def allocation_rows(round_: RoundReport) -> list[AllocationRow]:
    """A round's skills under every rule, those that were given most first; empty without a plan."""
    if round_.allocation is None:
        return []
    given = {s.skill: s.pool_rows + sum(s.written_rows.values()) for s in (round_.plan.skills if round_.plan else ())}
    total = sum(given.values())
    tokens = {of.skill: of.tokens for of in (round_.training.skill_tokens if round_.training else ())}
    rows = [
        AllocationRow(
            part.skill,
            (
                NONE if part.shares.even is None else _whole(part.shares.even),
                _whole(part.shares.failures),
                _whole(part.shares.learnability),
                _whole(part.shares.expected_gain),
                _whole(given.get(part.skill, 0) / total) if total else NONE,
                f"{points(part.gain)} ({points(part.gain_low)} to {points(part.gain_high)})",
                tokens_a_point(tokens.get(part.skill, 0), part.gain) if part.gain >= LEAST_GAIN else NONE,
            ),
            status_words(part),
        )
        for part in round_.allocation.skills
    ]
    return sorted(rows, key=lambda row: -given.get(row.skill, 0))


def status_words(part: SkillAllocation) -> str:
    """What the learning curve says of a skill. It never says that a skill cannot be learned."""
    if part.status == "parked":
        return f"parked: no gain expected in this form after {part.rows:.0f} rows"
    return part.status


def expected_words(round_: RoundReport) -> str:
    """The mean expected gain beside what the gate saw; empty without a plan."""
    if round_.allocation is None or not round_.allocation.skills:
        return ""
    allocation = round_.allocation
    mean = sum(part.gain for part in allocation.skills) / len(allocation.skills)
    seen = [s.change.change for s in round_.skills if s.change.change is not None and round_.candidate]
    words = (
        f"Rule: {allocation.rule.replace('_', ' ')}. Curves fitted to {allocation.points} measured "
        f"adapter{'' if allocation.points == 1 else 's'}, the base included, expect {points(mean)} points in the mean "
        "of skills"
    )
    return words + (f"; the gate saw {points(sum(seen) / len(seen))}." if seen else ".")


def price_words(report: RunReport, round_: RoundReport) -> str:
    """What a point gained on the gate cost in tokens; empty where nothing was trained."""
    if round_.training is None or round_.change is None:
        return ""
    spent = [s for s in report.teaching.spend if s.round == round_.round] if report.teaching else []
    teacher = sum(s.prompt_tokens + s.completion_tokens for s in spent)
    return _price(round_.training.training_tokens, teacher, round_.change, "on the gate split, which selects")


def final_price_words(report: RunReport) -> str:
    """What a point gained on the final test cost in tokens, rounds that were rolled back included; empty if unknown."""
    trained = [r.training.training_tokens for r in report.rounds if r.training]
    if report.final is None or not trained:
        return ""
    total = report.teaching.total if report.teaching else None
    teacher = total.prompt_tokens + total.completion_tokens if total else 0
    return _price(sum(trained), teacher, report.final.change, "on the final split, rolled-back rounds paid for")


def _price(training: int, teacher: int, change: Change, where: str) -> str:
    spent = f"{training:,} training tokens" + (f" and {teacher:,} teacher tokens" if teacher else "")
    if change.change is None or change.low is None or change.high is None:
        return ""
    gained = f"{points(change.change)} points ({points(change.low)} to {points(change.high)}) {where}"
    if change.change <= 0:
        return f"Price: {spent} for {gained}: no point was gained."
    each = [
        f"{tokens_a_point(tokens, change.change)} {name}"
        for tokens, name in ((training, "training"), (teacher, "teacher"))
        if tokens
    ]
    dearest = tokens_a_point(training + teacher, change.low) if change.low > 0 else ""
    most = f"at most {dearest} together" if dearest else "with no upper bound"
    return f"Price: {spent} for {gained}: {' and '.join(each)} tokens a point, {most}."


def tokens_a_point(tokens: int, gain: float) -> str:
    """What a point of accuracy cost in tokens; `gain` is a share."""
    return f"{tokens / (100 * gain):,.0f}"


def _whole(share: float) -> str:
    return percent(share).removesuffix(" %")
