"""Worked solutions of pool questions whose answer is known: asked for blind, and used only where that answer is found.

Source: Goncharov et al. 2025 (arXiv 2506.21220): a teacher's chain of thought for the hard part alone. They take any
that is not empty; here the grader checks each, and what is wrong is asked for again.
"""

from collections.abc import Sequence

from agents.asking import Asker, Question, failed, reply_failures
from agents.ledger import Purpose
from agents.prompting import data_block, question_text
from agents.replies import ONLY, Rejected, SolutionReply
from agents.teacher import Solved
from curriculum.extraction import answer_kind, format_target
from curriculum.grading import Grader, stated_answer
from curriculum.method_records import SolvedExample
from curriculum.records import Example, Grade, Verdict
from curriculum.teacher_records import TeacherFailure

ATTEMPTS = 3
"""Solutions of a question that are asked for, one after another, until one is right."""
FORMS = {
    "number": "The answer is one number, without its unit.",
    "letter": "The answer is the letter of one option.",
    "expression": "The answer is a number or a formula.",
    "text": "The answer is as short as it can be, without explanation.",
    "open": "The answer says all that the question asks for, in at most three sentences.",
}


async def solve(asker: Asker, grader: Grader, examples: Sequence[Example], round_: int) -> Solved:
    """A right solution of each example, or how often it was asked for in vain.

    Args:
        asker: of the role `solve`.
        grader: of the data; it says whether a reply's answer is the gold one.
        examples: distinct ones, with gold answers, which are not shown.
        round_: that the cost is told under.
    """
    made = {e.id: SolvedExample(example_id=e.id, attempts=0, answers=(), solution=None, tokens=0) for e in examples}
    failures: list[TeacherFailure] = []
    for attempt in range(ATTEMPTS):
        left = [e for e in examples if made[e.id].solution is None]
        asked = [asker.ask(solve_question(asker, e, Purpose("solve", round_), attempt)) for e in left]
        what = f"solving hard questions, attempt {attempt + 1}" if left else ""
        replies = await asker.together(what, "solve", asked, len(asked), lambda r: reply_failures(r, "solve"))
        rows = [reply.rows.get(ONLY) for reply in replies]
        told = [(e, row) for e, row in zip(left, rows, strict=True) if row is not None]
        grades = grader.grade([(e, stated_answer(e, format_target(row.answer, None), "teacher")) for e, row in told])
        right: dict[str, str] = {}
        refused: dict[str, str] = {}
        for (e, row), grade in zip(told, grades, strict=True):
            if grade.verdict is Verdict.CORRECT:
                right[e.id] = row.solution
            else:
                refused[e.id] = _why(grade)
        for example, reply, row in zip(left, replies, rows, strict=True):
            failures += [failed(f"{example.id}-{attempt}", "solve", fault) for fault in reply.faults.values()]
            if row is None:
                refused[example.id] = f"no usable reply: {', '.join(fault.kind for fault in reply.faults.values())}"
            before = made[example.id]
            made[example.id] = SolvedExample(
                example_id=example.id,
                attempts=attempt + 1,
                answers=(*before.answers, *([row.answer] if row else [])),
                refused=(*before.refused, *([refused[example.id]] if example.id in refused else [])),
                solution=right.get(example.id),
                tokens=before.tokens + reply.tokens,
            )
    return Solved([made[id_] for id_ in sorted(made)], failures)


def _why(grade: Grade) -> str:
    """Why an answer is not taken, as the grader read it."""
    read = "nothing" if grade.extracted is None else repr(grade.extracted)
    return f"{grade.verdict}: {read} was read{f' ({grade.reason})' if grade.reason else ''}"


def solve_question(asker: Asker, example: Example, purpose: Purpose, sample: int) -> Question:
    """Asks for one solution of a question, whose answer is not shown."""
    text = asker.prompts["solve"].render(
        question=data_block("question", question_text(example)), form=FORMS[answer_kind(example)]
    )
    return Question(purpose, "solve", text, SolutionReply, _usable_solution, sample=sample)


def _usable_solution(row: SolutionReply) -> SolutionReply:
    answer = " ".join(row.answer.split())
    if not answer or not row.solution.strip():
        raise Rejected("schema", "expected a solution and an answer that are not blank")
    return row.model_copy(update={"answer": answer, "solution": row.solution.strip()})
