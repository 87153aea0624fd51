"""Trackers: what the report says, written for TensorBoard, trackio, MLflow and W&B by their own libraries.

A view of `report.json`, like the pages, made anew whenever they are: neither a kill nor a resume loses or
doubles anything. All runs of a `runs_dir` share `trackers/` there, so that they can be compared. Each
tracker writes in a process of its own that sees no secret; one that fails is said and stops nothing.
"""

import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

from filelock import FileLock

from curriculum.config import Config
from curriculum.errors import ConfigError
from curriculum.records import Change, Rate
from curriculum.report import RunReport
from curriculum.report_words import decision_words, headline, kept
from curriculum.round_records import GateSkill
from curriculum.rundir import RunDir, read_record
from student.subprocess_job import worker_environment

NEEDED = {
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}
"""Tracker → the modules it needs; MLflow's are those of its SQLite store."""
PROJECT = "tutelage"
MOST_SECONDS = 180
MLFLOW_BATCH = 1000


class Point(NamedTuple):
    """One value of one curve; the step is a round, or an optimizer step counted over all rounds."""

    name: str
    step: int
    value: float


def check_trackers(config: Config) -> None:
    """Checks that every tracker's library is here, before a run starts.

    Raises:
        ConfigError: with what to install.
    """
    lacking = [t for t in config.trackers if not all(map(find_spec, NEEDED[t]))]
    if lacking:
        raise ConfigError(
            f"trackers: expected the libraries of {', '.join(config.trackers)}, got none of {', '.join(lacking)}. "
            f"Run: pip install 'tutelage[{','.join(lacking)}]', or take {'it' if len(lacking) == 1 else 'them'} out"
        )


def track(run: RunDir, config: Config, say: Callable[[str], None]) -> None:
    """Has every configured tracker write the run's report; what fails is said."""
    folder = config.runs_dir.absolute() / "trackers"
    for tracker in config.trackers:
        command = [sys.executable, "-P", "-m", "agents.tracking", tracker, str(run.path.absolute()), str(folder)]
        try:
            subprocess.run(
                command,
                env=worker_environment(1),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=MOST_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
            say(f"tracker {tracker} failed, the run goes on: {last}")
        except (OSError, subprocess.TimeoutExpired) as error:
            say(f"tracker {tracker} failed, the run goes on: {error}")


def points(report: RunReport) -> list[Point]:
    """Every curve of a report: gate accuracy and skills by round, losses and gradients by step, the final test."""
    made: list[Point] = []
    steps = 0
    for r in report.rounds:
        made += _rate("gate/accuracy", r.round, r.before if r.after is None else r.after)
        made += _rate("gate/kept", r.round, kept(r))
        made += _change("gate/change", r.round, r.change)
        made += [Point("gate/accepted", r.round, float(r.decision == "accepted"))] if r.candidate else []
        made += _skills("gate", r.round, r.skills)
        made += _change("control/targeted_minus_control", r.round, r.control.change if r.control else None)
        if r.training:
            for name, curve in (("loss", r.training.losses), ("gradient_norm", r.training.gradient_norms)):
                made += [Point(f"train/{name}", steps + i, value) for i, value in enumerate(curve, 1)]
            steps += r.training.steps
    if report.final:
        last = report.rounds[-1].round
        made += _rate("final/base", last, report.final.base)
        made += _rate("final/base_few_shot", last, report.final.base_few_shot)
        made += _rate("final/adapter", last, report.final.adapter)
        made += _skills("final", last, report.final.skills)
        for extra in report.final.extra:
            for arm in ("base", "base_few_shot", "adapter"):
                made += _rate(f"extra_{plain_name(extra.name)}/{arm}", last, getattr(extra, arm))
    return made


def texts(report: RunReport) -> dict[str, str]:
    """The verdict, and each round's decision with its reason."""
    rounds = {f"round_{r.round:02d}": f"{decision_words(r)}: {r.reason}" for r in report.rounds}
    return {"verdict": headline(report), **rounds}


def _rate(name: str, step: int, rate: Rate | None) -> Iterator[Point]:
    if rate is not None and rate.rate is not None and rate.low is not None and rate.high is not None:
        yield from (Point(name, step, rate.rate), Point(f"{name}_low", step, rate.low))
        yield from (Point(f"{name}_high", step, rate.high), Point(f"{name}_items", step, float(rate.n)))


def _change(name: str, step: int, change: Change | None) -> Iterator[Point]:
    if change is not None and change.change is not None and change.low is not None and change.high is not None:
        yield from (Point(name, step, change.change), Point(f"{name}_low", step, change.low))
        yield Point(f"{name}_high", step, change.high)


def _skills(split: str, step: int, skills: Sequence[GateSkill]) -> Iterator[Point]:
    for skill in skills:
        rate = skill.before if skill.after.rate is None else skill.after
        yield from _rate(f"{split}_skills/{plain_name(skill.skill)}", step, rate)


def plain_name(skill: str) -> str:
    """A skill's name as every tracker takes it, and never a path: other characters become `_` and a hash keeps
    two names apart.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", skill)[:60]
    return plain if plain == skill else f"{plain}-{sha256(skill.encode(errors='surrogatepass')).hexdigest()[:6]}"


def write(tracker: str, report: RunReport, folder: Path) -> None:
    """Writes a report with one tracker's library, in place of what it wrote of the same run before."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if tracker == "tensorboard":
            _tensorboard(report, folder)
        elif tracker == "trackio":
            _trackio(report, folder)
        elif tracker == "mlflow":
            _mlflow(report, folder)
        else:
            _wandb(report, folder)


def _by_step(report: RunReport) -> list[tuple[int, dict[str, float]]]:
    steps: dict[int, dict[str, float]] = defaultdict(dict)
    for name, step, value in points(report):
        steps[step][name] = value
    return sorted(steps.items())


def _tensorboard(report: RunReport, folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    rmtree(folder / report.run, ignore_errors=True)
    writer = EventFileWriter(str(folder / report.run))
    for name, step, value in points(report):
        writer.add_event(Event(wall_time=time.time(), step=step, summary=scalar_pb(name, value)))
    for name, text in texts(report).items():
        writer.add_event(Event(wall_time=time.time(), step=0, summary=text_pb(f"decisions/{name}", text)))
    writer.close()


def _trackio(report: RunReport, folder: Path) -> None:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    for old in trackio.Api().runs(PROJECT) if (folder / f"{PROJECT}.db").exists() else ():
        if old.name == report.run:
            old.delete()
    trackio.init(PROJECT, name=report.run, config=texts(report), embed=False, auto_log_gpu=False, auto_log_cpu=False)
    for step, values in _by_step(report):
        trackio.log(values, step=step)
    trackio.finish()


def _mlflow(report: RunReport, folder: Path) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    known = client.get_experiment_by_name(PROJECT)
    experiment = known.experiment_id if known else client.create_experiment(PROJECT, (folder / "artifacts").as_uri())
    for old in client.search_runs([experiment]):
        if old.info.run_name == report.run:
            client.delete_run(old.info.run_id)
    run = client.create_run(experiment, run_name=report.run).info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, step, value in points(report)]
    for at in range(0, len(metrics), MLFLOW_BATCH):
        client.log_batch(run, metrics=metrics[at : at + MLFLOW_BATCH])
    client.log_batch(run, tags=[RunTag(name, text) for name, text in texts(report).items()])
    client.set_terminated(run)


def _wandb(report: RunReport, folder: Path) -> None:
    import wandb

    own = folder / report.run
    rmtree(own, ignore_errors=True)
    own.mkdir()
    settings = wandb.Settings(
        console="off", disable_git=True, disable_code=True, save_code=False, silent=True, x_disable_stats=True,
        x_disable_meta=True, x_disable_machine_info=True,
    )  # fmt: skip
    run = wandb.init(project=PROJECT, name=report.run, dir=own, mode="offline", config=texts(report), settings=settings)
    for step, values in _by_step(report):
        run.log(values, step=step)
    run.finish()


if __name__ == "__main__":
    kind, of_run, into = sys.argv[1:]
    write(kind, read_record(Path(of_run) / "report.json", RunReport), Path(into) / kind)
