"""A grading worker is shut in by the kernel: shown from inside, by a grader that runs the student's text as code."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from samples import student_answer

from curriculum import grading_process, grading_worker
from curriculum.errors import DataError, GradingError
from curriculum.grading import Grader
from curriculum.grading_process import BrokenItem, WorkerProcess
from curriculum.records import Example

CARELESS = """
import ctypes, os, socket, subprocess, sys, threading, time

libc = ctypes.CDLL(None)

def outcome(what):
    try:
        return repr(what())
    except BaseException as error:
        return type(error).__name__

def grade(question, gold, answer):
    if answer.startswith("code:"):
        exec(answer.removeprefix("code:"))
    if answer.startswith("try:"):
        raise Exception(eval("outcome(lambda: " + answer.removeprefix("try:") + ")"))
    return answer == gold
"""
"""What no grader should do: it runs what the student wrote. Nothing may come of it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graders")
    (folder / "careless.py").write_text(CARELESS)
    (folder / "precious").write_text("precious")
    return folder


@pytest.fixture(scope="module")
def worker(folder):
    started = WorkerProcess("python", 1.0, 1 << 28, ("careless:grade", folder))
    yield started
    started.stop()


def ask(worker, answer):
    return worker.ask({"question": "q", "gold": "right", "answer": answer})


def attempt(worker, code):
    with pytest.raises(BrokenItem) as broke:
        ask(worker, f"try:{code}")
    return str(broke.value).removeprefix("Exception: ")


REFUSED = {
    # Through Python, and straight through the C library, where only the kernel is asked.
    "a connection": ("socket.create_connection(('127.0.0.1', {port}), timeout=5)", "PermissionError"),
    "an internet socket": ("libc.socket(2, 1, 0)", "-1"),
    "a datagram socket": ("libc.socket(2, 2, 0)", "-1"),
    "a unix socket": ("libc.socket(1, 1, 0)", "-1"),
    "a socket pair": ("libc.socketpair(1, 1, 0, (ctypes.c_int * 2)())", "-1"),
    "a process": ("subprocess.run(['true'])", "PermissionError"),
    "a fork": ("os.fork()", "PermissionError"),
    "a bare fork": ("libc.fork()", "-1"),
    "a program": ("libc.execv(b'/bin/true', (ctypes.c_char_p * 2)(b'true', None))", "-1"),
    "a thread": ("threading.Thread(target=print).start()", "RuntimeError"),
    "a new file": ("open('{folder}/new', 'w')", "PermissionError"),
    "a changed file": ("open('{folder}/precious', 'r+')", "PermissionError"),
    "an emptied file": ("os.truncate('{folder}/precious', 0)", "PermissionError"),
    "a removed file": ("os.remove('{folder}/precious')", "PermissionError"),
    "a renamed file": ("os.rename('{folder}/precious', '{folder}/new')", "PermissionError"),
    "a new folder": ("os.mkdir('{folder}/new')", "PermissionError"),
    "a link": ("os.symlink('{folder}/precious', '{folder}/new')", "PermissionError"),
    "the parent's environment": ("open(f'/proc/{{os.getppid()}}/environ', 'rb').read()", "PermissionError"),
    "the parent's memory": ("open(f'/proc/{{os.getppid()}}/mem', 'rb')", "PermissionError"),
    "a signal to the parent": ("libc.kill(os.getppid(), 0)", "-1"),
    "tracing the parent": ("libc.ptrace(16, os.getppid(), 0, 0)", "-1"),
    "half a gigabyte": ("bytearray(1 << 29)", "MemoryError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_kernel_refuses_a_grader(worker, folder, name):
    code, expected = REFUSED[name]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert attempt(worker, code.format(port=port, folder=folder)) == expected
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (folder / "precious").read_text() == "precious"
    assert not (folder / "new").exists()
    assert ask(worker, "right") is True


def test_a_grader_sees_no_secret_and_has_its_own_session(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    worker = WorkerProcess("python", 1.0, 1 << 28, ("careless:grade", folder))
    others = children()
    try:
        names = set(eval(attempt(worker, "sorted(os.environ)")))
        [pid] = children() - others
        own = Path(f"/proc/{pid}/environ").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert os.getsid(pid) == pid
        assert attempt(worker, "sys.path[0]") == repr(str(folder))
    finally:
        worker.stop()
    allowed = {"PATH", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LC_CTYPE"}
    assert names <= allowed
    assert {line.split(b"=")[0].decode() for line in own.split(b"\0") if line} <= allowed
    for limit in ("Max core file size", "Max processes", "Max file size"):
        assert re.search(rf"{limit} +0 +0 ", limits)


@pytest.mark.parametrize("name", ["math", "regex"])
def test_the_graders_of_this_project_are_shut_in_alike(name):
    others = children()
    worker = WorkerProcess(name, 1.0, 1 << 28)
    request = {"gold": "$1$", "answer": "$1$"} if name == "math" else {"pattern": "1", "text": "1"}
    assert worker.ask(request)
    [pid] = children() - others
    status = Path(f"/proc/{pid}/status").read_text()
    limits = Path(f"/proc/{pid}/limits").read_text()
    worker.stop()
    for line in ("Threads:\t1", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert f"\n{line}\n" in status
    for limit in ("Max core file size", "Max processes", "Max file size"):
        assert re.search(rf"{limit} +0 +0 ", limits)
    assert "Max address space         unlimited" not in limits


ENDINGS = {
    "an endless loop": ("while True: pass", "processor time"),
    "endless work in C": ("sum(range(10**15))", "processor time"),
    "memory without end": ("x = [0]\nwhile True: x += x", "MemoryError"),
    "the end of the process": ("os._exit(0)", "exit code 0"),
    "a polite exit": ("sys.exit()", "SystemExit"),
    "a crash": ("ctypes.string_at(0)", "exit code -11"),
    "endless recursion": ("f = lambda f: f(f)\nf(f)", "RecursionError"),
    "printing": ("print('{\"result\": true}' * 1000, flush=True)\nraise Exception('printed')", "printed"),
    "reading all requests": ("sys.stdin.close()\nraise Exception('closed')", "closed"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_whatever_a_grader_does_costs_one_item(worker, name):
    code, why = ENDINGS[name]
    with pytest.raises(BrokenItem, match=why):
        ask(worker, f"code:{code}")
    assert ask(worker, "right") is True
    assert ask(worker, "other") is False


def test_a_grader_that_waits_is_ended_by_the_clock(folder, monkeypatch):
    monkeypatch.setattr(grading_process, "WALL_FACTOR", 1)
    others = children()
    worker = WorkerProcess("python", 0.5, 1 << 28, ("careless:grade", folder))
    with pytest.raises(BrokenItem, match=r"no verdict after 0\.5 seconds"):
        ask(worker, "code:time.sleep(1000)")
    assert ask(worker, "right") is True
    worker.stop()
    assert children() == others


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import socket; socket.socket()", "PermissionError"),
        ("open(__file__, 'a')", "PermissionError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("def grade(: pass", "SyntaxError"),
        ("x = 1", "no attribute 'grade'"),
        ("grade = 1", "no function but a int"),
        ("raise SystemExit", "SystemExit"),
    ],
)
def test_a_grader_that_cannot_be_loaded_says_why(tmp_path, source, why):
    (tmp_path / "own.py").write_text(source)
    others = children()
    with pytest.raises(DataError, match=rf"data\.grader_function own:grade: expected .*, got .*{why}"):
        WorkerProcess("python", 1.0, 1 << 28, ("own:grade", tmp_path)).ask({})
    assert children() == others


def test_a_worker_killed_from_outside_is_started_again():
    example = Example.make(question="q", gold="1", grader="math", source="t")
    answer = student_answer(example, "Answer: 1")
    others = children()
    with Grader() as own:
        assert own.grade([(example, answer)])[0].verdict == "correct"
        [pid] = children() - others
        os.kill(pid, signal.SIGKILL)
        assert own.grade([(example, answer)])[0].verdict == "correct"
    assert children() == others


def test_a_worker_that_cannot_start_says_what_to_do(monkeypatch):
    monkeypatch.setattr(grading_process, "START_SECONDS", 0)
    others = children()
    with pytest.raises(GradingError, match=r"did not start.*pyproject"):
        WorkerProcess("math", 1.0, 1 << 30).ask({"gold": "$1$", "answer": "$1$"})
    assert children() == others


@pytest.mark.parametrize("busy", [False, True])
def test_the_worker_ends_without_its_parent(busy):
    item = json.dumps({"pattern": "(a+)+$", "text": "a" * 50 + "!"}) + "\n" if busy else ""
    worker = subprocess.Popen(
        [sys.executable, "-I", grading_worker.__file__, "regex", "0.2", str(1 << 30)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = worker.communicate(item, timeout=60)
    assert json.loads(output.splitlines()[0]) == {"ready": True}
    assert worker.returncode == (-signal.SIGPROF if busy else 0)


def children():
    """Process ids of this process's running children."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(stat.parent.name))
    return found
