"""Grading: a student's answers in, one grade each out, strict and lenient.

`exact`, `choice` and `numeric` compare here; `math` and `reasoning_gym` compare in worker processes without
secrets, network or much memory, restarted when an item breaks them. Never evaluates text, and never raises
because of what a student wrote.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from curriculum.errors import DataError
from curriculum.extraction import answer_kind, extract_cut, extract_lenient, extract_strict, format_target
from curriculum.grading_process import BrokenItem, WorkerProcess
from curriculum.numerals import parse_number
from curriculum.records import Example, Grade, StudentAnswer, Verdict
from curriculum.safe_tasks import SAFE_TASKS

_LETTER = re.compile(r"(?:(?:option|choice) )?[(\[]?([a-j])[)\]]?[.:]?", re.IGNORECASE)


class _Mark(NamedTuple):
    verdict: Verdict
    extracted: str | None
    reason: str = ""


class _Marks(NamedTuple):
    strict: _Mark
    lenient: _Mark


class Grader:
    """Grades answers. A context manager: it owns its worker processes, started when first needed.

    Verdicts:
        failed: the answer never came (finish reason `error`), or its grader cannot grade the gold answer either.
        truncated: the text was cut at the token limit before a marked answer was complete; always so for the
            strict verdict.
        unparsed: the text was finished, and no answer was found in it.
        wrong: also when the answer breaks the grader (an exception, processor time, memory) while the gold answer
            does not: the student's text is at fault. The reason is recorded.
        correct: what is right in the taught format is right for the lenient verdict, too.

    Args:
        limit_seconds: processor time one item may take.
        memory_bytes: memory one item may take, beyond what the libraries need.
    """

    def __init__(self, limit_seconds: float = 5.0, memory_bytes: int = 1 << 30) -> None:
        self._workers = {name: WorkerProcess(name, limit_seconds, memory_bytes) for name in ("math", "reasoning_gym")}

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.stop()

    def grade(self, answers: Sequence[tuple[Example, StudentAnswer]]) -> list[Grade]:
        """Grades each answer, in the order given.

        Raises:
            DataError: an example needs a reasoning-gym scorer that is not on the list of safe ones.
            GradingError: a worker cannot be started.
        """
        return [self._grade(example, answer) for example, answer in answers]

    def check_gold(self, examples: Sequence[Example]) -> dict[str, str]:
        """Grades each gold answer as the student is taught to write it; returns example id → why it is not correct.

        Raises:
            DataError: as in `grade`.
            GradingError: as in `grade`.
        """
        faults = {}
        for example in examples:
            strict, lenient = self._mark_text(example, format_target(example.gold, None), cut=False)
            if not strict.verdict == lenient.verdict == Verdict.CORRECT:
                faults[example.id] = (
                    f"{example.source}: expected the gold answer {example.gold[:80]!r} to pass its own grader "
                    f"`{example.grader}`, got {strict.verdict} (strict) and {lenient.verdict} (lenient, read as "
                    f"{(lenient.extracted or '')[:80]!r}) {strict.reason}".rstrip()
                )
        return faults

    def _grade(self, example: Example, answer: StudentAnswer) -> Grade:
        if answer.finish_reason == "error":
            failed = _Mark(Verdict.FAILED, None, answer.error or "the student's engine gave no answer")
            marks = _Marks(failed, failed)
        else:
            marks = self._mark_text(example, answer.text, cut=answer.finish_reason == "length")
        return Grade(
            answer_id=answer.id,
            example_id=example.id,
            adapter=answer.adapter,
            grader=example.grader,
            verdict=marks.lenient.verdict,
            strict_verdict=marks.strict.verdict,
            extracted=marks.lenient.extracted,
            strict_extracted=marks.strict.extracted,
            reason=marks.lenient.reason or marks.strict.reason,
        )

    def _mark_text(self, example: Example, text: str, *, cut: bool) -> _Marks:
        kind = answer_kind(example)
        if cut:
            return _Marks(
                _Mark(Verdict.TRUNCATED, None), self._mark(example, extract_cut(text, kind), Verdict.TRUNCATED)
            )
        strict = self._mark(example, extract_strict(text), Verdict.UNPARSED)
        extracted = extract_lenient(text, kind)
        if strict.verdict is Verdict.CORRECT or extracted == strict.extracted:
            return _Marks(strict, strict._replace(extracted=extracted))
        return _Marks(strict, self._mark(example, extracted, Verdict.UNPARSED))

    def _mark(self, example: Example, extracted: str | None, missing: Verdict) -> _Mark:
        if extracted is None:
            return _Mark(missing, None)
        try:
            correct = self._is_correct(example, extracted)
        except BrokenItem as broke:
            reason = f"the answer broke the grader: {broke}"
            try:
                gold_passes = self._is_correct(example, example.gold)
            except BrokenItem:
                gold_passes = False
            return _Mark(Verdict.WRONG if gold_passes else Verdict.FAILED, extracted, reason)
        return _Mark(Verdict.CORRECT if correct else Verdict.WRONG, extracted)

    def _is_correct(self, example: Example, answer: str) -> bool:
        gold = example.gold
        if example.grader == "exact":
            return _same(_normal_text(gold), _normal_text(answer))
        if example.grader == "choice":
            return _same(_letter(gold), _letter(answer))
        if example.grader == "numeric":
            return _same(parse_number(gold), parse_number(answer))
        if example.grader == "math":
            return self._workers["math"].ask({"gold": _latex(gold), "answer": _latex(answer)})
        return self._workers["reasoning_gym"].ask({**_task_and_entry(example), "answer": answer})


def _same(gold: object, answer: object) -> bool:
    """Equality of two readings; two that could not be read are not the same."""
    return gold is not None and gold == answer


def _normal_text(text: str) -> str | None:
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip("\"'“”‘’` ").removesuffix(".").rstrip("\"'“”‘’` ") or None


def _letter(text: str) -> str | None:
    found = _LETTER.fullmatch(text.strip())
    return found[1].upper() if found else None


def _latex(text: str) -> str:
    """A text as math-verify reads it whole: in dollars, with mixed and scientific numbers as fractions."""
    number = parse_number(text) if re.search(r"\d(?: \d|[eE])", text) else None
    if number is not None:
        return f"$\\frac{{{number.numerator}}}{{{number.denominator}}}$"
    bare = text.replace("\\$", "").replace("**", "^")
    return bare if "$" in bare else f"${bare}$"


def _task_and_entry(example: Example) -> dict[str, Any]:
    task, entry = example.metadata.get("task"), example.metadata.get("entry")
    if task not in SAFE_TASKS or not isinstance(entry, dict):
        raise DataError(
            f"{example.source}: example {example.id}: expected metadata.task to be a reasoning-gym task whose scorer "
            f"was read and found safe, with its metadata.entry; got task {str(task)[:80]!r}. Leave the task out, or "
            "read its scorer and add it to curriculum/safe_tasks.py"
        )
    return {"task": task, "entry": entry}
