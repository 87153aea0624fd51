"""The two nodes that teach: `build` makes a round's training set, `train` the adapter."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.bindings import bound_rows
from agents.demonstrations import read_shots, write_demonstrations, write_weights
from agents.history import accepted_rounds, gate_folder, pool_index
from agents.loop import Loop, State, stage_inputs, write_failures
from agents.pool_difficulty import draw_by_difficulty, pool_difficulty, with_bins
from agents.ranking import RANK, Ranked, rank_pool
from agents.targets import target_texts
from agents.teacher import WriteOrder
from agents.unwanted import drop_unwanted, unwanted_inputs
from curriculum.duplicates import SeenQuestions
from curriculum.errors import DataError, TrainingError, UserError
from curriculum.extraction import taught_texts
from curriculum.mixture import PoolDraw, draw_pool, training_rows
from curriculum.ranking import planned_items, with_standings
from curriculum.records import BASE, Example, SkillLabel, content_id
from curriculum.round_records import Adapter, DroppedRow, RoundPlan, TrainingRow
from curriculum.rundir import file_hash, read_records, record_cost, write_json, write_record, write_records
from curriculum.splits import assert_no_leak, leaks, normalise
from curriculum.teacher_records import TeacherFailure
from student.interface import Progress, TrainingResult, TrainingSettings


def build(loop: Loop, state: State) -> State:
    """Pool rows, newly written rows and replay become the round's training set."""
    round_ = state["round"]
    earlier = earlier_outputs(loop, round_)
    ranked = _ranked(loop, state)
    if loop.plan(round_).difficulty is not None:
        earlier += pool_difficulty(loop, round_).folders
    read = [
        loop.run.stage_path("label"),
        loop.run.round_stage(round_, "approve"),
        *earlier,
        *([ranked.folder] if ranked else []),
    ]
    inputs = stage_inputs(loop, *read) | unwanted_inputs(loop)

    def work(folder: Path) -> Mapping[str, Any]:
        plan = loop.plan(round_)
        made = write_rows(loop, plan)
        current = loop.adapter_files(state["adapter"], state["adapter_round"])
        drawn, rows = chosen_rows(
            loop, plan, made, ranked, lambda pool: target_texts(loop, folder, plan, current, pool, made)
        )
        kept = drop_unwanted(loop, current, rows, folder)
        rows = kept.rows
        if not rows:
            raise DataError(f"{folder}: round {round_} has no row to train on; see dropped.jsonl and the plan")
        write_training_set(loop, folder, rows, made, kept.dropped)
        counts = {
            "pool_rows_moved_to_other_skills": drawn.moved,
            "pool_rows_short": drawn.shortfall,
            "written_rows_short": plan.written_rows - len(made.rows),
        }
        write_json(folder / "build.json", {"schema_version": 1, **counts})
        return {}

    return loop.stage(loop.run.round_stage(round_, "build"), inputs, work)


def chosen_rows(
    loop: Loop,
    plan: RoundPlan,
    made: "Made",
    ranked: Ranked | None = None,
    form: Callable[[Sequence[Example]], Callable[[Example], Sequence[str]]] = lambda _: taught_texts,
) -> tuple[PoolDraw, list[TrainingRow]]:
    """What a plan draws from the pool, the best first where it is ranked, and the round's training set.

    That has what was written and what is replayed besides. `form` takes the drawn examples and says what is taught of
    each: all worked solutions if left out.
    """
    accepted = [row for r in accepted_rounds(loop, plan.round) for row in loop.new_rows(r)]
    used = Counter(row.example_id for row in accepted)
    pool, repeats = pool_index(loop), loop.config.plan.max_repeats
    measured = pool_difficulty(loop, plan.round) if plan.difficulty is not None else None
    scores = ranked.scores if ranked and ranked.items else None
    if measured is not None:
        drawn = draw_by_difficulty(plan, pool, used, repeats, measured, scores)
    else:
        drawn = draw_pool(plan, pool, used, repeats, scores)
    rows = training_rows(
        plan,
        drawn.draws,
        loop.examples,
        made.rows,
        accepted,
        {**loop.labels, **{r.example_id: r for r in made.labels}},
        form([loop.examples[draw.example_id] for draw in drawn.draws]),
        loop.config.plan.uniform_floor,
        loop.config.plan.allocation,
    )
    if ranked:
        rows = with_standings(rows, ranked.items, ranked.method, plan.round)
    rows = bound_rows(loop, plan, rows)
    return drawn, with_bins(rows, plan.round, measured) if measured is not None else rows


def _ranked(loop: Loop, state: State) -> Ranked | None:
    """What ranks the pool items that the round's plan can draw; none where they are drawn at random."""
    round_, method = state["round"], loop.config.plan.rank
    pool = pool_index(loop)
    candidates = planned_items(loop.plan(round_), pool)
    if method == "random" or not candidates:
        return None
    adapter = loop.adapter_files(state["adapter"], state["adapter_round"])
    return rank_pool(loop, loop.run.round_stage(round_, RANK), method, adapter, pool, candidates)


def earlier_outputs(loop: Loop, round_: int) -> list[Path]:
    """The stages that say which rows earlier rounds added, and which of those were accepted."""
    return [s for r in range(1, round_) for s in (loop.run.round_stage(r, "build"), gate_folder(loop, r))]


class Made(NamedTuple):
    """What a round had written: each example with the skill it was written for, and what became of the others."""

    rows: list[tuple[Example, str]]
    labels: list[SkillLabel]
    dropped: list[DroppedRow]
    failures: list[TeacherFailure]


def write_rows(loop: Loop, plan: RoundPlan) -> Made:
    """New examples as the plan orders them."""
    if not plan.written_rows:
        return Made([], [], [], [])
    held_out = [*loop.held_out(), *(loop.examples[id_] for id_ in sorted(loop.holdout))]
    seen, taken = SeenQuestions(), set[str]()

    def remember(examples: Iterable[Example]) -> None:
        for example in examples:
            seen.add(example)
            taken.add(normalise(example.question))

    remember(loop.examples.values())
    remember(held_out)
    for r in range(1, plan.round):
        remember(read_records(loop.run.round_stage(r, "build") / "written.jsonl", Example))
    held_out_ids = {e.id for e in held_out}
    pool = [e for e in loop.split("pool") if e.id not in loop.holdout]
    written: list[tuple[Example, str]] = []
    labels: dict[str, SkillLabel] = {}
    dropped: list[DroppedRow] = []
    failures: list[TeacherFailure] = []
    for skill in plan.skills:
        seeds = [e for e in pool if skill.skill in loop.labels[e.id].skills]
        for difficulty, count in sorted(skill.written_rows.items()):
            order = write_order(loop, plan, skill.skill, difficulty, count, seeds)
            order = order._replace(taken=taken, seen=seen, held_out=held_out_ids)
            made = loop.teacher.write(order, loop.proposed, loop.moved_skills)
            remember(made.examples)
            written += [(e, skill.skill) for e in made.examples]
            labels |= {r.example_id: r for r in made.labels}
            dropped += made.dropped
            failures += made.failures
            loop.progress(f"writing rows of round {plan.round}", Progress(len(written), plan.written_rows, skill.skill))
    examples = [e for e, _ in written]
    rejected = loop.grader.check_gold(examples) | leaks(examples, held_out)
    kept = [(e, skill) for e, skill in written if e.id not in rejected]
    dropped += [
        DroppedRow(example_id=e.id, skill=skill, origin="written", reason=rejected[e.id])
        for e, skill in written
        if e.id in rejected
    ]
    kept.sort(key=lambda pair: pair[0].id)
    return Made(kept, [labels[e.id] for e, _ in kept], dropped, failures)


def write_order(
    loop: Loop, plan: RoundPlan, skill: str, difficulty: int, rows: int, seeds: Sequence[Example]
) -> WriteOrder:
    """A plan's order of new examples of a skill at a difficulty; what they may not come near is still empty."""
    seed = int(content_id({"seed": plan.seed, "skill": skill, "difficulty": difficulty}, 8), 16)
    named = next(s for s in loop.skills if s.id == skill)
    return WriteOrder(plan.round, named, difficulty, rows, seed, frozenset(), seeds, SeenQuestions(), frozenset())


def write_training_set(
    loop: Loop, folder: Path, rows: Sequence[TrainingRow], made: Made, cut: Iterable[DroppedRow] = ()
) -> None:
    """Writes the files of a stage that built rows to train on: these, what was written for them, what was `cut` again.

    Raises:
        LeakError: a row is of another split.
    """
    assert_no_leak(rows, loop.held_out())
    write_records(folder / "written.jsonl", [example for example, _ in made.rows])
    write_records(folder / "labels.jsonl", made.labels)
    write_records(folder / "dropped.jsonl", [*made.dropped, *cut])
    write_failures(folder, made.failures)
    write_records(folder / "training_set.jsonl", rows)
    write_demonstrations(loop, folder, rows)


def train(loop: Loop, state: State) -> State:
    """A LoRA adapter on the base, trained on the round's training set."""
    try:
        return train_adapter(loop, state)
    except TrainingError as error:
        before = state["round"] - 1
        raise UserError(
            f"{error}\nThe settings of training are the run's identity: let others take over after round {before} "
            f"with: tutelage fork {loop.run.path} --round {before} --set training.KEY=VALUE"
        ) from None


def train_adapter(loop: Loop, state: State) -> State:
    """The same, for callers with advice of their own.

    Raises:
        TrainingError: the loss diverged or became NaN, or memory ran out; the message says what to change.
    """
    round_ = state["round"]
    built = loop.run.round_stage(round_, "build")
    plan = loop.plan(round_)
    current = loop.adapter_files(state["adapter"], state["adapter_round"])
    start = current if loop.config.training.start == "accepted" else loop.adapter_files(BASE, 0)
    settings = TrainingSettings(plan.learning_rate, plan.epochs, plan.seed, start.folder)
    inputs = stage_inputs(loop, built, loop.run.round_stage(round_, "approve")) | {
        "base": loop.base_hash,
        "start": start.name,
        "prompt": loop.prompt.hash,
    }

    def work(folder: Path) -> Mapping[str, Any]:
        return {"candidate": fit_adapter(loop, round_, built / "training_set.jsonl", settings, folder).name}

    return loop.stage(loop.run.round_stage(round_, "train"), inputs, work)


def fit_adapter(
    loop: Loop, round_: int, rows_file: Path, settings: TrainingSettings, folder: Path, arm: str = ""
) -> Adapter:
    """Trains an adapter on the rows of a file and writes it, with its record and its curves, into a stage's folder.

    Raises:
        TrainingError: the loss diverged or became NaN, or memory ran out; the message says what to change.
    """
    for unfinished in folder.iterdir():
        if unfinished.is_dir():  # an adapter of an attempt that did not finish: nothing says it is whole
            shutil.rmtree(unfinished)
    rows = read_records(rows_file, TrainingRow)
    draft = folder / "draft"
    training = loop.config.training
    shots = read_shots(rows_file.parent, training.ica.subtract_random)
    settings = settings._replace(training=training, shots=shots, two_phase=loop.config.plan.two_phase)
    what = f"training {f'the {arm} of ' if arm else ''}round {round_}"
    result = loop.student.train(rows, settings, draft, folder / "train.log", lambda p: loop.progress(what, p))
    files = {p.name: file_hash(p) for p in sorted(draft.iterdir())}
    adapter = write_adapter(loop, round_, rows_file, files, result, folder, arm)
    draft.rename(folder / adapter.name)
    scoring = {"scoring_seconds": round(result.scoring_seconds, 1)} if result.weighed else {}
    record_cost(folder, tokens=result.training_tokens, **scoring)
    return adapter


def write_adapter(
    loop: Loop,
    round_: int,
    rows_file: Path,
    files: Mapping[str, str],
    result: TrainingResult,
    folder: Path,
    arm: str = "",
) -> Adapter:
    """Writes what a training on the rows of a file came to: the adapter's record, its curves, the rows too long."""
    rows, rows_hash = read_records(rows_file, TrainingRow), file_hash(rows_file)
    adapter = Adapter(
        name=f"{loop.name}-r{round_:02d}-{f'{arm}-' if arm else ''}{content_id([files, rows_hash], 8)}",
        run=loop.name,
        round=round_,
        base=loop.student.base_name,
        base_hash=loop.base_hash,
        files=dict(files),
        training_set_hash=rows_hash,
        rows=len(rows) - len(result.dropped),
        training_tokens=result.training_tokens,
        target_tokens=result.target_tokens,
        steps=result.steps,
        first_loss=result.losses[0],
        last_loss=result.losses[-1],
    )
    by_id = {row.id: row for row in rows}
    write_records(
        folder / "dropped.jsonl", [_too_long(by_id[i], loop.config.training.max_length) for i in result.dropped]
    )
    write_weights(folder, rows_file.parent, rows, result.weighed)
    write_json(folder / "losses.json", {"schema_version": 1, **_curves(result)})
    write_record(folder / "adapter.json", adapter)
    return adapter


def _curves(result: TrainingResult) -> dict[str, Sequence[float]]:
    rest = {"probabilities": result.probabilities, "phase_steps": result.phase_steps}
    given = {name: values for name, values in rest.items() if values}
    return {"losses": result.losses, "gradient_norms": result.gradient_norms, **given}


def _too_long(row: TrainingRow, limit: int) -> DroppedRow:
    reason = f"longer than training.max_length = {limit} tokens"
    return DroppedRow(example_id=row.example_id, skill=row.skill, origin=row.origin, reason=reason)
