"""One training of a bench: its plan, its rows cut to equal tokens, its adapter, its final answers.

Each is a stage of a folder of its own inside the bench's; what all trainings share is in the bench's folder.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agents.bindings import bound_rows
from agents.evaluation import evaluate_extra, evaluate_split, plain_prompt
from agents.loop import Loop, State, adapter_stage, stage_inputs
from agents.merging import merged_adapter
from agents.ranking import RANK
from agents.targets import target_texts
from agents.teach import train_adapter, write_rows, write_training_set
from curriculum.bench_answers import TrainingDone
from curriculum.bench_budgets import WHOLE, at_budget, budget_words
from curriculum.errors import DataError, TrainingError, UserError
from curriculum.extraction import taught_texts
from curriculum.mixture import draw_pool, training_rows
from curriculum.plan_file import APPROVED, PlanApproval, write_approval
from curriculum.ranking import with_standings
from curriculum.records import BASE, Grade, Message, Record
from curriculum.round_records import Adapter, DroppedRow, TrainingRow
from curriculum.rundir import RunDir, read_record, read_records, write_json, write_records
from curriculum.strategies import (
    ALWAYS,
    Materials,
    Strategy,
    cut_to_budget,
    layer_config,
    strategy_config,
    strategy_plan,
    strategy_pool,
)
from student.interface import AdapterFiles, Progress

TRAININGS = "trainings"
"""The folder of the trainings' folders, each called after its strategy, seed and budget."""
AT_BASE: State = {"round": 1, "adapter": BASE, "adapter_round": 0}
"""Where every training starts: on the base."""


class Training(NamedTuple):
    """One training of a bench."""

    strategy: Strategy
    seed: int
    share: float = WHOLE

    @property
    def name(self) -> str:
        """Of its folder; at the whole budget it does not say so."""
        at = "" if self.share == WHOLE else f"-x{budget_words(self.share)}"
        return f"{self.strategy}-{self.seed}{at}"

    @property
    def words(self) -> str:
        """For a person."""
        at = "" if self.share == WHOLE else f" at budget {budget_words(self.share)}"
        return f"{self.strategy} seed {self.seed}{at}"


class RowTokens(Record):
    """What one pool example costs as a training row."""

    example_id: str
    tokens: int


def pool_tokens(loop: Loop) -> dict[str, int]:
    """What each labelled pool example costs as a row, in training tokens of all epochs."""
    inputs = stage_inputs(loop, loop.run.stage_path("prepare"), loop.run.stage_path("label"))
    inputs |= {"base": loop.base_hash, "prompt": loop.prompt.hash}

    def work(folder: Path) -> Mapping[str, Any]:
        pool = loop.split("pool")
        texts = [_Taught(e.id, e.history, e.question, tuple(taught_texts(e))) for e in pool]
        counted = _tokens(loop, texts, folder / "encode.log")
        loop.progress("token lengths of the pool", Progress(len(pool), len(pool), ""))
        write_records(folder / "tokens.jsonl", [RowTokens(example_id=id_, tokens=n) for id_, n in counted.items()])
        return {}

    folder = loop.run.stage_path("lengths")
    loop.stage(folder, inputs, work)
    return {r.example_id: r.tokens for r in read_records(folder / "tokens.jsonl", RowTokens)}


class _Taught(NamedTuple):
    id: str
    history: tuple[Message, ...]
    question: str
    targets: tuple[str, ...]


def _tokens(loop: Loop, taught: Sequence[_Taught], log: Path) -> dict[str, int]:
    """Training tokens of each row over all epochs, as the trainer counts them: too long a text is not trained on."""
    pairs = [
        (plain_prompt(loop, row.id, row.history, row.question), target) for row in taught for target in row.targets
    ]
    fitting: dict[str, list[int]] = {row.id: [] for row in taught}
    for (prompt, _), encoded in zip(pairs, loop.student.encode(pairs, False, log), strict=True):
        length = encoded.prompt_tokens + encoded.target_tokens
        if length <= loop.config.training.max_length:
            fitting[prompt.example_id].append(length)
    epochs = range(loop.config.training.epochs)
    return {id_: sum(lengths[e % len(lengths)] for e in epochs) if lengths else 0 for id_, lengths in fitting.items()}


def run_training(loop: Loop, of: Materials, training: Training) -> TrainingDone:
    """Plans, builds, trains and scores one training, on the final items and each extra set, or finds it done."""
    strategy, seed, share = training
    config = layer_config(loop.config, strategy)
    of = at_budget(of._replace(holdout=replace(loop, config=config).holdout), share)
    own = replace(loop, run=RunDir(loop.run.path / TRAININGS / training.name), config=config)
    _fit(loop, own, of, strategy, seed)
    name = merged_adapter(loop, own, of.round, examined_adapter(loop, of))
    adapter = read_record(adapter_stage(own.run, of.round, name) / "adapter.json", Adapter)
    files = own.adapter_files(name, of.round)
    grades = evaluate_split(loop, files, "final").grades
    rows = read_records(own.run.round_stage(of.round, "build") / "training_set.jsonl", TrainingRow)
    return TrainingDone(strategy, seed, adapter, rows, grades, share, extra_grades(loop, files))


def extra_grades(loop: Loop, files: AdapterFiles) -> dict[str, list[Grade]]:
    """What an adapter makes of each extra set: asked once, after everything that chooses."""
    return {name: evaluate_extra(loop, files, name, "plain").grades for name in loop.extra}


def examined_adapter(loop: Loop, of: Materials) -> AdapterFiles:
    """The adapter that strategies choose by: the warm-up's, or the base."""
    if not of.warm_up:
        return loop.adapter_files(BASE, 0)
    return loop.adapter_files(read_record(loop.run.round_stage(1, "train") / "adapter.json", Adapter).name, 1)


def ranking_folder(loop: Loop, strategy: Strategy, round_: int) -> Path:
    """The stage of a bench that ranks the pool for all trainings of a strategy."""
    return loop.run.round_stage(round_ - 1, f"{RANK}_{strategy}")


def warm_up(loop: Loop, of: Materials) -> Adapter:
    """Trains the adapter on even rows that the strategies' profile is taken of, in the bench's own first round."""
    plan = of.config.plan.model_copy(update={"rows_per_round": of.config.bench.warm_up_rows})
    return _fit(loop, loop, of._replace(config=of.config.model_copy(update={"plan": plan})), "uniform", 0)


def _fit(loop: Loop, own: Loop, of: Materials, strategy: Strategy, seed: int) -> Adapter:
    """The stages approve, build and train of the round that is planned, in the run of `own`."""
    shared = {
        "identity": loop.config.identity_hash,
        **{name: loop.run.outputs_hash(loop.run.stage_path(name)) for name in ("catalogue", "label", "lengths")},
        "profile": loop.run.outputs_hash(loop.run.round_stage(of.round - 1, "profile")),
    }
    if strategy in of.ranked:
        shared["ranking"] = loop.run.outputs_hash(ranking_folder(loop, strategy, of.round))
    if of.warm_up:
        shared["warm_up"] = loop.run.outputs_hash(loop.run.round_stage(1, "build"))

    at = "" if of.share == WHOLE else f", budget {budget_words(of.share)}"

    def plan(folder: Path) -> Mapping[str, Any]:
        made = strategy_plan(strategy, seed, of)
        reason = f"strategy {strategy}, seed {seed}{at}"
        write_approval(folder / APPROVED, PlanApproval(approved=True, by="bench", reason=reason, plan=made))
        return {}

    approved, built = own.run.round_stage(of.round, "approve"), own.run.round_stage(of.round, "build")
    named = {"strategy": strategy, "seed": str(seed)}
    named |= {"budget": budget_words(of.share)} if at else {}
    own.stage(approved, shared | named, plan)
    inputs = shared | stage_inputs(own, approved) | {"strategy": strategy}
    own.stage(built, inputs, lambda folder: _build(loop, own, of, strategy, folder))
    try:
        train_adapter(own, {**AT_BASE, "round": of.round})
    except TrainingError as error:
        at_once = loop.config.bench.at_once
        fewer = f"Of {at_once} trainings at once fewer may fit: lower bench.at_once, and it goes on. "
        without = "" if strategy in ALWAYS else f", or leave {strategy} out of --arms, and this one goes on"
        raise UserError(
            f"{strategy}, seed {seed}{at}: {error}\n{fewer if at_once > 1 else ''}The settings of training are the "
            f"bench's identity: begin another with --name NAME --set training.KEY=VALUE{without}"
        ) from None
    return read_record(own.run.round_stage(of.round, "train") / "adapter.json", Adapter)


def _build(loop: Loop, own: Loop, of: Materials, strategy: Strategy, folder: Path) -> Mapping[str, Any]:
    """The training set of one training, cut to the tokens that all get."""
    plan, config = own.plan(of.round), strategy_config(loop.config, strategy)
    layered = replace(loop, config=own.config)  # what all trainings share, with this one's layer
    made = write_rows(layered, plan)
    used = Counter(row.example_id for row in of.warm_up)
    ranked = of.ranked.get(strategy)
    scores = None if ranked is None else {r.example_id: r.score for r in ranked if r.score is not None}
    drawn = draw_pool(
        plan, strategy_pool(strategy, of.pool, of.holdout, of.bins), used, config.plan.max_repeats, scores
    )
    labels = {**loop.labels, **{r.example_id: r for r in made.labels}}
    settings = config.plan.uniform_floor, config.plan.allocation
    pool = [loop.examples[draw.example_id] for draw in drawn.draws]
    current = examined_adapter(loop, of)
    texts = target_texts(layered, folder, plan, current, pool, made)
    rows = training_rows(plan, drawn.draws, loop.examples, made.rows, of.warm_up, labels, texts, *settings)
    if ranked is not None:
        rows = with_standings(rows, ranked, config.plan.rank, of.round)
    rows = bound_rows(layered, plan, rows)
    taught = [_Taught(row.id, row.history, row.question, row.targets) for row in rows]
    tokens = _tokens(loop, taught, folder / "encode.log")
    kept = cut_to_budget(rows, tokens, of.budget, plan.seed, scores)
    if not kept:
        raise DataError(f"{folder}: strategy {strategy} has no row to train on; see dropped.jsonl and the plan")
    write_training_set(layered, folder, kept, made, _cut(rows, kept))
    counts = {
        "pool_rows_moved_to_other_skills": drawn.moved,
        "pool_rows_short": drawn.shortfall,
        "written_rows_short": plan.written_rows - len(made.rows),
        "tokens": sum(tokens[row.id] for row in kept),
        "tokens_wanted": of.budget + sum(tokens[row.id] for row in kept if row.origin == "replay"),
    }
    write_json(folder / "build.json", {"schema_version": 1, **counts})
    return {}


def _cut(rows: Sequence[TrainingRow], kept: Sequence[TrainingRow]) -> Iterator[DroppedRow]:
    inside = {row.id for row in kept}
    for row in rows:
        if row.id not in inside:
            reason = "beyond the tokens that every training of the bench gets"
            yield DroppedRow(example_id=row.example_id, skill=row.skill, origin=row.origin, reason=reason)
