"""What teachers are compared on: probe answers of a run, questions with recorded labels, or pool questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agents.progress import ProgressPrinter
from agents.teacher_check import sample_of_pool
from curriculum.config import Config, load_config
from curriculum.data import read_labels
from curriculum.errors import RunDirError, UserError
from curriculum.mixture import index_pool
from curriculum.records import (
    BASE,
    Diagnosis,
    Example,
    Grade,
    Skill,
    SkillCatalogue,
    SkillLabel,
    StudentAnswer,
    Verdict,
    content_id,
)
from curriculum.rundir import DONE, RunDir, read_json, read_record, read_records
from curriculum.teacher_config import TeacherConfig


class RunSample(NamedTuple):
    """What a run knows of its probe: the base's graded answers, its own teacher's labels and diagnoses."""

    path: Path
    answers: Mapping[str, StudentAnswer]
    grades: Mapping[str, Grade]
    labels: Mapping[str, SkillLabel]
    diagnoses: Sequence[Diagnosis]
    diagnosed: bool
    """Whether its teacher was done with them."""
    edited: SkillCatalogue
    """The catalogue after a person's edits."""
    moved: Mapping[str, str | None]
    pool_sizes: Mapping[str, Mapping[int, int]]
    teacher: TeacherConfig | None
    """Who its teacher was; none where its config is another version's."""


class Sample(NamedTuple):
    """The questions, by chance that the seed fixes, and what goes with them."""

    examples: list[Example]
    catalogue: SkillCatalogue | None
    """What the teachers label with; none where the first of them has to name the skills."""
    pool: list[Example]
    """What skills are named on."""
    run: RunSample | None = None
    recorded: Mapping[str, tuple[str, ...]] | None = None
    """Example → the skills that a label file gives it."""


def choose_sample(
    config: Config, teachers: int, run: Path | None, labels: Path | None, items: int, progress: ProgressPrinter
) -> Sample:
    """What is asked for: the probe of a run, questions with recorded labels, or else pool questions.

    Raises:
        UserError: nothing to compare with, or a run and recorded labels together; and what the three raise.
    """
    if teachers < 2 and labels is None:
        raise UserError("expected something to compare with, got nothing. Give --with OTHER, or --labels FILE, or both")
    if run is not None and labels is not None:
        raise UserError("expected one of --run and --labels, got both: a run has skills of its own. Leave one out")
    if run is not None:
        return sample_of_run(run, config.seed, items)
    return sample_with_labels(config, labels, items, progress) if labels else sample_of_data(config, items, progress)


def sample_of_run(path: Path, seed: int, items: int) -> Sample:
    """At most `items` probe items of a run, finished or not, with the base's answers. Nothing of the run is written.

    Raises:
        RunDirError: no run, or it has not come to the base's probe answers and labels yet.
    """
    run = RunDir(path)
    answered = run.stage_path("answers") / BASE / "probe"
    if not (path / "run.json").is_file():
        raise RunDirError(f"{path}: expected a run's folder with a run.json. Give another --run")
    for folder in (run.stage_path("label"), answered):
        if not (folder / DONE).exists():
            raise RunDirError(
                f"{folder}: expected a run that has labelled its examples and has the base's probe answers, got one "
                f"that has not come so far. Go on with: tutelage resume {path}"
            )
    answers = {a.example_id: a for a in read_records(answered / "answers.jsonl", StudentAnswer)}
    grades = {g.example_id: g for g in read_records(answered / "grades.jsonl", Grade) if g.verdict != Verdict.FAILED}
    labels = {r.example_id: r for r in read_records(run.stage_path("label") / "labels.jsonl", SkillLabel)}
    every = {e.id: e for e in read_records(run.stage_path("prepare") / "examples.jsonl", Example)}
    chosen = sorted((every[i] for i in grades), key=lambda e: content_id([seed, "compare", e.id]))[:items]
    edited = read_record(run.stage_path("catalogue") / "skills.json", SkillCatalogue)
    proposed, moved = run.stage_path("catalogue") / "proposed.json", run.stage_path("catalogue") / "moved.json"
    diagnosed = run.round_stage(0, "diagnose")
    pool = (r for r in labels.values() if every[r.example_id].split == "pool")
    known = RunSample(
        path=path,
        answers=answers,
        grades={e.id: grades[e.id] for e in chosen},
        labels=labels,
        diagnoses=read_records(diagnosed / "diagnoses.jsonl", Diagnosis) if (diagnosed / DONE).exists() else [],
        diagnosed=(diagnosed / DONE).exists(),
        edited=edited,
        moved=dict(read_json(moved)["moved"]) if moved.exists() else {},
        pool_sizes=index_pool((r.example_id, r.skills, r.difficulty) for r in pool).sizes(),
        teacher=_teacher_of(path),
    )
    return Sample(chosen, read_record(proposed, SkillCatalogue) if proposed.exists() else edited, [], known)


def _teacher_of(run: Path) -> TeacherConfig | None:
    try:
        return load_config(run / "config.yaml").teacher
    except UserError:
        return None


def sample_with_labels(config: Config, path: Path, items: int, progress: ProgressPrinter) -> Sample:
    """At most `items` pool questions that a label file names the skills of; its skills are the catalogue.

    Raises:
        DataError: the file is missing, or is not one.
        UserError: it has no question of the data.
    """
    labels = read_labels(path)
    pool = [e for e in sample_of_pool(config, None, progress) if labels.get(e.question)]
    if not pool:
        raise UserError(
            f"{path}: expected skills of the data's questions, got none of them: give the label file of this data set"
        )
    recorded = {e.id: tuple(dict.fromkeys(labels[e.question])) for e in pool[:items]}
    names = sorted({skill for skills in labels.values() for skill in skills})
    skills = tuple(Skill(id=name, name=name.replace("_", " "), writable=True) for name in names)
    return Sample(pool[:items], SkillCatalogue(teacher="recorded", skills=skills), [], recorded=recorded)


def sample_of_data(config: Config, items: int, progress: ProgressPrinter) -> Sample:
    """At most `items` pool questions of the config's data."""
    pool = sample_of_pool(config, None, progress)
    return Sample(pool[:items], None, pool)
