"""Complexity-aware fine-tuning: short answers for what a student is sure of, worked solutions for the rest.

Takes entropies, accepted solutions and token counts; returns each example's part and target texts, and what that saved.
Asks nobody.

Source: Goncharov et al. 2025, complexity-aware fine-tuning (arXiv 2506.21220): entropy of the first answer token, the
lowest quarter easy, the highest hard. The random quarter is ours.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from curriculum.extraction import format_target
from curriculum.method_records import (
    Complexity,
    EntropyKind,
    SolvedExample,
    SolvingReport,
    TargetChoice,
    TargetsReport,
)
from curriculum.records import Example, content_id
from curriculum.round_records import TrainingRow

ComplexityRule = Literal["complexity", "complexity_random", "answers"]
"""The last is the paper's baseline: the answer alone for every row."""


class Target(NamedTuple):
    """What an example is taught with, and why."""

    choice: TargetChoice
    texts: tuple[str, ...]
    """One, or one of each accepted solution, in turn."""


def split_parts(keys: Mapping[str, float | str], easy: float, hard: float) -> dict[str, Complexity]:
    """The lowest share `easy` of the examples, the highest share `hard`, and the middle; counts are rounded.

    Args:
        keys: example id → entropy, or another value to order by; ties by id.
        easy: from 0 to 1.
        hard: from 0 to 1, with `easy` at most 1.
    """
    ordered = sorted(keys, key=lambda id_: (keys[id_], id_))
    n_hard = round(hard * len(ordered))
    n_easy = min(round(easy * len(ordered)), len(ordered) - n_hard)
    parts: dict[str, Complexity] = dict.fromkeys(ordered, "middle")
    parts |= dict.fromkeys(ordered[:n_easy], "easy")
    parts |= dict.fromkeys(ordered[len(ordered) - n_hard :], "hard")
    return parts


def random_keys(ids: Iterable[str], seed: int) -> dict[str, str]:
    """Keys that put the examples into a random order: the control of the order by entropy."""
    return {id_: content_id([seed, "complexity", id_]) for id_ in ids}


def choose_targets(
    examples: Sequence[Example],
    parts: Mapping[str, Complexity],
    entropies: Mapping[str, float],
    accepted: Mapping[str, Sequence[str]],
    tokens: Mapping[str, tuple[int, int]],
    entropy_is: EntropyKind = "exact",
    solved: Collection[str] = (),
) -> dict[str, Target]:
    """The targets of new examples, by id: of the hard part the accepted solutions, of the rest the answer alone.

    Args:
        examples: distinct ones.
        parts: of each, from `split_parts`; of none where all are taught the answer alone.
        entropies: of each; empty where chance decides.
        accepted: example id → its worked solutions that the grader finds right; those of no example may be missing.
        tokens: of each the response tokens of the short target and of the first worked one.
        entropy_is: what the entropies are.
        solved: examples whose accepted solution a teacher was asked for.
    """
    made = {}
    for example in examples:
        part, solutions = parts.get(example.id), accepted.get(example.id, ())
        worked = part == "hard" and bool(solutions)
        said = "entropy" if entropy_is == "exact" else f"entropy ({entropy_is})"
        why = f"the {part} part by {said if entropies else 'chance'}" if part else "answers alone for all"
        if part == "hard" and not worked:
            why += ", but no worked solution that the grader accepts"
        choice = TargetChoice(
            example_id=example.id,
            entropy=entropies.get(example.id),
            entropy_is=entropy_is if entropies else None,
            part=part,
            form="solution" if worked else "answer",
            reason=why,
            solution_from=("teacher" if example.id in solved else "example") if solutions else None,
            answer_tokens=tokens[example.id][0],
            solution_tokens=tokens[example.id][1],
        )
        forms = solutions if worked else (None,)
        made[example.id] = Target(choice, tuple(format_target(example.gold, form) for form in forms))
    return made


def targets_report(rule: ComplexityRule, choices: Iterable[TargetChoice], rows: Iterable[TrainingRow]) -> TargetsReport:
    """What a round's choices were and saved, over its new rows: an example counts as often as it is a row."""
    by_id = {choice.example_id: choice for choice in choices}
    taught = [by_id[row.example_id] for row in rows if row.origin != "replay"]
    return TargetsReport(
        rule=rule,
        entropy_is=next((choice.entropy_is for choice in taught), None),
        rows=dict(sorted(Counter(choice.part for choice in taught if choice.part).items())),
        solutions=sum(choice.form == "solution" for choice in taught),
        without=sum(choice.part == "hard" and choice.form == "answer" for choice in taught),
        tokens=sum(c.solution_tokens if c.form == "solution" else c.answer_tokens for c in taught),
        all_solutions=sum(choice.solution_tokens for choice in taught),
    )


def solving_report(
    solved: Sequence[SolvedExample], choices: Sequence[TargetChoice], rows: Iterable[TrainingRow]
) -> SolvingReport:
    """What solving the hard part took, and an estimate of what solving all would have.

    Hard questions take a teacher more tokens than others, so the estimate is likely too high.

    Args:
        solved: at least one.
        choices: of all new examples of the round.
        rows: its training set.
    """
    by_id = {choice.example_id: choice for choice in choices}
    without = sum(choice.solution_from != "example" for choice in choices)
    tokens = sum(one.tokens for one in solved)
    right = [by_id[one.example_id].solution_tokens for one in solved if one.solution is not None]
    taught = [by_id[row.example_id] for row in rows if row.origin != "replay"]
    every = (c.solution_tokens if c.solution_from else fmean(right) for c in taught) if right else None
    return SolvingReport(
        asked=len(solved),
        solved=len(right),
        attempts=sum(one.attempts for one in solved),
        tokens=tokens,
        without=without,
        all_tokens=round(tokens / len(solved) * without),
        all_response_tokens=None if every is None else round(sum(every)),
    )
