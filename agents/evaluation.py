"""Answers and grades of one adapter on one split: a stage of its own, so each is made once per run.

The probe, the gate, the final split and the extra sets all go through here. Answers are journalled one by one; a killed
evaluation goes on at the missing ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from agents.loop import Loop, write_failures
from curriculum.errors import StudentError, UserError
from curriculum.extraction import taught_text
from curriculum.gate import MAX_FAILED_SHARE
from curriculum.grading import Grader
from curriculum.judging import judge_failures
from curriculum.records import Arm, Example, Grade, Message, Sampling, Split, StudentAnswer, content_id
from curriculum.round_records import ItemConsistency, ItemSignals
from curriculum.rundir import append_journal, open_journal, read_records, record_cost, write_record, write_records
from curriculum.signals import SAMPLES_WITHOUT_GOLD, item_consistency, item_signals
from curriculum.student_config import SignalsConfig
from student.chat_format import prompt_messages
from student.interface import AdapterFiles, Progress, Prompt

PROFILE_SET = "profile_set"
"""The folder of answers to the extra set that profiles are made of; no split and no set has that name."""
SERVING = "serving.json"
"""Beside the answers, where a server gave them: which weights, and how that was checked."""


@dataclass(frozen=True)
class Evaluation:
    """What one adapter answered on one split, sorted by example id, and where it is kept; read when it is asked for."""

    folder: Path

    @cached_property
    def answers(self) -> list[StudentAnswer]:
        """One an item."""
        return read_records(self.folder / "answers.jsonl", StudentAnswer)

    @cached_property
    def grades(self) -> list[Grade]:
        """One an answer."""
        return read_records(self.folder / "grades.jsonl", Grade)


def evaluate_split(loop: Loop, adapter: AdapterFiles, split: Split, arm: Arm = "plain") -> Evaluation:
    """Answers and grades of an adapter on the items of a split that have a gold answer, made now or read from disk.

    Raises:
        StudentError: the engine failed on more than a tenth of the items.
        StopRequested: a stop was asked for; everything answered so far is journalled.
    """
    return _evaluate(loop, adapter, [e for e in loop.split(split) if e.gold], split, arm, loop.grader)


def profile_items(loop: Loop, round_: int) -> list[Example]:
    """The labelled items that a round's profile is made of, sorted by id: the probe's, or those of an extra set."""
    name = loop.config.profile_set(round_)
    return loop.split("probe") if name is None else [e for e in loop.extra[name] if e.id not in loop.unlabelled]


def evaluate_probe(loop: Loop, adapter: AdapterFiles, round_: int) -> Evaluation:
    """Answers and grades of an adapter on the items that a round's profile is made of; as `evaluate_split`."""
    name = loop.config.profile_set(round_)
    if name is None:
        return evaluate_split(loop, adapter, "probe")
    # Apart from what the final test asks of the same set, which is the items without a label, too.
    return _evaluate(loop, adapter, profile_items(loop, round_), PROFILE_SET, "plain", loop.extra_graders[name])


def evaluate_extra(loop: Loop, adapter: AdapterFiles, name: str, arm: Arm) -> Evaluation:
    """The same on an extra set."""
    # No split's name has a hyphen, and no set's an underscore: the folders of two are never one.
    return _evaluate(loop, adapter, loop.extra[name], f"extra-{name}", arm, loop.extra_graders[name])


class Sampled(NamedTuple):
    """What an adapter's drawn answers on one split say of its items, sorted by example id, and where it is kept."""

    folder: Path
    signals: list[ItemSignals]


def sample_split(loop: Loop, adapter: AdapterFiles, split: Split) -> Sampled:
    """Several drawn answers of an adapter to each item of a split, labelled or not, as `student.signals` says.

    Raises:
        StudentError: the engine failed on more than a tenth of the answers.
        StopRequested: a stop was asked for; everything answered so far is journalled.
    """
    config = loop.config.student
    assert config.signals is not None
    sampling, samples = config.drawn(loop.config.seed, config.signals), config.signals.samples
    examples = sorted((e for e in loop.examples.values() if e.split == split and e.gold), key=lambda e: e.id)
    name = f"{split}_samples"

    def work(folder: Path) -> dict[str, int]:
        prompts = student_prompts(loop, examples, "plain")
        made = _answer(loop, prompts, adapter, sampling, folder, f"{name} of {adapter.name}", samples)
        answers = sorted(made, key=lambda a: (a.example_id, a.sample_index))
        grades = _graded(loop.grader, [(loop.examples[a.example_id], a) for a in answers], folder)
        write_records(folder / "signals.jsonl", item_signals(answers, grades))
        return {}

    folder = loop.run.stage_path("answers") / adapter.name / name
    loop.stage(folder, _inputs(loop, adapter, "plain"), work)
    return Sampled(folder, read_records(folder / "signals.jsonl", ItemSignals))


class Asked(NamedTuple):
    """Five answers to each of some items, sorted by example id and sample, and where they are."""

    folder: Path
    answers: list[StudentAnswer]
    consistency: list[ItemConsistency]


def ask_five_times(loop: Loop, adapter: AdapterFiles, examples: Sequence[Example]) -> Asked | None:
    """Five drawn answers to each of the items of a profile, sorted by id; none where there are no items.

    Raises:
        StudentError: the engine failed on more than a tenth of the answers.
        StopRequested: a stop was asked for; everything answered so far is journalled.
    """
    if not examples:
        return None
    config, samples = loop.config.student, SAMPLES_WITHOUT_GOLD
    sampling = config.drawn(loop.config.seed, config.signals or SignalsConfig(samples=samples))
    of = "probe" if examples[0].id in loop.examples else PROFILE_SET
    name = f"{of}_five_times" if any(e.gold for e in examples) else "probe_without_gold"
    grader = loop.grader_of(examples[0])

    def work(folder: Path) -> dict[str, int]:
        prompts = student_prompts(loop, examples, "plain")
        made = _answer(loop, prompts, adapter, sampling, folder, f"{name} of {adapter.name}", samples)
        answers = sorted(made, key=lambda a: (a.example_id, a.sample_index))
        _check_failed(folder, [a.error or "" for a in answers if a.finish_reason == "error"], len(answers))
        consistency = []
        for at, example in enumerate(examples):
            of_item = answers[at * samples : (at + 1) * samples]
            consistency.append(item_consistency(of_item, partial(grader.agree, example)))
        write_records(folder / "answers.jsonl", answers)
        write_records(folder / "consistency.jsonl", consistency)
        record_cost(folder, tokens=sum(a.prompt_tokens + a.completion_tokens for a in answers))
        return {}

    inputs = _inputs(loop, adapter, "plain") | {"items": content_id([e.id for e in examples], 64)}
    folder = loop.run.stage_path("answers") / adapter.name / name
    loop.stage(folder, inputs, work)
    answers = read_records(folder / "answers.jsonl", StudentAnswer)
    return Asked(folder, answers, read_records(folder / "consistency.jsonl", ItemConsistency))


def _evaluate(
    loop: Loop, adapter: AdapterFiles, examples: Sequence[Example], of: str, arm: Arm, grader: Grader
) -> Evaluation:
    sampling = loop.config.student.sampling(loop.config.seed)
    name = of if arm == "plain" else f"{of}_{arm}"
    inputs = _inputs(loop, adapter, arm)
    if loop.unlabelled:
        inputs["items"] = content_id([e.id for e in examples], 64)

    def work(folder: Path) -> dict[str, int]:
        prompts = student_prompts(loop, examples, arm)
        answers = _answer(loop, prompts, adapter, sampling, folder, f"{name} answers of {adapter.name}")
        by_id = {a.example_id: a for a in answers}
        grades = _graded(grader, [(e, by_id[e.id]) for e in examples], folder)
        return {"answers": len(answers), "failed": sum(g.verdict == "failed" for g in grades)}

    folder = loop.run.stage_path("answers") / adapter.name / name
    loop.stage(folder, inputs, work)
    return Evaluation(folder)


def _inputs(loop: Loop, adapter: AdapterFiles, arm: Arm) -> dict[str, str]:
    return {
        "identity": loop.config.identity_hash,
        "examples": loop.run.outputs_hash(loop.run.stage_path("prepare")),
        "base": loop.base_hash,
        "adapter": adapter.name,
        "prompt": loop.prompt.hash,
        "arm": arm,
    }


def _graded(grader: Grader, answers: Sequence[tuple[Example, StudentAnswer]], folder: Path) -> list[Grade]:
    """Grades the answers of a stage and writes both into its folder."""
    grades = grader.grade(answers)
    failed = [g for g in grades if g.verdict == "failed"]
    _check_failed(folder, [g.reason for g in failed], len(grades), judged=any(g.judged for g in failed))
    write_failures(
        folder, [f for g in grades if g.judged for f in judge_failures(g.answer_id, g.judged.first, g.judged.second)]
    )
    write_records(folder / "answers.jsonl", [answer for _, answer in answers])
    write_records(folder / "grades.jsonl", grades)
    record_cost(folder, tokens=sum(a.prompt_tokens + a.completion_tokens for _, a in answers))
    return grades


def _check_failed(folder: Path, reasons: Sequence[str], answers: int, judged: bool = False) -> None:
    if len(reasons) <= MAX_FAILED_SHARE * answers:
        return
    said = f"{MAX_FAILED_SHARE:.0%} may; the first: {reasons[0]}"
    if judged:
        raise UserError(
            f"{folder}: {len(reasons)} of {answers} answers got no verdict of the judge, at most {said}. Its "
            "verdicts are kept: begin a new run with a clearer grader_rubric or another model for the role judge"
        )
    raise StudentError(f"{folder}: {len(reasons)} of {answers} answers failed on our side, at most {said}")


def graded_answers(
    loop: Loop, asked: Sequence[tuple[Example, Prompt]], adapter: AdapterFiles, sampling: Sampling, folder: Path
) -> list[tuple[StudentAnswer, Grade]]:
    """One answer of an adapter to each of some prompts, with its grade, in the order given; for stages of other kinds.

    Both are written into a folder inside the stage's.

    Raises:
        StudentError: the engine failed on more than a tenth of the answers.
        StopRequested: a stop was asked for; everything answered so far is journalled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = _answer(loop, [prompt for _, prompt in asked], adapter, sampling, folder, f"{folder.name} of {adapter.name}")
    by_id = {a.example_id: a for a in made}
    answers = [by_id[example.id] for example, _ in asked]
    grades = loop.grader.grade([(example, by_id[example.id]) for example, _ in asked])
    _check_failed(folder, [g.reason for g in grades if g.verdict == "failed"], len(grades))
    write_records(folder / "answers.jsonl", answers)
    write_records(folder / "grades.jsonl", grades)
    return list(zip(answers, grades, strict=True))


def plain_prompt(loop: Loop, id_: str, history: Sequence[Message], question: str) -> Prompt:
    """The chat turns the student sees for a question, without examples, under an id."""
    return Prompt(id_, "plain", prompt_messages(loop.prompt.text, history, question))


def student_prompts(loop: Loop, examples: Sequence[Example], arm: Arm) -> list[Prompt]:
    """The chat turns the student sees for each example; few-shot examples are the config's, or come from the pool."""
    shown = _shown(loop) if arm == "few_shot" else []
    return [Prompt(e.id, arm, prompt_messages(loop.prompt.text, e.history, e.question, shown)) for e in examples]


def _shown(loop: Loop) -> list[tuple[str, str]]:
    given = loop.config.student.few_shot_examples
    if given is not None:
        return [(shot.question, shot.answer) for shot in given]
    return [(e.question, taught_text(e)) for e in few_shot_examples(loop)]


def few_shot_examples(loop: Loop) -> list[Example]:
    """Pool examples of different skills, the easiest of each, fixed for the run."""
    pool = sorted(loop.split("pool"), key=lambda e: (loop.labels[e.id].difficulty, e.id))
    one_per_skill = {loop.labels[e.id].skills: e for e in reversed(pool)}
    spread = sorted(one_per_skill.values(), key=lambda e: e.id)
    return spread[: loop.config.student.few_shot]


def _answer(
    loop: Loop,
    prompts: list[Prompt],
    adapter: AdapterFiles,
    sampling: Sampling,
    folder: Path,
    what: str,
    samples: int | None = None,
) -> list[StudentAnswer]:
    journal = folder / "answers.journal"
    answers = open_journal(journal, StudentAnswer)
    finished = {a.id for a in answers}
    log = folder / "engine.log"
    last = None
    wanted = len(prompts) * (samples or 1)
    loop.progress(what, Progress(len(answers), wanted, ""))
    for answer in loop.student.answer(prompts, adapter, sampling, finished, log, samples):
        serving = loop.student.serving()
        if serving is not None and serving != last:
            # Before the first answer is kept: whatever answered is on record, also when this is cut off.
            write_record(folder / SERVING, serving)
            last = serving
        append_journal(journal, answer)
        answers.append(answer)
        loop.progress(what, Progress(len(answers), wanted, ""))
        loop.check_stop()
    missing = wanted - len(answers)
    if missing:
        raise StudentError(f"{folder}: the engine ended with {missing} of {wanted} answers missing; see {log}")
    return answers
