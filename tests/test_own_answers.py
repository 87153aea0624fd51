"""Targets in the student's own words: what is usable, the cap, the order of choices, the loop with the fake student."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import canonical_files, tutelage, write_config
from hypothesis import given
from hypothesis import strategies as st
from samples import training_row
from test_methods import read_round, worked_config

from agents.forecast import forecast
from agents.own_answers import CHOICES
from curriculum.config import load_config
from curriculum.errors import ConfigError
from curriculum.extraction import extract_strict
from curriculum.grading import Grader
from curriculum.method_records import WordingChoice
from curriculum.own_answers import (
    Graded,
    Usable,
    choose_wordings,
    keeps_numbers,
    takes_own,
    usable_text,
    wording_report,
)
from curriculum.records import Example, Grade, Sampling, StudentAnswer, Verdict
from curriculum.report import RunReport
from curriculum.round_records import TrainingRow
from curriculum.rundir import read_record, read_records


def item(question: str, *solutions: str, gold: str = "12") -> Example:
    return Example.make(question=question, gold=gold, grader="numeric", source="test", solutions=solutions)


def graded(example: Example, text: str, finish: str = "stop") -> Graded:
    answer = StudentAnswer.model_validate(
        {
            "example_id": example.id,
            "adapter": "base",
            "sampling": Sampling(max_new_tokens=9),
            "text": text,
            "finish_reason": finish,
            "prompt_tokens": 1,
            "completion_tokens": 1,
        }
    )
    with Grader() as grader:
        return answer, grader.grade([(example, answer)])[0]


@pytest.mark.parametrize(
    ("text", "finish", "wanted"),
    [
        ("5 + 7 is 12.\nAnswer: 12 \n", "stop", Usable("5 + 7 is 12.\nAnswer: 12", False)),
        ("Answer: 12", "stop", Usable("Answer: 12", False)),
        ("It makes 5 + 7 = 12", "stop", Usable("It makes 5 + 7 = 12\nAnswer: 12", True)),
        ("So.\nAnswer: 7 + 5 = 12", "stop", Usable("So.\nAnswer: 12", True)),
        ("Answer: 12\nI hope that helps.", "stop", Usable("Answer: 12\nI hope that helps.\nAnswer: 12", True)),
        ("Answer: 12", "length", None),
        ("5 + 7 is 12.\nAnswer: 12\nAnd so", "length", None),
        ("Answer: 13", "stop", None),
        ("no idea", "stop", None),
        ("  ", "stop", None),
        ("red \x1b[31m\nAnswer: 12", "stop", None),
        ("<|im_end|> is text\nAnswer: 12", "stop", Usable("<|im_end|> is text\nAnswer: 12", False)),
    ],
)
def test_a_whole_and_right_answer_is_a_target_in_the_taught_form(text: str, finish: str, wanted: Usable | None) -> None:
    assert usable_text(*graded(item("q"), text, finish)) == wanted


WORDS = st.lists(st.sampled_from(["Answer:", "12", "13", "= 12", "so", "\n", "\\boxed{12}", "#### 12", "**12**", "."]))


@given(WORDS.map(" ".join))
def test_whatever_is_usable_is_right_by_the_strict_extraction(text: str) -> None:
    example = item("q")
    answer, grade = graded(example, text)
    made = usable_text(answer, grade)
    assert (made is None) == (grade.verdict != "correct")
    if made is not None:
        again = graded(example, made.text)[1]
        assert again.strict_verdict == "correct" and extract_strict(made.text) is not None
        assert made.completed == (grade.strict_verdict != "correct")


@given(st.integers(0, 30), st.integers(0, 30), st.floats(0, 1), st.integers(0, 9))
def test_the_cap_is_kept_whatever_is_right(right: int, wrong: int, cap: float, seed: int) -> None:
    examples = [item(f"q{n}") for n in range(right + wrong)]
    answer = StudentAnswer.model_validate(graded(examples[0] if examples else item("q"), "Answer: 12")[0].model_dump())
    grades = {
        e.id: Grade(
            answer_id="a",
            example_id=e.id,
            adapter="base",
            grader="numeric",
            verdict=Verdict.CORRECT if at < right else Verdict.WRONG,
            strict_verdict=Verdict.CORRECT if at < right else Verdict.WRONG,
            extracted="12",
            strict_extracted="12",
        )
        for at, e in enumerate(examples)
    }
    own = {id_: (answer, grade) for id_, grade in grades.items()}
    taken = takes_own(examples, own, cap, seed)
    assert len(taken) == min(right, int(cap * len(examples))) and set(taken) <= {e.id for e in examples[:right]}
    assert taken == takes_own(examples[::-1], own, cap, seed)


def test_own_answers_come_before_paraphrases_and_these_before_gold() -> None:
    names = ("taken", "over", "wrong", "bare", "steps", "cut", "alone", "nothing")
    items = {name: item(name, *(() if name == "alone" else ("5 + 7 = 12",))) for name in names}
    ids = {name: e.id for name, e in items.items()}
    own = {e.id: graded(e, "Answer: 12" if name in ("taken", "over") else "Answer: 1") for name, e in items.items()}
    rewritten = {"over": "12, for 5 and 7 is 12", "wrong": "mine: 7+5\nAnswer: 12", "bare": "Answer: 12"}
    rewritten |= {"steps": "The answer is 12.\nAnswer: 12", "nothing": "?"}
    paraphrases = {ids[n]: graded(items[n], text) for n, text in rewritten.items()}
    paraphrases[ids["cut"]] = graded(items["cut"], "5 and", "length")
    made = choose_wordings([*items.values()], own, [ids["taken"]], paraphrases, paraphrase=True)
    gold = "5 + 7 = 12\nAnswer: 12"
    assert {n: made[ids[n]].texts for n in names} == {
        "taken": ("Answer: 12",),
        "over": ("12, for 5 and 7 is 12\nAnswer: 12",),
        "wrong": ("mine: 7+5\nAnswer: 12",),
        "bare": (gold,),
        "steps": (gold,),
        "cut": (gold,),
        "alone": ("Answer: 12",),
        "nothing": (gold,),
    }
    assert {n: made[ids[n]].choice.reason for n in names} == {
        "taken": "own answer right",
        "over": "own answer right, but over the cap; paraphrase right",
        "wrong": "own answer wrong; paraphrase right",
        "bare": "own answer wrong; paraphrase has nothing but the line Answer:",
        "steps": "own answer wrong; paraphrase leaves out numbers of the solution",
        "cut": "own answer wrong; paraphrase cut at the token limit",
        "alone": "own answer wrong; no worked solution to paraphrase",
        "nothing": "own answer wrong; paraphrase unparsed",
    }
    rows = [training_row(id=n, example_id=ids[n]) for n in names] + [training_row(id="x", example_id=ids["taken"])]
    rows.append(training_row(id="old", example_id="gone", origin="replay"))
    report = wording_report(0.2, [made[i].choice for i in ids.values()], rows)
    assert report.rows == {"gold": 5, "own": 2, "paraphrase": 2} and report.examples == report.asked == 8
    assert (report.right, report.over_cap, report.paraphrased, report.completed) == (2, 1, 6, 1)


@pytest.mark.parametrize(
    ("text", "solution", "kept"),
    [
        ("7 and 5 are 12", "5 + 7 = 12", True),
        ("The answer is 12.", "5 + 7 = 12", False),
        ("1,200 by 3.5", "1200 * 3.5", True),
        ("3 by 5", "3.5", False),
        ("anything", "no figures at all", True),
    ],
)
def test_a_paraphrase_has_the_numbers_of_its_solution(text: str, solution: str, kept: bool) -> None:
    assert keeps_numbers(text, solution) is kept


# The loop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a control."""
    folder = tmp_path_factory.mktemp("own")
    path = worked_config(folder)
    done = tutelage("run", path, "--name", "run", "--set", "plan.targets=own", "--set", "control=last_round")
    assert done.code == 0, done.err
    return folder / "run"


def texts(folder: Path) -> dict[str, str]:
    lines = (folder / "answers.jsonl").read_text().splitlines()
    return {a["example_id"]: a["text"] for a in map(json.loads, lines)}


@pytest.mark.parametrize("build", ["build", "control_build"])
def test_rows_teach_what_the_choices_say(run: Path, build: str) -> None:
    folder = run / "round_01" / build
    chosen = {c.example_id: c for c in read_records(folder / CHOICES, WordingChoice)}
    rows = read_records(folder / "training_set.jsonl", TrainingRow)
    assert {row.example_id for row in rows} == chosen.keys()
    said = {"own": texts(folder / "own_answers"), "paraphrase": texts(folder / "own_paraphrases")}
    for row in rows:
        source = chosen[row.example_id].source
        if source == "gold":
            assert " + " in row.target and not row.target.startswith("In short")
        else:
            assert row.target == said[source][row.example_id] and extract_strict(row.target)
    sources = [c.source for c in chosen.values()]
    assert {"own", "paraphrase", "gold"} >= {*sources} and sources.count("own") <= 0.5 * len(sources)
    assert sources.count("own") and sources.count("gold")


def test_the_report_says_whose_words_were_taught(run: Path) -> None:
    rows, report = read_round(run, 1)
    assert report.methods is not None and report.methods.wording is not None and report.methods.targets is None
    assert sum(report.methods.wording.rows.values()) == len(rows)
    lines = [path.read_text().count("\n") for path in run.rglob("answers.jsonl")]
    work = read_record(run / "report.json", RunReport).work
    assert work is not None and work.all_answers == sum(lines) and len(lines) > 4
    for page in ("report.md", "report.html"):
        assert f"Targets of the {len(rows)} new pool rows" in (run / page).read_text()


def test_a_bundle_of_it_verifies_and_an_answer_that_was_changed_is_found(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "bundle.zip"
    assert tutelage("bundle", run, "--to", file).code == 0
    done = tutelage("verify", file)
    assert done.code == 0 and "no difference" in done.out, done.out + done.err


@pytest.mark.parametrize("line", [30])
def test_killed_while_it_answers_it_goes_on_with_the_same_bytes(run: Path, tmp_path: Path, line: int) -> None:
    path = worked_config(tmp_path)
    settings = ("--set", "plan.targets=own", "--set", "control=last_round")
    built = tmp_path / "run" / "round_01" / "build"
    killed = tutelage("run", path, "--name", "run", *settings, kill_at=("line", 100 + line))
    assert killed.code == -9 and (built / "own_answers" / "answers.journal").exists()
    assert not (built / "done.json").exists()
    assert tutelage("resume", tmp_path / "run").code == 0
    mine, other = canonical_files(tmp_path / "run"), canonical_files(run)
    # Where the data are is part of a run's identity, which these two name.
    own = {n for n in other if n.startswith("round_01/build/") and not n.endswith(("done.json", "started.json"))}
    assert len(own) > 6 and {n: mine[n] for n in own} == {n: other[n] for n in own}
    assert not list((tmp_path / "run").rglob("*.journal"))


LLM = ["teacher.kind=llm", "teacher.model=m", "teacher.base_url=http://127.0.0.1:1/v1"]


@pytest.mark.parametrize(
    ("columns", "settings", "said"),
    [
        ({"solutions": []}, ["plan.targets=own"], "plan.own.paraphrase to false"),
        ({}, ["plan.targets=own", "plan.own.cap=0", "plan.own.paraphrase=false"], "leaves gold targets alone"),
        ({}, ["plan.targets=own", "plan.own.cap=0.6", "training.loss=dft"], "lower plan.own.cap to 0.5"),
        ({}, ["plan.targets=own", "data.grader=judge", "data.grader_rubric=x", *LLM], "judge would be paid"),
        ({}, ["plan.own.cap=1.5"], "less than or equal to 1"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, columns: Any, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(worked_config(tmp_path, **columns), settings)


def test_generated_data_have_no_solutions_to_paraphrase_and_the_forecast_counts_the_answers(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with pytest.raises(ConfigError, match="generated examples have none"):
        load_config(config, ["plan.targets=own"])
    alone = load_config(config, ["plan.targets=own", "plan.own.paraphrase=false"])
    plain = load_config(config)
    pool_rows = plain.plan.rows_per_round - plain.plan.written_rows
    assert forecast(alone).answers == forecast(plain).answers + plain.rounds * pool_rows
    both = load_config(worked_config(tmp_path), ["plan.targets=own", "control=every_round"])
    less = load_config(worked_config(tmp_path), ["control=every_round"])
    assert forecast(both).answers == forecast(less).answers + 2 * 2 * less.plan.rows_per_round


def test_the_bench_compares_own_answers_with_paraphrases_alone(tmp_path: Path) -> None:
    path = worked_config(tmp_path)
    done = tutelage("bench", path, "--arms", "own,paraphrase", "--seeds", "1", "--name", "b")
    assert done.code == 0, done.err
    found = {}
    for name in ("own", "paraphrase"):
        built = tmp_path / "b" / "trainings" / f"{name}-1" / "round_01" / "build"
        found[name] = {c.source for c in read_records(built / CHOICES, WordingChoice)}
    assert "own" in found["own"] and found["paraphrase"] == {"paraphrase", "gold"}
    assert not (tmp_path / "b" / "trainings" / "uniform-1" / "round_01" / "build" / CHOICES).exists()
