"""A proposed plan as a person is shown it: gathered from the run, written as `proposal.json` and `plan.html`.

Both lie in the round's folder, beside its stages: they are views, and nothing of a round depends on them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agents.history import adapter_before, pool_index, read_mastery, read_profile, written_levels
from agents.loop import Loop
from agents.ranking import not_ranked
from agents.round_forecast import round_forecast
from agents.teach import Made, chosen_rows, write_order, write_rows
from curriculum.approval import plan_decision
from curriculum.errors import RunDirError
from curriculum.extraction import taught_text
from curriculum.mixture import Pool, stat_sel_weights
from curriculum.plan_file import APPROVED, PROPOSED, read_approval, read_proposed
from curriculum.proposal import Proposal, ProposedSkill, SampleRow
from curriculum.proposal_views import render_html
from curriculum.records import Example, Skill
from curriculum.report_samples import cut
from curriculum.round_records import RoundPlan, SkillPlan, TrainingRow
from curriculum.rundir import RunDir, read_record, write_atomic, write_record

PROPOSAL, PAGE = "proposal.json", "plan.html"
ROWS_OF_SKILL = 3
"""Pool rows of a skill, and replayed rows of a round, that are shown."""
MOST_CHARACTERS = 400
"""Of a question or a target."""


def show_proposal(loop: Loop, round_: int, asked_anew: str = "") -> Path:
    """Writes what a person is shown of a round's proposed plan; returns the page."""
    write_record(_folder(loop.run, round_) / PROPOSAL, gather(loop, round_, asked_anew))
    return write_page(loop.run, round_)


def write_page(run: RunDir, round_: int) -> Path:
    """Writes the page of a plan that was gathered, with the decision on it if there is one."""
    made = read_proposal(run, round_)
    approval = read_approval(run.round_stage(round_, "approve") / APPROVED)
    path = _folder(run, round_) / PAGE
    decision = plan_decision(made.plan, approval) if approval.approved else None
    write_atomic(path, render_html(made, decision, str(run.path)))
    return path


def read_proposal(run: RunDir, round_: int) -> Proposal:
    """What was gathered of a round's plan.

    Raises:
        RunDirError: it is not there, or damaged.
    """
    path = _folder(run, round_) / PROPOSAL
    if not path.is_file():
        raise RunDirError(f"{path}: expected what is shown of the plan. To have it made: tutelage resume {run.path}")
    return read_record(path, Proposal)


def _folder(run: RunDir, round_: int) -> Path:
    return run.round_stage(round_, "plan").parent


def gather(loop: Loop, round_: int, asked_anew: str = "") -> Proposal:
    """What a person needs to judge a round's proposed plan; asks no teacher and draws nothing that is kept."""
    plan = read_proposed(loop.run.round_stage(round_, "plan") / PROPOSED)
    pool, levels = pool_index(loop), written_levels(loop)
    drawn, rows = chosen_rows(loop, plan, Made([], [], [], []))
    dropped = [s.name for s in loop.proposed.skills if loop.moved_skills.get(s.id, s.id) is None]
    return Proposal(
        run=loop.name,
        round=round_,
        rounds=loop.config.rounds,
        base=loop.config.student.base,
        teacher=loop.config.teacher.called,
        plan=plan,
        skills=_skills(loop, plan, pool, rows),
        dropped_skills=tuple(dropped),
        replay=tuple(_taught("replay", row) for row in [r for r in rows if r.origin == "replay"][:ROWS_OF_SKILL]),
        short_of_rows=drawn.shortfall,
        ranked_by=loop.config.plan.rank,
        not_ranked=not_ranked(loop, loop.adapter_files(*adapter_before(loop, round_))) or "",
        forecast=round_forecast(loop, plan),
        asked_anew=asked_anew,
        catalogue=loop.catalogue,
        pool_sizes={skill: dict(sizes) for skill, sizes in pool.sizes().items()},
        written_levels={skill: tuple(of) for skill, of in levels.items()},
    )


def _skills(loop: Loop, plan: RoundPlan, pool: Pool, rows: Sequence[TrainingRow]) -> tuple[ProposedSkill, ...]:
    known = {s.id: s for s in loop.skills}
    probe = {s.skill: s.accuracy for s in read_profile(loop, plan.round).skills}
    state = {s.skill: s.state for s in read_mastery(loop, plan.round).skills}
    pool_rows, written = _pool_sample(plan, pool, rows), _written_sample(loop, plan)
    drawn = Counter(row.skill for row in rows if row.origin == "pool")
    ordered = sorted(plan.skills, key=lambda part: (-part.missing, part.skill))
    return tuple(
        ProposedSkill(
            plan=part,
            name=known[part.skill].name,
            description=known[part.skill].description,
            merged=_merged(loop, known[part.skill]),
            probe=probe.get(part.skill),
            state=state.get(part.skill),
            pool_items=len(pool.members.get(part.skill, ())),
            rows=(*pool_rows[part.skill], *written.get(part.skill, ())),
            drawn=drawn[part.skill],
        )
        for part in ordered
    )


def _merged(loop: Loop, skill: Skill) -> tuple[str, ...]:
    """The names under which a skill was merged: a teacher's, and of skills that a person merged into it."""
    names = {s.id: s.name for s in loop.proposed.skills}
    return tuple(dict.fromkeys(names.get(alias, alias) for alias in skill.aliases if alias != skill.name))


def _pool_sample(plan: RoundPlan, pool: Pool, rows: Iterable[TrainingRow]) -> Mapping[str, Sequence[SampleRow]]:
    """The first pool rows of each skill, by id, as the plan draws them."""
    of_skill: defaultdict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        if row.origin == "pool" and len(of_skill[row.skill]) < ROWS_OF_SKILL:
            of_skill[row.skill].append(row)
    weights = stat_sel_weights(
        {part.skill: part.pool_rows for part in plan.skills},
        {id_: set(skills) for id_, skills in zip(pool.ids, pool.skills, strict=True)},
    )
    return defaultdict(
        list,
        {skill: [_taught("pool", r, float(weights[r.example_id])) for r in of] for skill, of in of_skill.items()},
    )


def _taught(kind: str, row: TrainingRow, expected: float | None = None) -> SampleRow:
    return SampleRow.model_validate(
        {
            "kind": kind,
            "skill": row.skill,
            "example_id": row.example_id,
            "difficulty": row.difficulty,
            "question": cut(row.question, MOST_CHARACTERS),
            "target": cut(row.target, MOST_CHARACTERS),
            "layer": row.layer,
            "uses": row.repeat,
            "expected": expected,
        }
    )


def _written_sample(loop: Loop, plan: RoundPlan) -> Mapping[str, Sequence[SampleRow]]:
    """For each order its first row, where a generator makes it; else the first seed that its writer will be shown."""
    if loop.config.teacher.kind == "offline":
        return _generated(loop, plan)
    from agents.writing import drawn_seeds  # and with it the client, which an offline run does not need

    pool, made = loop.split("pool"), defaultdict[str, list[SampleRow]](list)
    for part, level in _orders(plan):
        seeds = [e for e in pool if part.skill in loop.labels[e.id].skills]
        shown = drawn_seeds(write_order(loop, plan, part.skill, level, 1, seeds), 0, 0)
        made[part.skill] += [_sample("seed", e, part.skill, loop.labels[e.id].difficulty) for e in shown[:1]]
    return made


def _generated(loop: Loop, plan: RoundPlan) -> Mapping[str, Sequence[SampleRow]]:
    """The offline teacher calls nobody: one row of each order is made now, by the seed that makes it again."""
    one = [
        part.model_copy(update={"written_rows": {at: 1 for at, n in part.written_rows.items() if n}})
        for part in plan.skills
    ]
    silent = replace(loop, progress=lambda what, progress: None)
    rows = write_rows(silent, plan.model_copy(update={"skills": tuple(one)}))
    level = {label.example_id: label.difficulty for label in rows.labels}
    made = defaultdict[str, list[SampleRow]](list)
    for example, skill in sorted(rows.rows, key=lambda pair: (pair[1], level[pair[0].id])):
        made[skill].append(_sample("generated", example, skill, level[example.id]))
    return made


def _orders(plan: RoundPlan) -> list[tuple[SkillPlan, int]]:
    return [(part, level) for part in plan.skills for level, rows in sorted(part.written_rows.items()) if rows]


def _sample(kind: str, example: Example, skill: str, difficulty: int) -> SampleRow:
    return SampleRow.model_validate(
        {
            "kind": kind,
            "skill": skill,
            "example_id": example.id,
            "difficulty": difficulty,
            "question": cut(example.question, MOST_CHARACTERS),
            "target": cut(taught_text(example), MOST_CHARACTERS),
            "layer": "",
            "uses": 0,
        }
    )
