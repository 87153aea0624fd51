"""In-context approximation (ICA): how much each training row should count, by what demonstrations do to its loss.

Takes losses and vectors; returns the examples to set aside as a holdout, the demonstrations of each row, and weights.
The holdout is a part of the pool that nothing is drawn from; probe, gate and final split are never looked at. Computes
no loss.

Source: Zhang et al. 2025, in-context approximation (arXiv 2510.14459). The mean-rescaling, the floor and the
subtraction of random demonstrations are ours.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil
from statistics import fmean
from typing import Literal, NamedTuple

from curriculum.duplicates import Asked, SeenQuestions
from curriculum.neighbours import Vectors, nearest
from curriculum.records import Example, content_id

LEAST_WEIGHT = 0.01
"""Of max–min weights, before they are rescaled. The paper's lowest row gets 0; no row here is paid for and not read."""


class Demonstrations(NamedTuple):
    """Positions in the holdout, for one row."""

    nearest: list[int]
    """The nearest first."""
    random: list[int]


def set_aside(pool: Iterable[tuple[Example, str]], share: float, seed: int) -> frozenset[str]:
    """The ids of the holdout: of each skill's groups the `share` with the lowest hashes, rounded up, whole groups.

    A skill keeps one group at least: one that has no other gives none, or it could not be taught.

    Args:
        pool: examples with the skill each counts for.
        share: of the groups of a skill.
        seed: of the run.
    """
    members: defaultdict[str, list[str]] = defaultdict(list)
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for example, skill in pool:
        members[example.group].append(example.id)
        groups[skill].add(example.group)
    chosen: set[str] = set()
    for of_skill in groups.values():
        ordered = sorted(of_skill, key=lambda group: content_id([seed, "holdout", group]))
        chosen.update(ordered[: min(ceil(share * len(ordered)), len(ordered) - 1)])
    return frozenset(id_ for group in chosen for id_ in members[group])


def choose_demonstrations(
    rows: Sequence[Asked], of_rows: Vectors, holdout: Sequence[Asked], of_holdout: Vectors, k: int, seed: int
) -> list[Demonstrations]:
    """For each row its `k` nearest holdout items, and as many drawn at random, none of them the row's own question.

    Args:
        rows: to be taught.
        of_rows: their embeddings, in the same order.
        holdout: what demonstrations are made of.
        of_holdout: their embeddings.
        k: demonstrations of each row.
        seed: draws the random ones.
    """
    barred = _repeats(rows, holdout)
    found = nearest(of_rows, of_holdout, k, barred)
    chosen = []
    for row, near, repeated in zip(rows, found, barred, strict=True):
        others = [at for at in range(len(holdout)) if at not in repeated]
        drawn = random.Random(content_id([seed, row.id])).sample(others, min(k, len(others)))
        chosen.append(Demonstrations(near, drawn))
    return chosen


def _repeats(rows: Sequence[Asked], holdout: Sequence[Asked]) -> list[set[int]]:
    """For each row the positions of holdout items that are its own question, exactly or nearly."""
    seen = SeenQuestions()
    first = {}
    same: defaultdict[str, set[int]] = defaultdict(set)
    for at, item in enumerate(holdout):
        match = seen.add(item)
        first[item.id] = match.duplicate_of if match else item.id
        same[first[item.id]].add(at)
    found = [seen.find(row) for row in rows]
    return [same[first[match.duplicate_of]] if match else set() for match in found]


def ica_scores(
    alone: Sequence[float], shown: Sequence[float], with_random: Sequence[float] | None = None
) -> list[float]:
    """Each row's loss alone minus its loss after demonstrations: how much of it the holdout can teach, in nats a token.

    With `with_random` minus the same score by random demonstrations, which teach the format just as well.
    """
    scores = [a - b for a, b in zip(alone, shown, strict=True)]
    if with_random is not None:
        scores = [s - (a - r) for s, a, r in zip(scores, alone, with_random, strict=True)]
    return scores


def ica_weights(scores: Sequence[float]) -> list[float]:
    """Weights with mean 1 in the order of the scores: max–min over all rows given, floored, divided by their mean.

    Without the division the mean would be about a half, and the learning rate as much lower. All 1 where all scores
    are the same.

    Args:
        scores: of the rows that are compared: all of a training set, or those of one optimizer step.
    """
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    if high <= low:
        return [1.0] * len(scores)
    raw = [max(LEAST_WEIGHT, (score - low) / (high - low)) for score in scores]
    mean = sum(raw) / len(raw)
    return [value / mean for value in raw]


def batch_weights(
    scores: Sequence[float], batches: Sequence[Sequence[int]], normalise: Literal["set", "batch"]
) -> list[list[float]]:
    """For each batch of an optimizer step the weights of its rows: see `ica_weights`.

    Args:
        scores: of all rows of a training set.
        batches: places of rows, a batch a step.
        normalise: over all rows, or over those of each batch alone, as in the paper; one row alone weighs 1.
    """
    over_all = ica_weights(scores)
    if normalise == "set":
        return [[over_all[at] for at in batch] for batch in batches]
    return [ica_weights([scores[at] for at in batch]) for batch in batches]


def mean_weights(rows: int, batches: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]) -> list[float]:
    """Each row's mean weight over the batches that it is in; 1 where it is in none."""
    of_row: list[list[float]] = [[] for _ in range(rows)]
    for batch, of_batch in zip(batches, weights, strict=True):
        for at, weight in zip(batch, of_batch, strict=True):
            of_row[at].append(weight)
    return [fmean(found) if found else 1.0 for found in of_row]


def refresh_steps(steps: int, refresh: int) -> list[int]:
    """The steps before which rows are scored, from 0: `refresh` of them, evenly, fewer where there are not so many."""
    return sorted({steps * r // refresh for r in range(refresh)})
