"""What a bench will take and what it can see, before anything is spent."""

from pathlib import Path
from typing import NamedTuple

from agents.bench import Bench
from agents.bench_training import TRAININGS
from agents.forecast import ANSWERS_PER_SECOND, DISCORDANT_SHARE, ROWS_PER_SECOND, START_SECONDS
from agents.loop import MERGE
from curriculum.bench_report import LEAST_SEEDS
from curriculum.config import Config
from curriculum.crossed import planned_detectable
from curriculum.rundir import DONE, TIMING, read_json
from curriculum.strategies import ALWAYS, SAID, SCALES
from student.base_model import SMOLLM2


class BenchForecast(NamedTuple):
    """Counts over what is left to do."""

    trainings: int
    finished: int
    answers: int
    """Still to be given, the base's included."""
    minutes: tuple[float, float] | None
    """Least and most; `None` where nothing is known of the student's speed."""
    measured: bool
    """Whether the minutes are those of trainings of this bench that are finished."""
    detectable: float | None
    """The smallest difference that is called different with 80 % power; `None` with too few seeds."""


def bench_forecast(config: Config, bench: Bench, folder: Path) -> BenchForecast:
    """Counts what is left of a bench, by what its folder holds, which need not be there yet."""
    splits, answers = config.data.splits, folder / "answers"
    spent = [_seconds(folder, f"{strategy}-{seed}") for strategy, seed in bench.trainings]
    finished = [seconds for seconds in spent if seconds is not None]
    left = len(spent) - len(finished)
    scaled = [s for (s, _), seconds in zip(bench.trainings, spent, strict=True) if seconds is None and s == "lines"]
    choosing = len(scaled) * splits.probe * len(config.training.lines or SCALES)
    warmed = not config.bench.warm_up_rows or (folder / "round_01" / "profile" / DONE).exists()
    shared = sum(n for split, n in (("probe", splits.probe), ("final", splits.final)) if not _done(answers, split))
    shared += 0 if warmed else splits.probe
    minutes = None
    if finished:
        mean = sum(finished) / len(finished) * left / 60
        minutes = (mean, mean)
    elif config.student.base in (SMOLLM2, "fake"):
        warm_up = config.bench.warm_up_rows
        rows = config.training.epochs * (left * (config.plan.rows_per_round + warm_up) + warm_up)
        least, most = (
            ((shared + choosing + left * splits.final) / answering + rows / training + (2 * left + 2) * start) / 60
            for answering, training, start in zip(
                reversed(ANSWERS_PER_SECOND), reversed(ROWS_PER_SECOND), START_SECONDS, strict=True
            )
        )
        minutes = (least, most)
    return BenchForecast(
        trainings=len(spent),
        finished=len(finished),
        answers=shared + choosing + left * splits.final,
        minutes=minutes,
        measured=bool(finished),
        detectable=_detectable(config, bench),
    )


def _done(answers: Path, split: str) -> bool:
    return (answers / "base" / split / DONE).exists()


def _seconds(folder: Path, name: str) -> float | None:
    """What a finished training took, with its final answers; `None` where it is not finished."""
    trained = next((p.parent for p in (folder / TRAININGS / name).glob(f"round_*/train/{DONE}")), None)
    if trained is None:
        return None
    merged = trained.with_name(MERGE) / DONE
    adapter = read_json(merged if merged.exists() else trained / DONE)["update"]["candidate"]
    answered = folder / "answers" / adapter / "final"
    if not (answered / DONE).exists():
        return None
    return float(sum(read_json(stage / TIMING).get("seconds", 0.0) for stage in (trained, answered)))


def _detectable(config: Config, bench: Bench) -> float | None:
    if bench.seeds < LEAST_SEEDS:
        return None
    ways = len(bench.strategies) - 1  # uniform and uniform_again are one recipe
    df = bench.seeds * len(bench.strategies) - ways
    noise = DISCORDANT_SHARE, config.gate.retrain_sd
    return planned_detectable(bench.seeds, len(ALWAYS) * bench.seeds, df, config.data.splits.final, *noise)


def forecast_words(config: Config, bench: Bench, made: BenchForecast) -> list[str]:
    """The forecast, a sentence each."""
    strategies = len(bench.strategies)
    seeds = "1 seed" if bench.seeds == 1 else f"{bench.seeds} seeds"
    there = f", {made.finished} of them finished" if made.finished else ""
    lines = [f"{strategies} strategies with {seeds}: {made.trainings} trainings{there}"]
    lines += [f"  {strategy}: {SAID[strategy]}" for strategy in bench.strategies]
    if made.minutes is None:
        lines.append(f"to come: {made.answers:,} answers; minutes unknown: measured with {SMOLLM2} only")
    else:
        least, most = made.minutes
        by = "by the trainings that are finished" if made.measured else "on 2 CPU cores"
        range_ = f"{most:.0f}" if round(least) == round(most) else f"{least:.0f} to {most:.0f}"
        lines.append(f"to come: {made.answers:,} answers, about {range_} minutes {by}")
    if made.detectable is None:
        lines.append("one seed a strategy: differences without intervals, a screening only")
    else:
        lines.append(
            f"smallest difference from uniform it can see (80 % power): {100 * made.detectable:.1f} points, if two "
            f"trainings disagree on {DISCORDANT_SHARE:.0%} of {config.data.splits.final:,} items and their true "
            f"accuracies differ by a standard deviation of {100 * config.gate.retrain_sd:g} points (gate.retrain_sd)"
        )
    return lines
