"""Every tracker writes what the report has, through its own library; one that fails stops nothing."""

import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import tutelage, write_config
from test_report import HOSTILE, run_report

from agents import tracking
from agents.tracking import check_trackers, plain_name, points, texts, track, write
from curriculum.config import load_config
from curriculum.errors import ConfigError
from curriculum.report import RunReport
from curriculum.rundir import RunDir, write_record

REPORT = run_report("x").model_copy(update={"run": "first"})


def expected(report: RunReport) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in points(report):
        curves.setdefault(name, []).append((step, pytest.approx(value)))
    return curves


def test_the_points_are_the_reports_numbers() -> None:
    curves = expected(REPORT)
    assert curves["gate/accuracy"] == [(0, 8 / 40), (1, 30 / 40)]
    assert curves["gate/accuracy_low"][1][1] == REPORT.rounds[1].after.low  # type: ignore[union-attr]
    assert curves["gate/accuracy_items"] == [(0, 40.0), (1, 40.0)]
    assert curves["gate_skills/add/accuracy" if "gate_skills/add/accuracy" in curves else "gate_skills/add"][0][0] == 0
    assert curves["gate/accepted"] == [(1, 1.0)]
    assert curves["train/loss"] == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert curves["final/adapter"] == [(1, 36 / 40)]
    assert curves["extra_x/base"] == [(1, 0.0)] and curves["extra_x/adapter"] == [(1, 36 / 40)]
    assert texts(REPORT)["round_01"].startswith("accepted: gained 22")
    assert all(name.count("/") <= 1 for name in expected(run_report(HOSTILE)))


def test_names_are_never_paths_and_stay_apart() -> None:
    assert plain_name("chain_sum") == "chain_sum"
    assert plain_name("../../etc") != plain_name(".././etc")
    assert "/" not in plain_name("../../etc") and "." not in plain_name("../../etc")
    assert len(plain_name("\ud800" * 1000)) < 80


@pytest.mark.parametrize("tracker", ["tensorboard", "trackio", "mlflow", "wandb"])
def test_a_tracker_writes_the_whole_report_and_writing_again_doubles_nothing(tracker: str, tmp_path: Path) -> None:
    pytest.importorskip(tracker)
    for _ in range(2):
        run_tracker(tracker, REPORT, tmp_path)
    found = READ[tracker](tmp_path / tracker)
    assert {name: sorted(curve) for name, curve in found.items()} == expected(REPORT)


def run_tracker(tracker: str, report: RunReport, folder: Path) -> None:
    """As a run does it: in a process of its own, for these libraries keep global state."""
    (folder / "first").mkdir(exist_ok=True)
    write_record(folder / "first" / "report.json", report)
    command = [sys.executable, "-m", "agents.tracking", tracker, str(folder / "first"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(tracking.__file__).parents[1])


def read_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder / "first"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    (decision,) = events.Tensors("decisions/round_01")
    assert make_ndarray(decision.tensor_proto).item().decode() == texts(REPORT)["round_01"]
    return {
        tag: [(e.step, make_ndarray(e.tensor_proto).item()) for e in events.Tensors(tag)]
        for tag in tags
        if not tag.startswith("decisions/")
    }


def read_trackio(folder: Path) -> dict[str, list[tuple[int, float]]]:
    import json

    with sqlite3.connect(folder / "tutelage.db") as database:
        rows = database.execute("select step, metrics from metrics where run_name = 'first'").fetchall()
        (config,) = database.execute("select config from configs where run_name = 'first'").fetchone()
    assert json.loads(config)["round_01"] == texts(REPORT)["round_01"]
    return curves_of((step, json.loads(metrics)) for step, metrics in rows)


def read_mlflow(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tutelage")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "first" and run.info.status == "FINISHED"
    assert run.data.tags["round_01"] == texts(REPORT)["round_01"]
    names = run.data.metrics
    return {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names}


def read_wandb(folder: Path) -> dict[str, list[tuple[int, float]]]:
    import json

    from wandb.proto import wandb_internal_pb2

    (file,) = (folder / "first").rglob("*.wandb")
    rows = []
    config = {}
    for data in wandb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.history.item:
            values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            rows.append((values.pop("_step"), {k: v for k, v in values.items() if not k.startswith("_")}))
        config |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
    assert config["round_01"] == texts(REPORT)["round_01"]
    return curves_of(rows)


def wandb_records(log: bytes) -> "Iterator[bytes]":
    """The records of a LevelDB log, which is what W&B writes offline: blocks of 32 KiB after a header of 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(log):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        length, kind = struct.unpack_from("<HB", log, at + 4)
        record += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield record
            record = b""


def curves_of(rows: "object") -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, values in rows:  # type: ignore[attr-defined]
        for name, value in values.items():
            curves.setdefault(name, []).append((step, value))
    return curves


READ = {"tensorboard": read_tensorboard, "trackio": read_trackio, "mlflow": read_mlflow, "wandb": read_wandb}


def test_a_missing_library_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(write_config(tmp_path), ["trackers=[tensorboard, wandb]"])
    monkeypatch.setattr(tracking, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=r"pip install 'tutelage\[tensorboard,wandb\]'"):
        check_trackers(config)
    check_trackers(load_config(write_config(tmp_path)))


def test_a_tracker_that_fails_is_said_and_stops_nothing(tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path), ["trackers=[tensorboard]"])
    said: list[str] = []
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "report.json").write_text("{")
    track(RunDir(tmp_path / "first"), config, said.append)
    assert len(said) == 1 and said[0].startswith("tracker tensorboard failed, the run goes on: ")


@pytest.mark.real
def test_a_run_tracks_itself_without_writing_a_key(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    os.environ["WANDB_API_KEY"] = "0123456789abcdef0123456789abcdef01234567"
    try:
        done = tutelage("run", write_config(tmp_path), "--name", "run", "--set", "trackers=[tensorboard, wandb]")
    finally:
        del os.environ["WANDB_API_KEY"]
    assert done.code == 0 and "failed" not in done.err
    assert list((tmp_path / "trackers" / "tensorboard" / "run").glob("events*"))
    for path in (tmp_path / "trackers").rglob("*"):
        assert not path.is_file() or b"0123456789abcdef0123456789abcdef01234567" not in path.read_bytes()


def test_an_unknown_tracker_is_a_fault_of_the_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trackers"):
        load_config(write_config(tmp_path), ["trackers=[fax]"])


def test_writing_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write("tensorboard", REPORT, tmp_path)
    assert list((tmp_path / "first").glob("events*"))
