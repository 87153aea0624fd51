"""What a run's folder says beyond its rounds' reports: failed items, sample rows, adapters, work, how to make it again.

Reads files of finished stages only, so that reports of older runs have it, too. Decides nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from agents.control import TRAIN as CONTROL_TRAIN
from agents.evaluation import PROFILE_SET, SERVING
from agents.first_files import CHANGES
from agents.forecast import forecast
from agents.loop import MERGE
from agents.own_answers import OWN
from agents.recorded_usage import count_lines
from curriculum.config import Config
from curriculum.records import BASE, Diagnosis, Example, Grade, SkillLabel, StudentAnswer
from curriculum.report import RoundReport
from curriculum.report_items import FailedItems, ProbeLook, failed_items
from curriculum.report_origin import AdapterReport, Ancestor, Reproduction, ServedWeights, Work
from curriculum.report_rows import TaughtRows, taught_rows
from curriculum.round_records import Adapter, DroppedRow, TrainingRow
from curriculum.rundir import DONE, RunDir, read_json, read_record, read_records
from curriculum.serving_records import Serving
from student.base_model import SMOLLM2


def run_failures(run: RunDir, rounds: Sequence[RoundReport]) -> FailedItems | None:
    """Every probe item that was failed, with what each adapter made of it; none before there are labels of them."""
    looks = [_look(run, r) for r in _first_rounds(rounds)]
    if not looks:
        return None
    ids = {id_ for look in looks for id_ in look.diagnoses}
    prepared = run.stage_path("prepare")
    sets = (
        prepared / "examples.jsonl",
        *sorted(prepared.glob("extra-*.jsonl")),
    )
    examples = {e.id: e for path in sets for e in read_records(path, Example) if e.id in ids}
    labels = {r.example_id: r for r in read_records(run.stage_path("label") / "labels.jsonl", SkillLabel)}
    return failed_items(looks, examples, labels)


def _first_rounds(rounds: Sequence[RoundReport]) -> list[RoundReport]:
    """The rounds whose probe answers are of an adapter that was not asked before."""
    return [r for at, r in enumerate(rounds) if r.probe and all(e.current != r.current for e in rounds[:at])]


def _look(run: RunDir, round_: RoundReport) -> ProbeLook:
    asked = run.stage_path("answers") / round_.current
    folders = [folder for name in ("probe", PROFILE_SET, "probe_without_gold") if (folder := asked / name).is_dir()]
    answers = [a for folder in folders for a in read_records(folder / "answers.jsonl", StudentAnswer)]
    graded = [path for folder in folders if (path := folder / "grades.jsonl").exists()]
    diagnoses = read_records(run.round_stage(round_.round, "diagnose") / "diagnoses.jsonl", Diagnosis)
    return ProbeLook(
        adapter=round_.current,
        round=round_.round,
        answers={a.example_id: a for a in answers if a.sample_index == 0},
        grades={g.example_id: g for path in graded for g in read_records(path, Grade)},
        diagnoses={d.example_id: d for d in diagnoses},
    )


def run_rows(run: RunDir, rounds: Sequence[RoundReport]) -> tuple[TaughtRows, ...]:
    """A few of the rows that each round taught."""
    made = []
    for round_ in rounds:
        if round_.training:
            rows = read_records(run.round_stage(round_.round, "build") / "training_set.jsonl", TrainingRow)
            dropped = read_records(run.round_stage(round_.round, "train") / "dropped.jsonl", DroppedRow)
            made.append(taught_rows(round_.round, rows, {d.example_id for d in dropped}))
    return tuple(made)


def run_adapters(run: RunDir, rounds: Sequence[RoundReport], base_hash: str) -> tuple[AdapterReport, ...]:
    """The base and every adapter that was trained, controls included, in the order of the rounds."""
    served = _served(run)
    base = AdapterReport(
        name=BASE, round=0, start=None, became="base", files={"weights": base_hash}, served=served.get(BASE)
    )
    made = [base]
    for round_ in rounds:
        decided = "accepted" if round_.decision == "accepted" else "rolled_back"
        trained = "merged" if (run.round_stage(round_.round, MERGE) / DONE).exists() else decided
        for stage, became in (("train", trained), (MERGE, decided), (CONTROL_TRAIN, "control")):
            folder = run.round_stage(round_.round, stage)
            if (folder / DONE).exists():
                made.append(_adapter(folder, became, served))
    return tuple(made)


def _adapter(folder: Path, became: Any, served: Mapping[str, ServedWeights]) -> AdapterReport:
    adapter = read_record(folder / "adapter.json", Adapter)
    return AdapterReport(
        name=adapter.name,
        round=adapter.round,
        start=_start(folder, adapter),
        became=became,
        rows=adapter.rows,
        training_set_hash=adapter.training_set_hash,
        files=adapter.files,
        served=served.get(adapter.name),
    )


def _start(folder: Path, adapter: Adapter) -> str:
    if adapter.merged is not None:
        return " + ".join(f"{part.adapter} (a = {part.a:g})" for part in adapter.merged.ingredients)
    return str(read_json(folder / DONE)["inputs"].get("start", BASE))


def _served(run: RunDir) -> dict[str, ServedWeights]:
    found = {}
    for path in sorted(run.stage_path("answers").glob(f"*/*/{SERVING}")):
        made = read_record(path, Serving)
        found[made.adapter] = ServedWeights(
            engine=made.engine, dtype=made.dtype, how=made.how, files=made.files, canary=made.canary
        )
    return found


def run_work(run: RunDir, rounds: Sequence[RoundReport], config: Config) -> Work:
    """How many answers and rows were forecast, and how many there were."""
    expected = forecast(config)
    timed = config.student.base in (SMOLLM2, "fake")
    answers = [*run.stage_path("answers").glob("*/*/answers.jsonl"), *run.path.glob(f"round_*/*/{OWN}*/answers.jsonl")]
    rows = 0
    for round_ in rounds:
        if round_.training:
            epochs = round_.plan.epochs if round_.plan else config.training.epochs
            control = run.round_stage(round_.round, CONTROL_TRAIN) / "adapter.json"
            of_control = read_record(control, Adapter).rows if control.exists() else 0
            rows += epochs * (round_.training.rows + of_control)
    return Work(
        all_answers=sum(map(count_lines, answers)),
        rows=rows,
        forecast_answers=expected.answers,
        forecast_rows=expected.training_rows,
        forecast_minutes=expected.minutes if timed else None,
    )


def reproduction(run: RunDir, facts: Mapping[str, Any], rounds: int) -> Reproduction:
    """The commands, versions and settings that make the run again.

    Args:
        run: its folder.
        facts: its `run.json`.
        rounds: how many it is configured to do by now.
    """
    ancestors = tuple(
        Ancestor(run=one["run"], round=one["round"], changed={key: tuple(was) for key, was in one["changed"].items()})
        for one in facts.get("lineage", [])
    )
    return Reproduction(
        commands=tuple(_commands(run, facts.get("commit"), ancestors, rounds)),
        python=facts["python"],
        libraries=facts["libraries"],
        uncommitted_changes=facts.get("uncommitted_changes"),
        ancestors=ancestors,
        config=yaml.safe_dump(facts["identity"], sort_keys=False, allow_unicode=True),
    )


def _commands(run: RunDir, commit: str | None, ancestors: Sequence[Ancestor], rounds: int) -> Iterator[str]:
    tutelage, again = ".venv/bin/tutelage", quote(f"{run.path.name}-again")
    extensions = _extensions(run)
    begun = f" --set rounds={extensions[0][0] if extensions else rounds}"
    if commit:
        yield f"git checkout {commit}"
    yield "make .venv/.installed"
    if ancestors:
        last = ancestors[-1]
        changes = "".join(f" --set {quote(f'{key}={json.dumps(now)}')}" for key, (_, now) in last.changed.items())
        source = quote(f"runs/{last.run}")
        yield f"{tutelage} fork {source} --round {last.round} --name {again}{begun}{changes}"
    else:
        config = quote(f"runs/{run.path.name}/config.yaml")
        yield f"{tutelage} run {config} --name {again}{begun if extensions else ''}"
    for was, now in extensions:
        yield f"{tutelage} resume {quote(f'runs/{run.path.name}-again')} --extend {now - was}"


def _extensions(run: RunDir) -> list[tuple[int, int]]:
    """How many rounds a run had before and after each time it was given more."""
    path = run.path / CHANGES
    lines = path.read_text().splitlines() if path.exists() else []
    return [(was, now) for was, now in (json.loads(line).get("rounds", (0, 0)) for line in lines) if now > was]
