"""Two teachers on the same sample: how far labels and diagnoses agree, what they cost, what would be planned of them.

Each has a ledger of its own, so that what was bought is never bought again, whoever it is compared with next; what a
run's own teacher said already is taken over. Says nothing of who is right, unless labels are recorded.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from agents.compare_sample import RunSample, Sample
from agents.contender import Contender, announce, close_teacher, failures_of, identity
from agents.progress import ProgressPrinter
from curriculum.agreement import agreement
from curriculum.catalogue_file import mapped
from curriculum.config import Config
from curriculum.errors import UserError
from curriculum.plan import make_plan
from curriculum.profile import build_profile
from curriculum.records import (
    BASE,
    Diagnosis,
    SkillCatalogue,
    SkillLabel,
)
from curriculum.round_records import RoundPlan
from curriculum.rundir import RunDir, write_record
from curriculum.teacher_measures import Labeller, Pair, PlannedSkill, TeacherComparison
from curriculum.teacher_records import TeacherFailure

RESULT = "compare.json"
RECORDED = "recorded"
NEEDS_A_RUN = (
    "Diagnoses and plans were not compared: they need failed answers of a student. Give a run that has answered its "
    "probe: --run RUN"
)


class _Said(NamedTuple):
    """What one of them said of the sample, in the skills of the edited catalogue."""

    labels: dict[str, SkillLabel]
    diagnoses: dict[str, Diagnosis]
    """By example."""
    failures: list[TeacherFailure]


def compare_teachers(
    configs: Sequence[Config], sample: Sample, folder: Path, progress: ProgressPrinter
) -> TeacherComparison:
    """Has every teacher label the sample, and diagnose its failures where a run is given; compares what they said.

    Args:
        configs: one for each teacher, which say who it is; the first one's `plan`, `seed` and names of skills count.
        sample: what they are asked.
        folder: keeps each teacher's ledger, and the result.
        progress: is told what is sent at most, and how far it is.

    Raises:
        UserError: no key, the skills could not be named, or an endpoint refuses the key or the model.
        BudgetReached: a limit of a config's `teacher.budget` was reached.
        TeacherUnavailable: an endpoint is down.
    """
    if len({identity(config) for config in configs}) < len(configs):
        raise UserError(
            "--with: expected another teacher, got the same one twice. Change its model: --with-set KEY=VALUE"
        )
    with RunDir(folder):
        sides = [Contender(name, config, folder) for name, config in zip(_names(configs), configs, strict=True)]
        announce(sides, sample, progress)
        catalogue = sample.catalogue or _named(sides[0], sample, progress)
        said = [_ask(side, sample, catalogue, progress) for side in sides]
        made = _compared(folder, sides, said, sample, catalogue)
        write_record(folder / RESULT, made)
        return made


def _names(configs: Sequence[Config]) -> list[str]:
    names = [c.teacher.endpoint("label").model if c.teacher.kind == "llm" else "offline" for c in configs]
    return names if len(set(names)) == len(names) else [f"{name} {n}" for n, name in enumerate(names, 1)]


def _named(side: Contender, sample: Sample, progress: ProgressPrinter) -> SkillCatalogue:
    """The skills as the first teacher names them, or as the data declare them."""
    teacher = side.teacher(progress)
    try:
        return teacher.propose_skills(sample.pool)
    finally:
        close_teacher(teacher)


def _ask(side: Contender, sample: Sample, catalogue: SkillCatalogue, progress: ProgressPrinter) -> _Said:
    run = sample.run
    ids = {e.id for e in sample.examples}
    if run is not None and side.taken_over:
        diagnoses = {d.example_id: d for d in run.diagnoses if d.example_id in ids}
        return _Said({i: r for i, r in run.labels.items() if i in ids}, diagnoses, [])
    moved = run.moved if run is not None else {}
    said = _Said({}, {}, [])
    teacher = side.teacher(progress)
    try:
        for made in teacher.label(sample.examples, catalogue):
            if isinstance(made, SkillLabel) and (skills := mapped(made.skills, moved)):
                said.labels[made.example_id] = made.model_copy(update={"skills": skills})
            elif isinstance(made, TeacherFailure):
                said.failures.append(made)
        if run is not None:
            for found in teacher.diagnose(failures_of(sample, {**run.labels, **said.labels}), catalogue, 0):
                if isinstance(found, Diagnosis) and (skills := mapped(found.missing_skills, moved)):
                    said.diagnoses[found.example_id] = found.model_copy(update={"missing_skills": skills})
                elif isinstance(found, TeacherFailure):
                    said.failures.append(found)
    finally:
        close_teacher(teacher)
    return said


def _compared(
    folder: Path, sides: Sequence[Contender], said: Sequence[_Said], sample: Sample, catalogue: SkillCatalogue
) -> TeacherComparison:
    skills = [(side.name, {i: r.skills for i, r in of.labels.items()}) for side, of in zip(sides, said, strict=True)]
    levels = [{i: r.difficulty for i, r in of.labels.items()} for of in said]
    pairs = []
    if sample.recorded is not None:
        pairs += [Pair(first=RECORDED, second=name, labels=agreement(sample.recorded, of)) for name, of in skills]
    if len(sides) == 2:
        missing = [{i: d.missing_skills for i, d in of.diagnoses.items()} for of in said]
        pairs.append(
            Pair(
                first=sides[0].name,
                second=sides[1].name,
                labels=agreement(skills[0][1], skills[1][1], (levels[0], levels[1])),
                diagnoses=agreement(missing[0], missing[1]) if sample.run is not None else None,
            )
        )
    planned: tuple[PlannedSkill, ...] = ()
    moved, notes = None, [] if sample.run is not None else [NEEDS_A_RUN]
    if sample.run is not None and len(sides) == 2:
        planned, moved, note = _planned(sides, said, sample, sample.run)
        notes += note
    return TeacherComparison(
        folder=str(folder),
        run=None if sample.run is None else str(sample.run.path),
        announced="; ".join(f"{side.name}: {side.announced}" for side in sides),
        items=len(sample.examples),
        labellers=tuple(_labeller(side, of) for side, of in zip(sides, said, strict=True)),
        pairs=tuple(pairs),
        plan=planned,
        moved=moved,
        notes=tuple(notes),
    )


def _labeller(side: Contender, said: _Said) -> Labeller:
    return Labeller(
        name=side.name,
        models=side.models,
        labelled=len(said.labels),
        diagnosed=len(said.diagnoses),
        failed=dict(Counter(f"{f.role}: {f.kind}" for f in said.failures)),
        taken_over=side.taken_over,
        spend=side.ledger.spend() if side.ledger is not None and not side.taken_over else (),
    )


def _planned(
    sides: Sequence[Contender], said: Sequence[_Said], sample: Sample, run: RunSample
) -> tuple[tuple[PlannedSkill, ...], float | None, Iterable[str]]:
    """The first round's plan by each teacher's labels and diagnoses, on the items that both labelled."""
    both = said[0].labels.keys() & said[1].labels.keys()
    plans: list[RoundPlan] = []
    for side, of in zip(sides, said, strict=True):
        grades = [grade for i, grade in run.grades.items() if i in both]
        diagnoses = [d for i, d in of.diagnoses.items() if i in both]
        profile = build_profile(0, BASE, of.labels, grades, diagnoses, run.edited)
        teacher = side.teacher(ProgressPrinter())
        levels = {s.id: teacher.levels(s.id) for s in run.edited.skills if s.writable}
        close_teacher(teacher)
        plans.append(make_plan(1, sides[0].config, profile, run.edited, run.pool_sizes, [], levels, 0))
    stops = [
        f"{s.name} would have planned to stop: {p.stop_reason}"
        for s, p in zip(sides, plans, strict=True)
        if not p.skills
    ]
    if stops:
        return (), None, stops
    rows = tuple(
        PlannedSkill(skill=a.skill, missing=(a.missing, b.missing), shares=(a.share, b.share))
        for a, b in zip(plans[0].skills, plans[1].skills, strict=True)
    )
    return rows, sum(abs(r.shares[0] - r.shares[1]) for r in rows) / 2, ()
