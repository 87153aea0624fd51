"""The report of a bench, as it is made from what trainings answered.

Takes for each training its adapter's record, its rows and its final grades; returns a `BenchReport`. Which strategy is
better is said here and nowhere else. Holds no times, so a bench that was killed and went on has the same bytes.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from curriculum.bench_answers import Answered, BaseDone, TrainingDone, answered
from curriculum.bench_records import (
    BenchExtra,
    BenchReport,
    BenchSkill,
    BenchSlice,
    BenchTraining,
    BudgetResult,
    ExtraSet,
    FinalSlice,
    StrategyResult,
    Verdict,
)
from curriculum.bench_responses import ResponseSaving, response_saving
from curriculum.bench_slices import NO_SLICES, Slices
from curriculum.crossed import LEVEL, Calibration, Difference, Right, calibration, difference, seed_scatter
from curriculum.records import Rate, SkillLabel
from curriculum.statistics import benjamini_hochberg, wilson
from curriculum.strategies import ALWAYS, SAID, SHORTER, STRATEGIES, Strategy, control_of

SCREENING_SEEDS = 2
"""With so many seeds a strategy, or fewer, a bench screens: what it finds wants confirming on other tasks."""
LEAST_MOVED = 0.1
"""Share of a strategy's rows that go elsewhere than uniform's, below which a reader is warned."""
LEAST_SEEDS = 2
"""For an interval that holds for new seeds."""
ESTIMATOR = (
    "Difference of mean accuracies on the same final items, trainings (seeds) nested in strategies and crossed with "
    "items. Squared standard error: variance of the items' differences over the number of items, plus the seeds' own "
    "variance (two-way crossed analysis of variance, pooled over all strategies, not below zero) over the numbers of "
    "trainings; t distribution with Satterthwaite's degrees of freedom (Hillis 2007). Uniform's trainings and those of "
    "uniform_again together are what others are compared with, inside each budget; budgets are not tested against each "
    "other. p-values are adjusted for the number of strategies, at all budgets together, or of skills (Benjamini and "
    "Hochberg)."
)
SCOPE = (
    "Intervals hold for new seeds and for new items of these tasks. All trainings share one pool and one profile: "
    "they say nothing of others, nor of other tasks or students."
)


class BenchFacts(NamedTuple):
    """What a bench is, beyond its trainings."""

    bench: str
    wanted: int
    base: str
    base_hash: str
    config_hash: str
    budgets: Mapping[float, int]
    """Share → the tokens each training was to get."""
    notes: Sequence[str]
    gold_targets: bool = True
    """Whether uniform's rows teach worked solutions, as far as the data have them."""


def bench_report(
    facts: BenchFacts,
    base: BaseDone,
    done: Sequence[TrainingDone],
    labels: Mapping[str, SkillLabel],
    slices: Slices = NO_SLICES,
) -> BenchReport:
    """Puts a bench together from the trainings that are finished, in any order.

    Args:
        facts: what is known before anything is trained.
        base: the base's grades.
        done: the trainings; none are needed.
        labels: example id → label, for every final item.
        slices: of the final items.
    """
    done = sorted(done, key=lambda t: t.key)
    final = answered(base.grades, {t.key: t.grades for t in done})
    extra = {
        name: answered(of_base, {t.key: t.extra[name] for t in done}) for name, of_base in sorted(base.extra.items())
    }
    parts = _Parts(final, extra, _items_by_skill(final.items, labels), slices.places(final.items))
    of_budget = {share: [t for t in done if t.share == share] for share in sorted(facts.budgets)}
    tests = {share: _Tests(_ways(final, own)) for share, own in of_budget.items()}
    chosen = [(share, s) for share, of in tests.items() for s in of.ways if s not in ALWAYS]
    p_values = [_p(tests[share].against(s)) for share, s in chosen]
    adjusted = dict(zip(chosen, benjamini_hochberg(p_values), strict=True))
    budgets = [
        BudgetResult(
            share=share,
            tokens=facts.budgets[share],
            seed_sd=seed_scatter(of.groups()).true_sd if of.fewest >= LEAST_SEEDS else None,
            calibration=of.calibration(),
            strategies=tuple(
                _result(strategy, of_budget[share], of, parts, adjusted, facts.gold_targets) for strategy in of.ways
            ),
        )
        for share, of in tests.items()
    ]
    return BenchReport(
        bench=facts.bench,
        status="finished" if len(done) == facts.wanted else "running",
        trainings=len(done),
        wanted=facts.wanted,
        screening=min(of.fewest for of in tests.values()) <= SCREENING_SEEDS,
        base=facts.base,
        base_hash=facts.base_hash,
        config_hash=facts.config_hash,
        items=len(final.items),
        left_out=final.left_out,
        base_accuracy=final.base_rate(range(len(final.items))),
        sliced_by=slices.by,
        slices=tuple(FinalSlice(slice=s, items=len(at), base=final.base_rate(at)) for s, at in parts.slices.items()),
        extra=tuple(
            ExtraSet(name=name, items=len(of.items), left_out=of.left_out, base=of.base_rate(range(len(of.items))))
            for name, of in extra.items()
        ),
        budgets=tuple(budgets),
        estimator=ESTIMATOR,
        scope=SCOPE,
        notes=(*facts.notes, *(note for made in budgets for note in _same_shares(made, len(budgets) > 1))),
    )


class _Parts(NamedTuple):
    """What trainings answered, and where the items of each skill and slice stand among the final ones."""

    final: Answered
    extra: Mapping[str, Answered]
    skills: Mapping[str, Sequence[int]]
    slices: Mapping[str, Sequence[int]]


def _ways(final: Answered, own: Sequence[TrainingDone]) -> dict[Strategy, Right]:
    """The trainings of each strategy, by seed: [n_trainings, n_items]."""
    rows = {s: [final.right[t.key] for t in own if t.strategy == s] for s in STRATEGIES}
    return {strategy: np.stack(right) for strategy, right in rows.items() if right}


def _result(
    strategy: Strategy,
    done: Sequence[TrainingDone],
    tests: "_Tests",
    parts: _Parts,
    adjusted: Mapping[tuple[float, Strategy], float | None],
    gold_targets: bool,
) -> StrategyResult:
    """Of one strategy at one budget, whose trainings are `done`."""
    own = [t for t in done if t.strategy == strategy]
    way, found = tests.ways[strategy], tests.against(strategy)
    p_value = adjusted.get((own[0].share, strategy), _p(found))
    return StrategyResult(
        strategy=strategy,
        said=SAID[strategy],
        control=control_of(strategy, tests.ways),
        trainings=tuple(_training(t, parts.final.right[t.key]) for t in own),
        accuracy=float(way.mean()),
        gain=tests.gain(strategy),
        against=found,
        p_value=p_value,
        verdict=_verdict(found, p_value),
        skills=_skills(strategy, tests.ways, own, parts.skills),
        slices=tuple(
            BenchSlice(
                slice=name, items=len(at), accuracy=float(way[:, at].mean()), trainings=tuple(map(_rate, way[:, at]))
            )
            for name, at in parts.slices.items()
        ),
        extra=tuple(_extra(name, of, own) for name, of in parts.extra.items() if of.items),
        responses=tests.responses(strategy, done) if gold_targets else None,
    )


def _extra(name: str, of: Answered, own: Sequence[TrainingDone]) -> BenchExtra:
    right = [of.right[t.key] for t in own]
    return BenchExtra(name=name, accuracy=float(np.stack(right).mean()), trainings=tuple(map(_rate, right)))


def _rate(right: Right) -> Rate:
    """Of one training: [n_items]."""
    return wilson(int(right.sum()), len(right))


class _Tests:
    """The comparisons of one set of items."""

    def __init__(self, ways: Mapping[Strategy, Right]) -> None:
        self.ways = ways

    @property
    def fewest(self) -> int:
        """Trainings of the strategy that has fewest; 0 where none has any."""
        return min(map(len, self.ways.values()), default=0)

    def groups(self, without: Sequence[str] = ()) -> list[Right]:
        """Trainings of one recipe together: all with even pool rows, then each other strategy's."""
        even = [self.ways[s] for s in ALWAYS if s in self.ways]
        others = [way for s, way in self.ways.items() if s not in (*ALWAYS, *without)]
        return others if "uniform" in without or not even else [np.concatenate(even), *others]

    def _control(self, strategy: Strategy) -> Right | None:
        control = control_of(strategy, self.ways)
        if control != "uniform" or strategy == "uniform_again":
            return None if control is None else self.ways.get(control)
        return self.groups()[0] if "uniform" in self.ways else None

    def gain(self, strategy: Strategy) -> float | None:
        control = self._control(strategy)
        return None if control is None else float(self.ways[strategy].mean() - control.mean())

    def against(self, strategy: Strategy) -> Difference | None:
        way, control = self.ways[strategy], self._control(strategy)
        if control is None or min(len(way), len(control)) < LEAST_SEEDS or way.shape[1] < 2:
            return None
        groups = self.groups()
        if strategy == "uniform_again":
            groups = [way, control, *self.groups(("uniform",))]
        return difference(way, control, seed_scatter(groups))

    def responses(self, strategy: Strategy, done: Sequence[TrainingDone]) -> ResponseSaving | None:
        """What a strategy of shorter targets saves, of the trainings at its budget; none of others."""
        if strategy not in SHORTER or "uniform" not in self.ways:
            return None
        own = [t.adapter for t in done if t.strategy == strategy]
        even = [t.adapter for t in done if t.strategy in ALWAYS]
        way, groups = self.ways[strategy], self.groups()
        known = min(len(way), len(groups[0])) >= LEAST_SEEDS and way.shape[1] > 1
        return response_saving(own, even, way, groups[0], groups if known else None)

    def calibration(self) -> Calibration | None:
        even = [self.ways[s] for s in ALWAYS if s in self.ways]
        if len(even) < 2 or min(map(len, even)) < LEAST_SEEDS or len(even[0]) != len(even[1]) or even[0].shape[1] < 2:
            return None
        return calibration(np.concatenate(even), self.groups(("uniform",)))


def _p(found: Difference | None) -> float | None:
    return found.p_value if found else None


def _verdict(found: Difference | None, p_value: float | None) -> Verdict:
    if found is None or p_value is None:
        return "not tested"
    if p_value > 1 - LEVEL:
        return "no difference seen"
    return "better" if found.difference > 0 else "worse"


def _training(of: TrainingDone, right: Right) -> BenchTraining:
    return BenchTraining(
        seed=of.seed,
        adapter=of.adapter.name,
        rows=of.adapter.rows,
        written_rows=sum(row.origin == "written" for row in of.rows),
        training_tokens=of.adapter.training_tokens,
        target_tokens=of.adapter.target_tokens,
        steps=of.adapter.steps,
        last_loss=of.adapter.last_loss,
        accuracy=_rate(right),
    )


def _items_by_skill(items: Sequence[str], labels: Mapping[str, SkillLabel]) -> dict[str, list[int]]:
    of_skill: defaultdict[str, list[int]] = defaultdict(list)
    for at, item in enumerate(items):
        for skill in set(labels[item].skills):
            of_skill[skill].append(at)
    return dict(sorted(of_skill.items()))


def _skills(
    strategy: Strategy,
    ways: Mapping[Strategy, Right],
    own: Sequence[TrainingDone],
    items: Mapping[str, Sequence[int]],
) -> tuple[BenchSkill, ...]:
    rows = Counter(row.skill for training in own for row in training.rows if row.origin != "replay")
    found = {skill: _Tests({s: way[:, at] for s, way in ways.items()}).against(strategy) for skill, at in items.items()}
    adjusted = benjamini_hochberg([_p(of) for of in found.values()])
    return tuple(
        BenchSkill(
            skill=skill,
            items=len(at),
            rows=rows[skill] / len(own),
            accuracy=float(ways[strategy][:, at].mean()),
            against=found[skill],
            p_value=p_value,
        )
        for (skill, at), p_value in zip(items.items(), adjusted, strict=True)
    )


def _same_shares(made: BudgetResult, several: bool) -> list[str]:
    """Which strategies gave the skills nearly the rows that uniform gave them: little can tell them apart."""
    even = next((r for r in made.strategies if r.strategy == "uniform"), None)
    if even is None:
        return []

    def shares(of: StrategyResult) -> dict[str, float]:
        total = sum(skill.rows for skill in of.skills) or 1.0
        return {skill.skill: skill.rows / total for skill in of.skills}

    given = shares(even)
    moved = {r.strategy: sum(abs(n - given[s]) for s, n in shares(r).items()) / 2 for r in made.strategies}
    where = f" at budget {made.share:g}" if several else ""
    return [
        f"{strategy}{where} gave other skills than uniform only {part:.0%} of its rows: hardly a difference is to be "
        "expected."
        for strategy, part in moved.items()
        if strategy in ("stat_sel", "learnability", "ega") and part < LEAST_MOVED
    ]
