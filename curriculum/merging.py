"""What is chosen among adapters after training: a scale of depth (LiNeS), and what goes into a soup.

Pure functions of which items were answered right. Nothing here judges: the gate does, on items of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeVar

from curriculum.errors import UserError
from curriculum.merge_records import LinesCandidate, LinesChoice
from curriculum.records import Example, Rate, content_id
from curriculum.statistics import wilson

S = TypeVar("S")


def choice_halves(items: Iterable[Example], seed: int) -> tuple[frozenset[str], frozenset[str]]:
    """Two halves of items without a group in common: on one LiNeS' scale is chosen, on the other the soup.

    Groups in the order of their seeded hashes, each to the half that has fewer items so far.

    Raises:
        UserError: the items are of fewer than two groups.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item.id)
    if len(groups) < 2:
        raise UserError(
            f"training.lines with training.soup: expected probe items of two groups at least, one for each choice, "
            f"got {len(groups)}. Enlarge data.splits.probe, or fork without one of the two"
        )
    halves: tuple[list[str], list[str]] = ([], [])
    for group in sorted(groups, key=lambda group: content_id([seed, "merging", group])):
        min(halves, key=len).extend(groups[group])
    return frozenset(halves[0]), frozenset(halves[1])


def choose_lines(
    round_: int, current: Mapping[str, bool], scaled: Sequence[tuple[str, float, Mapping[str, bool]]], halved: bool
) -> LinesChoice:
    """The scale that keeps most of what was right and of what was learnt; the adapter as it was trained where two tie.

    The paper's score, (2 · target / target of the fine-tuned + control / control before) / 3, with what the current
    adapter does not answer right as the target and what it does as the control. Where the trained adapter answers no
    item of the target right, one such item counts as all of it; where there is no item of the control, nothing of it
    counts. An item that any of the adapters has no grade of is left out.

    Args:
        round_: whose adapter it is.
        current: item → whether the current adapter, which training began after, answers it right.
        scaled: name, scale a, and the same of each candidate; one has a = 1.
        halved: whether the items are half of the probe.

    Source: Wang et al. 2024, LiNeS (arXiv 2410.17146); the score is that of its code for one task.
    """
    items = set(current).intersection(*(right for _, _, right in scaled))
    targets = sorted(id_ for id_ in items if not current[id_])
    control = sorted(id_ for id_ in items if current[id_])

    def counts(right: Mapping[str, bool]) -> tuple[int, int]:
        return sum(right[id_] for id_ in targets), sum(right[id_] for id_ in control)

    learnt = next(counts(right)[0] for _, a, right in scaled if a == 1)

    def score(right: Mapping[str, bool]) -> Fraction:
        target, kept = counts(right)
        return (2 * Fraction(target, max(learnt, 1)) + Fraction(kept, max(len(control), 1))) / 3

    ordered = sorted(scaled, key=lambda one: -one[1])
    best = max(range(len(ordered)), key=lambda at: (score(ordered[at][2]), ordered[at][1]))
    return LinesChoice(
        round=round_,
        halved=halved,
        candidates=tuple(
            LinesCandidate(
                adapter=name,
                a=a,
                right=wilson(sum(counts(right)), len(items)),
                missing=wilson(counts(right)[0], len(targets)),
                kept=wilson(counts(right)[1], len(control)),
                score=float(score(right)),
                chosen=at == best,
            )
            for at, (name, a, right) in enumerate(ordered)
        ),
    )


class Tried(NamedTuple):
    """An ingredient that a soup was tried with: its place in the order, the soup's members with it, and the score."""

    at: int
    members: tuple[int, ...]
    score: Fraction
    accepted: bool


def greedy_soup(ordered: Sequence[S], score: Callable[[tuple[S, ...]], Fraction]) -> list[Tried]:
    """A greedy soup: it begins with the first ingredient and takes each next one with which it is at least as good.

    Args:
        ordered: the ingredients; the first is always in it.
        score: of the mean of some of them, higher is better.

    Returns:
        What was tried, from the second on.

    Source: Wortsman et al. 2022, Model soups (arXiv 2203.05482), recipe 1.
    """
    members: tuple[int, ...] = (0,)
    best = score((ordered[0],))
    tried = []
    for at in range(1, len(ordered)):
        wider = (*members, at)
        reached = score(tuple(ordered[i] for i in wider))
        accepted = reached >= best
        tried.append(Tried(at, wider, reached, accepted))
        if accepted:
            members, best = wider, reached
    return tried


def share(rate: Rate) -> Fraction:
    """A rate as an exact number, 0 where nothing was graded."""
    return Fraction(rate.correct, rate.n) if rate.n else Fraction(0)


def merging_answers(lines: int, soup: bool, round_: int, probe: int) -> int:
    """The most probe answers that choosing takes in a round, beside those of its profile.

    Args:
        lines: scales that LiNeS tries; 0 where it is off.
        soup: whether a soup is tried.
        round_: from 1 on, every earlier one with an adapter.
        probe: items.
    """
    singles = lines or int(soup)
    return probe * (singles + (round_ - 1 if soup else 0))
