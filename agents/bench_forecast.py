"""What a bench will take and what it can see, before anything is spent."""

from pathlib import Path
from typing import NamedTuple

from agents.bench import Bench
from agents.bench_training import TRAININGS
from agents.forecast import ANSWERS_PER_SECOND, DISCORDANT_SHARE, ROWS_PER_SECOND, START_SECONDS
from agents.method_forecast import MethodWork, Range, bench_methods, minutes, plus, work_words
from agents.ranking import RANK
from curriculum.bench_report import LEAST_SEEDS
from curriculum.config import Config
from curriculum.crossed import planned_detectable
from curriculum.round_records import Adapter
from curriculum.rundir import DONE, TIMING, read_json, read_record
from curriculum.strategies import ALWAYS, RANKED, SAID, Strategy
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
    spent = {(s, seed): _seconds(folder, f"{s}-{seed}") for s, seed in bench.trainings}
    measured: dict[Strategy, list[float]] = {}
    for (strategy, _), seconds in spent.items():
        if seconds is not None:
            measured.setdefault(strategy, []).append(seconds)
    left = [strategy for (strategy, _), seconds in spent.items() if seconds is None]
    warm_up = config.bench.warm_up_rows
    warmed = not warm_up or (folder / "round_01" / "profile" / DONE).exists()
    shared = sum(n for split, n in (("probe", splits.probe), ("final", splits.final)) if not _done(answers, split))
    shared += 0 if warmed else splits.probe
    profiles = int(not (folder / "round_00" / "profile" / DONE).exists()) + int(not warmed)
    round_ = "round_01" if warm_up else "round_00"
    ranked = [s for s in RANKED if (folder / round_ / f"{RANK}_{s}" / DONE).exists()]
    methods = bench_methods(config, left, profiles, ranked, measured, any(answers.glob(f"*/pool_samples/{DONE}")))
    known = config.student.base in (SMOLLM2, "fake")
    speed = _rows_per_second(config, folder) or (ROWS_PER_SECOND if known else None)
    took = {
        work.what: minutes(work, ANSWERS_PER_SECOND, speed, START_SECONDS)
        for work in methods
        if speed is not None and (known or not work.answers)
    }
    trained: Range | None = None
    if measured:
        every = [seconds for of in measured.values() for seconds in of]
        own = (sum(of) / len(of) for of in (measured.get(strategy, every) for strategy in left))
        trained = (total := sum(own) / 60, total)
    elif known:
        rows = config.training.epochs * (len(left) * (config.plan.rows_per_round + warm_up) + warm_up)
        plain = MethodWork("", "", shared + len(left) * splits.final, (rows, rows), 2 * len(left) + 2)
        trained = minutes(plain, ANSWERS_PER_SECOND, ROWS_PER_SECOND, START_SECONDS)
    return BenchForecast(
        trainings=len(spent),
        finished=len(spent) - len(left),
        answers=shared + len(left) * splits.final + sum(work.answers for work in methods),
        minutes=trained and plus(trained, *(one for one in took.values() if one)),
        measured=bool(measured),
        detectable=_detectable(config, bench),
        methods=tuple((work.what, work_words(work, took.get(work.what))) for work in methods),
        left_out=tuple(work.what for work in methods if took.get(work.what) is None),
    )


def _done(answers: Path, split: str) -> bool:
    return (answers / "base" / split / DONE).exists()


def _seconds(folder: Path, name: str) -> float | None:
    """What a finished training took, with its final answers; `None` where it is not finished."""
    trained = next((p.parent for p in (folder / TRAININGS / name).glob(f"round_*/train/{DONE}")), None)
    if trained is None:
        return None
    adapter = read_json(trained / DONE)["update"]["candidate"]
    answered = folder / "answers" / adapter / "final"
    if not (answered / DONE).exists():
        return None
    stages = [trained.parent / "build", trained, answered]
    return float(sum(read_json(s / TIMING).get("seconds", 0.0) for s in stages if (s / TIMING).exists()))


def _rows_per_second(config: Config, folder: Path) -> Range | None:
    """Slow and fast, of the trainings that are finished, without what they took to weigh rows."""
    measured = []
    for file in sorted((folder / TRAININGS).glob("*/round_*/train/adapter.json")):
        timing = read_json(file.with_name(TIMING)) if file.with_name(TIMING).exists() else {}
        seconds = timing.get("seconds", 0.0) - timing.get("scoring_seconds", 0.0)
        if seconds > 0:
            measured.append(read_record(file, Adapter).rows * config.training.epochs / seconds)
    return (min(measured), max(measured)) if measured else None


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
        lines.append(
            f"smallest difference from uniform it can see (80 % power): {100 * made.detectable:.1f} points, if two "
            f"trainings disagree on {DISCORDANT_SHARE:.0%} of {config.data.splits.final:,} items and their true "
            f"accuracies differ by a standard deviation of {100 * config.gate.retrain_sd:g} points (gate.retrain_sd)"
        )
    return lines
