"""The user's own graders: a pattern that finds the answer, a function that judges it."""

import sys
from pathlib import Path

import pytest
from command import tutelage
from samples import student_answer

from agents.session import check_grader_trusted, open_run
from curriculum.config import load_config
from curriculum.errors import ConfigError, DataError, RunDirError
from curriculum.grading import Grader
from curriculum.records import Example
from curriculum.user_grader import grader_file

OWN = """
import json

CAPITALS = {"the city of light": "paris"}


class Judge:
    @staticmethod
    def same(question, gold, answer):
        return answer.casefold() == gold.casefold()


def same(question, gold, answer):
    if question.startswith("Which city") and answer.lower() in CAPITALS:
        return CAPITALS[answer.lower()] == gold.lower()
    return answer.lower() == gold.lower()


def scored(question, gold, answer):
    return 1.0


def misnamed(question, gold, response):
    return True


def picky(question, gold, answer):
    return json.loads(answer) == json.loads(gold)
"""


@pytest.fixture
def folder(tmp_path):
    package = tmp_path / "own"
    package.mkdir()
    (package / "graders.py").write_text(OWN)
    return tmp_path


def make_example(kind, gold):
    return Example.make(question="Which city is it?", gold=gold, grader=kind, source="table:1")


def grade(grader, example, text, finish_reason="stop"):
    return grader.grade([(example, student_answer(example, text, finish_reason=finish_reason))])[0]


RESULT = r"(?i)result is:? (\w+)|## (\w+)"


@pytest.mark.parametrize(
    ("pattern", "gold", "text", "strict", "lenient", "extracted"),
    [
        (RESULT, "7", "The result is 7, as we saw.", "unparsed", "correct", "7"),
        (RESULT, "7", "The result is 8, no, the result is: 7", "unparsed", "correct", "7"),
        (RESULT, "7", "## 8\n## 7 of them", "unparsed", "correct", "7"),
        (RESULT, "7", "The result is 8", "unparsed", "wrong", "8"),
        (RESULT, "Paris", "RESULT IS paris", "unparsed", "correct", "paris"),
        (RESULT, "7", "It must be 7", "unparsed", "unparsed", None),
        (RESULT, "7", "The result is 8\nAnswer: 7", "correct", "correct", "7"),
        (RESULT, "7", "Answer: 8\nThe result is 7", "unparsed", "correct", "7"),
        (RESULT, "7", "The result is 7\nAnswer: 8", "wrong", "correct", "7"),
        (r"\d+", "7", "3 + 4 makes 7 apples", "unparsed", "correct", "7"),
        (r"x*", "7", "nothing", "unparsed", "unparsed", None),
        (r"(a)?b", "7", "b", "unparsed", "unparsed", None),
        (r"(?s)<a>(.*?)</a>", "two lines", "<a>two\nlines</a>", "unparsed", "correct", "two\nlines"),
    ],
)
def test_the_last_match_of_the_pattern_is_the_lenient_answer(pattern, gold, text, strict, lenient, extracted):
    with Grader(pattern=pattern) as grader:
        grade_ = grade(grader, make_example("regex", gold), text)
    assert (grade_.strict_verdict, grade_.verdict, grade_.extracted) == (strict, lenient, extracted)
    assert grade_.reason == ""


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("The result is 7", "truncated"), ("The result is 7\nSo", "correct"), ("The result is 8\nSo", "wrong")],
)
def test_in_a_cut_text_the_pattern_sees_whole_lines_only(text, verdict):
    with Grader(pattern=RESULT) as grader:
        grade_ = grade(grader, make_example("regex", "7"), text, "length")
    assert (grade_.strict_verdict, grade_.verdict) == ("truncated", verdict)


@pytest.mark.parametrize(
    ("pattern", "gold", "passes"),
    [
        (RESULT, "7", True),  # made for another format than the taught one: it finds nothing there
        (r"Answer: (.+)", "7", True),
        (r"(\d+)", "7", True),
        (r"(\d+)", "-7", False),  # it would find 7, which is another answer
        (r"(\d+)", "two\nlines", False),
    ],
)
def test_a_pattern_that_contradicts_a_gold_answer_is_found_before_anything_is_spent(pattern, gold, passes):
    example = make_example("regex", gold)
    with Grader(pattern=pattern) as grader:
        assert (example.id not in grader.check_gold([example])) is passes


@pytest.mark.parametrize(
    ("function", "gold", "text", "verdict", "reason"),
    [
        ("same", "Paris", "Answer: paris", "correct", ""),
        ("same", "Paris", "Answer: The City of Light", "correct", ""),
        ("same", "Paris", "Answer: Rome", "wrong", ""),
        ("same", "Paris", "I think that\nthe answer is **paris**.", "correct", ""),
        ("same", "Paris", "", "unparsed", ""),
        ("Judge.same", "Paris", "Answer: PARIS", "correct", ""),
        ("picky", "[1, 2]", "Answer: [1,2]", "correct", ""),
        ("picky", "[1, 2]", "Answer: [1", "wrong", "the answer broke the grader: JSONDecodeError"),
        ("picky", "no JSON", "Answer: [1", "failed", "the answer broke the grader: JSONDecodeError"),
        ("scored", "Paris", "Answer: Paris", "failed", "returned a float, expected True or False"),
        ("misnamed", "Paris", "Answer: Paris", "failed", "unexpected keyword argument 'answer'"),
    ],
)
def test_the_function_judges_the_extracted_answer(folder, function, gold, text, verdict, reason):
    with Grader(function=f"own.graders:{function}", folder=folder) as grader:
        grade_ = grade(grader, make_example("python", gold), text)
    assert grade_.verdict == verdict
    assert reason in grade_.reason and bool(reason) == bool(grade_.reason)
    assert "own.graders" not in sys.modules


def test_a_function_that_rejects_a_gold_answer_is_found_before_anything_is_spent(folder):
    good, bad = make_example("python", "[1]"), make_example("python", "one")
    with Grader(function="own.graders:picky", folder=folder) as grader:
        faults = grader.check_gold([good, bad])
    assert list(faults) == [bad.id]
    assert "table:1" in faults[bad.id] and "JSONDecodeError" in faults[bad.id]


@pytest.mark.parametrize("kind", ["regex", "python"])
def test_an_example_whose_grader_was_not_given_is_refused(kind):
    with Grader() as grader, pytest.raises(DataError, match=r"data\.grader_(pattern|function)"):
        grader.check_gold([make_example(kind, "7")])


def test_the_file_of_a_grader_is_found_without_importing_it(folder):
    (folder / "own" / "__init__.py").write_text("raise SystemExit")
    assert grader_file("own.graders:same", folder) == folder / "own" / "graders.py"
    assert grader_file("own:same", folder) == folder / "own" / "__init__.py"
    assert "own" not in sys.modules


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "json.decoder:loads", "no_such:x", "own.no_such:x"])
def test_a_grader_that_is_not_there_or_not_the_users_is_refused(folder, name):
    with pytest.raises(ConfigError, match=r"expected a module of yours in .*Start in the folder"):
        grader_file(name, folder)


DATA = """\
data:
  kind: file
  path: data.jsonl
  format: examples
  splits: {{probe: 10, gate: 10, final: 10}}
  {grader}
student: {{engine: fake, base: fake}}
plan: {{rows_per_round: 4, write_share: 0}}
rounds: 1
"""


def write_config(folder: Path, grader: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(DATA.format(grader=grader))
    return path


@pytest.mark.parametrize(
    ("grader", "fault"),
    [
        ("grader: regex", "`grader_pattern` goes with `grader: regex`"),
        ("grader: python", "`grader_function` goes with `grader: python`"),
        ("grader_pattern: x", "`grader_pattern` goes with `grader: regex`"),
        ("grader_function: a.b:c", "`grader_function` goes with `grader: python`"),
        ("grader: regex\n  grader_pattern: (x", r"`data.grader_pattern`: no regular expression of Python"),
        ("grader: regex\n  grader_pattern: '" + "(" * 999 + "'", "`data.grader_pattern`: no regular expression"),
        ("grader: regex\n  grader_pattern: '" + "x" * 1001 + "'", "`data.grader_pattern`"),
        ("grader: python\n  grader_function: a.b", "`data.grader_function`"),
        ("grader: python\n  grader_function: ../a:b", "`data.grader_function`"),
        ("grader: python\n  grader_function: 'a:b()'", "`data.grader_function`"),
    ],
)
def test_grader_keys_that_do_not_fit_are_faults_of_the_config(tmp_path, grader, fault):
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path, grader))
    assert fault in str(caught.value)
    assert "own.yaml:" in str(caught.value)


def test_grader_keys_are_the_runs_identity(tmp_path):
    pattern = load_config(write_config(tmp_path, "grader: regex\n  grader_pattern: x"))
    other = load_config(write_config(tmp_path, "grader: regex\n  grader_pattern: y"))
    assert pattern.identity_hash != other.identity_hash


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a function of its own, and the folder it was started in."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own").mkdir()
    (folder / "own" / "graders.py").write_text(OWN)
    rows = "".join(f'{{"question": "Which city is number {n}?", "gold": "City {n}"}}\n' for n in range(60))
    (folder / "data.jsonl").write_text(rows)
    config = write_config(folder, "grader: python\n  grader_function: own.graders:same")
    done = tutelage("run", config, "--name", "run", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.mark.real
class TestTrust:
    def test_a_run_uses_the_function(self, finished):
        grades = (finished / "runs" / "run" / "answers" / "base" / "final" / "grades.jsonl").read_text()
        assert grades.count('"grader":"python"') == grades.count('"reason":""') == 10

    def test_resume_without_a_person_names_the_flag_and_the_file(self, finished):
        done = tutelage("resume", "runs/run", cwd=finished)
        assert done.code == 2
        assert "own.graders:same" in done.err and "graders.py" in done.err and "--trust-grader" in done.err
        assert tutelage("resume", "runs/run", "--trust-grader", cwd=finished).code == 0

    def test_report_never_imports_the_function_and_a_changed_one_is_noticed(self, finished):
        path = finished / "own" / "graders.py"
        before = path.read_text()
        path.write_text(f"open({str(finished / 'imported')!r}, 'w')\n{before}")
        try:
            assert tutelage("report", "runs/run", cwd=finished).code == 0
            done = tutelage("resume", "runs/run", "--trust-grader", cwd=finished)
        finally:
            path.write_text(before)
        assert done.code == 2 and "grader changed since this run began" in done.err
        assert not (finished / "imported").exists()

    def test_a_person_is_asked(self, finished, monkeypatch):
        monkeypatch.chdir(finished)
        run, config = open_run(Path("runs/run"))
        asked = []
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        for reply, trusted in (("y", True), ("", False), ("no", False)):
            monkeypatch.setattr("builtins.input", lambda question, reply=reply: asked.append(question) or reply)
            if trusted:
                check_grader_trusted(run, config, False)
            else:
                with pytest.raises(RunDirError, match="not trusted"):
                    check_grader_trusted(run, config, False)
        assert len(asked) == 3 and "own.graders:same" in asked[0]

    @pytest.mark.parametrize(
        ("function", "why"),
        [
            ("own.missing:same", "Start in the folder"),
            ("own.graders:none", "no attribute"),
            ("own.graders:scored", "float"),
        ],
    )
    def test_a_function_that_cannot_be_used_leaves_no_run(self, finished, function, why):
        config = write_config(finished, f"grader: python\n  grader_function: {function}")
        done = tutelage("run", config, "--name", "broken", cwd=finished)
        assert done.code == 2 and why in done.err and "Traceback" not in done.err
        assert not (finished / "runs" / "broken").exists()
