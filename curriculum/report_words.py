"""How a report's numbers and findings are worded, the same in every view.

Takes values of a report and returns plain text, not escaped for any medium: each view does that. An
unknown value is a dash, never 0; a rate is never worded without its count and interval.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from curriculum.loss_curve import SMOOTHED_STEPS
from curriculum.records import Change, Rate
from curriculum.report import FailureReport, FinalReport, RoundReport, RunReport, StageTiming, TrainingReport
from curriculum.round_records import GateSkill, SkillPlan, SkillProfile, VerdictCounts
from curriculum.student_config import StudentConfig

NONE = "–"
MOST_CUT = 0.2
"""Share of the base's answers that may be cut off before a reader is warned."""


def visible(text: str) -> str:
    """The text with every character that is not seen or that reorders others written as its escape.

    Control, format (bidirectional marks among them), surrogate and separator characters; newline and tab stay.
    """
    if text.isprintable():  # most are, and it is a hundred times as fast
        return text
    return "".join(c if c in "\n\t" or not _hidden(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def percent(share: float | None) -> str:
    """`0.314` → `31.4 %`."""
    return NONE if share is None else f"{100 * share:.1f} %"


def points(share: float | None) -> str:
    """A difference of shares in percentage points: `-0.05` → `−5.0`."""
    return NONE if share is None else f"{100 * share:+.1f}".replace("-", "−")


def rate_words(rate: Rate | None) -> str:
    """`31.4 % (132/420, 27.2–36.0)`: the share, the count and the 95 % interval in percent."""
    if rate is None or rate.rate is None or rate.low is None or rate.high is None:
        return NONE
    return f"{percent(rate.rate)} ({rate.correct}/{rate.n}, {100 * rate.low:.1f}–{100 * rate.high:.1f})"


def change_words(change: Change | None) -> str:
    """`+5.0 (+1.2 to +8.8; 31 gained, 11 lost)`: points, the 95 % interval and the discordant items."""
    if change is None or change.change is None:
        return NONE
    interval = f"{points(change.low)} to {points(change.high)}"
    return f"{points(change.change)} ({interval}; {change.gained} gained, {change.lost} lost)"


def rate_short(rate: Rate | None) -> str:
    """`131/420 31.2 (27–36)`: the same in percent for a narrow table."""
    if rate is None or rate.rate is None or rate.low is None or rate.high is None:
        return NONE
    return f"{rate.correct}/{rate.n} {100 * rate.rate:.1f} ({100 * rate.low:.0f}–{100 * rate.high:.0f})"


def change_short(change: Change | None) -> str:
    """`+5.0 (+1, +9)`: points and the 95 % interval for a narrow table."""
    if change is None or change.change is None or change.low is None or change.high is None:
        return NONE
    return f"{points(change.change)} ({100 * change.low:+.0f}, {100 * change.high:+.0f})".replace("-", "−")


def p_words(p_value: float | None) -> str:
    """A p-value with two digits."""
    if p_value is None:
        return NONE
    return "<0.001" if p_value < 0.001 else f"{p_value:.2g}"


def verdict_words(counts: VerdictCounts | None) -> str:
    """`12 wrong (30.0 %), 3 unparsed (7.5 %), …` of the graded answers; `failed` is our own fault, a mere count."""
    if counts is None or counts.graded == 0:
        return NONE
    named = {"wrong": counts.wrong, "unparsed": counts.unparsed, "truncated": counts.truncated}
    return ", ".join([f"{n} {name} ({percent(n / counts.graded)})" for name, n in named.items()]) + (
        f" of {counts.graded} answers; {counts.failed} failed on our side"
    )


def duration(seconds: float) -> str:
    """`200` → `3 min 20 s`."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def skill_words(skill: GateSkill) -> str:
    """`gcd`, or `gcd, difficulty 3`."""
    return skill.skill if skill.difficulty is None else f"{skill.skill}, difficulty {skill.difficulty}"


CELLS = (
    "p is adjusted for the number of rows; rows of fewer than six items have none, for no outcome would be below 0.05."
)


def decision_words(round_: RoundReport) -> str:
    """The decision as a reader says it."""
    return round_.decision.replace("_", " ")


def written_words(report: RunReport) -> str:
    """What newly made rows are called: the offline teacher is no LLM, its rows come from a generator."""
    return "generated" if report.teacher == "offline" else "written"


def headline(report: RunReport) -> str:
    """The verdict of the run in one or two sentences."""
    taught = sum(r.candidate is not None for r in report.rounds)
    after = f"After {taught} round{'' if taught == 1 else 's'}"
    if report.final is None:
        return f"{after} the final split is still closed{_gate_so_far(report.rounds)}."
    final = report.final
    if final.adapter_name == "base":
        return (
            f"{after} no adapter was accepted. The student is still the base, which answers "
            f"{percent(final.base.rate)} of {final.base.n} final items."
        )
    return (
        f"{after} the accepted adapter answers {percent(final.adapter.rate)} of {final.adapter.n} final items, the "
        f"base {percent(final.base.rate)}, the base prompted with examples {percent(final.base_few_shot.rate)}. "
        f"Its 95 % interval {_standings(final)}."
    )


def _gate_so_far(rounds: tuple[RoundReport, ...]) -> str:
    if not rounds:
        return ""
    first, last = rounds[0].before, kept(rounds[-1])
    return (
        f"; on the gate split, which selects, accuracy went from {percent(first.rate)} to {percent(last.rate)} "
        f"of {last.n} items"
    )


def _standings(final: FinalReport) -> str:
    plain, few_shot = _standing(final.adapter, final.base), _standing(final.adapter, final.base_few_shot)
    if plain == few_shot:
        return f"{plain} both of theirs"
    return f"{plain} that of the base and {few_shot} that of the base prompted with examples"


def _standing(rate: Rate, other: Rate) -> str:
    if None in (rate.low, rate.high, other.low, other.high):
        return "cannot be compared with"
    if rate.low > other.high:  # type: ignore[operator]
        return "lies above"
    return "lies below" if rate.high < other.low else "overlaps"  # type: ignore[operator]


def kept(round_: RoundReport) -> Rate:
    """The gate accuracy of the adapter that a round's decision left in place."""
    return round_.after if round_.decision == "accepted" and round_.after is not None else round_.before


def format_words(final: FinalReport) -> str:
    """How much of the gain over the base is the answer format alone."""
    strict, lenient = final.strict, final.change.change
    gain = None if lenient is None or final.format_share is None else lenient + final.format_share
    return (
        f"By the lenient extraction the gain over the base is {points(lenient)} points. By the strict extraction it is "
        f"{points(gain)} (base {rate_words(strict.base)}, adapter {rate_words(strict.adapter)}): "
        f"learning the answer format alone bought {points(final.format_share)} points, which the headline leaves out."
    )


def cut_words(base: VerdictCounts, limit: int) -> str:
    """A warning where many of the base's answers were cut off; empty where few were."""
    if base.truncated <= MOST_CUT * base.graded:
        return ""
    return (
        f"{base.truncated} of {base.graded} answers of the base were cut at {limit} tokens (student.max_new_tokens): "
        "what they would have said is not known, so gains over the base flatter. Raise that limit."
    )


def failure_words(failure: FailureReport) -> str:
    """What was wrong with an answer, in a word or two."""
    return "five answers, all different" if failure.verdict is None else failure.verdict.value


def expected_words(failure: FailureReport) -> str:
    """What was expected and what was found."""
    if failure.gold is None:
        return "No gold answer looked at"
    return f"Expected {failure.gold}, found {'no answer' if failure.extracted is None else failure.extracted}"


def items_words(report: RunReport) -> str:
    """`final 405, gate 162, …; retention: basics 60; never select: ood 100`."""
    words = [", ".join(f"{split} {n}" for split, n in report.split_sizes.items())]
    for said, retained in (("retention", True), ("never select", False)):
        sets = [f"{name} {n}" for name, n in report.extra_sizes.items() if (name in report.retention_sets) == retained]
        words += [f"{said}: {', '.join(sets)}"] if sets else []
    return "; ".join(words)


def health_words(training: TrainingReport) -> str:
    """`loss 2.31 → 0.97 (means of the first and the last 10 steps), 2.00 nats a token from the point …`."""
    if training.first_loss is None or training.last_loss is None:
        return NONE
    words = (
        f"Loss {training.first_loss:.2f} → {training.last_loss:.2f} nats a token (means of the first and the last "
        f"{SMOOTHED_STEPS} steps), "
    )
    if training.divergence_margin is None:
        words += "which DFT may raise without being stopped"
    else:
        words += f"at worst {training.divergence_margin:.2f} nats from where a training is stopped"
    if training.phase_steps:
        words += "; in two phases of different targets, so this is no fall of one loss"
    if training.clipped_steps is not None:
        norms = sorted(training.gradient_norms)
        words += (
            f"; gradient norm {norms[len(norms) // 2]:.2g} in the median, {norms[-1]:.2g} at most, clipped in "
            f"{training.clipped_steps} of {training.steps} steps"
        )
    return words + "."


def tokens_per_second(timing: StageTiming) -> str:
    """How fast a stage went, where it counted tokens."""
    return f"{timing.tokens / timing.seconds:.0f}" if timing.tokens and timing.seconds else NONE


class SkillWork(NamedTuple):
    """What a round saw and did about one skill."""

    skill: str
    probe: SkillProfile | None
    plan: SkillPlan | None
    pool: int
    written: int
    replay: int
    difficulties: str


def skill_work(round_: RoundReport) -> list[SkillWork]:
    """The probe result, the plan and the training rows of a round, one a skill, those most often missing first."""
    probe = {s.skill: s for s in round_.probe.skills} if round_.probe else {}
    plan = {s.skill: s for s in round_.plan.skills} if round_.plan else {}
    origins: dict[str, Counter[str]] = defaultdict(Counter)
    levels: dict[str, Counter[int]] = defaultdict(Counter)
    for cell in round_.mixture:
        origins[cell.skill][cell.origin] += cell.rows
        levels[cell.skill][cell.difficulty] += cell.rows
    work = [
        SkillWork(
            skill=skill,
            probe=probe.get(skill),
            plan=plan.get(skill),
            pool=origins[skill]["pool"],
            written=origins[skill]["written"],
            replay=origins[skill]["replay"],
            difficulties=_by_level(levels[skill].items()),
        )
        for skill in sorted(probe.keys() | plan.keys() | origins.keys())
    ]
    return sorted(work, key=lambda w: -w.probe.missing if w.probe else 0)


def _by_level(counts: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{rows} × d{level}" for level, rows in sorted(counts)) or NONE


def student_notes(student: StudentConfig) -> list[str]:
    """What has to be known of the student to read its figures."""
    notes = []
    if student.base == "smollm2-135m":
        notes.append("The base is SmolLM2-135M-Instruct dequantised from a Q4_1 file: not the original weights.")
    if student.engine == "fake":
        notes.append("The student is a FAKE: a table that learns. None of these numbers says anything of a model.")
    return notes
