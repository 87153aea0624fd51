"""What the student sees and how it is asked, by config: system prompt, few-shot examples, sampling."""

import json
from contextlib import contextmanager

import pytest
import yaml

from agents.evaluation import evaluate_split, student_prompts
from agents.nodes import catalogue, label
from agents.prepare import prepare
from agents.progress import ProgressPrinter
from agents.session import create_run, open_loop
from curriculum.config import load_config
from curriculum.errors import ConfigError, DataError, RunDirError
from curriculum.prompts import load_prompt, system_prompt
from curriculum.records import BASE, Sampling
from student.interface import AdapterFiles

SHOTS = [{"question": "What is 1 + 1?", "answer": "Answer: 2"}, {"question": "Why?", "answer": "1 + 1 = 2\nAnswer: 2"}]


def config_of(folder, **student):
    rows = [{"question": f"What is {n} plus {n}?", "gold": str(2 * n), "skills": [f"s{n % 3}"]} for n in range(10, 70)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {"probe": 6, "gate": 6, "final": 6}
    data = {"kind": "file", "path": str(folder / "data.jsonl"), "format": "examples", "splits": splits}
    tree = {
        "data": data,
        "runs_dir": str(folder / "runs"),
        "plan": {"rows_per_round": 4, "write_share": 0},
        "student": {"engine": "fake", "base": "fake"} | student,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True))
    return path


@contextmanager
def prepared(folder, **student):
    """The loop of a run whose examples are labelled."""
    path = config_of(folder, **student)
    config = load_config(path)
    with open_loop(create_run(config, path, None), config, ProgressPrinter()) as loop:
        for node in (prepare, catalogue, label):
            node(loop, {"round": 0})
        yield loop


def turns(loop, arm):
    [prompt] = student_prompts(loop, loop.split("final")[:1], arm)
    return [(m.role, m.content) for m in prompt.messages]


def test_without_any_key_everything_is_as_it_was(tmp_path):
    config = load_config(config_of(tmp_path)).student
    assert config.sampling(3) == Sampling(max_new_tokens=64, temperature=0.0, top_p=1.0, seed=3)
    assert system_prompt(config) == load_prompt("student_answer")
    assert (config.few_shot, config.few_shot_examples) == (4, None)


def test_answers_are_drawn_as_the_config_says(tmp_path):
    with prepared(tmp_path, temperature=0.7, top_p=0.9, sampling_seed=5, max_new_tokens=8) as loop:
        answers = evaluate_split(loop, AdapterFiles(BASE, None), "probe").answers
    assert {a.sampling for a in answers} == {Sampling(max_new_tokens=8, temperature=0.7, top_p=0.9, seed=5)}


@pytest.mark.parametrize(
    ("student", "system"),
    [
        ({"system_prompt": "Name the $city.\n"}, "Name the $city."),
        ({"system_prompt": "Größe\u2028{x} %s"}, "Größe\u2028{x} %s"),
        ({"system_prompt": ""}, None),
        ({"system_prompt_file": "system.txt"}, "From a file,\nin two lines."),
        ({"prompt": "student_solve"}, load_prompt("student_solve").text),
    ],
)
def test_the_system_prompt_is_the_one_the_config_gives(tmp_path, monkeypatch, student, system):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "system.txt").write_bytes("\ufeffFrom a file,\nin two lines.\n\n".encode())
    with prepared(tmp_path, **student) as loop:
        asked = turns(loop, "plain")
        question = loop.split("final")[0].question
    assert asked == [*([("system", system)] if system else []), ("user", question)]


@pytest.mark.parametrize(
    ("student", "fault"),
    [
        ({"system_prompt_file": "none.txt"}, r"none\.txt: expected a text file .* No such file.*system_prompt_file"),
        ({"system_prompt_file": "."}, r"expected a text file .* Is a directory"),
        ({"system_prompt_file": "binary.txt"}, r"binary\.txt: .* byte 1, which is not UTF-8"),
        ({"system_prompt": "a", "system_prompt_file": "b"}, "exclude each other: give one"),
        ({"system_prompt": "x" * 20_001}, "`student.system_prompt`: .*20000 characters"),
        ({"system_prompt": "a\ud800"}, "surrogate|not YAML|unicode"),
        ({"prompt": "no_such"}, "expected one of .*student_answer"),
        ({"temperature": -1}, "`student.temperature`"),
        ({"temperature": float("inf")}, "`student.temperature`: .*finite"),
        ({"top_p": 0}, "`student.top_p`"),
        ({"sampling_seed": 2**32}, "`student.sampling_seed`"),
        ({"few_shot_examples": []}, "`student.few_shot_examples`"),
        ({"few_shot_examples": [{"question": "q"}]}, r"key `student\.few_shot_examples\.0\.answer` is missing"),
        ({"few_shot_examples": [{"question": "", "answer": "a"}]}, r"`student\.few_shot_examples\.0\.question`"),
        ({"few_shot_examples": [{"question": "q", "answer": "a", "gold": "a"}]}, "unknown key"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, monkeypatch, student, fault):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.txt").write_bytes(b"x\xff")
    with pytest.raises(ConfigError, match=fault):
        system_prompt(load_config(config_of(tmp_path, **student)).student)


def test_given_few_shot_examples_are_shown_word_for_word_to_the_few_shot_base_only(tmp_path):
    with prepared(tmp_path, few_shot_examples=SHOTS, few_shot=0) as loop:
        plain, shown = turns(loop, "plain"), turns(loop, "few_shot")
    assert shown[1:-1] == [
        ("user", "What is 1 + 1?"),
        ("assistant", "Answer: 2"),
        ("user", "Why?"),
        ("assistant", "1 + 1 = 2\nAnswer: 2"),
    ]
    assert plain == [shown[0], shown[-1]]


def test_without_them_they_come_from_the_pool(tmp_path):
    with prepared(tmp_path, few_shot=2) as loop:
        shown = turns(loop, "few_shot")[1:-1]
        pool = {e.question: f"Answer: {e.gold}" for e in loop.split("pool")}
    assert len(shown) == 4
    assert all(pool[question] == answer for (_, question), (_, answer) in zip(shown[::2], shown[1::2], strict=True))


def test_a_few_shot_example_that_repeats_a_held_out_question_is_refused(tmp_path):
    with prepared(tmp_path) as loop:
        held_out = loop.split("final")[0].question
    shots = [*SHOTS, {"question": held_out.upper(), "answer": "Answer: 1"}]
    with (
        pytest.raises(DataError, match=r"student\.few_shot_examples: .* got example 3: .*held-out"),
        prepared(tmp_path, few_shot_examples=shots),
    ):
        pass


@pytest.mark.parametrize(
    "changed",
    [
        {"system_prompt": "x"},
        {"system_prompt_file": "x"},
        {"few_shot_examples": SHOTS},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"sampling_seed": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_each_key_is_part_of_the_identity(tmp_path, changed):
    before = load_config(config_of(tmp_path)).identity_hash
    assert load_config(config_of(tmp_path, **changed)).identity_hash != before


def test_a_prompt_file_that_changes_within_a_run_is_noticed(tmp_path):
    file = tmp_path / "system.txt"
    file.write_text("First.")
    path = config_of(tmp_path, system_prompt_file=str(file))
    config = load_config(path)
    run = create_run(config, path, "run")
    with open_loop(run, config, ProgressPrinter()) as loop:
        prepare(loop, {})
    file.write_text("Second.")
    with (
        open_loop(run, config, ProgressPrinter()) as loop,
        pytest.raises(RunDirError, match="prompt changed since this run began"),
    ):
        prepare(loop, {})
