"""Loss, weights, batches and the training loop, on tiny random models."""

import json
import random
from contextlib import closing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from samples import training_row
from tiny_model import make_model, make_tiny_model, make_tokenizer

from curriculum.errors import TrainingError
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.base_model import file_sha256
from student.chat_format import collate, encode_row, prompt_messages
from student.interface import TrainingSettings
from student.local import LocalStudent
from student.lora import (
    add_lora,
    dft_factors,
    draw_batches,
    learning_rate_factor,
    save_adapter,
    token_losses,
    weighted_loss,
)
from student.train_worker import TrainingData, encode_rows, fit, seeded_batches, stop_if_diverged, train

TRAINING = TrainingConfig(rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_tokens=128)
QUESTIONS = ["x", "What is 12 plus 7?", "Solve the problem.", "yes no"]
TARGETS = ["Answer: 19", "19", "true", "red green blue"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def rows(tokenizer):
    return [encode_row(tokenizer, prompt_messages("", (), q), t) for q, t in zip(QUESTIONS, TARGETS, strict=True)]


def all_logits_losses(model, rows):
    """The textbook way, one row at a time: all logits, shift, cross entropy of the target."""
    losses = []
    for row in rows:
        ids = torch.tensor([row.input_ids])
        logits = model(input_ids=ids).logits[0, :-1]
        every = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        losses.append(every[row.prompt_length - 1 :])
    return torch.cat(losses)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_the_loss_is_that_of_all_logits_also_where_they_are_capped(family, tokenizer, rows):
    model = make_model(family, len(tokenizer))
    batch = collate(rows, [1.0] * len(rows), pad=2)
    torch.testing.assert_close(token_losses(model, batch), all_logits_losses(model, rows), rtol=1e-4, atol=1e-4)


def test_the_cap_of_gemma2_is_no_small_matter(tokenizer, rows):
    model = make_model("gemma2", len(tokenizer))
    batch = collate(rows, [1.0] * len(rows), pad=2)
    capped = token_losses(model, batch)
    model.config.final_logit_softcapping = None
    assert (token_losses(model, batch) - capped).abs().max() > 0.1


def test_no_logits_are_made_for_prompts(tokenizer, rows):
    model = make_model("llama", len(tokenizer))
    made = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: made.append(len(output)))
    token_losses(model, collate(rows, [1.0] * len(rows), pad=2))
    assert made == [sum(row.target_length for row in rows)]


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def lora_gradient(model, rows, weights, *, normalised):
    model.zero_grad()
    batch = collate(rows, weights, pad=2)
    losses = token_losses(model, batch)
    (weighted_loss(losses, batch, len(losses)) if normalised else (losses * batch.weights).sum()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@pytest.fixture
def lora_model(tokenizer):
    """With float64 weights, and with B no longer zero, so that no gradient vanishes."""
    torch.manual_seed(0)
    model = add_lora(make_model("llama", len(tokenizer)), TRAINING, "tiny").double()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_on_one_batch_a_weight_of_two_is_the_row_twice_and_zero_is_leaving_it_out(lora_model, rows):
    rest = [1.0] * (len(rows) - 1)
    one, two, zero = (lora_gradient(lora_model, rows, [w, *rest], normalised=False) for w in (1.0, 2.0, 0.0))
    without = lora_gradient(lora_model, rows[1:], rest, normalised=False)
    twice = lora_gradient(lora_model, [rows[0], *rows], [1.0, 1.0, *rest], normalised=False)
    close(zero, without)
    close(two, twice)
    close(two - one, one - zero)
    assert (one - zero).abs().max() > 1e-3


def test_the_batch_is_divided_by_its_target_tokens_whatever_the_weights(lora_model, rows):
    tokens = sum(row.target_length for row in rows)
    for weights in ([1.0] * 4, [2.0, 0.0, 0.5, 1.0]):
        plain = lora_gradient(lora_model, rows, weights, normalised=False)
        divided = lora_gradient(lora_model, rows, weights, normalised=True)
        close(divided, plain / tokens)
        assert (divided - plain).abs().max() > 1e-3


def test_training_moves_every_lora_weight_and_no_base_weight(tokenizer, rows):
    torch.manual_seed(0)
    model = add_lora(make_model("llama", len(tokenizer)), TRAINING, "tiny")
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = [
        event["loss"]
        for event in fit(model, TrainingData([(row,) for row in rows], [1.0] * 4, []), TRAINING, 2, seed=0)
    ]
    lora = {name for name in before if "lora_" in name}
    # Two layers with seven linear maps, each with an A and a B.
    assert len(lora) == 28
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in lora), name
        assert name not in lora or bool((parameter != before[name]).any(dim=1).all()), name
    assert losses[-1] < losses[0]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 200), st.integers(0, 5))
def test_an_epoch_has_every_row_once_and_keeps_the_token_budget(lengths, budget, seed):
    batches = draw_batches(lengths, budget, random.Random(seed))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[row] for row in b) <= budget for b in batches)
    assert batches == draw_batches(lengths, budget, random.Random(seed))


@pytest.mark.parametrize(
    ("step", "steps", "warmup", "factor"),
    [(0, 10, 0.0, 1.0), (5, 10, 0.0, 0.5), (9, 10, 0.0, 0.1), (0, 10, 0.2, 0.5), (1, 10, 0.2, 1.0), (2, 10, 0.2, 1.0)],
)
def test_the_learning_rate_warms_up_and_falls_linearly(step, steps, warmup, factor):
    assert learning_rate_factor(step, steps, warmup) == pytest.approx(factor)


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_the_learning_rate_is_never_zero_nor_above_its_top(steps, warmup):
    assert all(0 < learning_rate_factor(step, steps, warmup) <= 1 for step in range(steps))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([1.0, float("nan")], "the loss became nan at step 2"),
        ([float("inf")], "the loss became inf at step 1"),
        ([1.0] * 10 + [9.0] * 10, "the loss rose from 1.00 to 9.00"),
    ],
)
def test_a_training_gone_wrong_is_stopped_with_advice(losses, message):
    with pytest.raises(TrainingError, match=rf"{message}.*lower training\.learning_rate"):
        stop_if_diverged(losses)


def test_a_loss_that_dft_may_raise_stops_a_training_only_where_it_is_no_number():
    stop_if_diverged([1.0] * 10 + [9.0] * 10, may_rise=True)
    with pytest.raises(TrainingError, match="became nan"):
        stop_if_diverged([1.0] * 10 + [float("nan")], may_rise=True)


def test_a_bad_step_or_two_do_not_stop_a_training():
    stop_if_diverged([2.0] * 10 + [1.0] * 8 + [9.0, 9.0])
    assert True


def test_rows_that_are_too_long_are_left_out_by_name(tokenizer):
    rows = [
        {"id": name, "messages": [{"role": "user", "content": question}], "targets": ["19"], "weight": 1.0}
        for name, question in (("short", "x"), ("long", "x" * 200))
    ]
    data = encode_rows(tokenizer, rows, max_length=50)
    assert data.dropped == ["long"]
    assert len(data.rows) == len(data.weights) == 1
    with pytest.raises(TrainingError, match=r"training\.max_length"):
        encode_rows(tokenizer, rows[1:], max_length=50)


def test_each_epoch_takes_the_next_of_a_rows_targets_that_fit(tokenizer):
    messages = [{"role": "user", "content": "x"}]
    rows = [
        {"id": "many", "messages": messages, "targets": ["19", "y" * 200, "7 yes"], "weight": 1.0},
        {"id": "one", "messages": messages, "targets": ["true"], "weight": 2.0},
        {"id": "long", "messages": messages, "targets": ["y" * 200, "z" * 200], "weight": 1.0},
    ]
    data = encode_rows(tokenizer, rows, max_length=50)
    assert data.dropped == ["long"] and data.weights == [1.0, 2.0]
    texts = [
        [tokenizer.decode(row.input_ids[row.prompt_length :]) for row in data.epoch(number)] for number in range(3)
    ]
    assert texts == [[f"{many}<|im_end|>", "true<|im_end|>"] for many in ("19", "7 yes", "19")]


@pytest.mark.parametrize(("rank", "stabilised"), [(32, False), (33, True)])
def test_above_rank_32_the_scaling_is_rank_stabilised(tmp_path, tokenizer, rank, stabilised):
    training = TRAINING.model_copy(update={"rank": rank})
    model = add_lora(make_model("llama", len(tokenizer)), training, "the base")
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["use_rslora"] is stabilised
    assert config["base_model_name_or_path"] == "the base"
    assert not any("lm_head" in module or "embed" in module for module in config["target_modules"])


def test_a_failed_training_leaves_no_adapter(tmp_path):
    base = make_tiny_model(tmp_path / "tiny")
    row = {"id": "r", "messages": [{"role": "user", "content": "x"}], "targets": ["19"], "weight": 1.0}
    training = TRAINING.model_copy(update={"learning_rate": 1e8, "epochs": 30, "max_grad_norm": 1e9})
    job = {
        "base": str(base),
        "base_name": "tiny",
        "dtype": "float32",
        "threads": 1,
        "rows": [row] * 8,
        "training": training.model_dump(),
        "seed": 0,
        "steps": None,
        "start": None,
        "folder": str(tmp_path / "adapter"),
    }
    with pytest.raises(TrainingError, match=r"lower training\.learning_rate"):
        list(train(job))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("steps", [1, 5])
def test_a_training_makes_as_many_steps_as_it_is_told(tmp_path, steps):
    row = {"messages": [{"role": "user", "content": "x"}], "targets": ["19"], "weight": 1.0}
    job = {
        "base": str(make_tiny_model(tmp_path / "tiny")),
        "base_name": "tiny",
        "dtype": "float32",
        "threads": 1,
        "rows": [row | {"id": str(n)} for n in range(8)],
        "training": TRAINING.model_copy(update={"batch_tokens": 1, "epochs": 1}).model_dump(),
        "seed": 0,
        "steps": steps,
        "start": None,
        "folder": str(tmp_path / "adapter"),
    }
    *events, last = train(job)
    assert [event["step"] for event in events] == [*range(1, steps + 1)]
    assert (last["steps"], len(last["losses"])) == (steps, steps)
    _, whole = [*train(job | {"steps": 8, "folder": str(tmp_path / "all")})][-2:]
    assert last["training_tokens"] * 8 == whole["training_tokens"] * steps


def taught_rows(count):
    return [training_row(id=f"r{at}", question=QUESTIONS[at % 4], target=TARGETS[at % 4]) for at in range(count)]


@pytest.mark.real
def test_training_goes_on_from_an_adapter(tmp_path):
    base = make_tiny_model(tmp_path / "tiny")
    rows = [
        training_row(id=f"r{at}", example_id=f"r{at}", question=QUESTIONS[at % 4], target=TARGETS[at % 4])
        for at in range(4)
    ]

    def train_into(name, learning_rate, start):
        settings = TrainingSettings(learning_rate, 1, 0, start)
        student.train(rows, settings, tmp_path / name, tmp_path / "log", lambda _: None)
        return load_file(tmp_path / name / "adapter_model.safetensors")

    with closing(LocalStudent(StudentConfig(base=str(base), dtype="float32"), TRAINING, "Be brief.")) as student:
        first = train_into("first", 1e-2, None)
        hardly_moved = train_into("hardly", 1e-9, tmp_path / "first")
        moved = train_into("moved", 1e-2, tmp_path / "first")
    assert all(torch.allclose(first[name], hardly_moved[name], atol=1e-6) for name in first)
    assert not any(torch.allclose(first[name], moved[name], atol=1e-6) for name in first)
    assert json.loads((tmp_path / "moved" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)


@pytest.mark.real
def test_two_trainings_give_the_same_bytes_and_another_seed_gives_others(tmp_path):
    base = make_tiny_model(tmp_path / "tiny")
    student = LocalStudent(StudentConfig(base=str(base), dtype="float32"), TRAINING, "Be brief.")
    rows = [
        training_row(id=f"r{at}", example_id=f"r{at}", question=QUESTIONS[at % 4], target=TARGETS[at % 4])
        for at in range(12)
    ]
    rows.append(training_row(id="too long", question="x" * 2000, target="19"))
    reports = []

    def train_into(name, seed):
        result = student.train(
            rows, TrainingSettings(1e-2, 2, seed, start=None), tmp_path / name, tmp_path / "log", reports.append
        )
        return result, {file.name: file_sha256(file) for file in (tmp_path / name).iterdir()}

    first, again, other = train_into("a", 0), train_into("b", 0), train_into("c", 1)
    assert first == again
    assert first[1].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert other[1]["adapter_model.safetensors"] != first[1]["adapter_model.safetensors"]
    result = first[0]
    assert result.dropped == ("too long",)
    assert result.steps == len(result.losses)
    assert result.target_tokens < result.training_tokens
    assert [p.done for p in reports[: result.steps]] == list(range(1, result.steps + 1))
    assert {p.total for p in reports[: result.steps]} == {result.steps}


# DFT


def test_dft_at_probability_one_is_sft_and_weighs_a_token_by_its_probability_elsewhere():
    losses = torch.tensor([0.0, 0.5, 2.0, 2.0], requires_grad=True)
    factors = dft_factors(losses, torch.tensor([True, True, True, False]))
    close(factors, torch.tensor([0.0, 0.5, 2.0, 0.0]).neg().exp())
    assert not factors.requires_grad


def test_the_gradient_of_dft_by_hand(tokenizer, rows):
    """−sg(p)·ln p has, in the logits z, the gradient p·(softmax(z) − onehot)."""
    torch.manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([1, 0, 6, 3, 3])
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    (losses * dft_factors(losses, torch.ones(5, dtype=torch.bool))).sum().backward()
    shares = logits.detach().softmax(1)
    wanted = shares[range(5), labels][:, None] * (shares - torch.nn.functional.one_hot(labels, 7))
    assert torch.allclose(logits.grad, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dft", "differs"), [((False,) * 4, False), ((True, False, True, False), True), ((), False)])
def test_a_training_teaches_the_rows_told_by_dft_and_reports_plain_losses(tokenizer, rows, dft, differs):
    def train(of):
        torch.manual_seed(0)
        model = add_lora(make_model("llama", len(tokenizer)), TRAINING, "tiny")
        data = TrainingData([(row,) for row in rows], [1.0] * 4, [], of)
        return list(fit(model, data, TRAINING.model_copy(update={"loss": "dft"}), 2, seed=0))

    plain, made = train(()), train(dft)
    assert made[0]["loss"] == plain[0]["loss"], "before anything is learnt"
    assert ([e["loss"] for e in made] != [e["loss"] for e in plain]) == differs
    told = [e["probability"] for e in made if e["probability"] is not None]
    assert bool(told) == differs and all(0 < p < 1 for p in told)


@pytest.mark.parametrize(
    ("loss", "skills", "wanted"),
    [
        ("sft", [], [False, False]),
        ("dft", [], [True, True]),
        ("dft", ["a"], [True, False]),
        ("dft", ["c"], [False, True]),
    ],
)
def test_dft_is_for_all_rows_or_those_of_some_skills(loss, skills, wanted):
    training = TrainingConfig(loss=loss, dft_skills=skills)
    made = [training_row(skill="a", skills=("a", "b")), training_row(skill="b", skills=("b", "c"))]
    assert [training.has_dft(row) for row in made] == wanted


def test_skills_of_a_loss_that_is_not_chosen_are_refused():
    with pytest.raises(ValueError, match=r"dft_skills.*training\.loss: dft"):
        TrainingConfig(dft_skills=["a"])


def norm_by_hand(model, rows, weights, dft):
    """The length of Σ_i w_i Σ_t f_it ∇(−ln p_it) / T, row by row; f is the token's probability where DFT is wanted."""
    matrices = [p for p in model.parameters() if p.requires_grad]
    total = 0.0
    for row, weight, own in zip(rows, weights, dft, strict=True):
        losses = token_losses(model, collate([row], [1.0], 2))
        total = total + weight * (losses * (losses.detach().neg().exp() if own else 1.0)).sum()
    parts = torch.autograd.grad(total / sum(row.target_length for row in rows), matrices, allow_unused=True)
    return float(torch.cat([part.flatten() for part in parts if part is not None]).norm())


def test_a_step_takes_each_row_by_its_own_weight_and_its_own_loss(tokenizer, rows):
    training = TRAINING.model_copy(update={"epochs": 1, "batch_tokens": 4096})
    weights, dft = [0.5, 1.0, 2.0, 4.0], (True, False, False, True)
    ((_, places),) = seeded_batches(TrainingData([(row,) for row in rows], weights, [], dft), training, 0)
    assert places != sorted(places), "the batch has another order than the rows"
    torch.manual_seed(0)
    model = add_lora(make_model("llama", len(tokenizer)), training, "tiny")
    by_hand = norm_by_hand(model, rows, weights, dft)
    with torch.no_grad():
        likely = torch.cat([token_losses(model, collate([rows[at]], [1.0], 2)).neg().exp() for at in (0, 3)]).mean()
    (event,) = fit(model, TrainingData([(row,) for row in rows], weights, [], dft), training, 2, seed=0)
    assert event["gradient_norm"] == pytest.approx(by_hand, rel=1e-3)
    assert event["probability"] == pytest.approx(float(likely), rel=1e-3), "of the rows that DFT teaches alone"
