"""What a round's new rows are taught: gold, worked solutions for one part only, or the student's own words."""

from collections.abc import Callable, Sequence
from pathlib import Path

from agents.evaluation import student_prompts
from agents.loop import Loop
from agents.own_answers import CHOICES, own_targets
from curriculum.complexity import choose_targets, random_keys, split_parts
from curriculum.errors import DataError
from curriculum.extraction import format_target, taught_texts
from curriculum.records import Example, Sampling, StudentAnswer, Verdict
from curriculum.rundir import write_records
from student.interface import AdapterFiles


def target_texts(
    loop: Loop, folder: Path, seed: int, adapter: AdapterFiles, drawn: Sequence[Example], written: Sequence[Example]
) -> Callable[[Example], Sequence[str]]:
    """What each new example is taught with, as `plan.targets` says; the choices are written into the folder.

    Args:
        loop: of the run.
        folder: of the stage that builds rows.
        seed: of the plan.
        adapter: the one whose entropies count: what the student can do before this training.
        drawn: examples of the pool. Their own worked solutions are graded before they are used.
        written: new examples; their teacher's solutions agreed with each other, so they were checked when written.

    Raises:
        DataError: no example has a worked solution that the grader accepts.
    """
    rule = loop.config.plan.targets
    if rule == "gold":
        return taught_texts
    if rule == "own":
        return own_targets(loop, folder, seed, adapter, list({e.id: e for e in drawn}.values()))
    examples = list({e.id: e for e in (*drawn, *written)}.values())
    accepted = _accepted(loop, {e.id: e for e in drawn}) | {e.id: e.solutions for e in written}
    if not any(accepted.values()):
        raise DataError(
            f"{folder}: plan.targets {rule} teaches worked solutions, but of {len(examples)} new examples none has one "
            "whose last answer the grader accepts: name the solutions' column (data.columns.solutions), or set "
            "plan.targets to gold in a fork or a new run"
        )
    prompts = student_prompts(loop, examples, "plain")
    short = [format_target(e.gold, None) for e in examples]
    entropies: dict[str, float] = {}
    if rule == "complexity":
        measured = loop.student.first_token_entropies(
            list(zip(prompts, short, strict=True)), adapter, folder / "entropy.log"
        )
        entropies = dict(zip((e.id for e in examples), measured, strict=True))
    shares = loop.config.plan.complexity
    keys = entropies or random_keys((e.id for e in examples), seed)
    parts = split_parts(keys, shares.easy, shares.hard)
    long = [format_target(e.gold, next(iter(accepted.get(e.id, ())), None)) for e in examples]
    pairs = [*zip(prompts, short, strict=True), *zip(prompts, long, strict=True)]
    counted = [encoded.target_tokens for encoded in loop.student.encode(pairs, False, folder / "encode.log")]
    tokens = {e.id: (counted[at], counted[len(examples) + at]) for at, e in enumerate(examples)}
    made = choose_targets(examples, parts, entropies, accepted, tokens)
    write_records(folder / CHOICES, [made[id_].choice for id_ in sorted(made)])
    return lambda example: made[example.id].texts


def _accepted(loop: Loop, examples: dict[str, Example]) -> dict[str, tuple[str, ...]]:
    """Of each example the worked solutions whose own last answer, by the lenient extraction, its grader accepts."""
    pairs = [(e, solution) for _, e in sorted(examples.items()) for solution in e.solutions]
    grades = loop.grader.grade(
        [(example, _answer(example, solution, at)) for at, (example, solution) in enumerate(pairs)]
    )
    kept: dict[str, tuple[str, ...]] = {}
    for (example, solution), grade in zip(pairs, grades, strict=True):
        if grade.verdict is Verdict.CORRECT:
            kept[example.id] = (*kept.get(example.id, ()), solution)
    return kept


def _answer(example: Example, solution: str, at: int) -> StudentAnswer:
    """A solution as the grader takes it."""
    return StudentAnswer(
        example_id=example.id,
        adapter="solutions",
        sampling=Sampling(max_new_tokens=1),
        sample_index=at,
        text=solution,
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
    )
