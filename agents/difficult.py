"""The difficult questions of a round's profile: wrong by gold, answered in five ways, or doubted step by step.

What is difficult is diagnosed; the probe is graded all the same. Scores of a process reward model are journalled one
by one; a killed stage goes on at the missing ones.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agents.evaluation import Evaluation, ask_five_times, evaluate_probe, profile_items
from agents.loop import Loop, stage_inputs
from agents.prompting import question_text
from agents.teacher import Failure
from curriculum.difficult import (
    DifficultFound,
    StepScores,
    answer_steps,
    compared_with_gold,
    is_difficult,
    step_turns,
)
from curriculum.records import StudentAnswer, Verdict
from curriculum.round_records import ItemConsistency
from curriculum.rundir import append_journal, open_journal, read_records, write_records
from student.interface import AdapterFiles, Progress
from student.step_scoring import Turns, score_locally, score_served

FOUND = "difficult.json"
"""In the folder of a round's diagnoses: how many questions are difficult, where gold answers do not say which."""
REWARD_KEY = "REWARD_API_KEY"


class Difficult(NamedTuple):
    """The difficult questions among those that a round's profile is made of."""

    folders: list[Path]
    """The stages that say so, besides the graded answers."""
    failures: list[Failure]
    found: DifficultFound | None
    """None where gold answers say what is difficult."""
    consistency: list[ItemConsistency]
    """Of the questions without a gold answer."""

    @property
    def ungraded(self) -> list[StudentAnswer]:
        """The answers to difficult questions that no gold answer was compared with."""
        return [failure.answer for failure in self.failures if failure.grade is None]


def difficult_questions(loop: Loop, adapter: AdapterFiles, round_: int) -> Difficult:
    """Which questions the adapter finds difficult, by `student.difficult`; asks and scores what is missing.

    Raises:
        StudentError: the engine failed on more than a tenth of the answers, or the reward model failed.
        StopRequested: a stop was asked for; everything answered and scored so far is journalled.
    """
    method, probe = loop.config.student.difficult, evaluate_probe(loop, adapter, round_)
    items = {example.id: example for example in profile_items(loop, round_)}
    asked = ask_five_times(loop, adapter, [e for e in items.values() if not e.gold or method == "disagreement"])
    first = {a.example_id: a for a in asked.answers if a.sample_index == 0} if asked else {}
    unsure = {item.example_id for item in asked.consistency if item.difficult} if asked else set()
    folders = [asked.folder] if asked else []
    failures: list[Failure] = []
    graded = list(zip(probe.answers, probe.grades, strict=True))
    if method == "gold":
        for answer, grade in graded:
            if grade.verdict not in (Verdict.CORRECT, Verdict.FAILED):
                failures.append(Failure(items[grade.example_id], answer, grade, loop.labels[grade.example_id]))
    elif method == "prm":
        folder, doubted = _doubted(loop, adapter, probe)
        folders.append(folder)
        for answer, grade in graded:
            if grade.example_id in doubted and grade.verdict is not Verdict.FAILED:
                label = loop.labels[grade.example_id]
                failures.append(Failure(items[grade.example_id], answer, None, label, "prm"))
    for id_ in sorted(unsure):
        failures.append(Failure(items[id_], first[id_], None, loop.labels[id_], "disagreement"))
    found = None
    if method != "gold":
        difficult = {failure.example.id for failure in failures}
        found = compared_with_gold(method, len(items), difficult, probe.grades)
    silent = [item for item in asked.consistency if not items[item.example_id].gold] if asked else []
    return Difficult(folders, failures, found, silent)


def _doubted(loop: Loop, adapter: AdapterFiles, probe: Evaluation) -> tuple[Path, set[str]]:
    """Where the scores of an adapter's answers are, and the questions that are difficult by them."""
    reward = loop.config.student.reward
    assert reward is not None, "the config was checked"
    grades = {grade.answer_id: grade for grade in probe.grades}
    turns: dict[str, list[str]] = {}
    for answer in probe.answers:
        steps = answer_steps(answer.text, grades[answer.id].extracted)
        turns[answer.id] = step_turns(question_text(loop.profiled[answer.example_id]), steps)
    example_of = {answer.id: answer.example_id for answer in probe.answers}
    what = f"step scores of {adapter.name}"

    def work(folder: Path) -> dict[str, int]:
        journal = folder / "scores.journal"
        scored = open_journal(journal, StepScores)
        done = {one.answer_id for one in scored}
        wanted = [(id_, of) for id_, of in turns.items() if id_ not in done]

        def keep(id_: str, scores: Sequence[float]) -> None:
            made = StepScores(answer_id=id_, example_id=example_of[id_], model=reward.model, scores=tuple(scores))
            append_journal(journal, made)
            scored.append(made)
            loop.progress(what, Progress(len(scored), len(turns), ""))
            loop.check_stop()

        for id_, of in wanted:
            if not of:  # nothing was said: there is no step to score
                keep(id_, ())
        for id_, scores in _scores(loop, [one for one in wanted if one[1]], folder / "reward.log"):
            keep(id_, scores)
        scored.sort(key=lambda one: one.example_id)
        write_records(folder / "scores.jsonl", scored)
        return {}

    folder = loop.run.stage_path("answers") / adapter.name / f"{probe.folder.name}_steps"
    loop.stage(folder, stage_inputs(loop, probe.folder), work)
    scored = read_records(folder / "scores.jsonl", StepScores)
    return folder, {one.example_id for one in scored if is_difficult(one.scores, reward.tau1, reward.tau2)}


def _scores(loop: Loop, answers: Sequence[Turns], log: Path) -> Iterator[tuple[str, Sequence[float]]]:
    config = loop.config.student
    assert config.reward is not None, "the config was checked"
    if not answers:
        return iter(())
    if config.reward.base_url is not None:
        return score_served(answers, config.reward, os.environ.get(REWARD_KEY, "none"))
    return score_locally(answers, config.reward, config.threads, log)
