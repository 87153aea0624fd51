"""What the methods of a config add to a forecast: rankings, weights, forms of targets, drawn answers, other models.

Work is counted in answers and in rows through training: what a method takes of a row was measured as a share of one
training epoch over the same rows (docs/methods.md, benchmarks/methods.py), so that the speed of
training, measured or assumed, gives minutes for all of them. Nothing is loaded.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from curriculum.config import Config
from curriculum.data_config import FileData, FileSource, GeneratorData
from curriculum.difficulty import BINS
from curriculum.errors import UserError
from curriculum.plan_config import Ranking
from curriculum.ranking import NAMES
from curriculum.signals import SAMPLES_WITHOUT_GOLD
from curriculum.strategies import RANKED, SHORTER, SPARE, Strategy, layer_config
from curriculum.unwanted import read_pairs

Range = tuple[float, float]
"""The least and the most."""

PRISM_ROW: Range = (0.9, 1.1)
"""Training epochs that a candidate takes; a pair of answers takes `PAIR`."""
PAIR: Range = (1.5, 4.0)
LESS_ROW: Range = (1.2, 1.8)
"""At each checkpoint, with the warm-up and the failures."""
QUESTION: Range = (0.25, 0.5)
"""An embedding of a question: one forward pass."""
DEMONSTRATED_ROW: Range = (1.0, 1.3)
"""A row alone and after its demonstrations; after random ones as well it is `RANDOM_ROW` more."""
RANDOM_ROW: Range = (0.7, 1.0)
ENTROPY_ROW: Range = (0.2, 0.35)


class MethodWork(NamedTuple):
    """What one method does, the most there can be."""

    what: str
    """The method, with its key of the config."""
    many: str
    """How many of what it reads."""
    answers: int = 0
    """Drawn from the student."""
    rows: Range = (0.0, 0.0)
    """As many rows through training take as long."""
    starts: int = 0
    """Times that a worker is started."""
    unknown: str = ""
    """Why there is no time; empty where there is one."""
    seconds: Range | None = None
    """By this method's own speed in this run, where that was measured."""


def minutes(work: MethodWork, answering: Range, training: Range, start: Range) -> Range | None:
    """Least and most; none where they cannot be known.

    Args:
        work: of one method.
        answering: answers a second, slow and fast.
        training: rows a second, slow and fast.
        start: seconds to start a worker, least and most.
    """
    if work.unknown:
        return None
    if work.seconds is not None:
        return work.seconds[0] / 60, work.seconds[1] / 60
    least = work.answers / answering[1] + work.rows[0] / training[1] + start[0] * work.starts
    most = work.answers / answering[0] + work.rows[1] / training[0] + start[1] * work.starts
    return least / 60, most / 60


def times(share: Range, rows: float) -> Range:
    """So many rows at a share of an epoch each."""
    return share[0] * rows, share[1] * rows


def plus(*parts: Range) -> Range:
    """The sum of ranges."""
    return sum(low for low, _ in parts), sum(high for _, high in parts)


def pool_items(config: Config) -> int | None:
    """The most items the pool can have; none where only the data say."""
    splits = config.data.splits
    if isinstance(config.data, GeneratorData):
        left = max(0, config.data.items - splits.probe - splits.gate - splits.final)
        return left if splits.pool is None else min(left, splits.pool)
    return splits.pool


def probe_answers(config: Config) -> int:
    """Answers of the adapters that are examined, a round each, to the items that profiles are made of.

    From `profile_from` on these are an extra set's; a ranking still looks at what failed on the probe.
    """
    name, probe = config.profile_set(), config.data.splits.probe
    if name is None:
        return config.rounds * probe
    source = config.extra[name]
    assert source.profile_from is not None
    later = max(0, config.rounds - source.profile_from + 1)
    on_probe = config.rounds if config.plan.rank != "random" else max(1, config.rounds - later)
    return on_probe * probe + later * source.items


def run_methods(config: Config, sets: Sequence[int], controls: Sequence[int]) -> list[MethodWork]:
    """What the methods of a run do in all of its rounds.

    Args:
        config: of the run.
        sets: rows of each round's training set.
        controls: of each control's.
    """
    plan, rounds, probe = config.plan, config.rounds, config.data.splits.probe
    pool, found = pool_items(config), drawn_answers(config, rounds, plan.difficulty == "adaptive")
    if plan.rank != "random" and plan.written_rows < plan.rows_per_round:
        found.append(ranking_work(config, plan.rank, pool, probe, rounds))
    if plan.unwanted is not None:
        found.append(unwanted_work(config, sum(sets), rounds))
    if config.training.weights == "ica":
        trainings = [*sets, *controls]
        found.append(weights_work(config, sum(trainings), len(trainings)))
    if plan.targets == "complexity":
        trained = rounds + len(controls)
        found.append(entropy_work(plan.rows_per_round * trained, trained))
    name = config.profile_set()
    if name is not None:
        source = config.extra[name]
        later = max(0, rounds - (source.profile_from or 1) + 1)
        count = f"{later * source.items:,} answers from round {source.profile_from} on, among the student's answers"
        found.append(MethodWork(f"profiles of the set {name}", count))
    return found


def bench_methods(
    config: Config,
    left: Sequence[tuple[Strategy, int]],
    profiles: int,
    ranked: Collection[Strategy] = (),
    timed: Collection[Strategy] = (),
    pool_drawn: bool = False,
) -> list[MethodWork]:
    """What the methods of a bench do: a ranking once a strategy, a layer once a training.

    Args:
        config: of the bench.
        left: the strategy of each training that is still to be made, and its rows, those of the warm-up among them.
        profiles: that are still to be taken: of the base, and of the warm-up's adapter.
        ranked: strategies whose ranking is there.
        timed: strategies of which a training was timed, with its layer.
        pool_drawn: whether the answers to the whole pool are there.
    """
    pool, probe, warm_up = pool_items(config), config.data.splits.probe, config.bench.warm_up_rows
    signals, strategies = config.student.signals, dict.fromkeys(strategy for strategy, _ in left)
    asked = bool(set(BINS) & set(strategies)) or (signals is not None and signals.difficulty == "measured")
    found = drawn_answers(config, profiles, asked and not pool_drawn, once=True)
    for strategy in strategies:
        if strategy in RANKED and strategy not in ranked:
            found.append(ranking_work(config, RANKED[strategy], pool, probe, 1))
        if strategy in timed:
            continue
        layered, of = layer_config(config, strategy), [rows for one, rows in left if one == strategy]
        own_rows = sum(of) - len(of) * warm_up
        each = f", {strategy}"
        if layered.training.weights == "ica":
            work = weights_work(layered, sum(of), len(of))
            found.append(work._replace(what=work.what + each))
        if layered.plan.targets == "complexity":
            work = entropy_work(round(own_rows * SPARE * SHORTER[strategy]), len(of))
            found.append(work._replace(what=work.what + each))
        if (answers := layered.plan.own_answers(round(own_rows * SPARE * SHORTER.get(strategy, 1)))) > 0:
            found.append(MethodWork(f"own answers{each}", f"{answers:,} answers", answers, starts=len(of)))
    return found


def ranking_work(config: Config, method: Ranking, pool: int | None, failures: int, rounds: int) -> MethodWork:
    """The pool ranked so many times, and compared with at most so many failures each time."""
    what = f"ranking by {NAMES[method]}" + (" (plan.rank)" if config.plan.rank == method else "")
    if pool is None:
        return _unsized(what)
    rows, failed = pool * rounds, failures * rounds
    many = f"{rows:,} pool rows{_in(rounds)}"
    if method == "prism":
        cost = plus(times(PRISM_ROW, rows), (0.0, PAIR[1] * failed))
    elif method == "less":
        checkpoints = config.plan.less.epochs
        cost, many = times(LESS_ROW, rows * checkpoints), f"{many}, at {checkpoints} checkpoint{_s(checkpoints)} each"
    else:
        cost = plus(times(QUESTION, rows), (0.0, QUESTION[1] * failed))
    return MethodWork(what, many, rows=cost, starts=rounds)


def unwanted_work(config: Config, rows: int, rounds: int) -> MethodWork:
    """Training sets scored by PRISM, turned round."""
    assert config.plan.unwanted is not None
    try:
        pairs = len(read_pairs(config.plan.unwanted.pairs))
    except UserError as error:
        return MethodWork("unwanted rows (plan.unwanted)", "", unknown=str(error).splitlines()[0])
    cost = plus(times(PRISM_ROW, rows), times(PAIR, pairs * rounds))
    many = f"{rows:,} rows of training sets and {pairs * rounds:,} pairs{_in(rounds)}"
    return MethodWork("unwanted rows (plan.unwanted)", many, rows=cost, starts=rounds)


def weights_work(config: Config, rows: int, trainings: int) -> MethodWork:
    """Rows of training sets weighed in context: embeddings with the holdout's, and every scoring."""
    ica = config.training.ica
    scored = times(plus(DEMONSTRATED_ROW, RANDOM_ROW) if ica.subtract_random else DEMONSTRATED_ROW, rows * ica.refresh)
    holdout = ica.holdout_share * (pool_items(config) or 0) * trainings
    cost = plus(scored, times(QUESTION, rows + holdout))
    scorings = "once" if ica.refresh == 1 else f"{ica.refresh} times"
    many = f"{rows:,} rows scored {scorings} in {trainings} training{_s(trainings)}"
    return MethodWork("in-context weights (training.weights: ica)", many, rows=cost, starts=trainings)


def entropy_work(rows: int, trainings: int) -> MethodWork:
    """First tokens of the answers to new examples."""
    many = f"{rows:,} new rows in {trainings} training{_s(trainings)}"
    return MethodWork("entropies (plan.targets: complexity)", many, rows=times(ENTROPY_ROW, rows), starts=trainings)


def drawn_answers(config: Config, profiles: int, pool_wanted: bool, once: bool = False) -> list[MethodWork]:
    """Answers drawn for signals and for doubt, and steps that a reward model scores.

    Args:
        config: of a run or bench.
        profiles: that are taken.
        pool_wanted: whether the pool's difficulty for the student is wanted, for each profile or only `once`.
        once: for the last profile only.
    """
    student, probe = config.student, config.data.splits.probe
    items, found = probe_answers(config) if not once else profiles * probe, list[MethodWork]()
    signals = student.signals
    if signals is not None and profiles:
        drawn = signals.samples * profiles * probe
        found.append(MethodWork("answers drawn to the probe (student.signals)", f"{drawn:,}", drawn, starts=profiles))
    found += _pool_work(config, profiles, pool_wanted, once)
    silent = isinstance(config.data, FileData) and config.data.probe_without_gold
    if (silent or student.difficult == "disagreement") and profiles:
        drawn = SAMPLES_WITHOUT_GOLD * items
        key = "student.difficult: disagreement" if student.difficult == "disagreement" else "questions without gold"
        found.append(
            MethodWork(f"answers to be compared with each other ({key})", f"{drawn:,}", drawn, starts=profiles)
        )
    if student.reward is not None and profiles:
        many = f"{items:,} answers, their steps scored by {student.reward.model}"
        found.append(MethodWork("step scores (student.difficult: prm)", many, unknown="another model's time"))
    return found


def _pool_work(config: Config, profiles: int, wanted: bool, once: bool) -> list[MethodWork]:
    """Answers drawn to the pool; without signals, entropies, not needed where worked solutions tell items apart."""
    signals, pool = config.student.signals, pool_items(config)
    measured = signals is not None and signals.difficulty == "measured" and isinstance(config.data, FileSource)
    if not wanted and (once or not measured):
        return []
    rounds = profiles if wanted and not once else 1
    if signals is None:
        what = "entropies of the pool, where worked solutions do not tell how hard it is"
    else:
        what = f"answers drawn to the pool ({'plan.difficulty' if wanted and not once else 'student.signals'})"
    if pool is None:
        return [_unsized(what)]
    if signals is None:
        cost = times(ENTROPY_ROW, pool * rounds)
        return [MethodWork(what, f"{pool * rounds:,} items{_in(rounds)}", rows=cost, starts=rounds)]
    drawn = signals.samples * pool * rounds
    return [MethodWork(what, f"{drawn:,}", drawn, starts=rounds)]


def work_words(work: MethodWork, took: Range | None) -> str:
    """How many, and minutes; where these are not known, as how many rows through training."""
    many = f"at most {work.many}" if work.many else "not counted"
    if work.unknown:
        return f"{many}; time not counted: {work.unknown}" if work.many else f"{many}: {work.unknown}"
    if took is not None and (work.rows[1] or work.answers):
        return f"{many}: {_minutes(took)}"
    if work.rows[1]:
        return f"{many}: as {work.rows[0]:,.0f} to {work.rows[1]:,.0f} rows through training"
    return many


def _minutes(took: Range) -> str:
    low, high = took
    if high < 1:
        return "less than a minute"
    return f"{low:.0f} to {high:.0f} minutes" if round(low) != round(high) else f"{high:.0f} minutes"


def _unsized(what: str) -> MethodWork:
    return MethodWork(what, "", unknown="give data.splits.pool, for the pool's size is the data's")


def _in(rounds: int) -> str:
    return "" if rounds == 1 else f" in {rounds} rounds"


def _s(number: int) -> str:
    return "" if number == 1 else "s"
