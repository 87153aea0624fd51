"""The judge: a model that says by a rubric whether an open answer is correct (role `judge`).

One answer a request, so that no answer can speak for another. The reply has to repeat a code that the student's text
cannot know: JSON that a judge quotes from an answer is never taken for its verdict.
"""

from collections.abc import Callable, Sequence

from agents.asking import Asker, Question
from agents.ledger import Purpose
from agents.prompting import data_block, question_text
from agents.replies import ONLY, Checked, JudgeReply, Rejected
from curriculum.config import Config
from curriculum.judging import Judgements, OpenAnswer, judge_failures
from curriculum.records import Judgement, content_id
from curriculum.teacher_config import Endpoint
from curriculum.teacher_records import TeacherFailure

JUDGED_CHARS = 8000
"""Of an answer, and of a reference answer, that the judge sees."""
CODE_DIGITS = 8


class LLMJudge:
    """Judges answers, and has a second judge see a sample of them."""

    def __init__(self, config: Config, asker: Asker) -> None:
        self._asker = asker
        self._model = config.teacher.endpoint("judge").model
        self._second = config.teacher.second_judge_endpoint if config.teacher.second_judge else None
        self._share = config.teacher.second_judge.share if config.teacher.second_judge else 0.0

    async def judge(
        self,
        rubric: str,
        answers: Sequence[OpenAnswer],
        purpose: Callable[[OpenAnswer], Purpose],
        what: str = "judging",
        twice: bool = True,
    ) -> list[Judgements]:
        """One judgement an answer, in order, and with `twice` a second one of those that are drawn for it.

        Raises:
            UserError: too many answers got no usable reply.
            TutelageError: what stops a run, see `ChatClient.ask`.
        """
        sample = [a for a in answers if twice and self._second is not None and _drawn(a) < self._share]
        questions = [self.question(rubric, a, purpose(a)) for a in answers]
        questions += [self.question(rubric, a, purpose(a), self._second) for a in sample]
        asked = [self._one(question) for question in questions]
        made = await self._asker.together(what, "judge", asked, len(asked), _failures)
        second = {a.id: judgement for a, judgement in zip(sample, made[len(answers) :], strict=True)}
        return [Judgements(first, second.get(a.id)) for a, first in zip(answers, made, strict=False)]

    async def _one(self, question: Question) -> Judgement:
        checked: Checked[JudgeReply] = await self._asker.ask(question)
        model = self._model if question.endpoint is None else question.endpoint.model
        prompt_hash = self._asker.prompts["judge"].hash
        row = checked.rows.get(ONLY)
        if row is None:
            fault = checked.faults[ONLY]
            return Judgement(
                judge=model, prompt_hash=prompt_hash, verdict="failed", reason=fault.reason[:500], fault=fault.kind
            )
        return Judgement(judge=model, prompt_hash=prompt_hash, verdict=row.verdict, reason=row.reason)

    def question(self, rubric: str, answer: OpenAnswer, purpose: Purpose, endpoint: Endpoint | None = None) -> Question:
        """Asks whether an answer is correct: the role's own judge, or the second one at its endpoint."""
        code = _code(rubric, answer)

        def check(row: JudgeReply) -> JudgeReply:
            if row.id.strip() != code:
                raise Rejected("wrong_ids", f"id: expected {code}")
            return row.model_copy(update={"reason": " ".join(row.reason.split())})

        text = self._asker.prompts["judge"].render(
            rubric=data_block("rubric", rubric),
            question=data_block("question", question_text(answer.example)),
            reference=data_block("reference", _shown(answer.example.gold)),
            answer=data_block("answer", _shown(answer.text)),
            id=code,
        )
        what = "" if endpoint is None else "second"
        return Question(purpose, "judge", text, JudgeReply, check, enums={"id": [code]}, endpoint=endpoint, what=what)


def _failures(judgement: Judgement) -> list[TeacherFailure]:
    return judge_failures("", judgement)


def _code(rubric: str, answer: OpenAnswer) -> str:
    """A code that is not in the answer; whoever wrote that cannot have known it."""
    told = [rubric, answer.example.question, answer.example.gold, answer.text]
    return next(c for n in range(10**6) if (c := content_id([n, *told], CODE_DIGITS)) not in answer.text)


def _drawn(answer: OpenAnswer) -> float:
    """From 0 to 1, the same for the same answer."""
    return int(content_id(["second judge", answer.id], 12), 16) / 16**12


def _shown(text: str) -> str:
    return text if len(text) <= JUDGED_CHARS else f"{text[:JUDGED_CHARS]}\n(cut here: {len(text)} characters)"
