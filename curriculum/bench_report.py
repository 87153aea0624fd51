"""The report of a bench: the published schema of `bench.json`, and how it is made from what trainings answered.

Takes for each training its adapter's record, its rows and its final grades; returns a `BenchReport`. Which strategy is
better is said here and nowhere else. Holds no times, so a bench that was killed and went on has the same bytes.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from curriculum.bench_levels import BenchLevel, bench_levels
from curriculum.bench_responses import ResponseSaving, response_saving
from curriculum.crossed import LEVEL, Calibration, Difference, Right, calibration, difference, seed_scatter
from curriculum.gate import answered_right
from curriculum.records import Grade, Part, Rate, Record, SkillLabel
from curriculum.round_records import Adapter, TrainingRow
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
    "uniform_again together are what others are compared with. p-values are adjusted for the number of strategies, or "
    "of skills (Benjamini and Hochberg)."
)
SCOPE = (
    "Intervals hold for new seeds and for new items of these tasks. All trainings share one pool and one profile: "
    "they say nothing of others, nor of other tasks or students."
)

Verdict = Literal["better", "worse", "no difference seen", "not tested"]


class TrainingDone(NamedTuple):
    """One finished training of a bench."""

    strategy: Strategy
    seed: int
    adapter: Adapter
    rows: Sequence[TrainingRow]
    grades: Sequence[Grade]
    """Of its answers to the final items."""


class BenchTraining(Part):
    """What one training got and what it answered."""

    seed: int
    adapter: str
    rows: int
    written_rows: int
    training_tokens: int = Field(description="tokens that went through the model, prompts included, all epochs")
    target_tokens: int = Field(description="tokens that carried loss, all epochs")
    steps: int
    last_loss: float
    accuracy: Rate = Field(description="on the final items that every training answered; lenient extraction")


class BenchSkill(Part):
    """One strategy on the final items of one skill, over its trainings."""

    skill: str
    items: int = Field(ge=1)
    rows: float = Field(ge=0, description="rows of its own choice that a training got, on average")
    accuracy: float = Field(ge=0, le=1, description="mean over trainings")
    against: Difference | None = Field(description="the control; none where seeds are too few")
    p_value: float | None = Field(description="of `against`, adjusted over the skills (BH)")


class StrategyResult(Part):
    """One strategy over its trainings."""

    strategy: Strategy
    said: str
    control: Strategy | None
    trainings: tuple[BenchTraining, ...] = Field(min_length=1, description="sorted by seed")
    accuracy: float = Field(ge=0, le=1, description="mean over trainings")
    gain: float | None = Field(description="over the control, in shares of 1")
    against: Difference | None = Field(description="the control; none where seeds are too few")
    p_value: float | None = Field(description="of `against`, adjusted over the strategies (BH); uniform_again's is not")
    verdict: Verdict
    skills: tuple[BenchSkill, ...]
    levels: tuple[BenchLevel, ...] = Field(default=(), description="by labelled difficulty, easiest first")
    responses: ResponseSaving | None = Field(
        default=None,
        description="beside uniform, whose rows have worked solutions; of strategies with shorter targets",
        exclude_if=lambda value: value is None,
    )


class BenchReport(Record):
    """A whole bench."""

    bench: str
    status: Literal["running", "finished"]
    trainings: int = Field(ge=0, description="finished")
    wanted: int = Field(ge=0)
    screening: bool
    base: str
    base_hash: str
    config_hash: str
    items: int = Field(ge=0, description="final items that the base and every training have a verdict on")
    left_out: int = Field(ge=0, description="final items without one: our own faults")
    base_accuracy: Rate
    budget: int = Field(ge=1, description="training tokens each training was to get")
    seed_sd: float | None = Field(description="standard deviation of true accuracy from seed to seed, in shares of 1")
    calibration: Calibration | None
    strategies: tuple[StrategyResult, ...]
    estimator: str
    scope: str
    notes: tuple[str, ...]


class BenchFacts(NamedTuple):
    """What a bench is, beyond its trainings."""

    bench: str
    wanted: int
    base: str
    base_hash: str
    config_hash: str
    budget: int
    notes: Sequence[str]
    gold_targets: bool = True
    """Whether uniform's rows teach worked solutions, as far as the data have them."""


def bench_report(
    facts: BenchFacts,
    base: Sequence[Grade],
    done: Sequence[TrainingDone],
    labels: Mapping[str, SkillLabel],
) -> BenchReport:
    """Puts a bench together from the trainings that are finished, in any order.

    Args:
        facts: what is known before anything is trained.
        base: the base's grades on the final items.
        done: the trainings; none are needed.
        labels: example id → label, for every final item.
    """
    verdicts = {(t.strategy, t.seed): answered_right(t.grades) for t in done}
    asked = {grade.example_id for grade in base}
    items = sorted(set.intersection(set(answered_right(base)), *map(set, verdicts.values())))
    right = {
        key: np.array([of[item] for item in items], float) for key, of in sorted(verdicts.items(), key=lambda p: p[0])
    }
    ways = {s: np.stack(rows) for s in STRATEGIES if (rows := [r for (of, _), r in right.items() if of == s])}
    of_base = answered_right(base)
    tests = _Tests(ways)
    chosen = [s for s in ways if s not in ("uniform", "uniform_again")]
    adjusted = dict(zip(chosen, benjamini_hochberg([_p(tests.against(s)) for s in chosen]), strict=True))
    skills = _items_by_skill(items, labels)
    results = []
    for strategy in ways:
        own = sorted((t for t in done if t.strategy == strategy), key=lambda t: t.seed)
        found = tests.against(strategy)
        p_value = adjusted.get(strategy, _p(found))
        results.append(
            StrategyResult(
                strategy=strategy,
                said=SAID[strategy],
                control=control_of(strategy, ways),
                trainings=tuple(_training(t, right[strategy, t.seed]) for t in own),
                accuracy=float(ways[strategy].mean()),
                gain=tests.gain(strategy),
                against=found,
                p_value=p_value,
                verdict=_verdict(found, p_value),
                skills=_skills(strategy, ways, own, skills),
                levels=bench_levels(ways[strategy], items, labels),
                responses=tests.responses(strategy, done) if facts.gold_targets else None,
            )
        )
    fewest = min((len(way) for way in ways.values()), default=0)
    return BenchReport(
        bench=facts.bench,
        status="finished" if len(done) == facts.wanted else "running",
        trainings=len(done),
        wanted=facts.wanted,
        screening=fewest <= SCREENING_SEEDS,
        base=facts.base,
        base_hash=facts.base_hash,
        config_hash=facts.config_hash,
        items=len(items),
        left_out=len(asked) - len(items),
        base_accuracy=wilson(sum(of_base[item] for item in items), len(items)),
        budget=facts.budget,
        seed_sd=seed_scatter(tests.groups()).true_sd if fewest >= LEAST_SEEDS else None,
        calibration=tests.calibration(),
        strategies=tuple(results),
        estimator=ESTIMATOR,
        scope=SCOPE,
        notes=(*facts.notes, *_same_shares(results)),
    )


class _Tests:
    """The comparisons of one set of items."""

    def __init__(self, ways: Mapping[Strategy, Right]) -> None:
        self._ways = ways

    def groups(self, without: Sequence[str] = ()) -> list[Right]:
        """Trainings of one recipe together: all with even pool rows, then each other strategy's."""
        even = [self._ways[s] for s in ("uniform", "uniform_again") if s in self._ways]
        others = [way for s, way in self._ways.items() if s not in ("uniform", "uniform_again", *without)]
        return others if "uniform" in without or not even else [np.concatenate(even), *others]

    def _control(self, strategy: Strategy) -> Right | None:
        control = control_of(strategy, self._ways)
        if control != "uniform" or strategy == "uniform_again":
            return None if control is None else self._ways.get(control)
        return self.groups()[0] if "uniform" in self._ways else None

    def gain(self, strategy: Strategy) -> float | None:
        control = self._control(strategy)
        return None if control is None else float(self._ways[strategy].mean() - control.mean())

    def against(self, strategy: Strategy) -> Difference | None:
        way, control = self._ways[strategy], self._control(strategy)
        if control is None or min(len(way), len(control)) < LEAST_SEEDS or way.shape[1] < 2:
            return None
        groups = self.groups()
        if strategy == "uniform_again":
            groups = [way, control, *self.groups(("uniform",))]
        return difference(way, control, seed_scatter(groups))

    def responses(self, strategy: Strategy, done: Sequence[TrainingDone]) -> ResponseSaving | None:
        """What a strategy of shorter targets saves; none of others."""
        if strategy not in SHORTER or "uniform" not in self._ways:
            return None
        own = [t.adapter for t in done if t.strategy == strategy]
        even = [t.adapter for t in done if t.strategy in ALWAYS]
        way, groups = self._ways[strategy], self.groups()
        known = min(len(way), len(groups[0])) >= LEAST_SEEDS and way.shape[1] > 1
        return response_saving(own, even, way, groups[0], groups if known else None)

    def calibration(self) -> Calibration | None:
        even = [self._ways[s] for s in ("uniform", "uniform_again") if s in self._ways]
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
        accuracy=wilson(int(right.sum()), len(right)),
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


def _same_shares(results: Sequence[StrategyResult]) -> list[str]:
    """Which strategies gave the skills nearly the rows that uniform gave them: little can tell them apart."""
    even = next((r for r in results if r.strategy == "uniform"), None)
    if even is None:
        return []

    def shares(of: StrategyResult) -> dict[str, float]:
        total = sum(skill.rows for skill in of.skills) or 1.0
        return {skill.skill: skill.rows / total for skill in of.skills}

    given = shares(even)
    moved = {r.strategy: sum(abs(n - given[s]) for s, n in shares(r).items()) / 2 for r in results}
    return [
        f"{strategy} gave other skills than uniform only {part:.0%} of its rows: hardly a difference is to be expected."
        for strategy, part in moved.items()
        if strategy in ("stat_sel", "learnability", "ega") and part < LEAST_MOVED
    ]
