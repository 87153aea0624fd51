"""Simulated students whose true learning curves are known: where the rules of allocation are tried out.

A world has skills with a start, a ceiling, rows to half of the gain and a steepness; some cannot be learned, in some
worlds rows of one skill help or disturb others, or are forgotten. A trial walks one world through its rounds:
a rule sees noisy probe answers and splits the rows. `best_plan` is the oracle that knows everything.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit, ndtri

Array = NDArray[np.float64]
CLUSTER = 5
"""Skills that share a label."""


class Setting(NamedTuple):
    """How large a world is, and what it is like."""

    kind: str
    skills: int = 20
    rounds: int = 5
    rows: int = 480
    """New rows a round."""
    items: int = 20
    """Probe items a skill."""
    samples: int = 4
    """Drawn answers to each item beside the greedy one."""
    unlearnable: float | None = None
    """Share of the skills; `None`: as the kind has it."""


UNLEARNABLE = {"all": 0.0, "half": 0.5, "transfer": 0.25, "forget": 0.25, "interfere": 0.5}
PUBLISHED = {"real120": 480, "real500": 2000, "flat120": 480, "flat500": 2000}
"""Worlds of published curves → rows a round: 120 and 500 a skill over all rounds."""


@dataclass(frozen=True)
class World:
    """One simulated student. Arrays are [n_skills] unless they say otherwise."""

    setting: Setting
    floor: Array
    """Accuracy without any effective rows."""
    ceiling: Array
    half: Array
    steepness: Array
    effect: Array
    """[to, from] effective rows of one skill that a row of another gives."""
    forgets: Array
    """Share of the effective rows that is lost in a round."""
    start: Array
    """Effective rows before any training."""
    parsed: float | None
    """Share of answers in which the base's answer is found; `None`: all of every student's."""
    clusters: NDArray[np.int64]
    published: Array | None = None
    """[n_skills, n_points] accuracies at `PUBLISHED_ROWS`, in place of the curves."""

    def accuracy(self, effective: Array) -> Array:
        """Of parsed answers, at effective rows [..., n_skills]."""
        if self.published is not None:
            at = np.log1p(effective)
            return np.stack([np.interp(at[..., s], LOG_ROWS, c) for s, c in enumerate(self.published)], axis=-1)
        with np.errstate(divide="ignore"):
            rise = 1 / (1 + (self.half / effective) ** self.steepness)
        return self.floor + (self.ceiling - self.floor) * rise

    def parse_rate(self, rows: float) -> float:
        """Share of answers in which an answer is found, after so many rows of any skill."""
        return 1.0 if self.parsed is None else 1 - (1 - self.parsed) * np.exp(-rows / 150)

    def trained(self, effective: Array, given: Array) -> Array:
        """Effective rows [..., n_skills] after a round that gave `given` rows, effects on others included."""
        return np.maximum(0, (1 - self.forgets) * effective + given)

    def score(self, plan: Array) -> float:
        """Mean accuracy × parse rate after rows [n_rounds, n_skills] were trained."""
        return float(_final(self, plan @ self.effect.T)) * self.parse_rate(plan.sum())


PUBLISHED_ROWS = (0, 50, 100, 200, 500, 1000, 2500, 5000)
LOG_ROWS = np.log1p(np.array(PUBLISHED_ROWS, float))


@cache
def published_curves(folder: Path) -> Array:
    """The curves of github.com/r-three/dataefficiency's `results/finetune_results`, made monotone: [n, n_points]."""
    curves = []
    for path in sorted(folder.glob("*_full_result_v2.json")):
        points = json.loads(path.read_text())
        values = [next(iter(points[str(rows)].values())) for rows in PUBLISHED_ROWS if str(rows) in points]
        if len(values) == len(PUBLISHED_ROWS):
            curves.append(isotonic_regression(values).x)
    return np.array(curves)


def draw_world(setting: Setting, seed: int, curves: Path | None = None) -> World:
    """The world of a seed."""
    random = np.random.default_rng([seed, 0])
    n = setting.skills
    share = UNLEARNABLE.get(setting.kind, 0.0) if setting.unlearnable is None else setting.unlearnable
    hopeless = random.permutation(n) < round(share * n)
    strong = ~hopeless & (random.random(n) < 0.15)
    guessable = hopeless & (random.random(n) >= 0.6)
    start = np.where(hopeless, random.beta(1, 15, n), random.beta(1, 7, n))
    start = np.where(guessable, random.beta(4, 8, n), np.where(strong, random.uniform(0.6, 0.9, n), start))
    reach = np.where(strong, random.uniform(0.2, 0.7, n), random.uniform(0.4, 0.95, n))
    half = np.exp(random.normal(np.log(setting.rows * setting.rounds / n / 2), 1, n))
    flat = hopeless & (random.permutation(n) % 3 < 2)
    half = np.where(hopeless & ~flat, 25 * half, half)
    ceiling = np.where(flat, np.minimum(start + 0.02, 1), start + (1 - start) * reach)
    steepness = np.where(random.random(n) < 0.5, random.uniform(0.7, 1.3, n), random.uniform(1.5, 3, n))
    effect = np.eye(n) + random.uniform(0, 0.02, (n, n)) * (1 - np.eye(n))
    clusters = np.arange(n) // CLUSTER
    world = World(
        setting=setting,
        floor=start,
        ceiling=ceiling,
        half=half,
        steepness=steepness,
        effect=effect,
        forgets=np.zeros(n),
        start=np.zeros(n),
        parsed=float(random.uniform(0.05, 0.9)),
        clusters=clusters,
    )
    if setting.kind == "transfer":
        return replace(world, effect=effect + _transfer(clusters, random))
    if setting.kind == "interfere":
        most = np.where(hopeless, 0.06, 0.015)
        return replace(world, effect=effect - random.uniform(0, most, (n, n)) * (1 - np.eye(n)))
    if setting.kind == "forget":
        return _forgetting(world, flat, random)
    if setting.kind in PUBLISHED and curves:
        return _of_published(world, published_curves(curves), setting.kind.startswith("flat"), random)
    return world


def _transfer(clusters: NDArray[np.int64], random: np.random.Generator) -> Array:
    """Inside a cluster rows help each other; one skill helps all, one learns little from its own rows."""
    n = len(clusters)
    same = (clusters[:, None] == clusters) & ~np.eye(n, dtype=bool)
    effect = np.where(same, random.uniform(0.15, 0.6, (n, n)), 0.0)
    for cluster in np.unique(clusters):
        hub, weak = random.choice(np.flatnonzero(clusters == cluster), 2, replace=False)
        helped = same[:, hub]
        effect[helped, hub] = np.maximum(effect[helped, hub], 0.8)
        effect[weak, weak] -= 0.75
    return effect


def _forgetting(world: World, flat: NDArray[np.bool_], random: np.random.Generator) -> World:
    """What the base could do fades with what the rows taught."""
    forgets = random.uniform(0.15, 0.5, len(flat))
    floor = np.where(flat, world.floor, 0.4 * world.floor)
    rise = (world.floor - floor) / (world.ceiling - floor)
    start = world.half * (rise / (1 - rise)) ** (1 / world.steepness)
    return replace(world, floor=floor, forgets=forgets, start=np.where(flat, 0.0, start))


def _of_published(world: World, curves: Array, half_flat: bool, random: np.random.Generator) -> World:
    n = world.setting.skills
    chosen = curves[random.choice(len(curves), n, replace=False)]
    if half_flat:
        flat = random.permutation(n) < n // 2
        chosen = np.where(flat[:, None], random.beta(1, 9, n)[:, None], chosen)
    return replace(world, published=chosen, parsed=None)


class Seen(NamedTuple):
    """What a rule is shown before it plans a round. Points are 0 … rounds done."""

    setting: Setting
    right: Array
    """[n_skills, n_items, 1 + n_samples, n_points] 1 where an answer was parsed and right."""
    parsed: Array
    """The same shape: 1 where an answer was found."""
    rows: Array
    """[n_skills, n_points − 1] rows trained."""
    clusters: NDArray[np.int64]
    seed: int

    @property
    def correct(self) -> Array:
        """[n_skills, n_points]"""
        return np.asarray(self.right.sum(axis=(1, 2)))

    @property
    def answers(self) -> Array:
        """[n_skills, n_points] parsed ones."""
        return np.asarray(self.parsed.sum(axis=(1, 2)))

    @property
    def failures(self) -> Array:
        """[n_skills] of the latest point; what was not parsed counts."""
        return np.asarray(self.right.shape[1] * self.right.shape[2] - self.correct[:, -1])

    @property
    def rates(self) -> Array:
        """[n_skills, n_points] accuracy of parsed answers; 0 where there are none."""
        return np.asarray(self.correct / np.maximum(self.answers, 1))

    @property
    def rounds_left(self) -> int:
        """This one included."""
        return self.setting.rounds - self.rows.shape[1]


Rule = Callable[[Seen], Array]
"""From what was seen to weights [n_skills] of the next round's rows."""


def whole_rows(weights: Array, rows: int) -> Array:
    """Whole rows by largest remainder."""
    quotas = weights / weights.sum() * rows
    parts = np.floor(quotas)
    parts[np.argsort(parts - quotas, kind="stable")[: rows - int(parts.sum())]] += 1
    return parts


def follow(world: World, rule: Rule, seed: int) -> Array:
    """The rows [n_rounds, n_skills] that a rule gives in a world; probe noise is the same for every rule."""
    setting = world.setting
    effective, plan = world.start, np.zeros((0, setting.skills))
    right, parsed = [], []
    latent = np.random.default_rng([seed, 1]).normal(size=(setting.skills, setting.items, 1))
    for round_ in range(setting.rounds):
        random = np.random.default_rng([seed, 2, round_])
        accuracy = expit(
            logit(np.clip(world.accuracy(effective), 1e-6, 1 - 1e-6)) + 0.15 * random.normal(size=setting.skills)
        )
        shape = (setting.skills, setting.items, 1 + setting.samples)
        found = random.random(shape) < world.parse_rate(plan.sum())
        noise = np.sqrt(0.6) * latent + np.sqrt(0.4) * random.normal(size=shape)
        right.append(found & (noise < ndtri(accuracy)[:, None, None]))
        parsed.append(found)
        seen = Seen(
            setting, np.stack(right, -1).astype(float), np.stack(parsed, -1).astype(float), plan.T, world.clusters, seed
        )
        given = whole_rows(rule(seen), setting.rows)
        effective = world.trained(effective, world.effect @ given)
        plan = np.vstack([plan, given])
    return plan


def best_plan(world: World) -> float:
    """The score of the oracle: greedy over the true curves, chunk by chunk, then improved by moving chunks.

    A chunk is a fortieth of a round. Each step gives 1, 2, 4, … 32 chunks to the round and skill with the best average
    gain. Where rounds are alike (nothing is forgotten, nothing disturbs) only a skill's sum matters.
    """
    setting = world.setting
    alike = not world.forgets.any() and (world.effect >= 0).all()
    rounds = 1 if alike else setting.rounds
    room = np.full(rounds, 40 * setting.rounds // rounds)
    given = np.zeros((rounds, setting.skills))  # effective rows each round's chunks give each skill
    chunks = np.zeros((rounds, setting.skills), int)
    step = setting.rows / 40 * world.effect.T  # [from, to]
    while room.any():
        now = _final(world, given)
        best = (-np.inf, 0, 0, 0)
        for size in (1, 2, 4, 8, 16, 32):
            fitting = np.flatnonzero(room >= size)
            if fitting.size:
                plans = np.concatenate([_with(given, int(r), size * step) for r in fitting])
                gains = _final(world, plans) - now
                at = int(gains.argmax())
                place = int(fitting[at // setting.skills]), at % setting.skills
                best = max(best, (float(gains[at]) / size, -size, *place))
        _, size, round_, skill = best
        given[round_] -= size * step[skill]
        chunks[round_, skill] -= size
        room[round_] += size
    improved = True
    while improved:
        improved = False
        for size in (16, 4, 1):
            for round_ in range(rounds):
                for skill in np.flatnonzero(chunks[round_] >= size):
                    values = _final(world, _with(given, round_, size * (step - step[skill])))
                    other = int(values.argmax())
                    if values[other] > _final(world, given) + 1e-9:
                        given[round_] += size * (step[other] - step[skill])
                        chunks[round_, skill] -= size
                        chunks[round_, other] += size
                        improved = True
                        break
    return float(_final(world, given)) * world.parse_rate(setting.rows * setting.rounds)


def _with(given: Array, round_: int, added: Array) -> Array:
    """[n_candidates, n_rounds, n_skills]: the plan with each candidate's rows added to one round."""
    plans = np.repeat(given[None], len(added), axis=0)
    plans[:, round_] += added
    return plans


def _final(world: World, given: Array) -> Array:
    """Mean accuracy of parsed answers after rounds that gave effective rows [..., n_rounds, n_skills]."""
    effective = world.start
    for round_ in range(given.shape[-2]):
        effective = world.trained(effective, given[..., round_, :])
    return np.asarray(world.accuracy(effective).mean(axis=-1))
