"""The wording of what a round's probe showed beyond counts: shrunk rates, drawn answers, items without a gold answer.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from curriculum.report import RoundReport
from curriculum.report_words import NONE, p_words, percent, points
from curriculum.round_records import SkillProfile

SHRUNK = (
    "Shrunk: the rate drawn towards those of the other skills, the more so the fewer items it has (beta-binomial); for "
    "reading only, plans use the counts."
)


def shrunk_words(profile: SkillProfile | None) -> str:
    """`24.1 % (12.0–38.5)`: a skill's rate drawn towards those of the other skills, with its 95 % interval."""
    shrunk = profile.shrunk if profile else None
    return NONE if shrunk is None else f"{percent(shrunk.rate)} ({100 * shrunk.low:.1f}–{100 * shrunk.high:.1f})"


def probe_words(round_: RoundReport) -> str:
    """What more is known of the probe: drawn answers, items without a gold answer, how far diagnoses repeat."""
    parts = (_difficult(round_), _signals(round_), _drawn(round_), _without_gold(round_), repeated_words(round_))
    return " ".join(part for part in parts if part)


BY = {"disagreement": "five drawn answers that all differ", "prm": "a process reward model's scores of its steps"}


def _difficult(round_: RoundReport) -> str:
    """Which questions were diagnosed where gold answers do not say so, and how far these agree."""
    made = round_.probe.difficult if round_.probe else None
    if made is None:
        return ""
    said = f"Difficult by {BY.get(made.method, made.method)}: {made.difficult} of {made.items} questions."
    if made.precision is None or made.recall is None:
        return said
    return (
        f"{said} Of the {made.graded_difficult} that are graded {made.wrong_difficult} were answered wrongly "
        f"(precision {made.precision:.2f}), of {made.wrong} wrong answers {made.wrong_difficult} were found (recall "
        f"{made.recall:.2f}); gold answers chose nothing."
    )


def profile_set_note(name: str, from_round: int | None) -> str:
    """That an extra set chooses rows, and what follows for its rates."""
    return (
        f"From round {from_round} on the missing-skill profile is made of the extra set {name} instead of the probe: "
        "it chose which skills were taught, so gains on it flatter. No item of it is trained on."
    )


def _drawn(round_: RoundReport) -> str:
    """How the pass rates of drawn answers differ from the base's; empty where none were drawn."""
    parts = [
        f"{d.skill} {points(d.change)} points ("
        + (f"{d.items} items" if d.low is None else f"{points(d.low)} to {points(d.high)}, {d.items} items")
        + f", p {p_words(d.p_value)})"
        for d in (round_.probe.drawn if round_.probe else ())
    ]
    if not parts:
        return ""
    return (
        "Drawn answers beside those of the base, paired and resampled by item, p adjusted for the number of skills: "
        + "; ".join(parts)
        + "."
    )


def _without_gold(round_: RoundReport) -> str:
    counted = [(s.skill, s.without_gold) for s in (round_.probe.skills if round_.probe else ()) if s.without_gold]
    if not counted:
        return ""
    parts = [
        f"{skill} {c.difficult} of {c.items}" + (f" ({c.undecided} undecided: answers failed)" if c.undecided else "")
        for skill, c in counted
    ]
    return (
        "Probe items without a gold answer, in no rate; difficult, for five drawn answers all differ: "
        + "; ".join(parts)
        + "."
    )


def repeated_words(round_: RoundReport) -> str:
    """How far diagnoses repeat that were asked for twice; empty where none were."""
    made = round_.probe.repeated if round_.probe else None
    if made is None:
        return ""
    mean = made.jaccard
    agreed = NONE if mean.value is None else f"{mean.value:.2f} ({mean.low:.2f}–{mean.high:.2f})"
    return (
        f"Of {made.asked} diagnoses that were asked for twice, {made.answered} came both times; {made.same.correct} "
        f"named the same skills, and on average they share (Jaccard) {agreed}."
    )


def _signals(round_: RoundReport) -> str:
    """What drawn answers said of each skill on the probe; empty where none were drawn."""
    drawn = [(s.skill, s.signals) for s in (round_.probe.skills if round_.probe else ()) if s.signals]
    parts = [
        f"{skill} {percent(s.pass_rate)} right ({s.items} items, {s.samples} samples, "
        f"{100 * s.low:.0f}–{100 * s.high:.0f})" + ("" if s.entropy is None else f", {s.entropy:.2f} nats")
        for skill, s in drawn
    ]
    if not parts:
        return ""
    return "Drawn answers on the probe, with the entropy at their first token: " + "; ".join(parts) + "."
