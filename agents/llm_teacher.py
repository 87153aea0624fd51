"""The teacher that is an LLM: names skills, labels, diagnoses, writes, plans, judges; every reply checked, bought once.

What goes where: questions of all splits are labelled without their gold answers; failed probe questions go to the
diagnosis with the student's answer, again without gold; seeds of writing are pool examples with their solutions; hard
pool questions are solved without their gold answers; only a judge sees the gold
answers of held-out items; the plan is made from counts, without any text of the data.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from agents.asking import Asker, Question, failed
from agents.chat import ChatClient
from agents.judging import LLMJudge
from agents.ledger import Ledger, Purpose
from agents.naming import name_skills
from agents.planning import ask_plan, budget_words
from agents.prompting import data_block, question_text, questions_block, resolved, skill_ids, skill_list
from agents.replies import ONLY, DiagnosisReply, LabelRow
from agents.solving import solve
from agents.teacher import Failure, OfflineTeacher, PlannerView, Solved, WriteOrder, Written
from agents.writing import Writer
from curriculum.config import Config
from curriculum.grading import Grader
from curriculum.judging import Judgements, OpenAnswer
from curriculum.records import Diagnosis, Example, SkillCatalogue, SkillLabel
from curriculum.round_records import RoundPlan
from curriculum.teacher_records import TeacherFailure
from student.interface import Progress

ANSWER_CHARS = 8000
"""Of a student's answer that the diagnosis sees."""
NOT_ACCEPTED = "Its answer was not accepted."
NOT_REPEATED = (
    "It was asked five times and answered in five different ways; what is right is not known. Its first answer is "
    "below."
)
NOT_TRUSTED = "A model that judges each step of an answer doubts it; what is right is not known."


class LLMTeacher:
    """Any OpenAI-compatible model; each role its own if wanted."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        grader: Grader,
        progress: Callable[[str, Progress], None],
        say: Callable[[str], None],
        check_stop: Callable[[], None],
        client: ChatClient | None = None,
    ) -> None:
        self.name = str(config.teacher.model)
        self._config = config
        self._say = say
        self._client = client or ChatClient(ledger, config.teacher, config.seed, check_stop)
        self.asker = Asker(config, self._client, progress)
        self._runner = asyncio.Runner()
        self._declared = OfflineTeacher(config)
        self.judging = LLMJudge(config, self.asker)
        self._grader = grader
        self.writer = Writer(config, self.asker, self._labels, grader, self.judging)
        self.identity: Mapping[str, str] = {f"prompt.{n}": p.hash for n, p in self.asker.prompts.items()}

    def close(self) -> None:
        """Closes all connections."""
        self._runner.run(self._client.close())
        self._runner.close()

    def propose_skills(self, pool: Sequence[Example]) -> SkillCatalogue:
        """Fine names on a sample of the pool, merged into the catalogue (Didolkar et al. 2024, steps 1 and 2).

        Raises:
            UserError: too many requests failed, or the merge did.
        """
        if self._config.teacher.catalogue.source == "data":
            declared = self._declared.propose_skills(pool)
            return declared.model_copy(
                update={"skills": tuple(s.model_copy(update={"writable": True}) for s in declared.skills)}
            )
        return self._runner.run(name_skills(self.asker, self._config, pool, self._say))

    def label(self, examples: Iterable[Example], catalogue: SkillCatalogue) -> Iterator[SkillLabel | TeacherFailure]:
        """Up to five skills and a difficulty each, from the question alone; or what the data declare."""
        if self._config.teacher.labels == "data":
            yield from self._declared.label(examples, catalogue)
            return
        yield from self._runner.run(self._labels(sorted(examples, key=lambda e: e.id), catalogue, Purpose("label")))

    async def _labels(
        self, examples: Sequence[Example], catalogue: SkillCatalogue, purpose: Purpose
    ) -> list[SkillLabel | TeacherFailure]:
        asked = [self._label_batch(batch, catalogue, purpose) for batch in self.label_batches(examples)]
        done = await self.asker.together("" if purpose.round else "labelling", "label", asked, len(examples), _failures)
        return [made for batch in done for made in batch]

    def label_batches(self, examples: Sequence[Example]) -> list[Sequence[Example]]:
        """The questions that are labelled together, in one request each."""
        size = self._config.teacher.rows_per_call
        return [examples[at : at + size] for at in range(0, len(examples), size)]

    def label_question(self, examples: Sequence[Example], catalogue: SkillCatalogue, purpose: Purpose) -> Question:
        """Asks for the labels of some questions."""
        ids = [f"q{number}" for number in range(1, len(examples) + 1)]
        known = skill_ids(catalogue)

        def check(row: LabelRow) -> LabelRow:
            return row.model_copy(update={"skills": resolved(row.skills, known)})

        text = self.asker.prompts["label"].render(
            skills=skill_list(catalogue), questions=questions_block(ids, examples)
        )
        enums = {"skills": [s.id for s in catalogue.skills], "id": ids}
        return Question(purpose, "label", text, LabelRow, check, "labels", ids, enums)

    async def _label_batch(
        self, examples: Sequence[Example], catalogue: SkillCatalogue, purpose: Purpose
    ) -> list[SkillLabel | TeacherFailure]:
        question = self.label_question(examples, catalogue, purpose)
        checked = await self.asker.ask(question)
        prompt = self.asker.prompts["label"]
        model = self._config.teacher.endpoint("label").model
        made: list[SkillLabel | TeacherFailure] = []
        for id_, example in zip(question.wanted, examples, strict=True):
            row = checked.rows.get(id_)
            if row is None:
                made.append(failed(example.id, "label", checked.faults[id_]))
                continue
            made.append(
                SkillLabel(
                    example_id=example.id,
                    teacher=model,
                    prompt_hash=prompt.hash,
                    skills=tuple(row.skills),
                    difficulty=row.difficulty,
                    reason=row.reason,
                )
            )
        return made

    def diagnose(
        self, failures: Iterable[Failure], catalogue: SkillCatalogue, round_: int, sample: int = 0
    ) -> Iterator[Diagnosis | TeacherFailure]:
        """One to three skills that the answer lacks (STAT, stage 2); the gold answer is not shown."""
        asked = [self._diagnose_one(failure, catalogue, round_, sample) for failure in failures]
        yield from self._runner.run(
            self.asker.together("diagnosing", "diagnose", asked, len(asked), lambda made: _failures([made]))
        )

    def diagnose_question(
        self,
        example: Example,
        answer: str,
        catalogue: SkillCatalogue,
        round_: int,
        sample: int = 0,
        why: str = NOT_ACCEPTED,
    ) -> Question:
        """Asks which skills a student lacks who answered so; `why` says what is wrong with the answer."""
        known = skill_ids(catalogue)

        def check(row: DiagnosisReply) -> DiagnosisReply:
            return row.model_copy(update={"missing_skills": resolved(row.missing_skills, known)})

        text = self.asker.prompts["diagnose"].render(
            skills=skill_list(catalogue),
            why=why,
            question=data_block("question", question_text(example)),
            answer=data_block("answer", answer[:ANSWER_CHARS]),
        )
        names = {"missing_skills": [s.id for s in catalogue.skills]}
        purpose = Purpose("diagnose", round_)
        return Question(purpose, "diagnose", text, DiagnosisReply, check, enums=names, sample=sample)

    async def _diagnose_one(
        self, failure: Failure, catalogue: SkillCatalogue, round_: int, sample: int
    ) -> Diagnosis | TeacherFailure:
        unsure = NOT_TRUSTED if failure.found_by == "prm" else NOT_REPEATED
        why = unsure if failure.grade is None else NOT_ACCEPTED
        question = self.diagnose_question(failure.example, failure.answer.text, catalogue, round_, sample, why)
        checked = await self.asker.ask(question)
        row = checked.rows.get(ONLY)
        if row is None:
            return failed(failure.answer.id, "diagnose", checked.faults[ONLY])
        return Diagnosis.model_validate(
            {
                "answer_id": failure.answer.id,
                "example_id": failure.example.id,
                "teacher": self._config.teacher.endpoint("diagnose").model,
                "prompt_hash": self.asker.prompts["diagnose"].hash,
                "missing_skills": tuple(row.missing_skills),
                "error_kind": failure.error_kind,
                "reason": f"{row.error_kind}: {row.reason}",
            }
        )

    def judge(self, rubric: str, answers: Sequence[OpenAnswer], round_: int) -> list[Judgements]:
        """Whether open answers are correct. Those of the final split and of extra sets count to no round."""

        def purpose(answer: OpenAnswer) -> Purpose:
            return Purpose("judge", round_ if answer.example.split in ("pool", "probe", "gate") else None)

        return self._runner.run(self.judging.judge(rubric, answers, purpose))

    def plan(self, view: PlannerView, by_rule: RoundPlan) -> tuple[RoundPlan, list[TeacherFailure]]:
        """A round's rows by the role `plan`; by the rule, with the cause, where its plan cannot be used."""
        return self._runner.run(ask_plan(self.asker, view, by_rule))

    def budget_words(self, kept: int) -> str:
        """What may still be spent, for the planner."""
        return budget_words(self._client.ledger, kept)

    def levels(self, skill: str) -> Sequence[int]:
        """All of them: how near it comes is judged by a blind label."""
        return (1, 2, 3, 4, 5)

    def write(self, order: WriteOrder, catalogue: SkillCatalogue, moved: Mapping[str, str | None]) -> Written:
        """New questions from seeds of the pool, labelled blind, solved three times (STAT-Syn)."""
        return self._runner.run(self.writer.write(order, catalogue, moved))

    def solve(self, examples: Sequence[Example], round_: int) -> Solved:
        """Worked solutions of pool questions, blind, each checked against the gold answer."""
        return self._runner.run(solve(self.asker, self._grader, examples, round_))


def _failures(made: Sequence[SkillLabel | Diagnosis | TeacherFailure]) -> list[TeacherFailure]:
    return [one for one in made if isinstance(one, TeacherFailure)]
