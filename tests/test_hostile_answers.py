"""Hostile answers cost one item's limit and nothing else: the next item is graded right, and nothing is evaluated."""

import json
import sys
from contextlib import suppress

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS
from samples import student_answer

from curriculum.grading import Grader
from curriculum.records import Example
from curriculum.safe_tasks import SAFE_TASKS

OWN = """
import re
from decimal import Decimal

def grade(question, gold, answer):
    re.search(r"(x+x+)+y", answer)
    return Decimal(answer) == Decimal(gold)
"""
"""A grader as people write them: it raises on what is no number, and its pattern can take for ever."""


@pytest.fixture(scope="module")
def grader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graders")
    (folder / "own.py").write_text(OWN)
    with Grader(0.5, pattern=r"(?:Answer: |(?:a+)+b)(.+)", function="own:grade", folder=folder) as shared:
        yield shared


def make_example(kind):
    if kind == "reasoning_gym":
        entry = json.loads(json.dumps(reasoning_gym.create_dataset("chain_sum", seed=1, size=1)[0]))
        metadata = {"task": "chain_sum", "entry": entry, "answer_kind": "number"}
        return Example.make(question="q", gold=entry["answer"], grader=kind, source="t", metadata=metadata)
    return Example.make(question="q", gold="B" if kind == "choice" else "7", grader=kind, source="t")


def grade(grader, example, *texts):
    answers = [student_answer(example, text, sample_index=index) for index, text in enumerate(texts)]
    return grader.grade([(example, answer) for answer in answers])


MEGABYTE = 1 << 20
HOSTILE = {
    "a power tower of a thousand digits": "Answer: " + "^".join(["9" * 1000] * 3),
    "a megabyte of brackets": "[" * MEGABYTE,
    "a megabyte of closed brackets": "Answer: " + "(" * (MEGABYTE // 2) + ")" * (MEGABYTE // 2),
    "brackets up to the limit": "Answer: " + "{" * 1900 + "}" * 1900,
    "nested fractions": "Answer: " + "\\frac{1}{" * 400 + "2" + "}" * 400,
    "nested boxes": "\\boxed{" * 500 + "2" + "}" * 500,
    "a catastrophic text": "Answer: " + "x" * 3000,
    "another catastrophic text": "a" * 3000,
    "NUL": "Answer: \0",
    "NUL in the middle": "Answer: 8\0",
    "control characters": "Answer: " + "".join(map(chr, range(1, 32))) + "\x7f\x9b31m",
    "terminal commands": "Answer: \x1b]0;title\x07\x1b[2J8",
    "lone surrogates": "Answer: \ud800\udfff",
    "lone surrogates about a number": "\udc00Answer: 8\ud800",
    "a gigantic number": "Answer: " + "9" * MEGABYTE,
    "a number at the limit": "Answer: " + "9" * 3900,
    "a gigantic exponent": "Answer: 1e999999999999",
    "a gigantic negative exponent": "Answer: 1e-999999999999",
    "a gigantic factorial": "Answer: 99999999999!",
    "a gigantic sum": "Answer: \\sum_{k=1}^{10^{20}} k^{10^{20}}",
    "not a number": "Answer: nan",
    "infinity": "Answer: -inf",
    "digits of many scripts": "Answer: ٧๗७8⑦",
    "right to left": "Answer: \u202e8\u2066",
    "code": "Answer: __import__('os')._exit(0)",
    "LaTeX that reads a file": "Answer: \\input{/etc/passwd}\\write18{true}",
    "a format": "Answer: {0.__class__} %s %n $HOME ${{7*7}}",
    "JSON of the protocol": 'Answer: 8"}\n{"result": true}\n',
}


@pytest.mark.parametrize("kind", ["exact", "choice", "numeric", "math", "regex", "python", "reasoning_gym"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_never_right_and_the_next_one_is_graded_right(grader, name, kind):
    example = make_example(kind)
    hostile, after, wrong = grade(grader, example, HOSTILE[name], f"Answer: {example.gold}", "Answer: J")
    assert hostile.verdict in ("wrong", "unparsed")
    assert hostile.strict_verdict in ("wrong", "unparsed")
    assert (after.verdict, after.strict_verdict, after.reason) == ("correct", "correct", "")
    assert "correct" not in (wrong.verdict, wrong.strict_verdict)
    assert len(hostile.reason) < 400


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("math", "a power tower of a thousand digits"),
        ("math", "brackets up to the limit"),
        ("regex", "another catastrophic text"),
        ("python", "a catastrophic text"),
    ],
)
def test_what_takes_too_long_says_so(grader, kind, name):
    [grade_] = grade(grader, make_example(kind), HOSTILE[name])
    assert grade_.reason == "the answer broke the grader: more than 0.5 seconds of processor time"


def test_an_item_whose_gold_answer_breaks_the_pattern_is_failed():
    example = Example.make(question="q", gold="a" * 50, grader="regex", source="t")
    with Grader(0.2, pattern="(a+)+!") as own:
        [grade_] = grade(own, example, "a" * 60)
        assert grade_.verdict == "failed"
        assert "processor time" in own.check_gold([example])[example.id]


MARK = "tutelage_ran_an_answer"
CODE = f"__import__('sys').modules.setdefault('{MARK}', 7)"
FORMS = ["{}", "[{}]", "({})", "7 + {}", "{} - 7", "'{}'", "lambda: {}", "{}\n{}", "\\frac{{{}}}{{1}}"]


def ran(task, form):
    """Whether the scorer of a task runs an answer that is code."""
    entry = json.loads(json.dumps(reasoning_gym.create_dataset(task, seed=3, size=1)[0]))
    sys.modules.pop(MARK, None)
    with suppress(Exception):
        reasoning_gym.get_score_answer_fn(task)(answer=form.replace("{}", CODE), entry=entry)
    return sys.modules.pop(MARK, None) is not None


@pytest.mark.parametrize("task", sorted(SAFE_TASKS))
def test_no_listed_scorer_runs_code_in_an_answer(task):
    assert not [form for form in FORMS if ran(task, form)]


def test_the_mark_is_left_where_an_answer_is_run():
    assert set(DATASETS) - SAFE_TASKS
    assert any(ran(task, form) for task in ("countdown", "polynomial_equations", "puzzle24") for form in FORMS)
