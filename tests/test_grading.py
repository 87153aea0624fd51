import inspect
import json
import re
from pathlib import Path

import pytest
import reasoning_gym
from hypothesis import given
from hypothesis import strategies as st
from reasoning_gym.dataset import ProceduralDataset
from reasoning_gym.factory import DATASETS
from samples import student_answer

from curriculum.errors import DataError
from curriculum.grading import Grader
from curriculum.records import Example, Verdict
from curriculum.safe_tasks import SAFE_TASKS

CASES = json.loads((Path(__file__).parent / "cases" / "grading.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def grader():
    with Grader(limit_seconds=1.0) as shared:
        yield shared


def make_example(grader, gold, metadata=None):
    return Example.make(question="q", gold=gold, grader=grader, source="table", metadata=metadata)


def grade_one(grader, example, text, finish_reason="stop", error=None):
    return grader.grade([(example, student_answer(example, text, finish_reason=finish_reason, error=error))])[0]


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
    answers = [student_answer(e, f"Answer: {e.gold}") for e in examples]
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


def test_an_item_whose_gold_breaks_the_grader_is_failed(grader):
    grade = grade_one(grader, make_example("math", "(" * 3000), "Answer: 7")
    assert grade.verdict == grade.strict_verdict == "failed"
    assert grade.reason
