"""Scores in forward mode against autograd row by row, and what is read how often."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_influence import TRAINING, batch_of, encoded, flat, lora_model, own_gradient
from tiny_model import make_model, make_tokenizer

from curriculum.training_config import TrainingConfig
from student import ranking_worker
from student.chat_format import EncodedRow
from student.forward_mode import KEPT, directional_derivatives, prefix_batches, shared_prefix, tokens_read
from student.influence import dot_products, lora_matrices, row_losses
from student.lora import add_lora
from student.ranking_worker import Work, along

TEXTS = [("x", "Answer: 19"), ("What is 12 plus 7?", "19"), ("What is 12 plus 19?", "red"), ("yes no", "red green")]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def direction_of(model):
    torch.manual_seed(1)
    return {name: torch.randn_like(matrix.weight) for name, matrix in lora_matrices(model).items()}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("which", [[0, 1, 2, 3], [1, 2], [3], [2, 2]], ids=str)
def test_a_batch_in_forward_mode_is_autograd_one_by_one(family, which, tokenizer):
    model = lora_model(tokenizer, family)
    rows = [encoded(tokenizer, *TEXTS[at]) for at in which]
    assert shared_prefix(rows) > 0, "the template begins all of them alike"
    direction = direction_of(model)
    made = directional_derivatives(model, rows, direction, pad=2)
    by_hand = torch.stack([flat(own_gradient(model, row)) @ flat(direction) for row in rows])
    assert bool(by_hand.abs().min() > 0)
    torch.testing.assert_close(made, by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made, dot_products(model, batch_of(rows), direction), rtol=1e-4, atol=1e-5)
    assert not made.requires_grad and all(p.grad is None for p in model.parameters())


def test_a_fresh_adapter_and_one_in_bf16_have_the_same_scores(tokenizer):
    rows = [encoded(tokenizer, *pair) for pair in TEXTS]
    fresh = lora_model(tokenizer)
    for name, parameter in fresh.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    assert_same(fresh, rows, rtol=1e-4)
    base = make_model("llama", len(tokenizer)).to(torch.bfloat16)
    assert_same(add_lora(base, TRAINING, "tiny").eval(), rows, rtol=0.1)


def assert_same(model, rows, rtol):
    direction = direction_of(model)
    one, other = directional_derivatives(model, rows, direction, 2), dot_products(model, batch_of(rows), direction)
    torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * float(other.abs().max()))


def test_a_row_s_score_is_the_same_in_any_company(tokenizer):
    model = lora_model(tokenizer)
    rows = [encoded(tokenizer, *pair) for pair in TEXTS]
    direction = direction_of(model)
    together = directional_derivatives(model, rows, direction, 2)
    alone = torch.cat([directional_derivatives(model, [row], direction, 2) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


ROWS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.lists(st.integers(0, 2), min_size=1, max_size=3)),
    min_size=1,
    max_size=12,
).map(lambda texts: [EncodedRow((9, *prompt, *target), 1 + len(prompt)) for prompt, target in texts])


@given(ROWS)
def test_what_rows_share_is_the_longest_beginning_that_leaves_every_prompt_a_token(rows):
    made = shared_prefix(rows)
    assert all(row.input_ids[:made] == rows[0].input_ids[:made] and row.prompt_length > made for row in rows)
    longer = made + 1
    assert len({row.input_ids[:longer] for row in rows}) > 1 or any(row.prompt_length <= longer for row in rows)


@given(ROWS, st.integers(1, 40))
def test_batches_hold_every_row_once_within_the_budget(rows, budget):
    batches = prefix_batches(rows, budget)
    assert sorted(at for batch in batches for at in batch) == list(range(len(rows)))
    for batch in batches:
        of = [rows[at] for at in batch]
        width = max(len(row.input_ids) for row in of)
        assert len(of) == 1 or (tokens_read(of) - shared_prefix(of) <= budget and len(of) * width <= KEPT * budget)


def test_rows_of_one_template_are_batched_by_it():
    questions = [(*range(20), task, *range(task, task + 15), at) for task in (100, 200) for at in range(6)]
    rows = [EncodedRow((*ids, 7), len(ids)) for ids in questions]
    random.Random(0).shuffle(rows)
    batches = prefix_batches(rows, 60)
    assert sorted(len({rows[at].input_ids[20] for at in batch}) for batch in batches) == [1, 1]
    assert sum(tokens_read([rows[at] for at in batch]) for batch in batches) == 2 * (36 + 6 * 2)


def test_a_window_that_is_shorter_than_what_rows_share_is_kept(tokenizer):
    from transformers import AutoModelForCausalLM

    config = make_model("gemma2", len(tokenizer)).config
    config.sliding_window = 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        short = add_lora(AutoModelForCausalLM.from_config(config, dtype=torch.float32), TRAINING, "tiny").eval()
        wide = add_lora(make_model("gemma2", len(tokenizer)), TRAINING, "tiny").eval()
    rows = [encoded(tokenizer, *pair) for pair in TEXTS[1:3]]
    assert shared_prefix(rows) > 4
    assert_same(short, rows, rtol=1e-4)
    assert not torch.allclose(row_losses(short, batch_of(rows)), row_losses(wide, batch_of(rows)))


def test_where_a_base_has_no_forward_mode_the_rest_is_scored_backward(tokenizer, monkeypatch):
    model = lora_model(tokenizer)
    rows = [encoded(tokenizer, *TEXTS[at % 4]) for at in range(6)]
    direction = direction_of(model)
    work = Work(model, [str(at) for at in range(6)], rows, [], TrainingConfig(batch_tokens=70, max_length=64), 2, 0)
    expected = dot_products(model, batch_of(rows), direction)

    def scored(of):
        made = {at: score for batch, scores in along(of, direction) for at, score in zip(batch, scores, strict=True)}
        return torch.stack([made[at] for at in range(6)])

    assert len(list(along(work, direction))) > 1
    torch.testing.assert_close(scored(work), expected, rtol=1e-4, atol=1e-5)
    forward, calls = ranking_worker.directional_derivatives, []

    def fails_later(*given):
        calls.append(1)
        if len(calls) > 1:
            raise NotImplementedError
        return forward(*given)

    monkeypatch.setattr(ranking_worker, "directional_derivatives", fails_later)
    torch.testing.assert_close(scored(work), expected, rtol=1e-4, atol=1e-5)
    assert len(calls) == 2, "it is not tried again"
    torch.testing.assert_close(scored(work._replace(quantised=True)), expected, rtol=1e-4, atol=1e-5)
    assert len(calls) == 2
