"""What a bench will take and what it can see, before anything is spent."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from agents.bench import Bench
from agents.bench_training import TRAININGS, Training
from agents.forecast import ANSWERS_PER_SECOND, DISCORDANT_SHARE, ROWS_PER_SECOND, START_SECONDS
from agents.loop import MERGE
from curriculum.bench_budgets import WHOLE, budget_rows, budget_words
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
    asked = {"final": splits.final} | {f"extra-{name}": source.items for name, source in config.extra.items()}
    spent = [_spent(config, folder, training, asked) for training in bench.trainings]
    left = [found for found in spent if found.rows or found.answers]
    warmed = not config.bench.warm_up_rows or (folder / "round_01" / "profile" / DONE).exists()
    shared = sum(
        n for of, n in ({"probe": splits.probe} | asked).items() if not (answers / "base" / of / DONE).exists()
    )
    shared += 0 if warmed else splits.probe
    to_answer, to_train = shared + sum(found.answers for found in left), sum(found.rows for found in left)
    finished = [found for found in spent if found not in left]
    minutes = None
    if finished:
        # What a training takes goes by its rows, what its answers take does not.
        a_row = sum(found.training_seconds for found in finished) / sum(found.all_rows for found in finished)
        an_answer = sum(found.answer_seconds for found in finished) / (len(finished) * sum(asked.values()))
        mean = (a_row * to_train + an_answer * to_answer) / 60
        minutes = (mean, mean)
    elif config.student.base in (SMOLLM2, "fake"):
        rows = config.training.epochs * (to_train + (0 if warmed else config.bench.warm_up_rows))
        least, most = (
            (to_answer / answering + rows / training + (2 * len(left) + 2) * start) / 60
            for answering, training, start in zip(
                reversed(ANSWERS_PER_SECOND), reversed(ROWS_PER_SECOND), START_SECONDS, strict=True
            )
        )
        minutes = (least, most)
    return BenchForecast(
        trainings=len(spent),
        finished=len(finished),
        answers=to_answer,
        minutes=minutes,
        measured=bool(finished),
        detectable=_detectable(config, bench),
    )


class _Spent(NamedTuple):
    """What one training took, and what is left of it."""

    rows: int
    """Still to be trained."""
    answers: int
    """Still to be given."""
    all_rows: int
    training_seconds: float
    answer_seconds: float


def _spent(config: Config, folder: Path, training: Training, asked: Mapping[str, int]) -> _Spent:
    """Of a training that was not begun nothing.

    Args:
        config: of the bench.
        folder: the bench's.
        training: which.
        asked: what adapters answer, a folder's name → items.
    """
    rows = budget_rows(config, training.share) + config.bench.warm_up_rows
    done = (folder / TRAININGS / training.name).glob(f"round_*/train/{DONE}")
    trained = next((p.parent for p in done), None)
    tried = len(config.training.lines or SCALES) if training.strategy == "lines" else 0
    choosing, whole = tried * config.data.splits.probe, sum(asked.values())
    if trained is None:
        return _Spent(rows, choosing + whole, rows, 0.0, 0.0)
    chosen = trained.with_name(MERGE) if tried else trained
    if not (chosen / DONE).exists():
        return _Spent(0, choosing + whole, rows, _seconds(trained), 0.0)
    answers = folder / "answers" / str(read_json(chosen / DONE)["update"]["candidate"])
    given = [name for name in asked if (answers / name / DONE).exists()]
    left = sum(items for name, items in asked.items() if name not in given)
    return _Spent(0, left, rows, _seconds(trained), sum(_seconds(answers / name) for name in given))


def _seconds(stage: Path) -> float:
    return float(read_json(stage / TIMING).get("seconds", 0.0))


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
    if bench.budgets != (WHOLE,):
        rows = [f"{budget_words(share)} ({budget_rows(config, share)} rows' tokens)" for share in bench.budgets]
        seeds += f" at budget{'' if len(rows) == 1 else 's'} {', '.join(rows)}"
    there = f", {made.finished} of them finished" if made.finished else ""
    lines = [f"{strategies} strategies with {seeds}: {made.trainings} trainings{there}"]
    lines += [f"  {strategy}: {SAID[strategy]}" for strategy in bench.strategies]
    if config.extra:
        lines.append(f"  each adapter and the base answer also {', '.join(sorted(config.extra))}, which choose nothing")
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
        inside = " inside one budget" if len(bench.budgets) > 1 else ""
        lines.append(
            f"smallest difference from uniform it can see{inside} (80 % power): {100 * made.detectable:.1f} points, if "
            f"two trainings disagree on {DISCORDANT_SHARE:.0%} of {config.data.splits.final:,} items and their true "
            f"accuracies differ by a standard deviation of {100 * config.gate.retrain_sd:g} points (gate.retrain_sd)"
        )
    return lines
