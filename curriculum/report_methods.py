"""The wording of what the layers on a round's training did: weights by demonstrations, forms of targets, the loss.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from curriculum.method_records import (
    BindingsReport,
    MethodsReport,
    TargetsReport,
    WeightsReport,
    Wording,
    WordingReport,
)
from curriculum.report import RoundReport, Timings, TrainingReport
from curriculum.report_merging import lines_words, soup_words
from curriculum.report_words import duration, percent

LOW_PROBABILITY = 0.3
"""Mean probability of the targets below which DFT teaches little of them: nearly all of its factors are near 0."""


def methods_words(round_: RoundReport, timings: Timings) -> str:
    """What the round's layers did, in a few sentences; empty where it has none."""
    made = round_.methods
    if made is None:
        return ""
    parts = (
        _weights(made.weights, round_.round, timings) if made.weights else "",
        _targets(made.targets) if made.targets else "",
        _wording(made.wording) if made.wording else "",
        _bindings(made.bindings) if made.bindings else "",
        _dft(made, round_.training),
        lines_words(made.lines) if made.lines else "",
        soup_words(made.soup) if made.soup else "",
    )
    return " ".join(part for part in parts if part)


def _weights(made: WeightsReport, round_: int, timings: Timings) -> str:
    often = "once, before the first step" if made.scorings == 1 else f"{made.scorings} times over the training"
    by = ""
    if made.normalise == "batch":
        by = " (max–min over the rows of each step; these are means over a row's steps)"
    less = ", less the score of random ones" if made.subtract_random else ""
    return (
        f"Rows were weighed by in-context approximation, scored {often}: the loss alone less the loss after "
        f"{made.neighbours} demonstrations of {made.holdout} pool examples set aside{less}. Mean score "
        f"{made.mean_score:+.3f} nats a token; {made.worse} of {made.rows} rows are harder after their demonstrations "
        f"than alone. Weights from {made.lowest:.2f} to {made.highest:.2f}, mean 1{by}.{_overhead(round_, timings)}"
    )


def _overhead(round_: int, timings: Timings) -> str:
    """What scoring took beside the rest of the training."""
    stages = {t.stage: t for t in timings.stages if t.round == round_}
    if "train" not in stages or stages["train"].scoring_seconds is None:
        return ""
    scoring = stages["train"].scoring_seconds
    training = stages["train"].seconds - scoring
    if "build" in stages:
        scoring += stages["build"].scoring_seconds or 0.0
    if training <= 0:
        return ""
    return (
        f" Choosing and scoring took {duration(scoring)}, {percent(scoring / training)} of the training's "
        f"{duration(training)} (the paper's claim: 1.5 %, theirs, on GPUs)."
    )


def _targets(made: TargetsReport) -> str:
    saved = f"{percent(1 - made.tokens / made.all_solutions)} saved" if made.all_solutions else "nothing to save"
    tokens = f"Response tokens an epoch: {made.tokens}, with all worked solutions {made.all_solutions}: {saved}"
    if made.rule == "answers":
        return f"New rows teach the answer alone. {tokens}."
    how = f"entropy of the first answer token, {made.entropy_is or 'exact'}"
    if made.rule == "complexity_random":
        how = "chance, the control of entropy"
    parts = ", ".join(f"{made.rows.get(part, 0)} {part}" for part in ("easy", "middle", "hard"))
    without = f" ({made.without} hard ones have none that the grader accepts)" if made.without else ""
    return (
        f"Form of the new rows' targets by {how}: {parts}; {made.solutions} with a worked solution{without}. {tokens} "
        f"(the paper: 81 %, theirs, at equal accuracy). {_solving(made)}{_phases(made)}"
    )


def _solving(made: TargetsReport) -> str:
    """What a teacher's solutions cost, and what those of all rows would have."""
    of = made.solving
    if of is None:
        return "Teacher tokens for worked solutions of pool questions: none spent."
    saved = f", {percent(1 - of.tokens / of.all_tokens)} saved" if of.all_tokens else ""
    responses = ""
    if of.all_response_tokens:
        part = percent(1 - made.tokens / of.all_response_tokens)
        responses = f"; the response tokens would be about {of.all_response_tokens} an epoch, {part} saved"
    return (
        f"A teacher solved {of.solved} of {of.asked} hard questions that came without a solution, each checked by the "
        f"grader, in {of.attempts} attempts and {of.tokens} teacher tokens. To solve all {of.without} new questions "
        f"without one would have taken about {of.all_tokens}{saved} (estimates by the mean of these; hard questions "
        f"take more than others){responses}."
    )


def _phases(made: TargetsReport) -> str:
    """Which form was taught when, and how its loss went."""
    if not made.phases:
        return ""
    names = {"answer": "answers alone", "solution": "worked solutions"}
    told = [
        f"{p.rows} rows with {names[p.form]} ({p.steps} steps, loss {p.first_loss:.2f} → {p.last_loss:.2f})"
        for p in made.phases
    ]
    return f" Taught in two phases, replayed rows among them: {', then '.join(told)}."


def _wording(made: WordingReport) -> str:
    total = sum(made.rows.values())
    named: dict[Wording, str] = {"own": "the student's own answers", "paraphrase": "its paraphrases", "gold": "gold"}
    counts = {what: made.rows.get(source, 0) for source, what in named.items()}
    shares = ", ".join(f"{n} {what}{f' ({percent(n / total)})' if total else ''}" for what, n in counts.items())
    asked = f"Of {made.asked} asked examples it answered {made.right} right and whole; " if made.asked else ""
    over = f"{made.over_cap} of these were over the cap of {percent(made.cap)}; " if made.over_cap else ""
    completed = f" {made.completed} texts got the taught last line." if made.completed else ""
    return (
        f"Targets of the {total} new pool rows: {shares}. {asked}{over}{made.paraphrased} worked solutions were "
        f"paraphrased.{completed} A right answer may have a wrong way to it: only answers were graded."
    )


def _bindings(made: BindingsReport) -> str:
    named = {"operators": "operators", "labels": "answers"}
    kinds = ", ".join(f"{named[kind]} in {n}" for kind, n in made.bound.items())
    return (
        f"Rows in words of their own: bound {sum(made.bound.values())} of {made.rows} new pool rows"
        f"{f' ({kinds})' if kinds else ''}, {percent(made.share)} of those that can be; {made.nothing} have nothing to "
        "bind."
    )


def _dft(made: MethodsReport, training: TrainingReport | None) -> str:
    if made.dft_rows is None:
        return ""
    began = ""
    if made.first_probability is not None:
        low = ": DFT teaches little of targets so unlikely" if made.first_probability < LOW_PROBABILITY else ""
        began = f"; their targets began at a mean probability of {made.first_probability:.2f}{low}"
    rose = ""
    if training and training.first_loss is not None and training.last_loss is not None:
        given_up = " The loss rose: what the student found unlikely, such as a form of answer new to it, is given up."
        rose = given_up if training.last_loss > training.first_loss else ""
    return f"Loss DFT for {made.dft_rows} rows{began}.{rose}"
