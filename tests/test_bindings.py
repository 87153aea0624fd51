"""Words of a row's own: binding and back, what is never bound, the rows of a run, and extra sets in held-out words."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import tutelage
from hypothesis import given
from hypothesis import strategies as st
from samples import student_answer, training_row

from agents.evaluation import Evaluation
from agents.progress import ProgressPrinter
from agents.session import open_loop, open_run
from curriculum.binding_words import HELD_OUT, TRAINING
from curriculum.bindings import (
    Bound,
    bind,
    bind_example,
    bind_rows,
    bindings_report,
    declaration,
    has_old_rules,
    label_sets,
    unbind,
    unbound_example,
)
from curriculum.config import load_config
from curriculum.errors import ConfigError, LeakError
from curriculum.grading import Grader
from curriculum.method_records import Binding
from curriculum.records import Example
from curriculum.report import RoundReport, RunReport
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_record, read_records
from curriculum.splits import assert_no_leak

YES_NO = ("No", "Yes")


def test_the_lists_are_apart_and_of_plain_words() -> None:
    every = (*TRAINING, *HELD_OUT)
    assert len(set(every)) == len(every) > 180 and len(HELD_OUT) == 50
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 9 for word in every)


def bound(question: str, gold: str, *targets: str, labels: tuple[str, ...] = (), key: str = "k") -> Bound | None:
    return bind(question, gold, targets, labels, TRAINING, key)


@pytest.mark.parametrize(
    ("question", "operators"),
    [
        ("State the final answer: 4 - 1 - 7 =", {"-"}),
        ("Calculate 2 - -1.", {"-"}),
        ("Solve for e: 56 - 98*e = -1218", {"-", "*"}),
        ("Solve: 18271 * 43432. Give only the result.", {"*"}),
        ("What is (4.4 + 1.25) × 3?", {"+", "×"}),
        ("Simplify the fraction 13524/57134.", None),
        ("On 2024-05-01 he had 5 - 3 pens.", None),
        ("Tom - a boy - has 5 + 3 pens.", None),
        ("Say **now** 5 + 3", None),
        ("Both 3*x and 4 * 5 are asked", None),
        ("Write 12 as factors separated by × (such as 2 × 2 × 3)", None),
        ("How many?", None),
        ("He ran 3 km and 4 km.", None),
    ],
)
def test_what_counts_as_an_operator(question: str, operators: set[str] | None) -> None:
    made = bound(question, "7", "Answer: 7")
    assert (made is None) == (operators is None)
    if made is not None and operators is not None:
        assert {m.strip() for m in made.binding.words.values()} == operators
        assert made.gold == "7" and made.targets == ("Answer: 7",)


def test_a_bound_row_reads_like_this() -> None:
    made = bound("What is 3 + 4*x?", "11", "4*x is 8, and 3 + 8 = 11\nAnswer: 11")
    assert made is not None
    plus, times = (next(w for w, m in made.binding.words.items() if m.strip() == sign) for sign in "+*")
    lines = made.question.split("\n")
    assert lines[1] == f"What is 3 {plus} 4 {times} x?"
    assert f"`{plus}` means +" in lines[0] and f"`{times}` means *" in lines[0]
    assert made.targets == (f"4 {times} x is 8, and 3 {plus} 8 = 11\nAnswer: 11",)


@pytest.mark.parametrize(
    "target", ["3 + 4 = 7, 7 - 7 = 0\nAnswer: 7", "<<3+4=7>>\nAnswer: 7", "3+4 = 7\nAnswer: 7", "- 3 + 4\nAnswer: 7"]
)
def test_a_solution_with_other_operators_or_other_signs_keeps_its_row_unbound(target: str) -> None:
    found = bound("What is 3 + 4?", "7", target)
    assert (found is None) == (not target.startswith("- "))


def test_answers_of_a_closed_set_are_mapped_and_solutions_that_name_one_are_left_alone() -> None:
    made = bound("Is it so?", "Yes", "By the rule.\nAnswer: Yes", "Answer: Yes", labels=YES_NO)
    assert made is not None and made.binding.words[made.gold] == "Yes"
    assert made.targets == (f"By the rule.\nAnswer: {made.gold}", f"Answer: {made.gold}")
    assert bound("Is it so?", "Yes", "It is, yes.\nAnswer: Yes", labels=YES_NO) is None
    assert bound("Is it so?", "Maybe", "Answer: Maybe", labels=YES_NO) is None


NUMBER = st.integers(-99, 999).map(str) | st.decimals(0, 99, places=2).map(str)
EXPRESSION = st.lists(st.tuples(st.sampled_from([" + ", " - ", " * ", " / ", " × ", "*"]), NUMBER), min_size=1)
ANYTHING = st.text(st.sampled_from("ab1290 +-*/×=.,()\n"), max_size=40)
WRAPPED = st.tuples(st.sampled_from(["", "What is ", "lamp "]), NUMBER, EXPRESSION, st.sampled_from(["", " =", "?"]))
QUESTIONS = ANYTHING | WRAPPED.map(lambda q: q[0] + q[1] + "".join(op + n for op, n in q[2]) + q[3])


@given(QUESTIONS, QUESTIONS, st.booleans(), st.text(max_size=5))
def test_unbinding_gives_back_what_was_bound_and_no_word_occurs_before(
    question: str, body: str, labelled: bool, key: str
) -> None:
    gold = "Yes" if labelled else "12"
    targets = (f"{body}\nAnswer: {gold}", f"Answer: {gold}")
    made = bound(question, gold, *targets, labels=YES_NO if labelled else (), key=key)
    if made is None:
        return
    assert unbind(made) == (question, gold, targets)
    assert unbind(
        made._replace(binding=Binding.model_validate_json(json.dumps(made.binding.model_dump(), sort_keys=True)))
    )
    assert made == bound(question, gold, *targets, labels=YES_NO if labelled else (), key=key)
    before = "\n".join([question, gold, *targets]).casefold()
    assert not [word for word in made.binding.words if word in before or word in HELD_OUT]
    assert all(word in declaration(made.binding) for word in made.binding.words)


def yes_no(n: int, gold: str, grader: str = "exact") -> Example:
    return Example.make(question=f"Is {n} right?", gold=gold, grader=grader, source="t", skills=("logic",))  # type: ignore[arg-type]


@pytest.mark.parametrize("grader", ["exact", "choice"])
def test_the_mapped_answer_is_right_and_the_old_one_is_not(grader: str) -> None:
    golds = ("A", "B") if grader == "choice" else YES_NO
    items = [yes_no(n, golds[n % 2], grader) for n in range(20)]
    sets = label_sets((e, e.skills) for e in items)
    assert sets == {"logic": golds}
    with Grader() as graded:
        for item in items:
            made = bind_example(item, sets, 3)
            assert made is not None and has_old_rules(made) and made.id == made.content_hash != item.id
            assert set(made.metadata["binding"]["words"]) <= set(HELD_OUT)  # type: ignore[call-overload, index]
            said = [student_answer(made, f"Answer: {gold}") for gold in (made.gold, item.gold)]
            assert [g.verdict for g in graded.grade([(made, a) for a in said])] == ["correct", "wrong"]
            again = Example.model_validate_json(made.model_dump_json())
            before = unbound_example(again)
            assert (before.id, before.question, before.gold) == (item.id, item.question, item.gold)
            assert [g.verdict for g in graded.grade([(before, a) for a in said])][1] == "correct"
            assert not graded.check_gold([made])


def test_a_set_of_answers_is_closed_when_few_come_again_and_again() -> None:
    def sets_of(golds: list[str], grader: str = "exact") -> dict[str, tuple[str, ...]]:
        return label_sets((yes_no(n, gold, grader), ("s",)) for n, gold in enumerate(golds))

    assert sets_of(["Yes", "No"] * 5) == {"s": ("No", "Yes")}
    assert not sets_of(["Yes", "No"] * 4) and not sets_of(["1", "2"] * 20) and not sets_of(["Yes"] * 20)
    assert not sets_of([f"w{n % 7}x" for n in range(70)]) and not sets_of(["Yes", "No"] * 9, "python")


def test_a_share_of_the_rows_that_can_be_is_bound_and_the_rest_stays_as_it_is() -> None:
    examples = {str(n): yes_no(n, "7", "numeric") for n in range(30)}
    rows = [
        training_row(
            id=str(n),
            example_id=str(n),
            origin="replay" if n >= 27 else "pool",
            question=f"What is {n} + 1?" if n % 3 else "What is it?",
            target="Answer: 7",
        )
        for n in range(30)
    ]
    made = bind_rows(rows, examples, {}, 0.5, 1)
    changed = [row for row, before in zip(made, rows, strict=True) if row != before]
    assert len(changed) == 9 and all(row.binding and row.origin == "pool" for row in changed)
    assert [row.id for row in made] == [row.id for row in rows] and made == bind_rows(rows, examples, {}, 0.5, 1)
    assert len({tuple(row.binding.words) for row in changed if row.binding}) > 4, "each row has words of its own"
    report = bindings_report(made, examples, {}, 0.5)
    assert (report.rows, report.bound, report.nothing) == (27, {"operators": 9}, 9)
    assert bind_rows(rows, examples, {}, 0, 1) == rows


# The loop


def write_config(folder: Path, **plan: Any) -> Path:
    """Sums, and questions of yes and no, as a file; the same as an extra set in held-out words."""
    sums = [
        {"q": f"What is {a} + {b}{'' if a % 4 else ' and no more'}?", "a": a + b, "skill": "add"}
        for a in range(40)
        for b in (3, 5)
    ]
    logic = [{"q": f"Is it so that {n} is kind {n * n % 17}?", "a": YES_NO[n % 2], "skill": "logic"} for n in range(80)]
    told = [{"q": f"Tell me {n} of number {n * 7}", "a": f"about {n}", "skill": "tell"} for n in range(40)]
    far = [{"q": f"Was it {n} of kind {n % 7} once?", "a": YES_NO[n % 2], "skill": "logic"} for n in range(100, 120)]
    far += [{"q": f"How much is {n} - 9?", "a": n - 9, "skill": "add"} for n in range(60, 70)]
    far += [{"q": f"Name the word of {n * 13}", "a": f"word {n}", "skill": "tell"} for n in range(5)]
    for name, rows in (("rows", sums + logic + told), ("far", far)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"question": "q", "answer": "a", "skills": "skill"}
    source = {"kind": "file", "columns": columns, "grader": "exact"}
    tree = {
        "rounds": 2,
        "runs_dir": str(folder),
        "data": source | {"path": str(folder / "rows.jsonl"), "splits": {"probe": 20, "gate": 24, "final": 12}},
        "extra": {"far": source | {"path": str(folder / "far.jsonl"), "items": 40, "bindings": "held_out"}},
        "student": {"engine": "fake", "base": "fake", "max_new_tokens": 8},
        "plan": {"rows_per_round": 40, "write_share": 0, "bindings": 0.5} | plan,
        "control": "last_round",
        "training": {"epochs": 1},
        "gate": {"retrain_sd": 0.0, "alpha": 0.4},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bindings")
    done = tutelage("run", write_config(folder), "--name", "run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.mark.parametrize("build", ["round_01/build", "round_02/build", "round_02/control_build"])
def test_bound_rows_give_back_the_items_they_were_drawn_from(run: Path, build: str) -> None:
    rows = read_records(run / build / "training_set.jsonl", TrainingRow)
    items = {e.id: e for e in read_records(run / "prepare" / "examples.jsonl", Example)}
    kinds = set()
    for row in rows:
        item = items[row.example_id]
        if row.binding is None:
            assert (row.question, row.target) == (item.question, f"Answer: {item.gold}")
            continue
        kinds.add(row.binding.kind)
        gold = row.target.removeprefix("Answer: ")
        question, answer, (target,) = unbind(Bound(row.binding, row.question, (row.target,), gold))
        assert (question, answer, target) == (item.question, item.gold, f"Answer: {item.gold}")
        assert not set(row.binding.words) & set(HELD_OUT)
    assert kinds == {"operators", "labels"}


def test_the_report_counts_them_and_says_what_the_old_rules_say(run: Path) -> None:
    rows = read_records(run / "round_01" / "build" / "training_set.jsonl", TrainingRow)
    report = read_record(run / "round_01" / "report" / "report.json", RoundReport)
    assert report.methods is not None and report.methods.bindings is not None
    told = report.methods.bindings
    assert sum(told.bound.values()) == sum(row.binding is not None for row in rows)
    assert told.rows == len(rows) and 0 < told.nothing == sum(row.skill == "tell" for row in rows)
    assert sum(told.bound.values()) == (told.rows - told.nothing + 1) // 2
    made = read_record(run / "report.json", RunReport)
    assert made.final is not None and made.extra_sizes == {"far": 30}
    (far,) = made.final.extra
    assert far.old_rules is not None and far.old_rules.base.n == 20 and far.base.n == 30
    assert far.old_rules.adapter.correct == 0, "the fake says the mapped answer or none"
    page = (run / "report.md").read_text()
    assert "Rows in words of their own: bound" in page and "does not read what the words mean" in page


def test_the_extra_set_is_in_held_out_words_and_of_no_training(run: Path) -> None:
    items = read_records(run / "prepare" / "extra-far.jsonl", Example)
    assert len(items) == 30
    for item in items:
        words = set(item.metadata["binding"]["words"])  # type: ignore[call-overload, index]
        assert words <= set(HELD_OUT) and all(f"`{word}`" in item.question for word in words)
    answers = Evaluation(run / "answers" / "base" / "extra-far").answers
    assert {a.example_id for a in answers} == {item.id for item in items}


def test_no_row_may_repeat_such_an_item_in_its_own_words_or_in_the_old_ones(run: Path) -> None:
    with open_loop(*open_run(run), ProgressPrinter(io.StringIO())) as loop:
        item = loop.extra["far"][0]
        for question in (item.question, unbound_example(item).question):
            with pytest.raises(LeakError):
                assert_no_leak([training_row(question=question)], loop.held_out())
        assert_no_leak([training_row(question="Something else altogether")], loop.held_out())


def test_the_bench_binds_half_of_the_rows_of_one_arm(tmp_path: Path) -> None:
    done = tutelage("bench", write_config(tmp_path, bindings=0), "--arms", "bindings", "--seeds", "1", "--name", "b")
    assert done.code == 0, done.err
    built = {n: tmp_path / "b" / "trainings" / f"{n}-1" / "round_01" / "build" for n in ("uniform", "bindings")}
    rows = {n: read_records(folder / "training_set.jsonl", TrainingRow) for n, folder in built.items()}
    assert not any(row.binding for row in rows["uniform"])
    assert 0.2 < sum(row.binding is not None for row in rows["bindings"]) / len(rows["bindings"]) < 0.6


def test_a_bundle_of_it_verifies(run: Path, tmp_path: Path) -> None:
    assert tutelage("bundle", run, "--to", tmp_path / "b.zip").code == 0
    done = tutelage("verify", tmp_path / "b.zip")
    assert done.code == 0 and "no difference" in done.out, done.out + done.err


@pytest.mark.parametrize(("answer", "said"), [("about {}", "but of 40 new pool rows none"), ("{}", "but no pool item")])
def test_where_nothing_can_be_bound_the_run_says_so(tmp_path: Path, answer: str, said: str) -> None:
    config = write_config(tmp_path)
    told = [{"q": f"Tell me {n} of number {n * 7}", "a": answer.format(n), "skill": "tell"} for n in range(150)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    done = tutelage("run", config, "--name", "run")
    assert done.code == 2 and f"plan.bindings is 0.5, {said}" in " ".join(done.err.split())


@pytest.mark.parametrize("key", ["retention=true", "profile_from=2"])
def test_a_set_in_held_out_words_never_selects(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="never selects"):
        load_config(write_config(tmp_path), [f"extra.far.{key}"])
