"""Grading: a student's answers in, one grade each out, strict and lenient.

`exact`, `choice` and `numeric` compare here; `math`, `reasoning_gym` and the user's own function compare in worker
processes without secrets, network or much memory, restarted when an item breaks them; the user's pattern searches in
one. `judge` asks whoever the caller gives. Never evaluates text, and never raises because of what a student wrote.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from curriculum.errors import DataError
from curriculum.extraction import (
    answer_kind,
    extract_cut,
    extract_lenient,
    extract_strict,
    format_target,
    searched_text,
)
from curriculum.grading_process import BrokenItem, WorkerProcess
from curriculum.judging import Judge, judged_grade, open_answer
from curriculum.numerals import parse_number
from curriculum.records import Example, Grade, GraderName, Sampling, StudentAnswer, Verdict
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
        failed: the answer never came (finish reason `error`), its grader cannot grade the gold answer either, or the
            judge is unsure or gave no usable reply.
        truncated: the text was cut at the token limit before a marked answer was complete; always so for the
            strict verdict.
        unparsed: the text was finished, and no answer was found in it.
        wrong: also when the answer breaks the grader (an exception, processor time, memory) while the gold answer
            does not: the student's text is at fault. The reason is recorded.
        correct: what is right in the taught format is right for the lenient verdict, too.

    Args:
        limit_seconds: processor time one item may take.
        memory_bytes: memory one item may take, beyond what the libraries need.
        pattern: the regular expression of examples whose grader is `regex`. The last match's first group that took
            part, or the whole match where it has no group, is the lenient answer, compared as by `exact`; the strict
            one is the taught line, as everywhere.
        function: `package.module:function` of examples whose grader is `python`, called with the texts `question`,
            `gold` and `answer` (the extracted one) by name; returns `True` or `False`.
        folder: where the function's module is looked for before what is installed; the current directory if left out.
        rubric: what counts as correct, of examples whose grader is `judge`.
        judge: who is asked about those, with the rubric.
        check: the grader that says of each judged answer what it would, for comparison.
    """

    def __init__(
        self,
        limit_seconds: float = 5.0,
        memory_bytes: int = 1 << 30,
        *,
        pattern: str | None = None,
        function: str | None = None,
        folder: Path | None = None,
        rubric: str = "",
        judge: Judge | None = None,
        check: GraderName | None = None,
    ) -> None:
        self._pattern = pattern
        self._rubric, self._judge, self._check = rubric, judge, check
        names = ("math", "reasoning_gym", "regex")
        self._workers = {name: WorkerProcess(name, limit_seconds, memory_bytes) for name in names}
        if function:
            located = (function, folder or Path.cwd())
            self._workers["python"] = WorkerProcess("python", limit_seconds, memory_bytes, located)

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.stop()

    def grade(self, answers: Sequence[tuple[Example, StudentAnswer]]) -> list[Grade]:
        """Grades each answer, in the order given; those for the judge are asked about together.

        Raises:
            DataError: an example needs a reasoning-gym scorer that is not on the list of safe ones, or a function,
                pattern or judge that was not given or cannot be loaded.
            GradingError: a worker cannot be started.
            TutelageError: what stops a run while the judge is asked.
        """
        judged = self._judged([pair for pair in answers if pair[0].grader == "judge"])
        return [judged.get(answer.id) or self._grade(example, answer) for example, answer in answers]

    def _judged(self, answers: Sequence[tuple[Example, StudentAnswer]]) -> dict[str, Grade]:
        asked = [found for example, answer in answers if (found := open_answer(example, answer))]
        if asked and self._judge is None:
            raise DataError(f"{asked[0].example.source}: expected a judge for the grader `judge`, got none")
        told = self._judge(self._rubric, asked) if asked and self._judge else []
        by_id = {answer.id: judgements for answer, judgements in zip(asked, told, strict=True)}
        grades = {}
        for example, answer in answers:
            check = None
            if self._check is not None and answer.id in by_id:
                check = self._mark_text(_checked(example, self._check), answer.text, cut=False).lenient.verdict
            grades[answer.id] = judged_grade(example, answer, by_id.get(answer.id), check)
        return grades

    def agree(self, example: Example, first: StudentAnswer, second: StudentAnswer) -> bool:
        """Whether two answers to a question say the same, by the lenient extraction and the example's own grader.

        Answers in which nothing is found agree with none.

        Raises:
            DataError: as in `grade`.
            GradingError: as in `grade`.
        """
        one, other = self._found(example, first), self._found(example, second)
        if one is None or other is None:
            return False
        try:
            return self._is_correct(example.model_copy(update={"gold": one}), other)
        except BrokenItem:
            return False

    def _found(self, example: Example, answer: StudentAnswer) -> str | None:
        """What the lenient extraction finds, without a look at the gold answer."""
        cut = answer.finish_reason == "length"
        if example.grader != "regex":
            kind = answer_kind(example)
            return extract_cut(answer.text, kind) if cut else extract_lenient(answer.text, kind)
        try:
            return self._find(searched_text(answer.text, cut=cut))
        except BrokenItem:
            return None

    def check_gold(self, examples: Sequence[Example]) -> dict[str, str]:
        """Grades each gold answer as the student is taught to write it; returns example id → why it is not correct.

        A judge is not asked about gold answers: this costs nothing. They have to pass the grader that checks it.

        Raises:
            DataError: as in `grade`.
            GradingError: as in `grade`.
        """
        faults = {}
        for example in examples:
            if example.grader == "judge":
                if self._check is None:
                    continue
                example = _checked(example, self._check)
            target = format_target(example.gold, None)
            strict, lenient = self._mark_text(example, target, cut=False)
            if example.grader == "regex" and lenient.verdict is Verdict.CORRECT:
                # A pattern made for another format may find nothing here, but not something else.
                lenient = self._mark_found(example, target, cut=False, missing=Verdict.CORRECT)
            if not strict.verdict == lenient.verdict == Verdict.CORRECT:
                faults[example.id] = (
                    f"{example.source}: expected the gold answer {example.gold[:80]!r} to pass its own grader "
                    f"`{example.grader}`, got {strict.verdict} (strict) and {lenient.verdict} (lenient, read as "
                    f"{(lenient.extracted or '')[:80]!r}) {strict.reason or lenient.reason}".rstrip()
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
            strict = _Mark(Verdict.TRUNCATED, None)
            if example.grader == "regex":
                return _Marks(strict, self._mark_found(example, text, cut=True, missing=Verdict.TRUNCATED))
            return _Marks(strict, self._mark(example, extract_cut(text, kind), Verdict.TRUNCATED))
        strict = self._mark(example, extract_strict(text), Verdict.UNPARSED)
        if example.grader == "regex" and strict.verdict is not Verdict.CORRECT:
            return _Marks(strict, self._mark_found(example, text, cut=False, missing=Verdict.UNPARSED))
        extracted = extract_lenient(text, kind)
        if strict.verdict is Verdict.CORRECT or extracted == strict.extracted:
            return _Marks(strict, strict._replace(extracted=extracted))
        return _Marks(strict, self._mark(example, extracted, Verdict.UNPARSED))

    def _mark_found(self, example: Example, text: str, *, cut: bool, missing: Verdict) -> _Mark:
        """The mark of what the user's pattern finds."""
        try:
            found = self._find(searched_text(text, cut=cut))
        except BrokenItem as broke:
            return self._mark_broken(lambda: self._find(format_target(example.gold, None)), None, broke)
        return self._mark(example, found, missing)

    def _mark(self, example: Example, extracted: str | None, missing: Verdict) -> _Mark:
        if extracted is None:
            return _Mark(missing, None)
        try:
            correct = self._is_correct(example, extracted)
        except BrokenItem as broke:
            return self._mark_broken(lambda: self._is_correct(example, example.gold), extracted, broke)
        return _Mark(Verdict.CORRECT if correct else Verdict.WRONG, extracted)

    @staticmethod
    def _mark_broken(with_gold: Callable[[], object], extracted: str | None, broke: BrokenItem) -> _Mark:
        """Wrong, unless the gold answer breaks the grader, too, or fails it: then the student is not at fault."""
        try:
            gold_passes = with_gold() is not False
        except BrokenItem:
            gold_passes = False
        return _Mark(
            Verdict.WRONG if gold_passes else Verdict.FAILED, extracted, f"the answer broke the grader: {broke}"
        )

    def _is_correct(self, example: Example, answer: str) -> bool:
        gold = example.gold
        if example.grader in ("exact", "regex"):
            return _same(_normal_text(gold), _normal_text(answer))
        if example.grader == "choice":
            return _same(_letter(gold), _letter(answer))
        if example.grader == "numeric":
            return _same(parse_number(gold), parse_number(answer))
        if example.grader == "math":
            return bool(self._workers["math"].ask({"gold": _latex(gold), "answer": _latex(answer)}))
        if example.grader == "python":
            if "python" not in self._workers:
                raise DataError(f"{example.source}: expected data.grader_function for the grader `python`, got none")
            return bool(self._workers["python"].ask({"question": example.question, "gold": gold, "answer": answer}))
        return bool(self._workers["reasoning_gym"].ask({**_task_and_entry(example), "answer": answer}))

    def _find(self, text: str) -> str | None:
        """What the user's pattern finds; nothing when that is empty."""
        if self._pattern is None:
            raise DataError("expected data.grader_pattern for the grader `regex`, got none")
        found = self._workers["regex"].ask({"pattern": self._pattern, "text": text})
        return str(found).strip() or None if found is not None else None


def _checked(example: Example, check: GraderName) -> Example:
    """The example as the grader beside the judge sees it."""
    return example.model_copy(update={"grader": check})


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


def stated_answer(example: Example, text: str, author: str, at: int = 0) -> StudentAnswer:
    """A text that no student gave, as graders take it: whole, and under its author's name.

    Args:
        example: what it answers.
        text: with the answer in its last line.
        author: in the place of an adapter.
        at: its number among the author's texts.
    """
    return StudentAnswer(
        example_id=example.id,
        adapter=author,
        sampling=Sampling(max_new_tokens=1),
        sample_index=at,
        text=text,
        finish_reason="stop",
        prompt_tokens=0,
        completion_tokens=0,
    )
