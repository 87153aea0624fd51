"""How hard items are for one student: how often it is right when it draws its answers, and how unsure it begins.

Takes several answers to each item; returns one `ItemSignals` an item, means over items, and difficulties; for items
without a gold answer one `ItemConsistency`. Asks nobody, and does not depend on the order of answers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from curriculum.records import Example, Grade, SkillLabel, StudentAnswer, Verdict
from curriculum.round_records import ConsistencyCounts, ItemConsistency, ItemSignals, SignalMeans
from curriculum.statistics import score_interval

LEVELS = 5
"""Difficulties there are."""
SAMPLES_WITHOUT_GOLD = 5
"""Answers drawn to a question that has no gold answer."""


def item_signals(answers: Sequence[StudentAnswer], grades: Sequence[Grade]) -> list[ItemSignals]:
    """What the samples of each item say, sorted by example id.

    Args:
        answers: any number an item, all of one adapter.
        grades: one an answer, in the same order. `failed` ones do not count.
    """
    by_item: defaultdict[str, list[tuple[StudentAnswer, Grade]]] = defaultdict(list)
    for answer, grade in zip(answers, grades, strict=True):
        by_item[answer.example_id].append((answer, grade))
    return [_signals(example_id, of_item) for example_id, of_item in sorted(by_item.items())]


def _signals(example_id: str, samples: Sequence[tuple[StudentAnswer, Grade]]) -> ItemSignals:
    graded = [grade for _, grade in samples if grade.verdict is not Verdict.FAILED]
    # All samples begin from the same distribution: they differ by roundings, and in whether something was said.
    entropies = sorted(answer.entropy for answer, _ in samples if answer.entropy is not None)
    return ItemSignals(
        example_id=example_id,
        adapter=samples[0][0].adapter,
        samples=len(graded),
        correct=sum(grade.verdict is Verdict.CORRECT for grade in graded),
        entropy=entropies[len(entropies) // 2] if entropies else None,
    )


def item_consistency(
    answers: Sequence[StudentAnswer], agree: Callable[[StudentAnswer, StudentAnswer], bool]
) -> ItemConsistency:
    """Whether a question without a gold answer is difficult: when it is asked five times, all five answers differ.

    Args:
        answers: of one adapter to one item; one of finish reason `error` does not count.
        agree: whether two answers say the same.

    Source: He et al. 2025 (STAT, arXiv 2510.10023), stage 1: their consistency heuristic.
    """
    drawn = [answer for answer in answers if answer.finish_reason != "error"]
    agreeing = max((sum(other is one or agree(one, other) for other in drawn) for one in drawn), default=0)
    return ItemConsistency(
        example_id=answers[0].example_id,
        adapter=answers[0].adapter,
        samples=len(drawn),
        agreeing=agreeing,
        difficult=len(drawn) == SAMPLES_WITHOUT_GOLD and agreeing == 1,
    )


def consistency_counts(items: Sequence[ItemConsistency]) -> ConsistencyCounts | None:
    """Counts over items; none where there are no items."""
    if not items:
        return None
    difficult, undecided = sum(item.difficult for item in items), sum(item.undecided for item in items)
    return ConsistencyCounts(items=len(items), difficult=difficult, undecided=undecided)


def signal_means(signals: Iterable[ItemSignals]) -> SignalMeans | None:
    """Means over items; none where no item has a graded sample.

    The samples of an item are alike, so the interval is that of as many single answers as there are items: it is wide
    enough, whatever their number.
    """
    counted = [item for item in signals if item.samples]
    if not counted:
        return None
    rate = fmean(item.correct / item.samples for item in counted)
    low, high = score_interval(rate, len(counted))
    entropies = [item.entropy for item in counted if item.entropy is not None]
    return SignalMeans(
        items=len(counted),
        samples=sum(item.samples for item in counted),
        pass_rate=rate,
        low=low,
        high=high,
        entropy=fmean(entropies) if entropies else None,
    )


def measured_difficulty(signals: ItemSignals) -> int | None:
    """From 1 (right in four fifths of the samples or more) to 5 (in less than one fifth); none without samples."""
    if not signals.samples:
        return None
    return LEVELS - min(LEVELS - 1, LEVELS * signals.correct // signals.samples)


def with_measured_difficulty(label: SkillLabel, example: Example, signals: Mapping[str, ItemSignals]) -> SkillLabel:
    """The label with the difficulty that was measured, where the data declare none and there is one."""
    item = signals.get(example.id)
    difficulty = measured_difficulty(item) if item else None
    if item is None or difficulty is None or example.difficulty is not None:
        return label
    reason = f"{label.reason}; difficulty measured: {item.adapter} is right in {item.correct} of {item.samples} samples"
    return label.model_copy(update={"difficulty": difficulty, "reason": reason})
