"""Embeddings by the student itself, and the nearest by cosine."""

from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_model import make_tiny_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from curriculum.neighbours import ROWS_AT_ONCE, nearest
from curriculum.records import Message
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.chat_format import encode_prompt, prompt_messages
from student.embeddings import embed, question_span
from student.fakes import FakeStudent
from student.interface import AdapterFiles, Prompt
from student.local import LocalStudent
from student.lora import add_lora, save_adapter

SYSTEM = "Reply in one line."
QUESTIONS = ["What is 12 plus 7?", "red green blue", "Is 12 plus 7 true or false, yes or no?", "x"]
BASE = AdapterFiles("base", None)


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma2"])
def base(request, tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / request.param, request.param)


def messages(question):
    return prompt_messages(SYSTEM, (), question)


def job(base, questions, adapter=None, batch_size=3):
    prompts = [{"id": q, "messages": [m.model_dump() for m in messages(q)]} for q in questions]
    settings = {"base": str(base), "dtype": "float32", "threads": 1, "adapter": adapter, "batch_size": batch_size}
    return settings | {"prompts": prompts}


def plainly(base, question):
    """Alone, by transformers: the mean of the last hidden states over the question's tokens."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    before = tokenizer(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n").input_ids
    own = tokenizer(question).input_ids
    after = tokenizer("<|im_end|>\n<|im_start|>assistant\n").input_ids
    with torch.no_grad():
        states = model(input_ids=torch.tensor([before + own + after]), output_hidden_states=True).hidden_states[-1][0]
    mean = states[len(before) : len(before) + len(own)].mean(0)
    return (mean / mean.norm()).numpy()


def test_a_vector_is_the_mean_hidden_state_of_the_question_in_whatever_batch(base):
    got = {event["id"]: event["vector"] for event in embed(job(base, QUESTIONS))}
    assert got.keys() == set(QUESTIONS)
    for question in QUESTIONS:
        np.testing.assert_allclose(got[question], plainly(base, question), atol=1e-4)


def test_an_adapter_moves_the_vectors(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    torch.manual_seed(0)
    model = add_lora(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), TrainingConfig(rank=2), "tiny")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    (tmp_path / "adapter").mkdir()
    save_adapter(model, tmp_path / "adapter")
    of_base, of_adapter = (list(embed(job(base, QUESTIONS, a))) for a in (None, str(tmp_path / "adapter")))
    assert all(np.dot(a["vector"], b["vector"]) < 0.99 for a, b in zip(of_base, of_adapter, strict=True))


def test_the_question_alone_counts_not_what_all_prompts_share():
    tokenizer = make_tokenizer()
    turns = (*messages("yes no"), Message(role="assistant", content="Answer: 19"), Message(role="user", content="true"))
    ids = encode_prompt(tokenizer, turns)
    begin, end = question_span(tokenizer, turns, ids)
    assert tokenizer.decode(ids[begin:end]) == "true"
    empty = messages("")
    ids = encode_prompt(tokenizer, empty)
    assert question_span(tokenizer, empty, ids) == (0, len(ids))


@pytest.mark.parametrize("kind", ["real", "fake"])
def test_students_give_a_row_a_prompt_in_the_order_asked(kind, tmp_path):
    prompts = [Prompt(q, "plain", messages(q)) for q in (*QUESTIONS, QUESTIONS[0])]
    if kind == "fake":
        vectors = FakeStudent(dict).embed(prompts, BASE, tmp_path / "log")
    else:
        config = StudentConfig(base=str(make_tiny_model(tmp_path / "base")), dtype="float32", threads=1, batch_size=2)
        with closing(LocalStudent(config, TrainingConfig(), SYSTEM)) as student:
            vectors = student.embed(prompts, BASE, tmp_path / "log")
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert len(vectors) == len(prompts)
    np.testing.assert_allclose(vectors[0], vectors[-1], atol=1e-4)
    assert nearest(vectors[:1], vectors[1:], 1) == [[len(QUESTIONS) - 1]]


CASES = [
    ([[1, 0]], [[0, 1], [5, 0], [1, 1]], 2, (), [[1, 2]]),
    ([[1, 0]], [[0, 1], [5, 0], [1, 1]], 2, [{1}], [[2, 0]]),
    ([[1, 0]], [[1, 0], [2, 0]], 5, (), [[0, 1]]),
    ([[1, 0]], [[1, 0], [2, 0]], 5, [{0, 1}], [[]]),
    ([[0, 0]], [[-1, 0], [1, 0]], 1, (), [[0]]),
    ([[1, 0], [0, 1]], [[0, 1], [1, 0]], 1, [set(), {0}], [[1], [1]]),
]


@pytest.mark.parametrize(("queries", "items", "k", "excluded", "wanted"), CASES)
def test_the_nearest_by_cosine(queries, items, k, excluded, wanted):
    assert nearest(np.array(queries, np.float32), np.array(items, np.float32), k, excluded) == wanted


def test_what_is_excluded_is_excluded_of_every_query_however_many_there_are():
    queries = np.ones((ROWS_AT_ONCE + 3, 2), np.float32)
    excluded = [{at % 3} for at in range(len(queries))]
    found = nearest(queries, np.eye(3, 2, dtype=np.float32), 3, excluded)
    assert all(set(of) == {0, 1, 2} - out for of, out in zip(found, excluded, strict=True))


VECTORS = arrays(np.float32, (5, 3), elements=st.integers(-4, 4).map(float))


@given(VECTORS, VECTORS, st.integers(1, 6), st.floats(0.5, 8))
def test_the_nearest_are_those_of_the_definition_and_lengths_do_not_matter(queries, items, k, factor):
    def cosine(q, v):
        length = float(np.linalg.norm(q) * np.linalg.norm(v))
        return float(np.dot(q, v)) / length if length else 0.0

    found = nearest(queries, items, k)
    assert all(len(of) == len(set(of)) == min(k, 5) for of in found)
    for query, of in zip(queries, found, strict=True):
        worst = min(cosine(query, items[at]) for at in of)
        assert all(cosine(query, items[at]) <= worst + 1e-6 for at in set(range(5)) - set(of))
    scaled = np.float32(2.0) ** round(factor) * queries
    assert nearest(scaled, items, k) == found
