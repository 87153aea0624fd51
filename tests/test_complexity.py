"""Complexity-aware targets: entropies against hand-computed ones, parts, forms, what was saved."""

import math
from collections import Counter
from contextlib import closing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import training_row
from tiny_model import Family, make_tiny_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from curriculum.complexity import choose_targets, random_keys, split_parts, targets_report
from curriculum.plan_config import ComplexityConfig
from curriculum.records import Example
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.chat_format import encode_row, prompt_messages
from student.first_token import answer_begin, entropies, entropy, likeliest_entropy
from student.interface import AdapterFiles, Prompt
from student.local import LocalStudent
from student.signals import top_entropy

QUESTIONS = ["What is 12 plus 7?", "yes no", "Is 12 plus 7 true or false, yes or no?"]
ANSWERS = ["19", "yes", "true"]
SYSTEM = "Solve the problem."


# Entropies


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ([1.0, 0.0], 0.0),
        ([0.5, 0.5], math.log(2)),
        ([0.25] * 4, math.log(4)),
        ([0.5, 0.25, 0.25], 1.5 * math.log(2)),
    ],
)
def test_entropies_by_hand(shares, wanted):
    logits = torch.tensor(shares).log() + 3.0
    assert float(entropy(logits)) == pytest.approx(wanted, abs=1e-6)


def test_an_entropy_of_no_numbers_is_none():
    assert math.isnan(float(entropy(torch.tensor([0.0, float("nan")]))))
    assert float(entropy(torch.tensor([0.0, float("-inf")]))) == 0


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=40))
def test_an_entropy_is_between_nothing_and_the_logarithm_of_the_vocabulary(logits):
    exact = float(entropy(torch.tensor(logits)))
    assert 0 <= exact <= math.log(len(logits)) + 1e-9
    best = sorted(torch.tensor(logits).double().log_softmax(0).tolist(), reverse=True)[:20]
    assert top_entropy(best) <= exact + 1e-6, "what a server's likeliest tokens give is an approximation from below"


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=40))
def test_the_approximation_is_exact_up_to_twenty_tokens_and_lower_beyond(logits):
    row = torch.tensor([logits], dtype=torch.float64)
    (approximate,), exact = likeliest_entropy(row), float(entropy(row)[0])
    assert approximate <= exact + 1e-9
    if len(logits) <= 20:
        assert approximate == pytest.approx(exact, abs=1e-9)


def test_the_approximation_counts_what_is_not_among_the_twenty_as_one_token():
    even = torch.zeros(1, 40)
    assert float(entropy(even)[0]) == pytest.approx(math.log(40), abs=1e-6)
    assert likeliest_entropy(even) == pytest.approx([math.log(40) / 2 + math.log(2) / 2], abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_a_student_measures_the_first_token_after_the_answer_mark_in_whatever_batch(family: Family, tmp_path):
    base = make_tiny_model(tmp_path / "base", family)
    prompts = [
        {
            "id": at,
            "messages": [m.model_dump() for m in prompt_messages(SYSTEM, (), q)],
            "target": f"Answer: {ANSWERS[at]}",
        }
        for at, q in enumerate(QUESTIONS)
    ]
    job = {"base": str(base), "dtype": "float32", "threads": 1, "adapter": None, "batch_size": 2, "prompts": prompts}
    below = {event["id"]: event["entropy"] for event in entropies(job | {"exact": False})}
    job["exact"] = True
    got = {event["id"]: event["entropy"] for event in entropies(job)}
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    for at, question in enumerate(QUESTIONS):
        text = (
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        whole = tokenizer(text).input_ids + tokenizer(f"Answer: {ANSWERS[at]}").input_ids
        answer = next(
            n
            for n in range(1, len(whole))
            if tokenizer.decode(whole[: n + 1]).endswith(f"Answer: {ANSWERS[at][0]}")
            or tokenizer.decode(whole[: n + 1]).endswith(f"Answer: {ANSWERS[at]}")
        )
        with torch.no_grad():
            shares = model(input_ids=torch.tensor([whole[:answer]])).logits[0, -1].double().softmax(0)
        assert got[at] == pytest.approx(-sum(p * math.log(p) for p in shares.tolist()), abs=1e-4)
        best = sorted(shares.tolist(), reverse=True)[:20]
        rest = 1 - sum(best)
        assert below[at] == pytest.approx(-sum(p * math.log(p) for p in (*best, rest)), abs=1e-4)
        assert below[at] < got[at] - 0.01


@pytest.mark.parametrize("answer", ["19", "yes", "<3", "ü", "Answer: 3"])
def test_the_answer_begins_after_the_mark_and_its_space(answer):
    tokenizer = make_tokenizer()
    row = encode_row(tokenizer, prompt_messages("", (), "x"), f"Answer: {answer}")
    at = answer_begin(tokenizer, row)
    assert tokenizer.decode(row.input_ids[row.prompt_length : at]).strip() == "Answer:"
    assert tokenizer.decode(row.input_ids[at]).strip()


def test_a_local_student_gives_them_in_the_order_asked(tmp_path):
    config = StudentConfig(base=str(make_tiny_model(tmp_path / "base")), dtype="float32", threads=1, batch_size=2)
    rows = [(Prompt(q, "plain", prompt_messages(SYSTEM, (), q)), "Answer: 1") for q in (*QUESTIONS, QUESTIONS[0])]
    with closing(LocalStudent(config, TrainingConfig(), SYSTEM)) as student:
        made = student.first_token_entropies(rows, AdapterFiles("base", None), tmp_path / "log")
        lower = student.first_token_entropies(rows, AdapterFiles("base", None), tmp_path / "log", exact=False)
    assert made[0] == pytest.approx(made[-1], abs=1e-5) and len({round(v, 4) for v in made}) == len(QUESTIONS)
    assert all(0 < approximate < exact for approximate, exact in zip(lower, made, strict=True))


# Parts and forms


def test_the_lowest_quarter_is_easy_and_the_highest_hard():
    parts = split_parts({str(at): float(at) for at in range(8)}, 0.25, 0.25)
    assert [parts[str(at)] for at in range(8)] == ["easy"] * 2 + ["middle"] * 4 + ["hard"] * 2


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 9)), st.floats(0, 1), st.floats(0, 1))
def test_parts_are_as_large_as_told_and_in_order(keys, easy, hard):
    easy = min(easy, 1 - hard)
    parts = split_parts(keys, easy, hard)
    counts = Counter(parts.values())
    assert parts.keys() == keys.keys() and counts["hard"] == round(hard * len(keys))
    assert abs(counts["easy"] - easy * len(keys)) <= 1
    for lower, higher in (("easy", "middle"), ("middle", "hard"), ("easy", "hard")):
        below, above = ([keys[i] for i in keys if parts[i] == part] for part in (lower, higher))
        assert max(below, default=-1) <= min(above, default=10)


def test_the_control_takes_as_many_at_random():
    ids = [str(at) for at in range(40)]
    one, two = (split_parts(random_keys(ids, seed), 0.25, 0.25) for seed in (1, 2))
    assert one == split_parts(random_keys(ids[::-1], 1), 0.25, 0.25) != two
    assert Counter(one.values()) == Counter(two.values()) == {"easy": 10, "middle": 20, "hard": 10}


def worked(question: str, *solutions: str) -> Example:
    return Example.make(question=question, gold="5", grader="numeric", source="test", solutions=solutions)


def test_the_hard_part_gets_the_solutions_that_were_accepted_and_nobody_else_any():
    examples = [worked("a", "2 + 3 = 5"), worked("b", "1 + 4 = 5", "wrong = 6"), worked("c", "wrong = 7")]
    a, b, c = (e.id for e in examples)
    accepted = {a: ("2 + 3 = 5",), b: ("1 + 4 = 5",)}
    tokens = {a: (2, 8), b: (2, 9), c: (2, 2)}
    made = choose_targets(examples, {a: "middle", b: "hard", c: "hard"}, {a: 0.1, b: 0.5, c: 0.9}, accepted, tokens)
    assert {i: made[i].texts for i in (a, b, c)} == {a: ("Answer: 5",), b: ("1 + 4 = 5\nAnswer: 5",), c: ("Answer: 5",)}
    assert [made[i].choice.form for i in (a, b, c)] == ["answer", "solution", "answer"]
    assert made[c].choice.reason.endswith("but no worked solution that the grader accepts")
    rows = [training_row(id=str(n), example_id=i) for n, i in enumerate((a, a, b, c))]
    rows.append(training_row(id="old", example_id="gone", origin="replay"))
    report = targets_report("complexity", [made[i].choice for i in (a, b, c)], rows)
    assert report.rows == {"hard": 2, "middle": 2} and (report.solutions, report.without) == (1, 1)
    assert (report.tokens, report.all_solutions) == (2 + 2 + 9 + 2, 8 + 8 + 9 + 2)


def test_shares_of_more_than_all_are_refused():
    with pytest.raises(ValueError, match="more than 1 together"):
        ComplexityConfig(easy=0.6, hard=0.5)
