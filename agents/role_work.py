"""What each role of an LLM teacher will be asked in a run, counted from the config and the examples.

One function a role; each takes an `End` and returns its `Work` there, made with the questions that a run asks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, comb, sqrt
from typing import NamedTuple

from agents.asking import Question
from agents.ledger import Purpose
from agents.naming import MOST_PASSES, NAMES_PER_CALL, fine_question, merge_question, sampled
from agents.plan_work import LEVELS, plan_work
from agents.solving import ATTEMPTS, solve_question
from agents.teacher import WriteOrder
from agents.teacher_work import End, Work
from agents.writing import QUESTIONS_PER_CALL, SEEDS, SOLUTIONS, WAVES, draft_example
from curriculum.data_config import FileSource
from curriculum.duplicates import SeenQuestions
from curriculum.judging import OpenAnswer
from curriculum.records import Example
from curriculum.teacher_config import Endpoint, Role

NAMES_PER_QUESTION = (1, 5)
"""Fine skill names; the most is what a reply may have."""
NAME_CHARS = (8, 40)
ARMS = 3
"""Of the final test and of each extra set."""
JUDGED_SHARE = 0.5
"""Of the base's answers, at the cheap end, as assumed: blank ones and those cut at the token limit are not judged."""
SOLUTION_CHARS = 500
"""Of a teacher's answer, at most."""


def skills_work(end: End) -> Work:
    """Fine names on a sample, then merges until one request holds all names."""
    settings = end.config.teacher.catalogue
    if settings.source == "data" or end.known.catalogue is not None or not end.pool:
        return Work()
    asker, batches = end.teacher.asker, sampled(end.config, end.pool)
    made = end.step(len(batches), lambda i: fine_question(asker, batches[i]))
    left = NAMES_PER_QUESTION[end.most] * sum(map(len, batches))
    if not end.most:
        left = min(left, settings.least)
    for _ in range(MOST_PASSES):
        chunks = [min(NAMES_PER_CALL, left - at) for at in range(0, left, NAMES_PER_CALL)]
        names = [str(number).rjust(NAME_CHARS[end.most], "n") for number in range(max(chunks))]

        def merge(i: int, chunks: Sequence[int] = chunks, names: Sequence[str] = names) -> Question:
            return merge_question(asker, names[: chunks[i]], settings.least, settings.most)

        made = made.plus(end.step(len(chunks), merge, groups=len(chunks)))
        if len(chunks) == 1:
            break
        left = sum(min(settings.most, chunk) for chunk in chunks)
    return made


def label_work(end: End) -> Work:
    """Every example once, and every new question blind."""
    made = _blind_labels(end)
    if end.config.teacher.labels == "data" or end.known.labelled:
        return made
    batches = end.teacher.label_batches(sorted(end.examples, key=lambda e: e.id))
    return made.plus(
        end.step(len(batches), lambda i: end.teacher.label_question(batches[i], end.catalogue, Purpose("label")))
    )


def diagnose_work(end: End) -> Work:
    """The failed probe answers of each adapter that is examined; those of one adapter are diagnosed once.

    Round 1 examines the base as the baseline did, and a round after a rollback the adapter before it.
    """
    probe = end.probe
    # At the cheap end a student that still has something to learn.
    count = len(probe) if end.most else int((1 - end.config.plan.target_rate) * len(probe))
    twice = min(count, end.config.teacher.repeat_diagnoses)

    def question(i: int) -> Question:
        return end.teacher.diagnose_question(probe[i % count], end.answer, end.catalogue, 1)

    one = end.step(count + twice, question)
    return one.times(end.rounds if end.most else min(1, end.rounds))


class _Orders(NamedTuple):
    """The new questions of one wave of a round."""

    waves: int
    """Of all rounds."""
    orders: int
    """A skill at a difficulty each."""
    calls: int
    drafts: int


def _orders(end: End) -> _Orders:
    rows = end.config.plan.written_rows if end.pool else 0
    if not rows or (end.config.plan.by == "llm" and not end.most):  # a planner need not have any written
        return _Orders(0, 0, 0, 0)
    orders = min(rows, len(LEVELS) * len(end.catalogue.skills)) if end.most else 1
    # At most Σ ⌈rows of an order / questions of a request⌉ over the orders.
    calls = (rows + (QUESTIONS_PER_CALL - 1) * orders) // QUESTIONS_PER_CALL
    return _Orders(end.rounds * (WAVES if end.most else 1), orders, calls, QUESTIONS_PER_CALL * calls)


def _order(end: End, place: int) -> WriteOrder:
    skills = end.catalogue.skills
    skill, rows = skills[place % len(skills)], end.config.plan.written_rows
    return WriteOrder(1, skill, 3, rows, 0, frozenset(), end.pool, SeenQuestions(), frozenset())


def _draft(end: End, order: WriteOrder) -> Example:
    """A new question: as long as a short one of the pool, or twice as long as a long one (by its quartiles)."""
    ordered = sorted(end.pool, key=lambda e: len(e.question))
    seed = ordered[(len(ordered) - 1) * (3 if end.most else 1) // 4]
    text = f"{seed.question} {seed.question}" if end.most else seed.question
    return draft_example(text, seed, order, "")


def _blind_labels(end: End) -> Work:
    made, size = _orders(end), end.config.teacher.rows_per_call
    if not made.drafts:
        return Work()
    order = _order(end, 0)
    draft = _draft(end, order)
    calls = min(made.drafts, (made.drafts + (size - 1) * made.orders) // size)

    @cache
    def asked(rows: int) -> Question:
        return end.teacher.label_question([draft] * rows, end.catalogue, Purpose("label", 1, order.skill.id))

    rest = made.drafts - size * (calls - 1)
    last = size if end.most else min(size, rest)
    return end.step(calls, lambda i: asked(last if i == calls - 1 else size), made.orders).times(made.waves)


def write_work(end: End) -> Work:
    """New questions, order by order; at the dear end none of them is ever kept."""
    made, pool = _orders(end), end.pool

    def question(i: int) -> Question:
        seeds = [pool[(SEEDS * i + place) % len(pool)] for place in range(min(SEEDS, len(pool)))]
        return end.teacher.writer.write_question(_order(end, i), seeds, 0)

    return end.step(made.calls, question, made.orders).times(made.waves)


def solve_work(end: End) -> Work:
    """Independent solutions of every new question; and those of hard pool questions that come without one."""
    made, hard = _orders(end), _hard_work(end)
    if not made.drafts:
        return hard
    order = _order(end, 0)
    asked = end.teacher.writer.solve_question(order, _draft(end, order), 0)
    return hard.plus(end.step(SOLUTIONS * made.drafts, lambda _: asked, made.orders).times(made.waves))


def _hard_work(end: End) -> Work:
    """Solutions of the hard part of a round's new examples.

    At the cheap end each is right at once, every example is drawn as often as it may be, examples with a solution of
    their own need no other, and later rounds draw the same. At the dear end no solution is ever right, and none of
    the data's is.
    """
    plan, control = end.config.plan, end.config.control
    if not (plan.solves and end.pool and end.rounds):
        return Work()
    asker, attempts = end.teacher.asker, ATTEMPTS if end.most else 1
    trainings = end.rounds
    if end.most:
        rows = plan.rows_per_round
        count = ceil(plan.complexity.hard * min(rows, len(end.pool) + plan.written_rows))
        trainings += {"none": 0, "last_round": 1, "every_round": end.rounds}[control]
    else:
        distinct = (plan.rows_per_round - plan.written_rows) // plan.max_repeats
        hard = int(plan.complexity.hard * min(distinct, len(end.pool)))
        count = (
            0 if plan.by == "llm" or plan.draws_per_failure else max(0, hard - sum(bool(e.solutions) for e in end.pool))
        )
        trainings = 1
    ordered = sorted(end.pool, key=lambda e: len(e.question))

    def question(i: int) -> Question:
        place = len(ordered) - 1 - i % len(ordered) if end.most else i % len(ordered)
        return solve_question(asker, ordered[place], Purpose("solve", 1), 0)

    return end.step(attempts * count, question, attempts).times(trainings)


class _Judged(NamedTuple):
    """Answers to the items of one source that are judged."""

    rubric: str
    answers: int
    items: Sequence[Example]
    """Some of them, or what stands for them."""


def _judged(end: End) -> list[_Judged]:
    """At the cheap end half of the base's answers are whole, and all others say what the base says: bought once."""
    data, splits, fork = end.config.data, Counter(e.split for e in end.examples), end.known.labelled
    held_out = [e for e in end.examples if e.split != "pool"]
    once = 0 if fork else 1
    made = []
    if isinstance(data, FileSource) and data.grader == "judge" and data.grader_rubric:
        signals = end.config.student.signals
        if end.most:
            answers = end.rounds * splits["probe"] + (end.rounds + once) * splits["gate"] + ARMS * splits["final"]
            if end.config.control != "none":
                controls = end.rounds if end.config.control == "every_round" else 1
                answers += controls * splits["gate"] + 2 * splits["final"]
            if signals:
                measured = splits["pool"] * once if signals.difficulty == "measured" else 0
                answers += signals.samples * (end.rounds * splits["probe"] + measured)
        else:
            answers = int(JUDGED_SHARE * (once * (splits["probe"] + splits["gate"]) + splits["final"]))
        made.append(_Judged(data.grader_rubric, answers, held_out))
    for source in end.config.extra.values():
        if isinstance(source, FileSource) and source.grader == "judge" and source.grader_rubric:
            times = ARMS + (end.rounds - 1 if source.retention else 0)
            answers = times * source.items if end.most else 0  # it may have fewer items
            made.append(_Judged(source.grader_rubric, answers, held_out))
    return made


def judge_work(end: End) -> Work:
    """Answers of the student, and pairs of solutions of new questions."""
    made = Work()
    for rubric, answers, items in _judged(end):
        made = made.plus(_judging(end, rubric, answers, items))
    data, orders = end.config.data, _orders(end)
    if not (isinstance(data, FileSource) and data.grader == "judge" and data.grader_rubric and orders.drafts):
        return made
    order = _order(end, 0)
    solution = "x" * (SOLUTION_CHARS if end.most else 1)
    draft = _draft(end, order).model_copy(update={"gold": solution})
    pairs = comb(SOLUTIONS, 2) if end.most else 1  # three equal solutions are one pair
    asked = end.teacher.judging.question(
        data.grader_rubric, OpenAnswer(draft, "", solution), Purpose("judge", 1, order.skill.id)
    )
    return made.plus(end.step(pairs * orders.drafts, lambda _: asked, orders.drafts).times(orders.waves))


def second_judge_work(end: End) -> Work:
    """A sample of the student's answers, drawn with a share that chance moves: three standard deviations."""
    made, second = Work(), end.config.teacher.second_judge
    if second is None:
        return made
    endpoint = end.config.teacher.second_judge_endpoint
    for rubric, answers, items in _judged(end):
        spread = 3 * sqrt(answers * second.share * (1 - second.share))
        share = answers * second.share
        count = min(answers, ceil(share + spread)) if end.most else max(0, int(share - spread))
        made = made.plus(_judging(end, rubric, count, items, endpoint))
    return made


def _judging(end: End, rubric: str, count: int, items: Sequence[Example], endpoint: Endpoint | None = None) -> Work:
    def question(i: int) -> Question:
        answer = OpenAnswer(items[i % len(items)], "", end.answer)
        return end.teacher.judging.question(rubric, answer, Purpose("judge", 1), endpoint)

    # One evaluation after another: probe and gate of each round, and the arms of the end.
    return end.step(count, question, groups=2 * end.rounds + 1 + ARMS if end.most else 1)


WORK: dict[Role, Callable[[End], Work]] = {
    "skills": skills_work,
    "label": label_work,
    "diagnose": diagnose_work,
    "write": write_work,
    "solve": solve_work,
    "plan": plan_work,
    "judge": judge_work,
}
"""What each role is asked; a role that is new to a run gets a function here."""
