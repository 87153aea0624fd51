"""What the layers on a round's training did, gathered for its report from what its stages wrote."""

from statistics import fmean
from typing import cast

from agents.bindings import round_bindings
from agents.demonstrations import HOLDOUT, WEIGHTS
from agents.loop import Loop
from agents.merging import read_lines, read_soup
from agents.own_answers import CHOICES
from agents.targets import SOLVED
from curriculum.complexity import ComplexityRule, solving_report, targets_report
from curriculum.config import Config
from curriculum.extraction import has_solution
from curriculum.loss_curve import first_loss, last_loss
from curriculum.method_records import (
    Demonstration,
    MethodsReport,
    PhaseReport,
    RowWeight,
    SolvedExample,
    TargetChoice,
    TargetsReport,
    WeightsReport,
    WordingChoice,
    WordingReport,
)
from curriculum.own_answers import wording_report
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_json, read_records


def methods_report(loop: Loop, round_: int) -> MethodsReport | None:
    """A trained round's layers; none where it has none."""
    config = loop.config
    rows = read_records(loop.run.round_stage(round_, "build") / "training_set.jsonl", TrainingRow)
    dft = config.training.loss == "dft"
    probabilities = read_json(loop.run.round_stage(round_, "train") / "losses.json").get("probabilities", [])
    made = MethodsReport(
        weights=_weights(loop, round_),
        lines=read_lines(loop, round_),
        soup=read_soup(loop, round_),
        targets=_targets(loop, round_, config, rows),
        wording=_wording(loop, round_, config, rows),
        bindings=round_bindings(loop, rows),
        dft_rows=sum(map(config.training.has_dft, rows)) if dft else None,
        first_probability=probabilities[0] if dft and probabilities else None,
    )
    return made if made != MethodsReport() else None


def _weights(loop: Loop, round_: int) -> WeightsReport | None:
    file = loop.run.round_stage(round_, "train") / WEIGHTS
    if not file.exists():
        return None
    every = read_records(file, RowWeight)
    last = [w for w in every if w.refresh == every[-1].refresh]
    return WeightsReport(
        rows=len(last),
        scorings=every[-1].refresh + 1,
        neighbours=loop.config.training.ica.neighbours,
        holdout=len(read_records(loop.run.round_stage(round_, "build") / HOLDOUT, Demonstration)),
        subtract_random=loop.config.training.ica.subtract_random,
        normalise=loop.config.training.ica.normalise,
        mean_score=fmean(w.score for w in last),
        worse=sum(w.shown > w.alone for w in last),
        lowest=min(w.weight for w in last),
        highest=max(w.weight for w in last),
    )


def _targets(loop: Loop, round_: int, config: Config, rows: list[TrainingRow]) -> TargetsReport | None:
    file = loop.run.round_stage(round_, "build") / CHOICES
    if config.plan.targets in ("gold", "own") or not file.exists():
        return None
    choices = read_records(file, TargetChoice)
    asked = file.with_name(SOLVED)
    solved = read_records(asked, SolvedExample) if asked.exists() else []
    solving = solving_report(solved, choices, rows) if solved else None
    made = targets_report(cast(ComplexityRule, config.plan.targets), choices, rows)
    return made.model_copy(update={"phases": _phases(loop, round_, rows), "solving": solving})


def _wording(loop: Loop, round_: int, config: Config, rows: list[TrainingRow]) -> WordingReport | None:
    file = loop.run.round_stage(round_, "build") / CHOICES
    if config.plan.targets != "own" or not file.exists():
        return None
    return wording_report(config.plan.own.cap, read_records(file, WordingChoice), rows)


def _phases(loop: Loop, round_: int, rows: list[TrainingRow]) -> tuple[PhaseReport, ...]:
    """The two phases of a training that has them; its rows count where they are too long, too."""
    folder = loop.run.round_stage(round_, "train")
    curves = read_json(folder / "losses.json")
    losses, steps = curves["losses"], curves.get("phase_steps", [])
    if not steps:
        return ()
    made = (("answer", losses[: steps[0]]), ("solution", losses[steps[0] :]))
    return tuple(
        PhaseReport(
            form=form,
            rows=sum(has_solution(row.target) == (form == "solution") for row in rows),
            steps=len(of),
            first_loss=first_loss(of),
            last_loss=last_loss(of),
        )
        for form, of in made
    )
