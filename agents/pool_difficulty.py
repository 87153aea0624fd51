"""How hard the pool is for the current adapter, the bins a round's rows come from, and drawing by them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agents.evaluation import evaluate_split, sample_split, student_prompts
from agents.history import adapter_before, gate_decision, past_rounds, pool_index
from agents.loop import Loop, stage_inputs
from curriculum.difficulty import BINS, by_bin, choose, joined, pool_bins, signal_key, slices_of, solution_lengths
from curriculum.difficulty_records import Bin, DifficultyPlan, DifficultySlice, ItemEntropy, Measure
from curriculum.extraction import format_target
from curriculum.gate import answered_right
from curriculum.mixture import Pool, PoolDraw, draw_pool
from curriculum.records import content_id
from curriculum.round_records import RoundPlan, TrainingRow
from curriculum.rundir import read_records, write_records
from student.interface import AdapterFiles

ENTROPIES = "entropies.jsonl"


class PoolDifficulty(NamedTuple):
    """The pool's items in bins, and the stages that say so."""

    measure: Measure
    bins: Mapping[str, Bin]
    folders: list[Path]


def pool_difficulty(loop: Loop, round_: int) -> PoolDifficulty:
    """The pool in bins for the adapter that a round begins with; raises as `difficulty_for`."""
    return difficulty_for(loop, loop.adapter_files(*adapter_before(loop, round_)))


def difficulty_for(loop: Loop, adapter: AdapterFiles) -> PoolDifficulty:
    """The pool in bins: by drawn answers with `student.signals`, else by worked solutions, else by the exact entropy.

    Worked solutions are passed over where an item has none, and where their lengths are so alike that a bin stays
    empty.

    Raises:
        UserError: an entropy is asked for and cannot be had.
        StudentError: the engine failed on more than a tenth of the answers.
        StopRequested: a stop was asked for; everything answered so far is journalled.
    """
    pool = pool_index(loop)
    if loop.config.student.signals is not None:
        sampled = sample_split(loop, adapter, "pool")
        keys = {item.example_id: key for item in sampled.signals if (key := signal_key(item)) is not None}
        return PoolDifficulty("pass_rate", pool_bins(keys, pool), [sampled.folder])
    lengths = solution_lengths(loop.split("pool"))
    if lengths.keys() >= set(pool.ids):
        bins = pool_bins(lengths, pool)
        if set(bins.values()) == set(BINS):
            return PoolDifficulty("solution_length", bins, [])
    return _by_entropy(loop, adapter)


def _by_entropy(loop: Loop, adapter: AdapterFiles) -> PoolDifficulty:
    """The pool in bins by how unsure the adapter is of each item's answer: one forward pass an item."""
    pool = pool_index(loop)
    inputs = stage_inputs(loop, loop.run.stage_path("label")) | {
        "base": loop.base_hash,
        "adapter": adapter.name,
        "prompt": loop.prompt.hash,
        "items": content_id(pool.ids, 64),
    }

    def work(folder: Path) -> Mapping[str, Any]:
        examples = [loop.examples[id_] for id_ in pool.ids]
        asked = zip(student_prompts(loop, examples, "plain"), examples, strict=True)
        rows = [(prompt, format_target(example.gold, None)) for prompt, example in asked]
        made = loop.student.first_token_entropies(rows, adapter, folder / "entropy.log")
        write_records(
            folder / ENTROPIES, [ItemEntropy(example_id=i, entropy=h) for i, h in zip(pool.ids, made, strict=True)]
        )
        return {}

    folder = loop.run.stage_path("answers") / adapter.name / "pool_entropy"
    loop.stage(folder, inputs, work)
    keys = {item.example_id: (item.entropy,) for item in read_records(folder / ENTROPIES, ItemEntropy)}
    return PoolDifficulty("entropy", pool_bins(keys, pool), [folder])


def planned_difficulty(loop: Loop, made: RoundPlan, measured: PoolDifficulty) -> DifficultyPlan:
    """The bins of a round that is planned: by its rows at first, then by what the last training did to the gate."""
    past, sd = past_rounds(loop, made.round), loop.config.gate.retrain_sd
    last = next((p.plan for p in reversed(past) if p.plan.difficulty is not None), None)
    slices = () if last is None else _slices(loop, last.round, measured.measure, sd)
    before = last.difficulty if last else None
    return choose(measured.measure, measured.bins, made.new_rows, before, slices, sd)


def _slices(loop: Loop, round_: int, measure: Measure, sd: float) -> tuple[DifficultySlice, ...]:
    """How a round's candidate changed the gate's items, by their worked solutions or by their labels' difficulty."""
    decision, gate = gate_decision(loop, round_), loop.split("gate")
    assert decision.candidate is not None
    files = (loop.adapter_files(*adapter_before(loop, round_)), loop.adapter_files(decision.candidate, round_))
    before, after = (answered_right(evaluate_split(loop, one, "gate").grades) for one in files)
    keys = solution_lengths(gate) if measure == "solution_length" else {}
    if len(keys) < len(gate):
        keys = {e.id: (float(loop.labels[e.id].difficulty),) for e in gate}
    return slices_of(before, after, keys, sd)


def draw_by_difficulty(
    plan: RoundPlan,
    pool: Pool,
    used: Mapping[str, int],
    repeats: int,
    of: PoolDifficulty,
    scores: Mapping[str, float] | None = None,
) -> PoolDraw:
    """As `draw_pool`, with each skill's rows parted over the bins as the plan says."""
    assert plan.difficulty is not None
    return joined(draw_pool(*by_bin(plan, pool, of.bins, plan.difficulty.focus, used, repeats), used, repeats, scores))


def with_bins(rows: list[TrainingRow], round_: int, of: PoolDifficulty) -> list[TrainingRow]:
    """The rows of a training set; those that a round drew from the pool say how hard they are for the student."""
    return [
        row.model_copy(update={"layer": f"{row.layer}; {of.bins[row.example_id]} for the student"})
        if row.origin == "pool" and row.round == round_
        else row
        for row in rows
    ]
