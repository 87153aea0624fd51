import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import reasoning_gym
from hypothesis import given
from hypothesis import strategies as st
from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import DATASETS

from curriculum import grading_process, grading_worker
from curriculum.errors import DataError, GradingError
from curriculum.grading import Grader
from curriculum.grading_process import BrokenItem, WorkerProcess
from curriculum.records import Example, Sampling, StudentAnswer, Verdict
from curriculum.safe_tasks import SAFE_TASKS

CASES = json.loads((Path(__file__).parent / "cases" / "grading.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def grader():
    with Grader(limit_seconds=1.0) as shared:
        yield shared


def make_example(grader, gold, metadata=None):
    return Example.make(question="q", gold=gold, grader=grader, source="table", metadata=metadata)


def make_answer(example, text, finish_reason="stop", error=None):
    return StudentAnswer(
        example_id=example.id,
        adapter="base",
        sampling=Sampling(max_new_tokens=8),
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=1,
        completion_tokens=1,
        error=error,
    )


def grade_one(grader, example, text, finish_reason="stop", error=None):
    return grader.grade([(example, make_answer(example, text, finish_reason, error))])[0]


def gym_example(task, index=0, kind="text"):
    entry = json.loads(json.dumps(reasoning_gym.create_dataset(task, seed=5, size=9)[index]))
    return make_example("reasoning_gym", entry["answer"], {"task": task, "entry": entry, "answer_kind": kind})


@pytest.mark.parametrize("row", CASES, ids=lambda r: f"{r['grader']}:{r['gold'][:20]}:{r['text'][:30]!r}")
def test_verdicts_are_as_the_table_says(grader, row):
    grade = grade_one(grader, make_example(row["grader"], row["gold"]), row["text"])
    assert (grade.strict_verdict, grade.verdict, grade.reason) == (row["strict"], row["lenient"], "")


@pytest.mark.parametrize("row", [r for r in CASES if "correct" in (r["strict"], r["lenient"])], ids=lambda r: r["text"])
def test_right_in_the_taught_format_is_right_for_the_lenient_verdict(row):
    assert row["lenient"] == "correct"


def test_grades_come_in_order_with_the_identity_of_their_answer(grader):
    examples = [make_example("numeric", str(gold)) for gold in range(5)]
    answers = [make_answer(e, f"Answer: {e.gold}") for e in examples]
    grades = grader.grade(list(zip(examples, answers, strict=True)))
    assert [g.example_id for g in grades] == [e.id for e in examples]
    assert [g.answer_id for g in grades] == [a.id for a in answers]
    assert {(g.grader, g.adapter, g.verdict, g.extracted == g.strict_extracted) for g in grades} == {
        ("numeric", "base", Verdict.CORRECT, True)
    }


@pytest.mark.parametrize(
    ("text", "verdict", "extracted"),
    [
        ("The answer is 42. To see this,", "correct", "42"),
        ("The answer is 41. To see this,", "wrong", "41"),
        ("Answer: 42\nQuestion:", "correct", "42"),
        ("Answer: 42", "truncated", None),
        ("First 6 * 7 = 42. Then", "truncated", None),
        ("", "truncated", None),
    ],
)
def test_a_cut_text_is_truncated_unless_a_marked_answer_is_complete(grader, text, verdict, extracted):
    grade = grade_one(grader, make_example("numeric", "42"), text, "length")
    assert (grade.verdict, grade.extracted) == (verdict, extracted)
    assert (grade.strict_verdict, grade.strict_extracted) == ("truncated", None)


def test_an_answer_that_never_came_is_failed_with_its_reason(grader):
    grade = grade_one(grader, make_example("numeric", "42"), "Answer: 42", "error", "server gone")
    assert (grade.verdict, grade.strict_verdict, grade.reason) == ("failed", "failed", "server gone")


@pytest.mark.parametrize("kind", ["exact", "choice", "numeric", "math"])
@pytest.mark.parametrize("gold", ["", '""', ".", "\\", "¿"])
@pytest.mark.parametrize("form", ["{}", "Answer: {}", "The answer is {}.", "\\boxed{{{}}}"])
def test_two_unparsed_answers_are_never_correct(grader, kind, gold, form):
    grade = grade_one(grader, make_example(kind, gold), form.format(gold))
    readable = kind == "exact" and gold in ("\\", "¿")
    assert readable or "correct" not in (grade.verdict, grade.strict_verdict)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", " {} ", "{}.", "{:,} apples", "{}.0", "${:,}"]))
def test_numeric_grading_ignores_separators_spaces_and_the_full_stop(value, form):
    with Grader() as own:
        grade = grade_one(own, make_example("numeric", str(value)), "Answer: " + form.format(value))
        assert (grade.verdict, grade.strict_verdict) == ("correct", "correct")
        other = grade_one(own, make_example("numeric", str(value + 1)), "Answer: " + form.format(value))
        assert (other.verdict, other.strict_verdict) == ("wrong", "wrong")


@given(st.sampled_from(["exact", "choice", "numeric"]), st.text(max_size=20), st.text(max_size=40), st.booleans())
def test_no_text_makes_grading_raise_and_strict_implies_lenient(kind, gold, text, mark):
    with Grader() as own:
        grade = grade_one(own, make_example(kind, gold), f"Answer: {text}" if mark else text)
    assert grade.verdict != "failed"
    assert grade.strict_verdict != "correct" or grade.verdict == "correct"


def test_gold_answers_that_fail_their_own_grader_are_named(grader):
    good = [
        make_example(*pair)
        for pair in [("numeric", "1,234"), ("choice", "(B)"), ("exact", "New York."), ("math", "\\frac{1}{2}")]
    ]
    bad = [
        make_example(*pair)
        for pair in [("numeric", "many"), ("choice", "K"), ("exact", "two\nlines"), ("math", "???"), ("exact", "")]
    ]
    faults = grader.check_gold(good + bad + [gym_example("gcd", kind="number")])
    assert set(faults) == {e.id for e in bad}
    assert "'many'" in faults[bad[0].id]
    assert "table" in faults[bad[0].id]


class TestReasoningGym:
    def test_a_score_of_exactly_one_is_correct_and_a_partial_score_is_not(self, grader):
        example = gym_example("spell_backward")
        gold = example.gold
        assert grade_one(grader, example, f"Answer: {gold}").verdict == "correct"
        assert grade_one(grader, example, f"Answer: {gold}x").verdict == "wrong"

    def test_the_last_number_is_the_fallback_only_where_the_answer_is_a_number(self, grader):
        number = gym_example("gcd", kind="number")
        assert grade_one(grader, number, f"The GCD of 6 and 9 must be {number.gold}.").verdict == "correct"
        text = gym_example("gcd", kind="text")
        assert grade_one(grader, text, f"The GCD of 6 and 9 must be {text.gold}.").verdict == "wrong"

    @pytest.mark.parametrize("task", ["gsm_symbolic", "countdown", "binary_matrix", "no such task", None])
    def test_a_task_off_the_list_is_refused(self, grader, task):
        example = make_example("reasoning_gym", "1", {"task": task, "entry": {"question": "q", "answer": "1"}})
        with pytest.raises(DataError, match=r"safe_tasks\.py"):
            grader.check_gold([example])
        with pytest.raises(DataError, match=r"safe_tasks\.py"):
            grade_one(grader, example, "Answer: 1")

    def test_every_listed_task_gives_its_own_gold_a_score_of_one(self, grader):
        examples = [gym_example(task, index) for task in sorted(SAFE_TASKS) for index in range(3)]
        assert grader.check_gold(examples) == {}

    @pytest.mark.parametrize("task", sorted(SAFE_TASKS))
    def test_no_listed_scorer_runs_the_answer(self, task):
        scorer = DATASETS[task][0]
        source = inspect.getsource(scorer.score_answer)
        if scorer.score_answer is not ProceduralDataset.score_answer:
            for helper in set(re.findall(r"self\.(_\w+)\(", source)):
                source += inspect.getsource(getattr(scorer, helper))
        assert not re.search(r"\b(eval|exec|compile|parse_expr|sympify|loads|__import__)\b", source)

    def test_tasks_known_to_be_unsafe_are_not_listed(self):
        evaluating = {
            name
            for name, (scorer, _) in DATASETS.items()
            if re.search(r"\b(eval|exec|parse_expr|sympify)\b", inspect.getsource(scorer.score_answer))
        }
        assert len(evaluating) >= 8
        assert not SAFE_TASKS & (evaluating | {"gsm_symbolic"})


HOSTILE = {
    "power tower": "Answer: 9^{9^{9^{9}}}",
    "factorial": "Answer: 1000000000!",
    "brackets": "Answer: " + "(" * 3900,
    "boxed brackets": "\\boxed{" + "{" * 1900 + "}" * 1901,
}


class TestConfinement:
    @pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
    def test_a_hostile_answer_is_wrong_and_the_next_item_is_graded_right(self, grader, text):
        example = make_example("math", "\\frac{1}{2}")
        hostile, after = grader.grade([(example, make_answer(example, t)) for t in (text, "Answer: 0.5")])
        assert (hostile.verdict, after.verdict) == ("wrong", "correct")
        assert "processor time" in hostile.reason

    def test_a_megabyte_of_brackets_costs_one_item(self, grader):
        example = make_example("math", "\\frac{1}{2}")
        texts = ("[" * (1 << 20), "\\boxed{" * (1 << 17), "Answer: 0.5")
        grades = grader.grade([(example, make_answer(example, t)) for t in texts])
        assert [g.verdict for g in grades] == ["unparsed", "unparsed", "correct"]

    def test_an_item_whose_gold_breaks_the_grader_is_failed(self, grader):
        grade = grade_one(grader, make_example("math", "(" * 3000), "Answer: 7")
        assert grade.verdict == grade.strict_verdict == "failed"
        assert grade.reason

    def test_a_worker_killed_from_outside_is_started_again(self):
        others = children()
        with Grader() as own:
            example = make_example("math", "1")
            assert grade_one(own, example, "Answer: 1").verdict == "correct"
            [pid] = children() - others
            os.kill(pid, signal.SIGKILL)
            assert grade_one(own, example, "Answer: 1").verdict == "correct"
        assert children() == others

    def test_a_worker_that_cannot_start_says_what_to_do(self, monkeypatch):
        monkeypatch.setattr(grading_process, "START_SECONDS", 0)
        others = children()
        with pytest.raises(GradingError, match=r"did not start.*pyproject"):
            WorkerProcess("math", 1.0, 1 << 30).ask({"gold": "$1$", "answer": "$1$"})
        assert children() == others

    def test_the_worker_has_no_secret_no_network_and_its_own_session(self, monkeypatch, tmp_path):
        monkeypatch.setenv("OPENAI_API_KEY", "a-secret")
        others = children()
        with Grader() as own:
            assert grade_one(own, make_example("math", "1"), "Answer: 1").verdict == "correct"
            [pid] = children() - others
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert os.getsid(pid) == pid
            own_network = Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        assert own_network == confined_attempts(1, tmp_path / "file")["own network"]
        names = {line.split(b"=")[0].decode() for line in environment.split(b"\0") if line}
        assert names <= {"PATH", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}
        for limit in ("Max core file size", "Max processes", "Max file size"):
            assert re.search(rf"{limit} +0 +0 ", limits)

    def test_the_confined_process_reaches_no_listener_starts_nothing_writes_no_file_and_is_bounded(self, tmp_path):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            report = confined_attempts(listener.getsockname()[1], tmp_path / "file")
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        assert report["socket"] == report["process"] == "PermissionError"
        assert (report["write"], report["memory"]) == ("OSError", "MemoryError")
        if report["own network"]:
            # Without Python's help, straight to the C library: the kernel itself refuses.
            assert report["raw connect"] != 0

    @pytest.mark.parametrize("busy", [False, True])
    def test_the_worker_ends_without_its_parent(self, busy):
        item = '{"gold": "$7$", "answer": "$9^{9^{9^{9}}}$"}\n' if busy else ""
        worker = subprocess.Popen(
            [sys.executable, "-I", grading_worker.__file__, "math", "0.5", str(1 << 30)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        output, _ = worker.communicate(item, timeout=60)
        assert json.loads(output.splitlines()[0]) == {"ready": True}
        assert worker.returncode == (-signal.SIGPROF if busy else 0)

    def test_a_worker_without_a_verdict_is_ended(self, monkeypatch):
        monkeypatch.setattr(grading_process, "WALL_FACTOR", 0)
        others = children()
        worker = WorkerProcess("math", 30.0, 1 << 30)
        with pytest.raises(BrokenItem, match="no verdict"):
            worker.ask({"gold": "$7$", "answer": "$9^{9^{9^{9}}}$"})
        assert children() == others


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


def confined_attempts(port, path):
    """What a process confined like a worker gets when it misbehaves."""
    code = f"""
import ctypes, json, os, runpy, socket, struct, subprocess
worker = runpy.run_path({grading_worker.__file__!r})
before = os.readlink("/proc/self/ns/net")
worker["leave_network"]()
worker["confine"](1 << 30)
def attempt(what):
    try:
        what()
    except Exception as error:
        return type(error).__name__
def write():
    with open({str(path)!r}, "w") as file:
        file.write("x")
libc = ctypes.CDLL(None)
address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons({port}), bytes([127, 0, 0, 1]))
report = {{
    "own network": os.readlink("/proc/self/ns/net") != before,
    "raw connect": libc.connect(libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0), address, len(address)),
    "memory": attempt(lambda: bytearray(1 << 31)),
    "socket": attempt(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=5)),
    "process": attempt(lambda: subprocess.run(["true"])),
    "write": attempt(write),
}}
print(json.dumps(report))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
