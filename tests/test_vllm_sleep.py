"""A server that sleeps while the student trains: what it is told when. A stand-in: vLLM on a CPU cannot sleep."""

import json
import sys
from pathlib import Path

import pytest
from test_vllm_server import until_gone

from curriculum.config import load_config
from curriculum.errors import ConfigError, StudentError
from curriculum.student_config import StudentConfig, VllmConfig
from curriculum.training_config import TrainingConfig
from student import vllm_student
from student.address import socket_path
from student.interface import AdapterFiles
from student.vllm_server import Model, is_healthy, start_server
from student.vllm_student import VllmStudent

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_vllm.py")), "ok", "serve")
FACTS = {"gpu": True, "dtype": "bfloat16", "max_length": 512, "model": None}


def log_lines(log):
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def told(log):
    """What a server was asked to do, but for questions on its health."""
    return [line["path"] for line in log_lines(log) if "path" in line]


def test_a_server_that_can_sleep_listens_on_a_socket_of_this_user_alone(tmp_path):
    log = tmp_path / "vllm.log"
    model = Model(Path("/m"), "base", "bfloat16", 512, True, 16, sleeps=True)
    server = start_server(model, VllmConfig(sleep=True), 1, log, lambda _: None, COMMAND)
    try:
        socket = socket_path(server.url)
        first = log_lines(log)[0]
        assert first["dev"] == "1" and "--enable-sleep-mode" in first["argv"]
        assert "--port" not in first["argv"] and "--host" not in first["argv"]
        assert socket.is_socket() and socket.parent.stat().st_mode & 0o777 == 0o700
        assert is_healthy(server.url) and not server.slept
        server.sleep()
        server.wake()
        assert told(log) == ["/sleep?level=1&mode=wait", "/wake_up"] and server.slept
        assert {line["key"] for line in log_lines(log)} == {server.key, f"Bearer {server.key}"}
    finally:
        server.stop()
    assert until_gone(server._process.pid) == [] and not socket.parent.exists()
    with pytest.raises(StudentError, match="expected the vLLM server to do /sleep"):
        server.sleep()


@pytest.fixture
def student(tmp_path, monkeypatch):
    """A student with a stand-in for a server, whose worker's jobs and trainings are only noted."""
    config = StudentConfig(engine="vllm", vllm=VllmConfig(sleep=True))
    made = VllmStudent(config, TrainingConfig(), "", lambda _: None)
    made._facts = dict(FACTS)
    made.noted, made.verdicts = [], []

    def note(what, result):
        made.noted.append(what)
        return result

    def one_event(job, log):
        note(job["do"], None)
        if job["do"] != "check_served":
            return {}
        verdict = made.verdicts.pop(0) if job["adapter"] else None
        canary = {"verdict": verdict, "prompts": 1, "tokens": 1, "served": 1.0, "others": {"base": 1.0}}
        return {"same_text": 1, "canary": canary if verdict else None}

    def start(model, *given):
        note("start", None)
        return start_server(model, *given, command=COMMAND)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(made, "_one_event", one_event)
    monkeypatch.setattr(made._local, "base_job", lambda: {"base": "/m"})
    monkeypatch.setattr(made._local, "train", lambda *_: note("train", "trained"))
    monkeypatch.setattr(vllm_student, "start_server", start)
    yield made
    made._stop_server()


@pytest.fixture
def adapters(tmp_path):
    folders = [tmp_path / name for name in ("r1", "r2")]
    for folder in folders:
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"x")
    return [AdapterFiles(folder.name, folder) for folder in folders]


def test_it_sleeps_while_the_student_trains_and_is_checked_when_it_wakes(student, adapters, tmp_path):
    log = tmp_path / "log"
    student.verdicts = ["same", "same"]
    student._serve(adapters[0], [], log)
    assert student.train([], None, tmp_path, log, print) == "trained"
    assert student._server.is_alive() and student.serving() is None, "what it serves is to be checked again"
    student._serve(adapters[0], [], log)
    loaded = ["load_adapter", "check_served"]
    assert student.noted == ["start", *loaded, "train", *loaded]
    assert told(log.with_name("vllm.log")) == ["/sleep?level=1&mode=wait", "/wake_up"]
    assert student.serving().canary.verdict == "same"


def test_one_that_woke_with_other_weights_gives_way_to_a_new_one_and_a_new_one_does_not(student, adapters, tmp_path):
    log = tmp_path / "log"
    student.verdicts = ["same", "other", "same", "other"]
    student._serve(adapters[0], [], log)
    student.train([], None, tmp_path, log, print)
    student._serve(adapters[1], [], log)
    assert student.noted.count("start") == 2 and student.serving().adapter == "r2" and not student._server.slept
    with pytest.raises(StudentError, match="got other weights"):
        student._serve(adapters[0], [], log)
    assert student.noted.count("start") == 2


def test_a_merged_adapter_is_told_from_the_base_only_and_no_other_from_it(student, adapters, tmp_path, monkeypatch):
    log, compared, one_event = tmp_path / "log", [], student._one_event

    def noted(job, log):
        compared.extend([sorted(job["others"])] if job["do"] == "check_served" else [])
        return one_event(job, log)

    monkeypatch.setattr(student, "_one_event", noted)
    student.verdicts = ["same"] * 3
    scaled = AdapterFiles("r1-lines0.5", tmp_path / "draft", merged=True)
    scaled.folder.mkdir()
    for adapter in (adapters[0], scaled, adapters[1]):
        student._serve(adapter, [], log)
    assert compared == [[], [], ["r1"]] and student.serving().adapter == "r2"


def test_the_base_is_not_trusted_after_a_sleep(student, adapters, tmp_path):
    log = tmp_path / "log"
    student._serve(AdapterFiles("base", None), [], log)
    student.train([], None, tmp_path, log, print)
    student._serve(AdapterFiles("base", None), [], log)
    assert student.noted == ["start", "check_served", "train", "start", "check_served"]


@pytest.mark.parametrize(("facts", "adapters_how"), [({"gpu": False}, "runtime"), ({}, "merged")])
def test_a_server_that_cannot_sleep_or_would_end_anyway_ends(student, tmp_path, facts, adapters_how):
    student._config = student._config.model_copy(
        update={"vllm": student._config.vllm.model_copy(update={"adapters": adapters_how})}
    )
    student._facts |= facts
    student._serve(AdapterFiles("base", None), [], tmp_path / "log")
    assert student._server.url.startswith("http://127.0.0.1")
    student.train([], None, tmp_path, tmp_path / "log", print)
    assert student._server is None and told(tmp_path / "vllm.log") == []


def test_servers_of_others_are_not_put_to_sleep():
    quickstart = Path(__file__).parents[1] / "runs/configs/quickstart.yaml"
    with pytest.raises(ConfigError, match=r"student\.vllm\.sleep is for a server of ours"):
        load_config(quickstart, ["student.vllm.sleep=true", "student.vllm.urls=['http://127.0.0.1:8000']"])
