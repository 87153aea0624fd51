"""The strategies a bench compares: what each makes of the same profile and pool, and equal tokens for all.

Takes the profile of the base, or of the warm-up's adapter as well, the labelled pool and the pool's token lengths;
returns a round's plan, and cuts a training set to the tokens that all get. A strategy is known by its name: a new one
is a name and an `if` in `strategy_config` (or in `strategy_pool`, where it looks at some of the pool only). Trains and
evaluates nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import ceil, inf
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from curriculum.allocation import Measurement, allocate
from curriculum.config import Config
from curriculum.difficulty import BINS
from curriculum.difficulty_records import Bin, Measure
from curriculum.errors import UserError
from curriculum.mixture import Pool, index_pool
from curriculum.plan import make_plan
from curriculum.plan_config import OwnConfig, Ranking
from curriculum.ranking import RankedExample
from curriculum.records import SkillCatalogue, content_id
from curriculum.round_records import RoundPlan, TrainingRow
from curriculum.row_lengths import Lengths, token_budget
from curriculum.rows import printable

Strategy = Literal[
    "uniform",
    "uniform_again",
    "stat_sel",
    "stat_syn",
    "generated_uniform",
    "easy",
    "middle",
    "hard",
    "learnability",
    "ega",
    "prism",
    "less",
    "embed_sel",
    "ica",
    "complexity",
    "complexity_random",
    "answers",
    "own",
    "paraphrase",
    "bindings",
    "dft",
    "lines",
]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
ALWAYS: tuple[Strategy, ...] = ("uniform", "uniform_again")
"""In every bench: what the others are compared with, and random against random."""
WRITTEN: tuple[Strategy, ...] = ("stat_syn", "generated_uniform")
"""Whose rows the teacher writes."""
SAID: Mapping[Strategy, str] = {
    "uniform": "pool rows, even over the skills, drawn at random within each",
    "uniform_again": "uniform once more, with other seeds: what chance alone makes of it",
    "stat_sel": "pool rows by failures (STAT-Sel), over the uniform floor",
    "stat_syn": "written rows by failures (STAT-Syn), over the uniform floor",
    "generated_uniform": "written rows, even over the skills: the control of stat_syn",
    "easy": "pool rows, even over the skills, from the third of each that is easiest for the student",
    "middle": "pool rows, even over the skills, from the middle third of each for the student",
    "hard": "pool rows, even over the skills, from the third of each that is hardest for the student",
    "learnability": "pool rows by p(1 − p) of parsed answers, over the uniform floor",
    "ega": "pool rows by expected gain, over the uniform floor",
    "prism": "pool rows, even over the skills, those first whose gradient turns wrong answers right (PRISM)",
    "less": "pool rows, even over the skills, those first whose Adam step is like the failures' gradients (LESS)",
    "embed_sel": "pool rows, even over the skills, those first that are nearest to failed questions",
    "ica": "uniform rows, weighed by in-context approximation; its holdout is no row of it",
    "complexity": "uniform rows, worked solutions for the hardest part only, by entropy; answers for the rest",
    "complexity_random": "uniform rows, worked solutions for a random part as large: the control of complexity",
    "answers": "uniform rows, the answer alone for every one: what worked solutions are worth at all",
    "own": "uniform rows, taught by the student's own right answers within plan.own.cap, else paraphrases, else gold",
    "paraphrase": "uniform rows, taught by the student's paraphrases of the solutions, else gold: the control of own",
    "bindings": "uniform rows, half of those that can be in words of their own for operators and answers",
    "dft": "uniform rows, the loss of each token weighed by its own probability",
    "lines": "uniform rows, the adapter scaled with depth (LiNeS) as the probe chooses",
}
RANKED: Mapping[Strategy, Ranking] = {"prism": "prism", "less": "less", "embed_sel": "embed_sel"}
"""Strategies that rank the pool items inside a skill, by what."""
TARGETS: Mapping[Strategy, Mapping[str, Any]] = {
    "complexity": {"targets": "complexity"},
    "complexity_random": {"targets": "complexity_random"},
    "answers": {"targets": "answers"},
    "own": {"targets": "own"},
    "paraphrase": {"targets": "own", "own": OwnConfig(cap=0)},
}
"""What the strategies that differ in their targets set of the plan."""
LAYERS: tuple[Strategy, ...] = ("ica", "bindings", "dft", "lines", *TARGETS)
"""Uniform rows with one layer on top of the choice: of weights, words, loss, depth, or of targets."""
CONTROLS: Mapping[Strategy, Strategy] = {
    "complexity": "complexity_random",
    "own": "paraphrase",
    "stat_syn": "generated_uniform",
}
"""What a strategy is compared with where that is asked for; others with `uniform`."""
SHORTER: Mapping[Strategy, int] = {"complexity": 2, "complexity_random": 2, "answers": 4, "own": 2, "paraphrase": 2}
"""Layers whose targets are shorter than those of the pool, or may be: so many times as many rows are planned."""
SCALES = (1.0, 0.75, 0.5, 0.25)
"""What the strategy `lines` tries where the config has no `training.lines`."""
SPARE = Fraction(11, 10)
"""Rows are planned for so many times the tokens, and cut: written rows may be shorter than those of the pool."""


def control_of(strategy: Strategy, asked: Collection[str]) -> Strategy | None:
    """What a strategy is compared with: written rows with untargeted written ones where these are asked for."""
    if strategy == "uniform":
        return None
    control = CONTROLS.get(strategy, "uniform")
    return control if control in asked else "uniform"


def parse_strategies(text: str) -> tuple[Strategy, ...]:
    """`a,b` → the strategies to compare, those of every bench first, each once.

    Raises:
        UserError: a name is no strategy's; all such names are told.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown or not names:
        got = ", ".join(printable(name) for name in unknown) or "none"
        raise UserError(f"--arms: expected some of {', '.join(STRATEGIES)}, with commas between, got {got}")
    return (*ALWAYS, *(s for s in STRATEGIES if s in names and s not in ALWAYS))


def strategy_config(config: Config, strategy: Strategy) -> Config:
    """The config of a strategy's one round: everything but what chooses the rows is the bench's."""
    change: dict[str, Any] = {"allocation": "failures", "write_share": 0.0, "replay_rows": None, "by": "rule"}
    change["rank"] = RANKED.get(strategy, "random")
    change |= {"draws_per_failure": None, "difficulty": "any"}  # all have as many tokens
    if strategy in ("uniform", "uniform_again", "generated_uniform", *BINS, *RANKED, *LAYERS):
        change["uniform_floor"] = 1.0
    if strategy in WRITTEN:
        change["write_share"] = 1.0
    if strategy == "learnability":
        change["allocation"] = "learnability"
    if strategy == "ega":
        change["allocation"] = "expected_gain"
    return config.model_copy(update={"rounds": 1, "plan": config.plan.model_copy(update=change)})


def layer_config(config: Config, strategy: Strategy) -> Config:
    """The config that a strategy's rows are built and trained with: the bench's, but for a strategy that is a layer."""
    training: dict[str, Any] = {"lines": config.training.lines or SCALES if strategy == "lines" else None}
    training |= {"ica": {"weights": "ica"}, "dft": {"loss": "dft"}}.get(strategy, {})
    targets = {"bindings": 0.5} if strategy == "bindings" else TARGETS.get(strategy, {})
    return config.model_copy(
        update={
            "plan": config.plan.model_copy(update=targets),
            "training": config.training.model_copy(update=training),
        }
    )


def strategy_pool(
    strategy: Strategy, pool: Pool, holdout: Collection[str] = (), bins: Mapping[str, Bin] | None = None
) -> Pool:
    """The part of the pool a strategy draws from: a bin by how hard items are for the student; less what it sets aside.

    Raises:
        UserError: no item is so for the student.
    """
    if holdout:
        rows = zip(pool.ids, pool.skills, pool.difficulties.tolist(), strict=True)
        pool = index_pool(row for row in rows if row[0] not in holdout)
    if strategy not in BINS:
        return pool
    assert bins is not None, "asked for before the pool was measured"
    kept = [at for at, id_ in enumerate(pool.ids) if bins[id_] == strategy]
    if not kept:
        raise UserError(
            f"strategy {strategy}: expected pool items that are so for the student, got none: too many are alike. "
            "Set student.signals or raise its samples, or leave the strategy out"
        )
    return index_pool((pool.ids[at], pool.skills[at], int(pool.difficulties[at])) for at in kept)


class Materials(NamedTuple):
    """What all strategies plan from: the same for every training."""

    config: Config
    measured: Sequence[Measurement]
    """The base, and the adapter of the warm-up where there is one."""
    catalogue: SkillCatalogue
    pool: Pool
    written_levels: Mapping[str, Sequence[int]]
    tokens: Mapping[str, int]
    """Pool example → training tokens, all epochs."""
    holdout: Collection[str] = ()
    """Pool examples that the strategy at hand sets aside."""
    warm_up: Sequence[TrainingRow] = ()
    """Rows that every training has besides its own."""
    ranked: Mapping[Strategy, Sequence[RankedExample]] = {}
    """The pool items as the strategies that rank them have them: the same for all of its trainings."""
    bins: Mapping[str, Bin] | None = None
    """Pool example → how hard it is for the student, where a strategy asks."""
    measure: Measure | None = None
    """What says so."""
    share: float = 1.0
    """The budget that `config` has the rows of: see `bench_budgets`."""

    @property
    def round(self) -> int:
        """The round that is planned: 1, or 2 after a warm-up."""
        return len(self.measured)

    @property
    def budget(self) -> int:
        """Tokens of each training's own rows."""
        return token_budget(self.config, Lengths(self.pool, self.tokens))


def strategy_plan(strategy: Strategy, seed: int, of: Materials) -> RoundPlan:
    """The last round of one training: the strategy's shares, with rows for a little more than the budget of tokens.

    `seed` (from 1) chooses which rows are drawn, their order and the adapter's first weights; no two trainings of a
    bench share it, whatever their strategies and budgets.

    Raises:
        UserError: the profile and the pool leave nothing to teach.
    """
    config = strategy_config(of.config, strategy)
    profile = of.measured[-1].profile
    pool = strategy_pool(strategy, of.pool, of.holdout, of.bins)
    lengths = Lengths(pool, {id_: of.tokens[id_] for id_ in pool.ids})
    sizes = pool.sizes()
    allocation = allocate(of.round, config, of.measured, of.catalogue, sizes, of.written_levels)

    def planned(own: Config) -> RoundPlan:
        known, levels, replayed = of.catalogue, of.written_levels, len(of.warm_up)
        return make_plan(of.round, own, profile, known, sizes, [], levels, replayed, allocation)

    first = planned(config)
    if first.action == "stop" or not lengths.of_plan(first):
        raise UserError(f"strategy {strategy}: expected skills to teach, got a plan to stop: {first.stop_reason}")
    spare = SPARE * SHORTER.get(strategy, 1)
    rows = ceil(spare * config.plan.rows_per_round * of.budget / lengths.of_plan(first))
    wider = config.model_copy(update={"plan": config.plan.model_copy(update={"rows_per_round": rows})})
    at = [] if of.share == 1 else [of.share]
    own_seed = int(content_id([of.config.seed, "bench", strategy, seed, *at], 8), 16)
    return planned(wider).model_copy(update={"seed": own_seed})


def cut_to_budget(
    rows: Sequence[TrainingRow],
    tokens: Mapping[str, int],
    budget: int,
    seed: int,
    scores: Mapping[str, float] | None = None,
) -> list[TrainingRow]:
    """New rows, in even turns over their skills, up to the point nearest to the budget of tokens; sorted by id.

    Replayed rows are kept, whatever they cost.

    Row number i of a skill's n stands at (i − ½)/n of the way, so any beginning has the skills' shares to about a row.

    Args:
        rows: a training set.
        tokens: row id → training tokens, all epochs.
        budget: tokens wanted; more than the rows have keeps all.
        seed: shuffles the rows within a skill.
        scores: example id → score: a skill's best rows come first, ties shuffled.
    """
    of_skill: defaultdict[str, list[TrainingRow]] = defaultdict(list)
    replayed = [row for row in rows if row.origin == "replay"]
    by = scores or {}
    for row in sorted(rows, key=lambda row: (-by.get(row.example_id, -inf), content_id([seed, row.id]))):
        if row.origin != "replay":
            of_skill[row.skill].append(row)
    turns = sorted(
        (Fraction(2 * at + 1, 2 * len(members)), row.skill, at, row)
        for members in of_skill.values()
        for at, row in enumerate(members)
    )
    ordered = [row for *_, row in turns]
    sums = np.concatenate([[0], np.cumsum([tokens[row.id] for row in ordered])])
    nearest = int(np.abs(sums - budget).argmin())
    return sorted([*ordered[: max(nearest, 1)], *replayed], key=lambda row: row.id)
