"""Influence against the mathematics, on tiny models: autograd row by row, finite differences, steps really taken."""

import copy

import pytest
import torch
from tiny_model import make_model, make_tokenizer

from curriculum.training_config import TrainingConfig
from student.chat_format import EncodedRow, collate, encode_row, prompt_messages
from student.gradient_similarity import (
    BLOCK,
    PROJECTED,
    Moments,
    Projection,
    adam_moments,
    adam_step,
    cosines,
    validation_directions,
)
from student.influence import (
    dot_products,
    lora_matrices,
    preference_direction,
    preference_weight,
    row_gradients,
    row_losses,
)
from student.lora import add_lora

TRAINING = TrainingConfig(rank=4, alpha=8)
QUESTIONS = ["x", "What is 12 plus 7?", "Solve the problem.", "yes no"]
TARGETS = ["Answer: 19", "19", "true", "red green blue"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def encoded(tokenizer, question, target):
    return encode_row(tokenizer, prompt_messages("", (), question), target)


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Of several lengths, so that some are padded."""
    made = [encoded(tokenizer, q, t) for q, t in zip(QUESTIONS, TARGETS, strict=True)]
    assert len({len(row.input_ids) for row in made}) == 3
    return made


def batch_of(rows):
    return collate(rows, [1.0] * len(rows), pad=2)


def lora_model(tokenizer, family="llama", dtype=torch.float32, training=TRAINING):
    """With a B that is no longer zero, so that no gradient vanishes."""
    torch.manual_seed(0)
    model = add_lora(make_model(family, len(tokenizer)), training, "tiny").to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def own_gradient(model, row: EncodedRow):
    """The textbook way: this row alone, and autograd."""
    matrices = lora_matrices(model)
    parts = torch.autograd.grad(row_losses(model, batch_of([row]))[0], [m.weight for m in matrices.values()])
    return dict(zip(matrices, parts, strict=True))


def flat(gradients):
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_gradients_of_a_batch_are_those_of_its_rows_one_by_one(family, tokenizer, rows):
    model = lora_model(tokenizer, family)
    together = row_gradients(model, batch_of(rows))
    assert together.keys() == lora_matrices(model).keys() and len(together) == 2 * 7 * 2  # layers, linears, A and B
    for at, row in enumerate(rows):
        for name, alone in own_gradient(model, row).items():
            torch.testing.assert_close(together[name][at], alone, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in model.parameters())
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {f"{n}.weight" for n in together}


def test_a_row_s_loss_is_the_mean_of_its_own_target_tokens(tokenizer, rows):
    model = lora_model(tokenizer)
    losses = row_losses(model, batch_of(rows))
    for at, row in enumerate(rows):
        ids = torch.tensor([row.input_ids])
        logits = model(input_ids=ids).logits[0, row.prompt_length - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, ids[0, row.prompt_length :])
        torch.testing.assert_close(losses[at], expected, rtol=1e-4, atol=1e-5)


def test_a_row_without_a_gradient_and_moments_of_nothing_give_no_score_and_no_nan(tokenizer, rows):
    """A whose rows are zero and B of zero: the adapter has no gradient at all."""
    model = lora_model(tokenizer)
    for matrix in lora_matrices(model).values():
        torch.nn.init.zeros_(matrix.weight)
    directions = validation_directions(model, [(batch_of(rows[:1]), [[0]])], 1, None)
    nothing = {
        name: Moments(torch.zeros_like(m.weight), torch.zeros_like(m.weight))
        for name, m in lora_matrices(model).items()
    }
    assert flat(directions).eq(0).all()
    assert cosines(model, batch_of(rows), nothing, directions, None).eq(0).all()
    assert dot_products(model, batch_of(rows), preference_direction(model, [pairs_batch(tokenizer)], "pi")).eq(0).all()


def test_the_layers_of_a_fresh_adapter_have_gradients_in_b_alone(tokenizer, rows):
    torch.manual_seed(0)
    fresh = add_lora(make_model("llama", len(tokenizer)), TRAINING, "tiny").eval()
    for name, gradient in row_gradients(fresh, batch_of(rows)).items():
        assert bool(gradient.any()) == (".lora_B." in name), name


def test_a_dot_product_is_that_of_the_gradient_and_of_a_finite_difference(tokenizer, rows):
    model = lora_model(tokenizer, dtype=torch.float64)
    torch.manual_seed(1)
    direction = {name: torch.randn_like(m.weight) for name, m in lora_matrices(model).items()}
    scores = dot_products(model, batch_of(rows), {name: d.float() for name, d in direction.items()})
    by_hand = torch.stack([flat(own_gradient(model, row)) @ flat(direction) for row in rows])
    torch.testing.assert_close(scores.double(), by_hand, rtol=1e-4, atol=1e-5)

    def losses_at(step):
        moved = copy.deepcopy(model)
        for name, matrix in lora_matrices(moved).items():
            matrix.weight.data += step * direction[name]
        made = []
        for row in rows:
            ids = torch.tensor([row.input_ids])
            logits = moved(input_ids=ids).logits[0, row.prompt_length - 1 : -1]
            made.append(torch.nn.functional.cross_entropy(logits, ids[0, row.prompt_length :]))
        return torch.stack(made).detach()

    difference = (losses_at(1e-3) - losses_at(-1e-3)) / 2e-3
    torch.testing.assert_close(scores.double(), difference, rtol=1e-3, atol=1e-3)  # norms are in float32


def pairs_batch(tokenizer, right="19", wrong="7"):
    made = []
    for question in QUESTIONS[:2]:
        made += [encoded(tokenizer, question, f"Answer: {right}"), encoded(tokenizer, question, f"Answer: {wrong}")]
    return batch_of(made)


@pytest.mark.parametrize(("weight", "expected"), [("pi", [0.75, 0.5]), ("1-pi", [0.25, 0.5]), ("uniform", [1.0, 1.0])])
def test_preference_weights(weight, expected):
    # The first is exp(ln 3) = 3 times as likely a token as its wrong one, the second as likely.
    right, wrong = torch.tensor([1.0, 2.0]), torch.tensor([1.0 + torch.log(torch.tensor(3.0)), 2.0])
    torch.testing.assert_close(preference_weight(right, wrong, weight), torch.tensor(expected))


@pytest.mark.parametrize("weight", ["pi", "1-pi", "uniform"])
def test_the_direction_is_the_weighted_mean_over_pairs(weight, tokenizer):
    model = lora_model(tokenizer)
    batch = pairs_batch(tokenizer)
    losses = row_losses(model, batch).detach()
    counts = preference_weight(losses[0::2], losses[1::2], weight)
    own = row_gradients(model, batch)
    direction = preference_direction(model, [batch], weight)
    for name, gradients in own.items():
        expected = ((gradients[0::2] - gradients[1::2]) * counts[:, None, None]).mean(0)
        torch.testing.assert_close(direction[name], expected, rtol=1e-4, atol=1e-6)
    halves = [pairs_batch(tokenizer)._replace(), batch]
    twice = preference_direction(model, halves, weight)
    torch.testing.assert_close(flat(twice), flat(direction), rtol=1e-5, atol=1e-7)


def preferences(model, batch):
    losses = row_losses(model, batch).detach()
    return (losses[1::2] - losses[0::2]).mean()


def test_the_score_says_how_far_a_step_on_the_row_moves_the_preference(tokenizer, rows):
    """Brute force: a small step of gradient descent on each candidate alone, and the pairs asked again."""
    model = lora_model(tokenizer)
    pairs = pairs_batch(tokenizer)
    more = [encoded(tokenizer, QUESTIONS[0], "Answer: 19"), encoded(tokenizer, QUESTIONS[0], "Answer: 7")]
    candidates = [*rows, *more]
    scores = dot_products(model, batch_of(candidates), preference_direction(model, [pairs], "uniform"))
    before, step, gains = preferences(model, pairs), 1e-3, []
    for row in candidates:
        moved = copy.deepcopy(model)
        for name, gradient in own_gradient(model, row).items():
            dict(lora_matrices(moved))[name].weight.data -= step * gradient
        gains.append((preferences(moved, pairs) - before) / step)
    torch.testing.assert_close(scores, torch.stack(gains), rtol=0.05, atol=0.02)
    assert scores[4] > 0 > scores[5], "the right answer itself helps, the wrong one hurts"


def test_leaving_the_best_row_out_of_a_training_costs_more_than_leaving_the_worst_out(tokenizer, rows):
    start = lora_model(tokenizer)
    pairs = pairs_batch(tokenizer)
    candidates = [
        encoded(tokenizer, QUESTIONS[0], "Answer: 19"),
        encoded(tokenizer, QUESTIONS[0], "Answer: 7"),
        *rows[1:],
    ]
    scores = dot_products(start, batch_of(candidates), preference_direction(start, [pairs], "uniform"))

    def trained_without(left_out):
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD([m.weight for m in lora_matrices(model).values()], lr=0.02)
        for _ in range(5):
            optimizer.zero_grad()
            kept = [row for at, row in enumerate(candidates) if at != left_out]
            row_losses(model, batch_of(kept)).sum().backward()
            optimizer.step()
        return preferences(model, pairs)

    effects = torch.stack([trained_without(None) - trained_without(at) for at in range(len(candidates))])
    assert torch.equal(effects.argsort(), scores.argsort())


def test_an_adam_step_by_hand():
    moments = Moments(mean=torch.tensor([[0.5]]), square=torch.tensor([[4.0]]))
    made = adam_step(torch.tensor([[[2.0]], [[-3.0]]]), moments)
    # m' = 0.9 · 0.5 + 0.1 · g = 0.65 and 0.15; v' = 0.999 · 4 + 0.001 · g² = 4.0 and 4.005.
    expected = [0.65 / (4.0 + 1e-8) ** 0.5, 0.15 / (4.005 + 1e-8) ** 0.5]
    torch.testing.assert_close(made.flatten(), torch.tensor(expected))


def trained_a_little(model, rows):
    optimizer = torch.optim.AdamW([m.weight for m in lora_matrices(model).values()], lr=1e-3)
    for row in rows:
        optimizer.zero_grad()
        row_losses(model, batch_of([row])).sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def test_cosines_are_those_of_whole_features_row_by_row(tokenizer, rows):
    model = lora_model(tokenizer)
    moments = adam_moments(model, trained_a_little(model, rows))
    validation, groups = rows[:3], [[0], [0, 1], [1]]
    directions = validation_directions(model, [(batch_of(validation), groups)], 2, None)
    made = cosines(model, batch_of(rows), moments, directions, None)
    for at, row in enumerate(rows):
        own = own_gradient(model, row)
        feature = flat({name: adam_step(g[None], moments[name])[0] for name, g in own.items()})
        for group in (0, 1):
            members = [flat(own_gradient(model, v)) for v, of in zip(validation, groups, strict=True) if group in of]
            expected = torch.stack([torch.nn.functional.cosine_similarity(feature, g, dim=0) for g in members]).mean()
            torch.testing.assert_close(made[at, group], expected, rtol=1e-3, atol=1e-5)


def test_a_projection_keeps_cosines_and_is_the_same_each_time(tokenizer, rows):
    model = lora_model(tokenizer)
    moments = adam_moments(model, trained_a_little(model, rows))
    validation = [(batch_of(rows[:2]), [[0], [1]])]
    exact = cosines(model, batch_of(rows), moments, validation_directions(model, validation, 2, None), None)

    def projected(seed):
        projection = Projection(4096, seed)
        directions = validation_directions(model, validation, 2, projection)
        assert directions.keys() == {PROJECTED} and directions[PROJECTED].shape == (2, 4096)
        return cosines(model, batch_of(rows), moments, directions, projection)

    torch.testing.assert_close(projected(0), exact, rtol=0, atol=4 / 4096**0.5)
    assert torch.equal(projected(0), projected(0)) and not torch.equal(projected(0), projected(1))


def test_a_projection_keeps_inner_products_and_parts_have_signs_of_their_own():
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(6, 1 << 16), dim=1)
    vectors[1] = vectors[0]
    projection = Projection(2048, 3)
    made = projection.of(0, vectors)
    torch.testing.assert_close(made @ made.T, vectors @ vectors.T, rtol=0, atol=4 / 2048**0.5)
    assert abs(torch.nn.functional.cosine_similarity(made[0], projection.of(1, vectors)[0], dim=0)) < 0.1
    one = torch.zeros(2, 2 * BLOCK)
    one[0, 5] = one[1, BLOCK + 5] = 1.0
    far = projection.of(0, one)
    assert abs(torch.nn.functional.cosine_similarity(far[0], far[1], dim=0)) < 0.1, "a block has signs of its own"
    assert set(Projection(16, 0).of(0, torch.eye(4)).flatten().tolist()) == {-0.25, 0.25}
