"""How a report words what is remembered of skills, and what was forgotten, and what a control shows.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from curriculum.control import ControlReport
from curriculum.mastery import Mastery, SkillMastery
from curriculum.report import ArmRates, FinalReport, RoundReport, RunReport
from curriculum.report_words import NONE, change_words, points, rate_words, written_words
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
    """Which extra sets select, and what answers were by the rules before a set was put into words."""
    return " ".join([_selecting(final), *old_rules_words(final)])


def old_rules_words(final: FinalReport) -> list[str]:
    """A sentence for each extra set in held-out words: who still answers by what the words stand for."""
    return [_old_rules(s.name, s.old_rules) for s in final.extra if s.old_rules]


def _old_rules(name: str, rates: ArmRates) -> str:
    said = {"base": rates.base, "base prompted with examples": rates.base_few_shot, "adapter": rates.adapter}
    shares = ", ".join(f"{arm} {rate.correct}/{rate.n}" for arm, rate in said.items())
    return (
        f"Of {name} the items whose answer is a declared word, by the answer it stands for (wrong there: it is the old "
        f"rule's): {shares}. Who is often right so does not read what the words mean."
    )


def _selecting(final: FinalReport) -> str:
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


def control_words(report: RunReport, made: ControlReport, split: str) -> list[str]:
    """What the control was, how the targeted candidate compares with it, and what that can and cannot show."""
    control, targeted = made.control, made.targeted
    parts = [f"{control.pool} drawn from the pool"] if control.pool else []
    parts += [f"{control.written} generated, as many of every skill and level"] if control.written else []
    was = (
        f"The control of round {made.round}: {control.pool + control.written} untargeted rows ({', '.join(parts)}) in "
        f"place of {targeted.pool + targeted.written} targeted ones, with the same {control.replay} replayed rows, "
        f"seed, start and settings; {control.steps} steps and {control.training_tokens:,} tokens, the targeted "
        f"{targeted.steps} and {targeted.training_tokens:,}. It was never up for acceptance."
    )
    if targeted.written and not control.written:
        was += (
            f" {targeted.written} targeted rows were {written_words(report)}, and for them pool rows stand in: the "
            "comparison is of targeting and of who wrote the rows, together."
        )
    compared = (
        f"Targeted {rate_words(targeted.rate)}, control {rate_words(control.rate)} on the {split} split; targeted − "
        f"control {change_words(made.change)} points; {points(made.seed_low)} to {points(made.seed_high)} with what "
        f"another seed would change (gate.retrain_sd, {100 * made.seed_sd:.1f} points)."
    )
    return [was, compared, f"{_verdict(made)} {SELECTED if split == 'gate' else ''}".strip()]


def _verdict(made: ControlReport) -> str:
    if made.seed_low is None or made.seed_high is None:
        return "No item was answered by both: nothing can be said."
    sure = made.seed_low > 0 or made.seed_high < 0
    said = "more than another seed of that noise explains" if sure else "no more than another seed could have made"
    return f"The difference is {said}. {ONE_SEED}"


ONE_SEED = (
    "One training seed each: the interval over items says whether these two adapters differ, the wider one whether two "
    "other seeds would; that targeting is the cause, and what it brings on average, only several seeds of both show."
)
SELECTED = "The gate chose by these items: an accepted candidate is flattered on them, its control is not."
