"""The worker's rankings against the definitions, row by row: PRISM's dot products, LESS over its checkpoints."""

import copy
import random

import pytest
import torch
from test_influence import batch_of, encoded, flat, lora_model, own_gradient
from tiny_model import make_tokenizer

from curriculum.errors import TrainingError
from curriculum.plan_config import LessConfig
from curriculum.training_config import TrainingConfig
from student.gradient_similarity import adam_moments, adam_step
from student.influence import preference_weight, row_losses
from student.lora import learning_rate_factor
from student.ranking_worker import Failure, Work, _require_numbers, less, prism
from student.train_worker import TrainingData, adam, fit

TRAINING = TrainingConfig(rank=4, alpha=8, dropout=0.5, learning_rate=1e-2, warmup_share=0.3, batch_tokens=64)
TAUGHT = [
    ("x", "Answer: 19"),
    ("What is 12 plus 7?", "19"),
    ("Solve the problem.", "true"),
    ("yes no", "red green blue"),
]
ASKED = [
    ("What is 12 plus 7?", "Answer: 19", "Answer: 7"),
    ("yes no", "Answer: yes", "Answer: no, it is false"),
    ("red green blue", "blue", "true"),
]
SKILLS = [("add",), ("add", "say"), ("say",)]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def work_of(tokenizer):
    model = lora_model(tokenizer, training=TRAINING)
    failures = [
        Failure(encoded(tokenizer, q, right), encoded(tokenizer, q, wrong), skills)
        for (q, right, wrong), skills in zip(ASKED, SKILLS, strict=True)
    ]
    candidates = [encoded(tokenizer, q, t) for q, t in TAUGHT]
    return Work(model.train(), ["a", "b", "c", "d"], candidates, failures, TRAINING, 2, 5)


def scores_of(events):
    *progress, last = events
    assert progress[-1]["done"] == progress[-1]["total"]
    return last["scores"]


def test_a_score_that_is_no_number_is_refused_by_the_row_s_id():
    with pytest.raises(TrainingError, match=r"got 2 of 3 that are none, the first of b"):
        _require_numbers({"a": 1.0, "b": float("nan"), "c": float("-inf")})


@pytest.mark.parametrize("weight", ["pi", "1-pi", "uniform"])
def test_prism_is_the_dot_product_with_the_weighted_difference_of_right_and_wrong(tokenizer, weight):
    work = work_of(tokenizer)
    model = copy.deepcopy(work.model).eval()
    direction = torch.tensor(0.0)
    for right, wrong, _ in work.failures:
        losses = [row_losses(model, batch_of([row])).detach() for row in (right, wrong)]
        difference = flat(own_gradient(model, right)) - flat(own_gradient(model, wrong))
        direction = direction + preference_weight(*losses, weight) * difference / len(work.failures)
    by_hand = [float(flat(own_gradient(model, row)) @ direction) for row in work.candidates]
    scores = scores_of(prism(work, weight))
    assert [scores[id_] for id_ in work.ids] == pytest.approx(by_hand, rel=1e-3, abs=1e-5)


def test_less_is_the_best_skill_s_mean_cosine_over_checkpoints_by_learning_rate(tokenizer):
    work, config = work_of(tokenizer), LessConfig(warm_up_share=1, epochs=3)
    model = copy.deepcopy(work.model)
    torch.manual_seed(1)
    scores = scores_of(less(work, config))

    # The same warm-up, and at the end of each epoch every candidate and failure alone.
    training = TRAINING.model_copy(update={"epochs": 3})
    optimizer = adam(model, training)
    order = random.Random(5).sample(range(4), 4)
    rows = TrainingData([(work.candidates[at],) for at in order], [1.0] * 4, [])
    torch.manual_seed(1)
    totals, weights, rates = torch.zeros(4, 2), 0.0, []
    for event in fit(model, rows, training, 2, 5, optimizer=optimizer):
        rates.append(learning_rate_factor(event["step"] - 1, event["total"], 0.3))
        batches = event["total"] // 3
        assert batches > 1, "or an epoch would be a step"
        if event["step"] % batches:
            continue
        weight, rates = sum(rates) / batches, []
        weights += weight
        model.eval()
        moments = adam_moments(model, optimizer)
        asked = [flat(own_gradient(model, f.right)) for f in work.failures]
        for at, row in enumerate(work.candidates):
            own = own_gradient(model, row)
            feature = flat({name: adam_step(g[None], moments[name])[0] for name, g in own.items()})
            one, both, two = (torch.nn.functional.cosine_similarity(feature, g, dim=0) for g in asked)
            totals[at] += weight * torch.stack([(one + both) / 2, (both + two) / 2])
        model.train()
    by_hand = (totals / weights).max(1).values
    assert [scores[id_] for id_ in work.ids] == pytest.approx(by_hand.tolist(), rel=1e-3, abs=1e-4)
    assert len({bool(a > b) for a, b in totals}) == 2, "each skill is the best of some row"
