"""A bench: one base evaluation, labelling and diagnosis, then one training for each strategy, budget and seed.

Every part is a stage of the bench's folder, and every training has a folder of a run inside it: what is finished is
never repeated, however the bench ended, and more seeds, strategies or budgets go on from what is there. Nothing is
accepted or rolled back: each adapter is scored once, on the final split and on each extra set.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from agents import nodes
from agents.bench_training import (
    AT_BASE,
    Training,
    examined_adapter,
    extra_grades,
    pool_tokens,
    ranking_folder,
    run_training,
    warm_up,
)
from agents.evaluation import evaluate_split
from agents.first_files import write_first_files
from agents.history import pool_index, written_levels
from agents.loop import Loop, State
from agents.pool_difficulty import difficulty_for
from agents.prepare import prepare
from agents.ranking import rank_pool
from agents.session import measuring_folder
from curriculum.allocation import Measurement
from curriculum.bench_answers import BaseDone, TrainingDone
from curriculum.bench_budgets import WHOLE, at_budget, budget_rows, budget_words
from curriculum.bench_records import BenchReport
from curriculum.bench_report import BenchFacts, bench_report
from curriculum.bench_slices import final_slices
from curriculum.bench_views import render_html, render_markdown
from curriculum.config import Config, changed_keys
from curriculum.data_config import FileData
from curriculum.difficulty import BINS
from curriculum.errors import RunDirError, StudentError, UserError
from curriculum.records import BASE
from curriculum.report_difficulty import bins_words
from curriculum.report_words import percent, student_notes
from curriculum.round_records import MissingSkillProfile
from curriculum.rundir import RunDir, append_line, read_json, read_record, write_atomic, write_json
from curriculum.strategies import RANKED, WRITTEN, Materials, Strategy, layer_config, strategy_pool

BEGAN = "began.json"
"""What a run has in `run.json`; under another name, so that nobody resumes a bench as a run."""
ASKED = "asked.jsonl"
"""Every set of strategies, seeds and budgets the bench was asked for, with the time: a log, not canonical."""


class Bench(NamedTuple):
    """What is compared."""

    strategies: tuple[Strategy, ...]
    seeds: int
    budgets: tuple[float, ...] = (WHOLE,)
    """Shares of the tokens that `plan.rows_per_round` rows cost, smallest first."""

    @property
    def trainings(self) -> list[Training]:
        """In the order they are made: all strategies at all budgets with the first seed, then with the second."""
        seeds = range(1, self.seeds + 1)
        return [Training(s, seed, share) for seed in seeds for share in self.budgets for s in self.strategies]


def check_bench(config: Config, bench: Bench) -> None:
    """Refuses what would only fail after the base has answered.

    Raises:
        UserError: a strategy wants rows that nobody can write, a budget is of no row, or what is shared cannot serve
            trainings at once.
    """
    for share in bench.budgets:
        budget_rows(config, share)
    if config.bench.at_once > 1 and (config.teacher.kind == "llm" or config.student.engine == "vllm"):
        raise UserError(
            f"bench.at_once is {config.bench.at_once}, but an LLM teacher has one budget and a vLLM server one adapter "
            "at a time: set bench.at_once to 1, or teacher.kind to offline and student.engine to transformers"
        )
    if config.training.soup:
        raise UserError(
            "training.soup averages the adapters of a run's rounds, and a bench has one round: leave it out. "
            "benchmarks/merging.py averages those of a finished bench"
        )
    if config.plan.unwanted is not None:
        raise UserError(
            "plan.unwanted drops rows by what they push towards, and a bench drops none, so that all trainings have "
            "equal tokens: leave it out"
        )
    faults = {s: fault for s in bench.strategies if (fault := layer_config(config, s).without_targets)}
    if faults:
        raise UserError("\n".join(f"--arms: {s} {fault}; or leave it out" for s, fault in faults.items()))
    written = [s for s in bench.strategies if s in WRITTEN]
    if written and config.teacher.kind == "offline" and isinstance(config.data, FileData):
        raise UserError(
            f"--arms: {' and '.join(written)} {'wants' if len(written) == 1 else 'want'} written rows, but the offline "
            "teacher writes only for `data.kind: reasoning_gym`: leave them out, or set teacher.kind to llm"
        )


def open_bench(config: Config, name: str) -> RunDir:
    """The bench's folder, made if it is not there.

    Raises:
        RunDirError: the name is not plain, a run has it, or keys of the bench's identity differ; they are named.
    """
    path = measuring_folder(config, name)
    if (path / BEGAN).exists():
        changed = changed_keys(read_json(path / BEGAN)["identity"], config.identity())
        if changed:
            raise RunDirError(
                f"{path}: these keys are the bench's identity and cannot change within it:\n"
                + "\n".join(f"  {key}: {was} → {now}" for key, (was, now) in changed.items())
                + "\nPut them back, or begin another bench with --name"
            )
    else:
        write_first_files(path, name, config, {}, BEGAN)
    return RunDir(path)


def log_asked(run: RunDir, bench: Bench) -> None:
    """Notes what the bench is asked for, where that is new."""
    wish = {"strategies": list(bench.strategies), "seeds": bench.seeds, "budgets": list(bench.budgets)}
    before = _asked(run)
    if not before or before[-1] != wish:
        append_line(run.path / ASKED, {"at": datetime.now(UTC).isoformat(timespec="seconds"), **wish})


def _asked(run: RunDir) -> list[dict[str, Any]]:
    file = run.path / ASKED
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    wishes = [{"budgets": [WHOLE]} | json.loads(line) for line in lines]
    return [{key: value for key, value in wish.items() if key != "at"} for wish in wishes]


def run_bench(loop: Loop, bench: Bench, helpers: Sequence[Loop] = ()) -> BenchReport | Path:
    """Runs or goes on with a bench; the file a person has to approve where one is waited for.

    Args:
        loop: of the bench.
        bench: what is compared.
        helpers: the same loop with students and graders of their own: so many more trainings are made at once.

    Raises:
        UserError: a strategy has nothing to teach, or a training diverged.
        StopRequested: a stop was asked for; everything finished so far is on disk.
    """
    waiting_for = _labelled(loop)
    if waiting_for is not None:
        return waiting_for
    untrained = loop.adapter_files(BASE, 0)
    base = BaseDone(evaluate_split(loop, untrained, "final").grades, extra_grades(loop, untrained))
    of = _ranked(loop, _with_bins(loop, _materials(loop), bench.strategies), bench.strategies)
    done: list[TrainingDone] = []
    made = _write_report(loop, bench, of, base, done)
    for number, finished in enumerate(_trained([loop, *helpers], of, bench.trainings), 1):
        right = sum(grade.verdict == "correct" for grade in finished.grades)
        of_all = f"{percent(right / len(finished.grades))} of {len(finished.grades)} final items"
        training = Training(finished.strategy, finished.seed, finished.share)
        loop.say(f"training {number} of {len(bench.trainings)}, {training.words}: {of_all}")
        done.append(finished)
        made = _write_report(loop, bench, of, base, done)
    return made


def _trained(loops: Sequence[Loop], of: Materials, trainings: Sequence[Training]) -> Iterator[TrainingDone]:
    """The trainings in their order, as many at once as there are loops. One that fails ends those not begun."""
    if len(loops) == 1:
        yield from (_train(loops[0], of, training) for training in trainings)
        return
    idle: SimpleQueue[Loop] = SimpleQueue()
    for loop in loops:
        # Long steps of several trainings would only write over each other's lines.
        idle.put(replace(loop, stopping=loops[0].stopping, progress=lambda *_: None))

    def train(training: Training) -> TrainingDone:
        loop = idle.get()
        try:
            return _train(loop, of, training)
        finally:
            idle.put(loop)

    with ThreadPoolExecutor(len(loops)) as pool:
        yield from pool.map(train, trainings)


def _train(loop: Loop, of: Materials, training: Training) -> TrainingDone:
    loop.check_stop()
    try:
        return run_training(loop, of, training)
    except StudentError as error:  # a worker that died may live the second time, as in a run
        loop.say(f"{training.words}: {error}; trying once more")
        return run_training(loop, of, training)


def _labelled(loop: Loop) -> Path | None:
    """Prepares and labels the data; the file a person has to approve before, where one is waited for."""
    state = State()
    state.update(prepare(loop, state))
    state.update(nodes.catalogue(loop, state))
    if state.get("waiting_for"):
        return Path(state["waiting_for"])
    nodes.label(loop, state)
    return None


def _ranked(loop: Loop, of: Materials, strategies: Sequence[Strategy]) -> Materials:
    """The materials with the pool ranked for every strategy that wants it, by the adapter that was examined."""
    adapter = examined_adapter(loop, of)
    wanted = [strategy for strategy in strategies if strategy in RANKED]
    folders = {strategy: ranking_folder(loop, strategy, of.round) for strategy in wanted}
    return of._replace(
        ranked={
            s: rank_pool(loop, folders[s], RANKED[s], adapter, of.pool, of.pool.ids, required=True).items
            for s in wanted
        }
    )


def _materials(loop: Loop) -> Materials:
    """What all strategies plan from: the base's profile or, after a warm-up, that of its adapter as well."""
    measured = [Measurement(_profile(loop, {**AT_BASE, "round": 0}), {})]
    tokens = pool_tokens(loop)
    of = Materials(loop.config, measured, loop.catalogue, pool_index(loop), written_levels(loop), tokens)
    if not loop.config.bench.warm_up_rows:
        return of
    adapter = warm_up(loop, of)
    rows = loop.new_rows(1)
    profile = _profile(loop, {"round": 1, "adapter": adapter.name, "adapter_round": 1})
    trained = Counter(skill for row in rows for skill in {row.skill, *row.skills})
    return of._replace(measured=[*measured, Measurement(profile, trained)], warm_up=rows)


def _with_bins(loop: Loop, of: Materials, strategies: Sequence[Strategy]) -> Materials:
    """The materials with how hard the pool is for the adapter that was examined, where a strategy asks.

    Raises:
        UserError: a strategy finds no item that is so for the student; said before anything is trained.
    """
    asked = [strategy for strategy in BINS if strategy in strategies]
    if not asked:
        return of
    made = difficulty_for(loop, examined_adapter(loop, of))
    of = of._replace(bins=made.bins, measure=made.measure)
    for strategy in asked:
        strategy_pool(strategy, of.pool, of.holdout, of.bins)
    return of


def _profile(loop: Loop, state: State) -> MissingSkillProfile:
    """What an adapter was missing after so many rounds."""
    for node in (nodes.evaluate, nodes.diagnose, nodes.profile):
        node(loop, state)
    return read_record(loop.run.round_stage(state["round"], "profile") / "profile.json", MissingSkillProfile)


def _write_report(loop: Loop, bench: Bench, of: Materials, base: BaseDone, done: Sequence[TrainingDone]) -> BenchReport:
    shared = _warm_up_tokens(loop)
    facts = BenchFacts(
        bench=loop.name,
        wanted=len(bench.trainings),
        base=loop.config.student.base,
        base_hash=loop.base_hash,
        config_hash=loop.config.identity_hash,
        budgets={share: at_budget(of, share).budget + shared for share in bench.budgets},
        notes=_notes(loop, bench, of),
        gold_targets=loop.config.plan.targets == "gold",
    )
    final = [loop.examples[grade.example_id] for grade in base.grades]
    made = bench_report(facts, base, done, loop.labels, final_slices(final, loop.labels))
    write_json(loop.run.path / "bench.json", made.model_dump(mode="json"))
    write_atomic(loop.run.path / "bench.md", render_markdown(made))
    write_atomic(loop.run.path / "bench.html", render_html(made))
    return made


def _warm_up_tokens(loop: Loop) -> int:
    """Training tokens of the rows that all trainings have."""
    file = loop.run.round_stage(1, "build") / "build.json"
    return int(read_json(file)["tokens"]) if loop.config.bench.warm_up_rows else 0


def _notes(loop: Loop, bench: Bench, of: Materials) -> list[str]:
    notes = student_notes(loop.config.student)
    if loop.config.bench.warm_up_rows:
        notes.append(
            f"Every training has the same {len(loop.new_rows(1))} even rows besides its own; strategies chose by what "
            "an adapter of those rows alone answered on the probe."
        )
    chosen_by = loop.config.profile_set(1 if loop.config.bench.warm_up_rows else 0)
    if chosen_by is not None:
        notes.append(f"Strategies chose by what was answered of {chosen_by}: what is said of that set is selected on.")
    if of.bins is not None and of.measure is not None:
        items = Counter(of.bins.values())
        notes.append(f"Easy, middle and hard: {bins_words(of.measure, {name: items[name] for name in BINS})}.")
    written = any(s in WRITTEN for s in bench.strategies)
    if written and loop.config.teacher.kind == "offline":
        notes.append("The teacher is offline: no LLM. Written rows are generated, not authored.")
    if "stat_syn" in bench.strategies and "generated_uniform" not in bench.strategies:
        notes.append("stat_syn stands without generated_uniform: its difference is of writing and targeting together.")
    wishes = _asked(loop.run)
    if len(wishes) > 1:
        before = "; ".join(map(_wish_words, wishes[:-1]))
        notes.append(
            f"This bench was asked for otherwise before ({before}). Where results were seen before more was asked for, "
            "p-values are too small."
        )
    return notes


def _wish_words(wish: Mapping[str, Any]) -> str:
    at = "" if wish["budgets"] == [WHOLE] else f" at budgets {', '.join(map(budget_words, wish['budgets']))}"
    seeds = "1 seed" if wish["seeds"] == 1 else f"{wish['seeds']} seeds"
    return f"{', '.join(wish['strategies'])} with {seeds}{at}"
