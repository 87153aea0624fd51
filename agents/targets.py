"""What a round's new rows are taught: gold, answers, solutions for one part only, or the student's own words."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from agents.evaluation import student_prompts
from agents.loop import Loop
from agents.own_answers import CHOICES, own_targets
from curriculum.complexity import Target, choose_targets, random_keys, split_parts
from curriculum.errors import DataError
from curriculum.extraction import format_target, taught_text, taught_texts
from curriculum.grading import stated_answer
from curriculum.method_records import EntropyKind
from curriculum.records import Example, Verdict
from curriculum.round_records import RoundPlan
from curriculum.rundir import write_records
from curriculum.teacher_records import TeacherFailure
from student.interface import AdapterFiles, Prompt

SOLVED = "solved.jsonl"
"""In a build's folder: what a teacher made of the hard examples that came without a solution."""
LACKING = (
    ": name the solutions' column (data.columns.solutions), have an LLM teacher solve the hard ones "
    "(plan.complexity.solve)"
)
"""What to do where nobody was asked for solutions."""


class Written(Protocol):
    """Of what a round had written: its examples, each with a skill, and what the teacher failed at."""

    @property
    def rows(self) -> list[tuple[Example, str]]:
        """Each with the skill it was written for."""
        ...

    @property
    def failures(self) -> list[TeacherFailure]:
        """Items without a usable reply."""
        ...


def target_texts(
    loop: Loop, folder: Path, plan: RoundPlan, adapter: AdapterFiles, drawn: Sequence[Example], made: Written
) -> Callable[[Example], Sequence[str]]:
    """What each new example is taught with, as `plan.targets` says; the choices are written into the folder.

    Args:
        loop: of the run.
        folder: of the stage that builds rows.
        plan: of the round; its seed decides where chance does.
        adapter: the one whose entropies count: what the student can do before this training.
        drawn: examples of the pool. Their own worked solutions are graded before they are used, and where the config
            wants it a teacher is asked for those that hard examples lack.
        made: what was written. Its teacher's solutions agreed with each other, so they were checked then. What a
            teacher fails at here is added to its failures.

    Raises:
        DataError: no example has a worked solution that the grader accepts.
    """
    rule, settings = loop.config.plan.targets, loop.config.plan.complexity
    if rule == "gold":
        return taught_texts
    if rule == "own":
        return own_targets(loop, folder, plan.seed, adapter, list({e.id: e for e in drawn}.values()))
    written = [example for example, _ in made.rows]
    examples = list({e.id: e for e in (*drawn, *written)}.values())
    prompts = student_prompts(loop, examples, "plain")
    short = [format_target(e.gold, None) for e in examples]
    if rule == "answers":
        counted = _tokens(loop, prompts, short, [taught_text(e) for e in examples], folder)
        return _written(folder, choose_targets(examples, {}, {}, {}, counted))
    accepted = _accepted(loop, {e.id: e for e in drawn}) | {e.id: e.solutions for e in written}
    if not settings.solve:
        _require_solutions(folder, rule, accepted, len(examples), LACKING)
    entropies: dict[str, float] = {}
    exact = settings.entropy == "exact"
    if rule == "complexity":
        measured = loop.student.first_token_entropies(
            list(zip(prompts, short, strict=True)), adapter, folder / "entropy.log", exact
        )
        entropies = dict(zip((e.id for e in examples), measured, strict=True))
    keys = entropies or random_keys((e.id for e in examples), plan.seed)
    parts = split_parts(keys, settings.easy, settings.hard)
    solved: dict[str, tuple[str, ...]] = {}
    if settings.solve:
        lacking = [e for e in examples if parts[e.id] == "hard" and not accepted.get(e.id)]
        found = loop.teacher.solve(sorted(lacking, key=lambda e: e.id), plan.round)
        write_records(folder / SOLVED, found.examples)
        made.failures.extend(found.failures)
        solved = {one.example_id: (one.solution,) for one in found.examples if one.solution is not None}
        accepted |= solved
        tried = f", and the teacher solved none of {len(lacking)} hard ones (why: {SOLVED}): another model may"
        _require_solutions(folder, rule, accepted, len(examples), f"{tried} (teacher.roles.solve)")
    long = [format_target(e.gold, next(iter(accepted.get(e.id, ())), None)) for e in examples]
    counted = _tokens(loop, prompts, short, long, folder)
    kind: EntropyKind = "exact" if exact else "approximate, 20 likeliest"
    return _written(folder, choose_targets(examples, parts, entropies, accepted, counted, kind, solved))


def _require_solutions(
    folder: Path, rule: str, accepted: Mapping[str, Sequence[str]], examples: int, advice: str
) -> None:
    if not any(accepted.values()):
        raise DataError(
            f"{folder}: plan.targets {rule} teaches worked solutions, but of {examples} new examples none has one "
            f"whose last answer the grader accepts{advice}, or set plan.targets to gold, in a fork or a new run"
        )


def _tokens(
    loop: Loop, prompts: Sequence[Prompt], short: Sequence[str], long: Sequence[str], folder: Path
) -> dict[str, tuple[int, int]]:
    """Of each example the response tokens of both targets."""
    pairs = [*zip(prompts, short, strict=True), *zip(prompts, long, strict=True)]
    counted = [encoded.target_tokens for encoded in loop.student.encode(pairs, False, folder / "encode.log")]
    return {p.example_id: (counted[at], counted[len(prompts) + at]) for at, p in enumerate(prompts)}


def _written(folder: Path, chosen: Mapping[str, Target]) -> Callable[[Example], Sequence[str]]:
    write_records(folder / CHOICES, [chosen[id_].choice for id_ in sorted(chosen)])
    return lambda example: chosen[example.id].texts


def _accepted(loop: Loop, examples: dict[str, Example]) -> dict[str, tuple[str, ...]]:
    """Of each example the worked solutions whose own last answer, by the lenient extraction, its grader accepts."""
    pairs = [(e, solution) for _, e in sorted(examples.items()) for solution in e.solutions]
    grades = loop.grader.grade(
        [(example, stated_answer(example, solution, "solutions", at)) for at, (example, solution) in enumerate(pairs)]
    )
    kept: dict[str, tuple[str, ...]] = {}
    for (example, solution), grade in zip(pairs, grades, strict=True):
        if grade.verdict is Verdict.CORRECT:
            kept[example.id] = (*kept.get(example.id, ()), solution)
    return kept
