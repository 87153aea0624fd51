"""The wording of how hard a round's pool rows were to be for the student, and of what moved them."""

from collections.abc import Mapping

from curriculum.difficulty_records import Bin, DifficultyPlan, DifficultySlice, Measure
from curriculum.report_words import points

BY: Mapping[Measure, str] = {
    "pass_rate": "how often the student is right in drawn answers, then the entropy at their first token",
    "solution_length": "the length of worked solutions",
    "entropy": "how unsure the student is at the first token of its answer",
}


def difficulty_words(plan: DifficultyPlan | None) -> str:
    """Which bins got most rows and why, with the slices of the last training; empty where rows of any are drawn."""
    if plan is None:
        return ""
    said = f"Pool rows are {' and '.join(plan.focus)} for the student ({plan.reason}), and some of every bin; "
    said += f"{bins_words(plan.measure, plan.items)}."
    if plan.slices:
        said += f" The last training on the gate's items, which select: {'; '.join(map(_slice, plan.slices))}."
    return said


def bins_words(measure: Measure, items: Mapping[Bin, int]) -> str:
    """What parts the pool, and how many items each bin has."""
    counts = ", ".join(f"{name} {number}" for name, number in items.items())
    return f"bins are thirds of each skill's pool by {BY[measure]}: {counts} items"


def _slice(part: DifficultySlice) -> str:
    change = points((part.gained - part.lost) / part.items)
    return f"{part.bin} {change} points ({part.gained} gained, {part.lost} lost of {part.items})"
