"""What a bench will take and what it can see, before anything is spent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agents.bench import Bench
from agents.bench_training import TRAININGS, Training
from agents.forecast import ANSWERS_PER_SECOND, DISCORDANT_SHARE, ROWS_PER_SECOND, START_SECONDS
from agents.loop import MERGE
from agents.method_forecast import MethodWork, Range, bench_methods, minutes, plus, work_words
from agents.ranking import RANK
from agents.recorded_usage import rows_per_second
from curriculum.bench_budgets import WHOLE, budget_rows, budget_words
from curriculum.bench_report import LEAST_SEEDS
from curriculum.config import Config
from curriculum.crossed import planned_detectable
from curriculum.rundir import DONE, TIMING, read_json
from curriculum.strategies import ALWAYS, RANKED, SAID, SCALES, Strategy
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
    methods: tuple[tuple[str, str], ...]
    """What the strategies' methods add, and how many with minutes; the counts above have it."""
    left_out: tuple[str, ...]
    """Methods whose time is not in the minutes."""


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
    untrained = [(t.strategy, found.rows) for t, found in zip(bench.trainings, spent, strict=True) if found.rows]
    finished = {s: of for s in bench.strategies if (of := _finished(s, bench, spent))}
    profiles = int(not (folder / "round_00" / "profile" / DONE).exists()) + int(not warmed)
    round_ = "round_01" if config.bench.warm_up_rows else "round_00"
    ranked = [s for s in RANKED if (folder / round_ / f"{RANK}_{s}" / DONE).exists()]
    drawn = any(answers.glob(f"*/pool_samples/{DONE}"))
    methods = bench_methods(config, untrained, profiles, ranked, finished, drawn)
    known = config.student.base in (SMOLLM2, "fake")
    speed = rows_per_second((folder / TRAININGS).glob("*/round_*/train"), lambda _: config.training.epochs) or (
        ROWS_PER_SECOND if known else None
    )
    took = {
        work.what: minutes(work, ANSWERS_PER_SECOND, speed, START_SECONDS)
        for work in methods
        if speed is not None and (known or not work.answers)
    }
    to_answer = shared + sum(found.answers for found in left)
    trained: Range | None = None
    if finished:
        # What a training takes goes by its rows and its strategy, what its answers take by neither.
        every = [found for of in finished.values() for found in of]
        an_answer = sum(found.answer_seconds for found in every) / (len(every) * sum(asked.values()))
        seconds = sum(rows * _a_row(finished.get(strategy, every)) for strategy, rows in untrained)
        trained = (total := (seconds + an_answer * to_answer) / 60, total)
    elif known:
        rows = config.training.epochs * (sum(n for _, n in untrained) + (0 if warmed else config.bench.warm_up_rows))
        plain = MethodWork("", "", to_answer, (rows, rows), 2 * len(left) + 2)
        trained = minutes(plain, ANSWERS_PER_SECOND, ROWS_PER_SECOND, START_SECONDS)
    return BenchForecast(
        trainings=len(spent),
        finished=len(spent) - len(left),
        answers=to_answer + sum(work.answers for work in methods),
        minutes=trained and plus(trained, *(one for one in took.values() if one)),
        measured=bool(finished),
        detectable=_detectable(config, bench),
        methods=tuple((work.what, work_words(work, took.get(work.what))) for work in methods),
        left_out=tuple(work.what for work in methods if took.get(work.what) is None),
    )


class _Spent(NamedTuple):
    """What one training took, and what is left of it."""

    rows: int
    """Still to be trained."""
    answers: int
    """Still to be given."""
    all_rows: int
    training_seconds: float
    """Of building its rows and of training."""
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
        return _Spent(0, choosing + whole, rows, _trained(trained), 0.0)
    answers = folder / "answers" / str(read_json(chosen / DONE)["update"]["candidate"])
    given = [name for name in asked if (answers / name / DONE).exists()]
    left = sum(items for name, items in asked.items() if name not in given)
    return _Spent(0, left, rows, _trained(trained), sum(_seconds(answers / name) for name in given))


def _finished(strategy: Strategy, bench: Bench, spent: Sequence[_Spent]) -> list[_Spent]:
    """A strategy's trainings of which nothing is left."""
    return [
        found
        for training, found in zip(bench.trainings, spent, strict=True)
        if training.strategy == strategy and not found.rows and not found.answers
    ]


def _a_row(of: Sequence[_Spent]) -> float:
    return sum(found.training_seconds for found in of) / sum(found.all_rows for found in of)


def _trained(stage: Path) -> float:
    return _seconds(stage.with_name("build")) + _seconds(stage)


def _seconds(stage: Path) -> float:
    return float(read_json(stage / TIMING).get("seconds", 0.0)) if (stage / TIMING).exists() else 0.0


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
    lines += [f"{what}: {many}" for what, many in made.methods]
    if made.minutes is None:
        lines.append(f"to come: {made.answers:,} answers; minutes unknown: measured with {SMOLLM2} only")
    else:
        least, most = made.minutes
        by = "by the trainings that are finished" if made.measured else "on 2 CPU cores"
        range_ = f"{most:.0f}" if round(least) == round(most) else f"{least:.0f} to {most:.0f}"
        without = "".join(f"; without {what}" for what in made.left_out)
        lines.append(f"to come: {made.answers:,} answers, about {range_} minutes {by}{without}")
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
