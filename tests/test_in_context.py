"""In-context approximation: the holdout, the demonstrations, scores and weights, against the definition."""

import itertools
import json
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import training_row
from tiny_model import make_model, make_tiny_model, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from curriculum.errors import TrainingError
from curriculum.in_context import (
    LEAST_WEIGHT,
    batch_weights,
    choose_demonstrations,
    ica_scores,
    ica_weights,
    mean_weights,
    refresh_steps,
    set_aside,
)
from curriculum.records import Example, Message
from curriculum.student_config import StudentConfig
from curriculum.training_config import IcaConfig, TrainingConfig
from student.chat_format import encode_row, prompt_messages
from student.in_context import after, demonstrated, mean_losses, weigh
from student.interface import Shots, TrainingSettings
from student.local import LocalStudent
from student.lora import add_lora
from student.train_worker import encode_rows, fit, seeded_batches

SYSTEM = "Solve the problem."
SHOTS = [("What is 12 plus 7?", "Answer: 19"), ("yes no", "Answer: true"), ("red", "Answer: green")]
OTHERS = [("blue", "Answer: red"), ("no", "Answer: no"), ("7", "Answer: 7")]
ROWS = [("What is 7 plus 12?", "Answer: 19"), ("x", "Answer: yes"), ("red green blue", "Answer: 12")]


def example(question: str, group: str | None = None, history: tuple[Message, ...] = ()) -> Example:
    made = Example.make(question=question, gold="1", grader="exact", source="test", group=group, history=history)
    return made.model_copy(update={"split": "pool"})


# The holdout


def test_the_holdout_takes_whole_groups_of_every_skill_and_does_not_depend_on_the_order():
    pool = [(example(f"q{at}", group=f"g{at // 2}"), f"s{at % 20 // 10}") for at in range(60)]
    held = set_aside(pool, 0.2, 3)
    assert held == set_aside(pool[::-1], 0.2, 3) != set_aside(pool, 0.2, 4)
    of_skill = {s: {e.group for e, skill in pool if skill == s} for s in ("s0", "s1")}
    taken = {e.group for e, _ in pool if e.id in held}
    assert {e.id for e, _ in pool if e.group in taken} == held, "whole groups"
    assert all(len(groups & taken) == 3 for groups in of_skill.values()), "a fifth of each skill's fifteen"


def test_every_skill_gives_one_group_and_keeps_one():
    pool = [(example(f"rare {at}"), "rare") for at in range(2)]
    pool += [(example(f"one {at}", group="one"), "alone") for at in range(3)]
    pool += [(example(f"q{at}"), "common") for at in range(30)]
    for share in (0.05, 0.5):
        held = set_aside(pool, share, 0)
        left = [skill for e, skill in pool if e.id not in held]
        assert left.count("rare") == 1 and left.count("alone") == 3, "a skill of one group would have no row to teach"
        assert left.count("common") == 30 - max(2, round(share * 30))


# Demonstrations


def test_no_row_is_its_own_demonstration_nor_is_a_near_copy_of_it():
    texts = ["Tom has 3 red and 4 blue pens", "Please add 5 and 6", "Ann walks 9 miles", "What is 12 plus 70?"]
    holdout = [example(t) for t in (*texts, "please, tom has 3 red and 4 blue pens")]
    rows = [training_row(id="a", question=texts[0]), training_row(id="b", question="What is 12 plus 71?")]
    vectors = np.eye(5, dtype=np.float32)
    towards = np.array([[9, 1, 2, 0.5, 8], [0, 1, 2, 9, 0]], np.float32)
    first, second = choose_demonstrations(rows, towards, holdout, vectors, 3, 0)
    assert first.nearest == [2, 1, 3] and set(first.random) == {1, 2, 3}
    assert second.nearest == [3, 2, 1] and len(set(second.random)) == 3


def test_random_demonstrations_differ_between_rows_and_not_between_calls():
    holdout = [example(f"question number {at}") for at in range(30)]
    rows = [training_row(id=str(at), question=f"row {at}") for at in range(5)]
    vectors = np.ones((30, 2), np.float32)
    one, two = (choose_demonstrations(rows, vectors[:5], holdout, vectors, 3, 0) for _ in range(2))
    assert one == two and len({tuple(d.random) for d in one}) > 1


# Scores and weights

LOSSES = st.lists(st.floats(0, 20), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("alone", "shown", "by_chance", "scores"),
    [([2, 1], [1, 1.5], None, [1, -0.5]), ([2, 1], [1, 1.5], [1.5, 1], [0.5, -0.5])],
)
def test_a_score_is_the_loss_alone_less_the_loss_after_demonstrations(alone, shown, by_chance, scores):
    assert ica_scores(alone, shown, by_chance) == scores


def test_weights_by_hand():
    assert ica_weights([0, 1, 4]) == pytest.approx([v * 3 / (LEAST_WEIGHT + 1.25) for v in (LEAST_WEIGHT, 0.25, 1)])


@pytest.mark.parametrize("scores", [[], [3.0], [2.0, 2.0]])
def test_equal_scores_weigh_the_same(scores):
    assert ica_weights(scores) == [1.0] * len(scores)


@given(LOSSES)
def test_weights_have_the_mean_one_are_positive_and_keep_the_order(scores):
    weights = ica_weights(scores)
    assert sum(weights) / len(weights) == pytest.approx(1)
    assert min(weights) > 0
    ordered = [w for _, w in sorted(zip(scores, weights, strict=True))]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(ordered))


@given(LOSSES, st.floats(-5, 5), st.floats(0.1, 10))
def test_weights_do_not_depend_on_where_scores_begin_nor_on_their_unit(scores, shift, scale):
    if max(scores) - min(scores) > 1e-3:
        assert ica_weights([scale * s + shift for s in scores]) == pytest.approx(ica_weights(scores), abs=1e-6)


def test_weights_of_each_batch_alone_by_hand():
    scores, batches = [0.0, 1.0, 4.0, 2.0, 9.0], [[2, 0, 1], [3, 4], [0]]
    alone = batch_weights(scores, batches, "batch")
    assert alone == [ica_weights([4, 0, 1]), ica_weights([2, 9]), [1.0]]
    over_all = ica_weights(scores)
    assert batch_weights(scores, batches, "set") == [[over_all[at] for at in batch] for batch in batches]
    assert mean_weights(6, batches, alone) == [(alone[0][1] + 1) / 2, alone[0][2], alone[0][0], *alone[1], 1.0]


@given(st.integers(1, 200), st.integers(1, 50))
def test_rows_are_scored_first_of_all_and_then_evenly(steps, refresh):
    at = refresh_steps(steps, refresh)
    assert at[0] == 0 and at[-1] < steps and len(at) == min(steps, refresh)
    assert max(b - a for a, b in zip(at, [*at[1:], steps], strict=True)) <= -(-steps // len(at))


# Losses of a model


def event(at: int, shots: list[tuple[str, str]], others: list[tuple[str, str]] | None) -> dict:
    question, target = ROWS[at]
    messages = [m.model_dump() for m in prompt_messages(SYSTEM, (), question)]
    return {"id": str(at), "messages": messages, "targets": [target], "weight": 1.0, "nearest": shots, "random": others}


def plain_loss(model, tokenizer, text: str, target: str) -> float:
    """One forward pass over one text: the mean loss of the target and the end of turn."""
    prompt = tokenizer(text).input_ids
    ids = torch.tensor([prompt + tokenizer(f"{target}<|im_end|>").input_ids])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits[len(prompt) - 1 :], ids[0, len(prompt) :]))


def chat(shots: list[tuple[str, str]], question: str) -> str:
    turns = [("system", SYSTEM)]
    for asked, answered in shots:
        turns += [("user", asked), ("assistant", answered)]
    turns.append(("user", question))
    return "".join(f"<|im_start|>{r}\n{t}<|im_end|>\n" for r, t in turns) + "<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_the_score_is_that_of_two_plain_forward_passes(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    data = encode_rows(tokenizer, [event(at, SHOTS, OTHERS) for at in range(3)], 100, 400)
    model.train()
    weighed = weigh(model, [turns[0] for turns in data.rows], data.shown, 300, 2, 0, 1)
    assert model.training, "dropout is back"
    model.eval()
    for row, (question, target) in zip(weighed, ROWS, strict=True):
        alone = plain_loss(model, tokenizer, chat([], question), target)
        shown = plain_loss(model, tokenizer, chat(SHOTS[::-1], question), target)
        by_chance = plain_loss(model, tokenizer, chat(OTHERS[::-1], question), target)
        assert (row["alone"], row["shown"], row["random"]) == pytest.approx((alone, shown, by_chance), abs=1e-4)
        assert row["score"] == pytest.approx((alone - shown) - (alone - by_chance), abs=2e-4)
        assert row["demonstrations"] == 3
    assert [row["weight"] for row in weighed] == pytest.approx(ica_weights([row["score"] for row in weighed]))


def test_demonstrations_carry_no_loss_and_stand_after_the_system_turn_the_nearest_last():
    tokenizer = make_tokenizer()
    history = (Message(role="user", content="no"), Message(role="assistant", content="yes"))
    messages = prompt_messages(SYSTEM, history, "x")
    shown = demonstrated(messages, SHOTS[:1])
    assert [m.role for m in shown] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m.content for m in shown[1:3]] == list(SHOTS[0]) and shown[3:] == list(messages[1:])
    assert demonstrated(messages[1:], SHOTS[:1])[0].role == "user"
    row, number = after(tokenizer, messages, "Answer: 19", SHOTS, 10_000)
    alone = encode_row(tokenizer, messages, "Answer: 19")
    assert number == 3 and row.input_ids[row.prompt_length :] == alone.input_ids[alone.prompt_length :]
    text = tokenizer.decode(row.input_ids[: row.prompt_length])
    assert text.index(SHOTS[2][0]) < text.index(SHOTS[1][0]) < text.index(SHOTS[0][0])


def test_the_furthest_demonstrations_are_left_out_where_all_are_too_long():
    tokenizer = make_tokenizer()
    messages = prompt_messages(SYSTEM, (), "x")
    lengths = [
        len(encode_row(tokenizer, demonstrated(messages, SHOTS[:n][::-1]), "Answer: 19").input_ids) for n in range(4)
    ]
    for n, length in enumerate(lengths):
        row, number = after(tokenizer, messages, "Answer: 19", SHOTS, length)
        assert (number, len(row.input_ids)) == (n, length)
    assert after(tokenizer, messages, "Answer: 19", SHOTS, 1)[1] == 0


def test_means_come_in_the_order_of_the_rows_in_whatever_batches():
    tokenizer = make_tokenizer()
    model = make_model("llama", len(tokenizer))
    rows = [encode_row(tokenizer, prompt_messages("", (), q), t) for q, t in ROWS for _ in range(2)]
    one = mean_losses(model, rows, 1, 2)
    assert one == pytest.approx(mean_losses(model, rows, 10_000, 2), abs=1e-5)
    assert one[0] == pytest.approx(one[1]) and len({round(v, 3) for v in one}) == 3


def scorings_and_losses(tokenizer, training, data):
    """A tiny training's events: its scorings, and the loss of each step."""
    torch.manual_seed(0)
    model = add_lora(make_model("llama", len(tokenizer)), training, "tiny")
    events = list(fit(model, data, training, 2, seed=0))
    return [e for e in events if "refresh" in e], [e["loss"] for e in events if "step" in e]


@pytest.mark.parametrize("refresh", [1, 3])
def test_a_training_scores_as_often_as_told_and_takes_the_weights(refresh):
    tokenizer = make_tokenizer()
    training = TrainingConfig(
        weights="ica", ica=IcaConfig(refresh=refresh), rank=4, learning_rate=1e-2, epochs=4, batch_tokens=200
    )
    data = encode_rows(tokenizer, [event(at, SHOTS[: at + 1], None) for at in range(3)], 200, 400)

    scored, losses = scorings_and_losses(tokenizer, training, data)
    assert [e["at"] for e in scored] == refresh_steps(len(losses), refresh)
    assert [e["refresh"] for e in scored] == list(range(refresh))
    first, last = ([row["score"] for row in scored[at]["rows"]] for at in (0, -1))
    assert (first != last) == (refresh > 1), "a later scoring is of the model as it is then"
    if refresh == 1:
        given = data._replace(shown=(), weights=[row["weight"] for row in scored[0]["rows"]])
        assert scorings_and_losses(tokenizer, training, given) == ([], losses), "as if the weights had been given"
        assert scorings_and_losses(tokenizer, training, given._replace(weights=[1.0] * 3))[1] != losses


def test_weights_multiply_the_rows_own_and_a_later_scoring_replaces_the_last():
    tokenizer = make_tokenizer()
    training = TrainingConfig(
        weights="ica", ica=IcaConfig(refresh=2), rank=4, learning_rate=1e-12, epochs=2, batch_tokens=4096
    )
    rows = [event(at, SHOTS[: at + 1], None) | {"weight": own} for at, own in enumerate([0.5, 2.0, 4.0])]
    data = encode_rows(tokenizer, rows, 200, 400)

    def train(of):
        torch.manual_seed(0)
        model = add_lora(make_model("llama", len(tokenizer)), training, "tiny")
        return list(fit(model, of, training, 2, seed=0))

    first, one, second, two = train(data)  # at this rate nothing moves: both scorings say the same
    assert [r["weight"] for r in second["rows"]] == pytest.approx([r["weight"] for r in first["rows"]], rel=1e-3)
    both = [own["weight"] * weighed["weight"] for own, weighed in zip(rows, first["rows"], strict=True)]
    given = train(data._replace(shown=(), weights=both))
    norms = [e["gradient_norm"] for e in given]
    assert [one["gradient_norm"], two["gradient_norm"]] == pytest.approx(norms, rel=1e-3)
    plain = [e["gradient_norm"] for e in train(data._replace(shown=()))]
    assert one["gradient_norm"] != pytest.approx(plain[0], rel=1e-2)


def test_weights_of_a_step_may_be_those_of_its_own_rows():
    tokenizer = make_tokenizer()
    ica = IcaConfig(normalise="batch")
    training = TrainingConfig(weights="ica", ica=ica, rank=4, learning_rate=1e-12, epochs=2, batch_tokens=100)
    data = encode_rows(tokenizer, [event(at, SHOTS[: at + 1], None) for at in range(3)], 200, 400)
    batches = [places for _, places in seeded_batches(data, training, 0)]
    assert sorted(map(len, batches)) == [1, 1, 2, 2], "two steps an epoch"

    def train(of, how):
        torch.manual_seed(0)
        return list(fit(add_lora(make_model("llama", len(tokenizer)), how, "tiny"), of, how, 2, seed=0))

    scoring, *steps = train(data, training)
    scores = [row["score"] for row in scoring["rows"]]
    made = batch_weights(scores, batches, "batch")
    assert [row["weight"] for row in scoring["rows"]] == mean_weights(3, batches, made)
    for at, (places, own) in enumerate(zip(batches, made, strict=True)):
        weights = [1.0] * 3
        for place, weight in zip(places, own, strict=True):
            weights[place] = weight
        given = train(data._replace(shown=(), weights=weights), training)
        assert steps[at]["gradient_norm"] == pytest.approx(given[at]["gradient_norm"], rel=1e-4)


def test_a_loss_that_is_no_number_stops_the_training():
    tokenizer = make_tokenizer()
    training = TrainingConfig(weights="ica", rank=4)
    data = encode_rows(tokenizer, [event(0, SHOTS, None)], 200, 400)
    model = add_lora(make_model("llama", len(tokenizer)), training, "tiny")
    torch.nn.init.constant_(next(p for p in model.parameters() if p.requires_grad), float("nan"))
    with pytest.raises(TrainingError, match=r"no number for 1 of 1, the first of 0"):
        list(fit(model, data, training, 2, seed=0))


def test_a_row_is_scored_by_the_target_that_its_first_epoch_teaches():
    tokenizer = make_tokenizer()
    row = event(0, SHOTS[:1], None) | {"targets": ["x" * 300, "Answer: 19", "Answer: yes"]}
    data = encode_rows(tokenizer, [row], 100, 400)
    taught, (shown,) = data.epoch(0)[0], data.shown
    assert tokenizer.decode(taught.input_ids[taught.prompt_length :]).startswith("Answer: 19")
    assert shown.nearest.input_ids[shown.nearest.prompt_length :] == taught.input_ids[taught.prompt_length :]


def test_a_student_says_what_weighed_its_rows(base, tmp_path):
    training = TrainingConfig(weights="ica", rank=2, epochs=1)
    rows = [training_row(id=str(at), question=q, target=t) for at, (q, t) in enumerate(ROWS)]
    config = StudentConfig(base=str(base), dtype="float32", threads=1)
    settings = TrainingSettings(1e-3, 1, 0, None, None, training, {r.id: Shots(SHOTS, None) for r in rows})
    with closing(LocalStudent(config, TrainingConfig(), SYSTEM)) as student:
        result = student.train(rows, settings, tmp_path / "adapter", tmp_path / "log", lambda _: None)
    assert [w.row_id for w in result.weighed] == ["0", "1", "2"]
    assert {(w.refresh, w.step, w.random, w.demonstrations) for w in result.weighed} == {(0, 0, None, 3)}
    assert result.scoring_seconds > 0 and result.probabilities == ()
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 2, "the settings' own section"
