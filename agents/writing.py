"""Writing new examples: seeds of the pool and a skill in, solved and checked questions out (STAT-Syn, stage 3b).

A question is kept when nothing near it is known, a blind label finds the skill and about the difficulty in it, and
two of three independent solutions agree on an answer that the grader accepts. All else is dropped with its reason.
"""

import itertools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from agents.asking import Asker, Question, failed, reply_failures
from agents.judging import LLMJudge
from agents.ledger import Purpose
from agents.prompting import data_block, question_text
from agents.replies import ONLY, Rejected, SolutionReply, WrittenQuestions
from agents.solving import solve_question
from agents.teacher import WriteOrder, Written
from curriculum.catalogue_file import mapped
from curriculum.config import Config
from curriculum.data_config import FileData
from curriculum.duplicates import SeenQuestions, normalise
from curriculum.extraction import format_target, taught_text
from curriculum.grading import Grader, stated_answer
from curriculum.judging import OpenAnswer, judge_failures
from curriculum.records import Example, SkillCatalogue, SkillLabel, Verdict, content_id
from curriculum.round_records import DroppedRow
from curriculum.teacher_records import TeacherFailure

SEEDS, QUESTIONS_PER_CALL, SOLUTIONS, WAVES = 3, 2, 3, 4
"""Seeds a request shows, questions it asks for, independent solutions of each, and how often what is short is asked."""
NEAR_DIFFICULTY = 1
"""Levels that a blind label may differ from what was ordered."""
TEMPLATE_OVERLAP = 0.8
"""Jaccard similarity of word 3-grams, numbers masked, from which a question is a seed with other numbers."""
QUESTION_CHARS = 4000
Labeller = Callable[[Sequence[Example], SkillCatalogue, Purpose], Awaitable[list[SkillLabel | TeacherFailure]]]


class _Solved(NamedTuple):
    example: Example | None
    reason: str


class Writer:
    """Has questions written, labelled and solved, and throws away what does not hold."""

    def __init__(self, config: Config, asker: Asker, label: Labeller, grader: Grader, judge: LLMJudge) -> None:
        self._model = config.teacher.endpoint("write").model
        self._rubric = (config.data.grader_rubric if isinstance(config.data, FileData) else None) or ""
        self._judge = judge
        self._asker = asker
        self._label = label
        self._grader = grader

    async def write(self, order: WriteOrder, catalogue: SkillCatalogue, moved: Mapping[str, str | None]) -> Written:
        """At most `order.rows` examples; each wave asks for what is still short."""
        made = Written([], [], [], [])
        if not order.seeds:
            return made
        near = _Near(order)
        for wave in range(WAVES):
            short = order.rows - len(made.examples)
            if short <= 0:
                break
            drafts = await self._drafts(order, wave, short, near, made)
            await self._keep(order, drafts, catalogue, moved, made)
        del made.examples[order.rows :], made.labels[order.rows :]
        return made

    async def _drafts(self, order: WriteOrder, wave: int, short: int, near: "_Near", made: Written) -> list[Example]:
        """New questions that are near no other, as examples whose gold answer is still empty."""
        calls = -(-short // QUESTIONS_PER_CALL)
        shown = [drawn_seeds(order, wave, call) for call in range(calls)]
        asked = [self._asker.ask(self.write_question(order, seeds, wave)) for seeds in shown]
        replies = await self._asker.together("", "write", asked, calls, lambda r: reply_failures(r, "write"))
        drafts = []
        for number, (reply, seeds) in enumerate(zip(replies, shown, strict=True)):
            made.failures.extend(
                failed(f"{order.skill.id}-{order.difficulty}-{wave}-{number}", "write", f)
                for f in reply.faults.values()
            )
            for text in reply.rows[ONLY].questions if ONLY in reply.rows else ():
                draft = draft_example(text, seeds[0], order, self._model)
                reason = near.reason(draft)
                if reason:
                    made.dropped.append(_dropped(draft, order, reason))
                else:
                    drafts.append(draft)
        return drafts

    def write_question(self, order: WriteOrder, seeds: Sequence[Example], wave: int) -> Question:
        """Asks for new questions of an order, from seeds."""
        shown = [
            data_block(f"example{number}", f"{question_text(e)}\n{taught_text(e)}") for number, e in enumerate(seeds, 1)
        ]
        text = self._asker.prompts["write"].render(
            skill=data_block("skill", f"{order.skill.name}: {order.skill.description}".strip(": ")),
            difficulty=str(order.difficulty),
            count=str(QUESTIONS_PER_CALL),
            seeds="\n\n".join(shown),
        )
        purpose = Purpose("write", order.round, order.skill.id)
        return Question(purpose, "write", text, WrittenQuestions, _usable_questions, sample=_sample(order, wave))

    async def _keep(
        self,
        order: WriteOrder,
        drafts: Sequence[Example],
        catalogue: SkillCatalogue,
        moved: Mapping[str, str | None],
        made: Written,
    ) -> None:
        """Adds the drafts that hold to `made`, and the reason for each that does not."""
        labels = await self._label(drafts, catalogue, Purpose("label", order.round, order.skill.id))
        on_skill: list[tuple[Example, SkillLabel]] = []
        for draft, label in zip(drafts, labels, strict=True):
            if isinstance(label, TeacherFailure):
                made.failures.append(label)
                made.dropped.append(_dropped(draft, order, f"no blind label: {label.kind}"))
                continue
            label = label.model_copy(update={"skills": mapped(label.skills, moved)})
            if order.skill.id not in label.skills:
                made.dropped.append(_dropped(draft, order, "off-skill: a blind label does not name the skill"))
            elif abs(label.difficulty - order.difficulty) > NEAR_DIFFICULTY:
                made.dropped.append(_dropped(draft, order, "off-difficulty by a blind label"))
            else:
                on_skill.append((draft, label))
        asked = [
            self._asker.ask(self.solve_question(order, draft, sample))
            for draft, _ in on_skill
            for sample in range(SOLUTIONS)
        ]
        replies = await self._asker.together("", "solve", asked, len(asked), lambda r: reply_failures(r, "solve"))
        for place, (draft, label) in enumerate(on_skill):
            solutions = []
            for sample, reply in enumerate(replies[place * SOLUTIONS : (place + 1) * SOLUTIONS]):
                made.failures.extend(failed(f"{draft.id}-{sample}", "solve", f) for f in reply.faults.values())
                solutions += [reply.rows[ONLY]] if ONLY in reply.rows else []
            agreeing = await self._agreeing(order, draft, solutions, made)
            solved = self._solved(draft, agreeing)
            if solved.example is None:
                made.dropped.append(_dropped(draft, order, solved.reason))
            else:
                made.examples.append(solved.example)
                made.labels.append(label.model_copy(update={"example_id": solved.example.id}))

    def solve_question(self, order: WriteOrder, draft: Example, sample: int) -> Question:
        """Asks for one solution of a new question."""
        return solve_question(self._asker, draft, Purpose("solve", order.round, order.skill.id), sample)

    async def _agreeing(
        self, order: WriteOrder, draft: Example, solutions: Sequence[SolutionReply], made: Written
    ) -> list[SolutionReply]:
        """The most solutions that agree with one of them, by the grader; a judge is asked once a pair."""
        if draft.grader != "judge":
            groups = [[s for s in solutions if self._agrees(_with_gold(draft, first), s)] for first in solutions]
            return max(groups, key=len, default=[])
        pairs = list(itertools.combinations(range(len(solutions)), 2))
        asked = [
            OpenAnswer(_with_gold(draft, solutions[a]), f"{draft.id}-{a}-{b}", solutions[b].answer) for a, b in pairs
        ]
        purpose = Purpose("judge", order.round, order.skill.id)
        told = await self._judge.judge(self._rubric, asked, lambda _: purpose, what="", twice=False)
        made.failures.extend(f for one, j in zip(asked, told, strict=True) for f in judge_failures(one.id, j.first))
        same = {pair for pair, j in zip(pairs, told, strict=True) if j.first.verdict == "correct"}
        numbered = [
            [b for b in range(len(solutions)) if a == b or (min(a, b), max(a, b)) in same]
            for a in range(len(solutions))
        ]
        return [solutions[n] for n in max(numbered, key=len, default=[])]

    def _solved(self, draft: Example, largest: Sequence[SolutionReply]) -> _Solved:
        """The question with the answer that at least two solutions agree on."""
        if len(largest) < 2:
            return _Solved(None, f"no two of {SOLUTIONS} solutions agree")
        example = _with_gold(draft, largest[0], tuple(s.solution for s in largest))
        if self._grader.check_gold([example]):
            return _Solved(None, f"the grader `{example.grader}` does not accept the answer")
        return _Solved(example, "")

    def _agrees(self, candidate: Example, solution: SolutionReply) -> bool:
        answer = stated_answer(candidate, format_target(solution.answer, None), "teacher")
        return self._grader.grade([(candidate, answer)])[0].verdict is Verdict.CORRECT


class _Near:
    """The questions that a new one may not come near."""

    def __init__(self, order: WriteOrder) -> None:
        self._order = order
        self._drafts = SeenQuestions()
        self._templates = [_template(e.question) for e in order.seeds]

    def reason(self, draft: Example) -> str:
        """Why a question is not new; empty when it is, and then it is remembered."""
        match = self._order.seen.find(draft) or self._drafts.find(draft)
        if match is not None and match.duplicate_of in self._order.held_out:
            return f"{match.reason} of a held-out question"
        if match is not None:
            return "near copy of a pool or written question"
        template = _template(draft.question)
        if any(len(template & t) >= TEMPLATE_OVERLAP * len(template | t) for t in self._templates):
            return "near copy of a seed or of another new question, with other numbers"
        self._drafts.add(draft)
        self._templates.append(template)
        return ""


def _template(question: str) -> frozenset[str]:
    words = re.sub(r"\d[\d.]*", "#", normalise(question)).split()
    return frozenset(" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2)))


def drawn_seeds(order: WriteOrder, wave: int, call: int) -> list[Example]:
    """At most three seeds, by chance that the order's seed fixes."""
    return sorted(order.seeds, key=lambda e: content_id([order.seed, wave, call, e.id]))[:SEEDS]


def _sample(order: WriteOrder, wave: int) -> int:
    """The same seeds may be drawn again: another wave of another order is another sample."""
    return (order.seed + wave) % 2**31


def draft_example(text: str, seed: Example, order: WriteOrder, model: str) -> Example:
    """A new question as an example, whose gold answer is still empty."""
    grader = seed.grader
    if grader == "reasoning_gym":  # its scorer needs the generator's own entry
        grader = "numeric" if seed.metadata.get("answer_kind") == "number" else "exact"
    return Example.make(
        question=text.strip(),
        gold="",
        grader=grader,
        source=f"written by {model} in round {order.round}",
        skills=(order.skill.id,),
        difficulty=order.difficulty,
    )


def _with_gold(draft: Example, solution: SolutionReply, solutions: tuple[str, ...] = ()) -> Example:
    return Example.make(
        question=draft.question,
        gold=solution.answer,
        grader=draft.grader,
        source=draft.source,
        solutions=solutions,
        skills=draft.skills,
        difficulty=draft.difficulty,
    )


def _usable_questions(row: WrittenQuestions) -> WrittenQuestions:
    if any(not q.strip() or len(q) > QUESTION_CHARS for q in row.questions):
        raise Rejected("schema", f"questions: expected texts of 1 to {QUESTION_CHARS} characters")
    return row


def _dropped(draft: Example, order: WriteOrder, reason: str) -> DroppedRow:
    return DroppedRow(example_id=draft.id, skill=order.skill.id, origin="written", reason=reason)
