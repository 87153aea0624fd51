"""The wording of what was made of adapters after their training: scales of depth (LiNeS), soups.

Takes values of a report and returns plain text, not escaped for any medium, as `report_words` does.
"""

from curriculum.merge_records import LinesCandidate, LinesChoice, Merged, SoupChoice
from curriculum.records import Rate

FLATTERED = (
    "The next profile of what these items chose flatters it a little, for it is made of the same items; the gate's are "
    "others."
)


def lines_words(made: LinesChoice) -> str:
    """Every scale with what it got right and kept, and which was chosen."""
    tried = "; ".join(_candidate(one) for one in made.candidates)
    chosen = f"a = {made.chosen.a:g}" + (", the adapter as it was trained" if made.chosen.a == 1 else "")
    return (
        f"LiNeS, on {_items(made.candidates[0].right, made.halved)}: the first layer's update times a, the deepest's "
        f"times 1. {tried}. Chosen: {chosen}.{'' if made.chosen.a == 1 else f' {FLATTERED}'}"
    )


def _candidate(one: LinesCandidate) -> str:
    return (
        f"a = {one.a:g}: {_count(one.missing)} of those that the current adapter gets wrong, {_count(one.kept)} "
        f"of those it gets right, score {one.score:.3f}"
    )


def soup_words(made: SoupChoice) -> str:
    """Every earlier adapter that the mean was tried with, and whether it was taken."""
    tried = "; ".join(
        f"with {step.adapter} of round {step.round} ({_count(step.alone)} alone): {_count(step.together)}, "
        f"{'taken' if step.accepted else 'left out'}"
        for step in made.steps
    )
    end = FLATTERED if made.taken else "No soup: the round's own adapter goes on."
    return (
        f"Greedy soup, on {_items(made.alone, made.halved)}: {made.adapter} alone gets {_count(made.alone)}; the mean "
        f"{tried}. {end}"
    )


def ingredient_words(made: Merged) -> str:
    """What a merged adapter consists of, as a sentence."""
    parts = [
        f"{part.adapter} of round {part.round}" + (f" scaled with depth from a = {part.a:g}" if part.a != 1 else "")
        for part in made.ingredients
    ]
    of = f"the mean of {' and '.join(parts)}" if len(parts) > 1 else parts[0]
    error = "" if made.error is None else f", brought back by SVD with a relative error of {made.error:.2g}"
    return f"after training it became {of} (rank {made.rank}{error})."


def _items(rate: Rate, halved: bool) -> str:
    return f"{rate.n} probe items{' (half of the probe, apart from the other choice)' if halved else ''}"


def _count(rate: Rate) -> str:
    return f"{rate.correct} of {rate.n}"
