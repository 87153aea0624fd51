"""The stage `rank`: scores of pool items for this student, by the probe failures of its current adapter.

It belongs to the node `build`, but is a stage of its own, so that a run that is killed later does not compute
gradients twice. Nothing is ranked where `plan.rank` is `random`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.evaluation import evaluate_split, student_prompts
from agents.loop import Loop, stage_inputs
from curriculum.extraction import taught_texts
from curriculum.mixture import Pool
from curriculum.plan_config import Ranking
from curriculum.ranking import (
    Failed,
    RankedExample,
    RankingFacts,
    RankingReport,
    nearness,
    probe_failures,
    rank_cells,
    ranking_report,
    require_failures,
    why_not_ranked,
)
from curriculum.records import Example, content_id
from curriculum.round_records import TrainingRow
from curriculum.rundir import DONE, read_record, read_records, write_record, write_records
from student.interface import AdapterFiles, Influence, Progress, Target

RANK = "rank"
"""The stage's folder, in a round's."""
SCORES = "scores.jsonl"
FACTS = "ranking.json"


class Ranked(NamedTuple):
    """The pool by score, and where that is kept."""

    folder: Path
    method: Ranking
    items: list[RankedExample]

    @property
    def scores(self) -> dict[str, float]:
        """Example id → score."""
        return {item.example_id: item.score for item in self.items if item.score is not None}


def rank_pool(
    loop: Loop,
    folder: Path,
    method: Ranking,
    adapter: AdapterFiles,
    pool: Pool,
    candidates: Sequence[str],
    required: bool = False,
) -> Ranked:
    """Scores pool items, or finds it done. Without failures to rank them by there are no scores; the facts say why.

    Args:
        loop: of the run or bench.
        folder: of the stage.
        method: not `random`.
        adapter: the current one, which has answered the probe; the base where there is none yet.
        pool: the labelled pool.
        candidates: ids of the items to score.
        required: whether it is an error that the probe has no failure which the method can use.

    Raises:
        UserError: it has none and that is an error, or none fits into `training.max_length`.
    """
    probe = evaluate_split(loop, adapter, "probe")
    inputs = stage_inputs(loop, loop.run.stage_path("label"), probe.folder) | {
        "base": loop.base_hash,
        "adapter": adapter.name,
        "prompt": loop.prompt.hash,
        "method": method,
        "candidates": content_id(list(candidates), 64),
    }

    def work(folder: Path) -> Mapping[str, Any]:
        found = probe_failures(loop.examples, probe.answers, probe.grades, method)
        failures = require_failures(found, method, f"strategy {method}") if required else found.used
        examples = [loop.examples[id_] for id_ in candidates] if failures else []
        scores: dict[str, float] = {}
        if not failures:
            loop.say(f"pool rows are drawn at random, not by {method}: {why_not_ranked(found, method)}")
        elif method == "embed_sel":
            scores = _nearness(loop, adapter, failures, examples, folder)
        else:
            scores = _influence(loop, method, adapter, failures, examples, folder)
        write_records(folder / SCORES, rank_cells(pool, candidates, scores) if failures else [])
        facts = RankingFacts(
            method=method,
            weight=loop.config.plan.prism_weight if method == "prism" else None,
            adapter=adapter.name,
            failures=len(failures),
            left_out=found.left_out,
            scored=len(scores),
            too_long=len(examples) - len(scores),
            not_ranked=why_not_ranked(found, method),
        )
        write_record(folder / FACTS, facts)
        return {}

    loop.stage(folder, inputs, work)
    return read_ranked(folder)


def not_ranked(loop: Loop, adapter: AdapterFiles) -> str | None:
    """Why `plan.rank` will rank nothing by what an adapter answered; none where it will, or is `random`.

    None, too, while the adapter has not answered the probe, which it does not where profiles are of another set.
    """
    method = loop.config.plan.rank
    answered = loop.run.stage_path("answers") / adapter.name / "probe" / DONE
    if method == "random" or not answered.exists():
        return None
    probe = evaluate_split(loop, adapter, "probe")
    return why_not_ranked(probe_failures(loop.examples, probe.answers, probe.grades, method), method)


def read_ranked(folder: Path) -> Ranked:
    """What a finished stage `rank` wrote."""
    facts = read_record(folder / FACTS, RankingFacts)
    return Ranked(folder, facts.method, read_records(folder / SCORES, RankedExample))


def ranking_of(folder: Path, rows: Sequence[TrainingRow], round_: int) -> RankingReport | None:
    """What ranked the rows of a round, given the folder of its stage `rank`; none where nothing did."""
    if not (folder / FACTS).exists():
        return None
    return ranking_report(read_record(folder / FACTS, RankingFacts), read_ranked(folder).items, rows, round_)


def _influence(
    loop: Loop,
    method: Ranking,
    adapter: AdapterFiles,
    failures: Sequence[Failed],
    examples: Sequence[Example],
    folder: Path,
) -> dict[str, float]:
    assert method in ("prism", "less")
    plan = loop.config.plan
    prompts = student_prompts(loop, examples, "plain")
    candidates = [(prompt, taught_texts(example)) for prompt, example in zip(prompts, examples, strict=True)]
    asked = student_prompts(loop, [f.example for f in failures], "plain")
    targets = [
        Target(prompt, f.right, f.wrong, loop.labels[f.example.id].skills)
        for prompt, f in zip(asked, failures, strict=True)
    ]
    how = Influence(method, plan.prism_weight, plan.less, loop.config.seed)
    log = folder / "rank.log"
    return loop.student.influence(candidates, targets, how, adapter, log, loop.stoppable("ranking the pool"))


def _nearness(
    loop: Loop, adapter: AdapterFiles, failures: Sequence[Failed], examples: Sequence[Example], folder: Path
) -> dict[str, float]:
    asked = [f.example for f in failures]
    vectors = loop.student.embed(student_prompts(loop, [*asked, *examples], "plain"), adapter, folder / "rank.log")
    scores = nearness(vectors[: len(asked)], vectors[len(asked) :])
    loop.progress("ranking the pool", Progress(len(examples), len(examples), "embed_sel"))
    return {example.id: score for example, score in zip(examples, scores, strict=True)}
