"""How hard items are for a student that draws its answers: counted, shown, used as difficulty."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from samples import student_answer
from tiny_model import make_tiny_model

from agents.forecast import forecast
from agents.nodes import catalogue, diagnose, evaluate, label, profile
from agents.prepare import prepare
from agents.progress import ProgressPrinter
from agents.session import create_run, open_loop
from curriculum.config import load_config
from curriculum.errors import ConfigError
from curriculum.records import Example, Grade, Sampling, SkillLabel, Verdict
from curriculum.report_probe import probe_words
from curriculum.round_records import ItemSignals, MissingSkillProfile
from curriculum.rundir import read_record, read_records
from curriculum.signals import item_signals, measured_difficulty, signal_means, with_measured_difficulty
from curriculum.statistics import wilson
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.chat_format import encode_prompt, prompt_messages
from student.interface import AdapterFiles, Prompt
from student.loading import load_base
from student.local import LocalStudent
from student.signals import top_entropy

BASE = AdapterFiles("base", None)
DRAWN = Sampling(max_new_tokens=6, temperature=1.5, seed=3)


def item(name, correct, samples, entropy=None):
    return ItemSignals(example_id=name, adapter="base", samples=samples, correct=correct, entropy=entropy)


def graded(example, at, verdict, entropy):
    answer = student_answer(example, "x", sample_index=at, entropy=entropy)
    fields = {"answer_id": answer.id, "example_id": example.id, "adapter": "base", "grader": "exact"}
    return answer, Grade(**fields, verdict=verdict, strict_verdict=verdict, extracted=None, strict_extracted=None)


def test_samples_of_an_item_are_counted_but_not_our_own_failures():
    one, two = (Example.make(question=q, gold="1", grader="exact", source="test") for q in ("a", "b"))
    pairs = [
        graded(two, 0, Verdict.TRUNCATED, None),
        graded(one, 0, Verdict.CORRECT, 0.5),
        graded(one, 1, Verdict.FAILED, None),
        graded(one, 2, Verdict.WRONG, 0.5),
        graded(one, 3, Verdict.UNPARSED, None),
    ]
    expected = sorted([item(one.id, 1, 3, 0.5), item(two.id, 0, 1)], key=lambda i: i.example_id)
    assert item_signals(*zip(*pairs, strict=True)) == expected
    assert item_signals(*zip(*pairs[::-1], strict=True)) == expected


@pytest.mark.parametrize(
    ("correct", "samples", "difficulty"),
    [
        (8, 8, 1),
        (7, 8, 1),
        (4, 5, 1),
        (6, 8, 2),
        (3, 5, 2),
        (4, 8, 3),
        (2, 8, 4),
        (1, 5, 4),
        (1, 8, 5),
        (0, 8, 5),
        (0, 0, None),
    ],
)
def test_the_rarer_right_the_harder(correct, samples, difficulty):
    assert measured_difficulty(item("a", correct, samples)) == difficulty


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1))
def test_means_are_over_items_and_their_interval_that_of_single_answers(counts):
    items = [item(str(at), min(pair), max(pair)) for at, pair in enumerate(counts)]
    means = signal_means(items)
    shares = [min(pair) / max(pair) for pair in counts if max(pair)]
    if not shares:
        assert means is None
        return
    assert means.items == len(shares) and means.samples == sum(max(pair) for pair in counts)
    assert means.pass_rate == pytest.approx(sum(shares) / len(shares))
    assert 0 <= means.low <= means.pass_rate <= means.high <= 1 and means.entropy is None
    single = signal_means([item(str(at), int(share == 1), 1) for at, share in enumerate(shares)])
    expected = wilson(sum(share == 1 for share in shares), len(shares))
    assert (single.pass_rate, single.low, single.high) == (expected.rate, expected.low, expected.high)


def test_a_measured_difficulty_stands_only_where_none_is_declared():
    silent, declared = (
        Example.make(question="a", gold="1", grader="exact", source="test", difficulty=level) for level in (None, 2)
    )
    made = SkillLabel(example_id=silent.id, teacher="t", prompt_hash="h", skills=("s",), difficulty=3, reason="why")
    signals = {silent.id: item(silent.id, 0, 8), declared.id: item(declared.id, 0, 8)}
    assert with_measured_difficulty(made, declared, signals) == made
    assert with_measured_difficulty(made, silent, {}) == made
    assert with_measured_difficulty(made, silent, {silent.id: item(silent.id, 0, 0)}) == made
    measured = with_measured_difficulty(made, silent, signals)
    assert measured.difficulty == 5 and measured.reason == "why; difficulty measured: base is right in 0 of 8 samples"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_several_samples_of_the_transformers_engine_each_with_the_entropy_at_its_first_token(base, tmp_path):
    config = {"base": str(base), "dtype": "float32", "engine": "transformers", "batch_size": 5, "threads": 1}
    student = LocalStudent(StudentConfig(**config), TrainingConfig(), "")
    prompts = [Prompt(f"e{at}", "plain", prompt_messages("", (), f"{at} plus 7?")) for at in range(3)]
    try:
        whole = list(student.answer(prompts, BASE, DRAWN, set(), tmp_path / "log", 4))
        some = {answer.id for answer in whole[::2]}
        rest = list(student.answer(prompts, BASE, DRAWN, some, tmp_path / "log", 4))
        (plain, *_) = student.answer(prompts, BASE, DRAWN, set(), tmp_path / "log")
    finally:
        student.close()
    assert sorted((a.example_id, a.sample_index) for a in whole) == [(f"e{i}", at) for i in range(3) for at in range(4)]
    assert rest == [answer for answer in whole if answer.id not in some], "an interruption changes nothing"
    assert len({answer.text for answer in whole}) > 3
    assert plain.entropy is None and "entropy" not in plain.model_dump()
    model, tokenizer = load_base(base, "float32", 1)
    for at, prompt in enumerate(prompts):
        logits = model(torch.tensor([encode_prompt(tokenizer, prompt.messages)])).logits[0, -1].log_softmax(-1)
        expected = top_entropy(logits.topk(20).values.tolist())
        got = {answer.entropy for answer in whole if answer.example_id == f"e{at}"} - {None}
        assert got and all(value == pytest.approx(expected, rel=1e-4) for value in got)


def run_to_the_profile(folder, name, student):
    """The nodes of round 0 through the profile, with the fake student and rows of which half declare a difficulty."""
    rows = [
        {"q": f"What is {n} plus {n}?", "a": str(2 * n), "s": f"s{n % 2}", "d": "2" if n % 3 else ""} for n in range(90)
    ]
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    columns = {"question": "q", "answer": "a", "skills": "s", "difficulty": "d"}
    data = {"kind": "file", "path": str(folder / "rows.csv"), "grader": "numeric", "columns": columns}
    tree = {
        "runs_dir": str(folder),
        "data": data | {"splits": {"probe": 20, "gate": 20, "final": 20}},
        "student": {"engine": "fake", "base": "fake"} | student,
        "plan": {"rows_per_round": 10, "write_share": 0.0},
        "gate": {"retrain_sd": 0.0},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree))
    config = load_config(path)
    with open_loop(create_run(config, path, name), config, ProgressPrinter()) as loop:
        state = prepare(loop, {})
        for node in (catalogue, label, evaluate, diagnose, profile):
            state |= node(loop, state)
        return loop


def test_difficulty_is_measured_where_the_data_declare_none_and_shown_in_the_profile(tmp_path):
    plain = run_to_the_profile(tmp_path, "plain", {})
    drawn = run_to_the_profile(tmp_path, "drawn", {"signals": {"samples": 5, "difficulty": "measured"}})
    folder = drawn.run.path / "answers" / "base"
    pool = {s.example_id: s for s in read_records(folder / "pool_samples" / "signals.jsonl", ItemSignals)}
    probe = read_records(folder / "probe_samples" / "signals.jsonl", ItemSignals)
    assert {s.samples for s in (*pool.values(), *probe)} == {5} and all(s.entropy > 0 for s in probe)
    assert not (folder / "gate_samples").exists()
    for example in drawn.examples.values():
        difficulty = drawn.labels[example.id].difficulty
        if example.difficulty is not None:
            assert difficulty == 2
        elif example.split == "pool":
            assert difficulty == measured_difficulty(pool[example.id])
        elif example.split in ("gate", "final"):
            assert difficulty == 3, "nothing is measured on what judges"
    assert len({label.difficulty for label in drawn.labels.values()}) > 2
    file = "round_00/profile/profile.json"
    made = read_record(drawn.run.path / file, MissingSkillProfile)
    for part in made.skills:
        assert part.signals.items == part.counts.graded and part.signals.samples == 5 * part.signals.items
    assert "signals" not in (plain.run.path / file).read_text()
    assert [p.accuracy for p in read_record(plain.run.path / file, MissingSkillProfile).skills] == [
        p.accuracy for p in made.skills
    ], "verdicts come from the answers without chance"
    assert not list(plain.run.path.glob("answers/base/*_samples"))
    assert "entropy" not in (plain.run.path / "answers/base/probe/answers.jsonl").read_text()
    assert forecast(drawn.config).answers == forecast(plain.config).answers + 5 * 3 * 20


def test_a_report_says_what_drawn_answers_showed():
    means = signal_means([item("a", 1, 4, 1.5), item("b", 4, 4, 0.5)])
    skills = [
        SimpleNamespace(skill="s", signals=means, without_gold=None),
        SimpleNamespace(skill="t", signals=None, without_gold=None),
    ]
    words = probe_words(SimpleNamespace(probe=SimpleNamespace(skills=skills, repeated=None, difficult=None, drawn=())))
    assert "s 62.5 % right (2 items, 8 samples, " in words and "1.00 nats" in words and " t " not in words
    assert probe_words(SimpleNamespace(probe=None)) == ""


def test_signals_need_two_samples(tmp_path):
    quickstart = Path(__file__).parents[1] / "runs/configs/quickstart.yaml"
    with pytest.raises(ConfigError, match=r"student\.signals\.samples"):
        load_config(quickstart, ["student.signals.samples=1"])
