"""Training in two phases: what is taught when; the second is a training of its own from where the first ended."""

import random
from contextlib import closing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from samples import training_row
from test_in_context import SHOTS, event, scorings_and_losses
from tiny_model import make_model, make_tiny_model, make_tokenizer

from curriculum.extraction import format_target, has_solution
from curriculum.student_config import StudentConfig
from curriculum.training_config import TrainingConfig
from student.base_model import file_sha256
from student.chat_format import EncodedRow, encode_row, prompt_messages
from student.interface import TrainingSettings
from student.local import LocalStudent
from student.lora import add_lora, draw_batches
from student.phases import clock, places_of_phases, share_steps
from student.train_worker import TrainingData, encode_rows, fit, seeded_batches

TRAINING = TrainingConfig(rank=4, alpha=8, learning_rate=1e-2, epochs=3, batch_tokens=128)
PHASES = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 60)), min_size=1, max_size=40)


def made_of(phases, lengths):
    return TrainingData([(EncodedRow((n,) * n, 0),) for n in lengths], [1.0] * len(lengths), [], phases=phases)


@given(PHASES, st.integers(1, 200), st.integers(1, 3), st.integers(0, 5))
def test_every_batch_of_the_first_phase_precedes_those_of_the_second(rows, budget, epochs, seed):
    phases, lengths = zip(*rows, strict=True)
    training = TrainingConfig(batch_tokens=budget, epochs=epochs)
    batches = [places for _, places in seeded_batches(made_of(phases, lengths), training, seed)]
    order = [phases[place] for places in batches for place in places]
    assert order == sorted(order)
    assert sorted(place for places in batches for place in places) == sorted([*range(len(rows))] * epochs)
    assert all(len({phases[place] for place in places}) == 1 for places in batches)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200), st.integers(0, 5))
def test_rows_of_one_phase_are_in_the_batches_they_always_were_in(lengths, budget, seed):
    training, generator = TrainingConfig(batch_tokens=budget, epochs=3), random.Random(seed)
    wanted = [batch for _ in range(3) for batch in draw_batches(lengths, budget, generator)]
    for phases in ((), [0] * len(lengths)):
        assert [places for _, places in seeded_batches(made_of(phases, lengths), training, seed)] == wanted


@given(st.lists(st.integers(1, 50), min_size=1, max_size=2), st.integers(1, 200))
def test_given_steps_are_shared_by_the_phases_batches(batches, steps):
    shares = share_steps(batches, steps)
    assert sum(shares) == steps and share_steps(batches, None) == batches
    if steps >= len(batches):
        assert min(shares) >= 1
        assert all(abs(share - steps * n / sum(batches)) <= 1 for share, n in zip(shares, batches, strict=True))


def test_a_phase_has_a_clock_of_its_own():
    assert clock([0, 0, 1]) == [(0, 2), (1, 2), (0, 1)]
    assert clock([]) == []
    assert places_of_phases([1, 0, 1], 3) == [[1], [0, 2]] and places_of_phases((), 2) == [[0, 1]]


@pytest.mark.parametrize(
    ("solution", "wanted"), [(None, False), ("2 + 3 = 5", True), ("a\nb", True), ("Answer: perhaps", True)]
)
def test_a_target_shows_whether_it_is_a_worked_solution(solution, wanted):
    assert has_solution(format_target("5", solution)) == wanted


def test_two_phases_are_two_trainings_the_second_from_where_the_first_ended():
    tokenizer = make_tokenizer()
    texts = [("x", "19"), ("What is 12 plus 7?", "19"), ("yes no", "red green\nAnswer: 19")]
    rows = [(encode_row(tokenizer, prompt_messages("", (), q), target),) for q, target in texts]

    def train(*parts):
        torch.manual_seed(0)
        model = add_lora(make_model("llama", len(tokenizer)), TRAINING, "tiny")
        losses = [e["loss"] for data in parts for e in fit(model, data, TRAINING, 2, seed=0)]
        return losses, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    losses, weights = train(TrainingData(rows, [1.0] * 3, [], phases=[0, 0, 1]))
    first, second = (TrainingData(part, [1.0] * len(part), []) for part in (rows[:2], rows[2:]))
    wanted_losses, wanted = train(first, second)
    assert losses == wanted_losses and all(torch.equal(weights[name], wanted[name]) for name in wanted)
    mixed, _ = train(TrainingData(rows, [1.0] * 3, []))
    assert mixed != losses


def test_rows_keep_their_weights_by_demonstrations_in_whichever_phase():
    tokenizer = make_tokenizer()
    training = TrainingConfig(weights="ica", rank=4, learning_rate=1e-2, epochs=2, batch_tokens=200)
    data = encode_rows(tokenizer, [event(at, SHOTS[: at + 1], None) | {"phase": at % 2} for at in range(3)], 200, 400)
    assert data.phases == [0, 1, 0]

    scored, losses = scorings_and_losses(tokenizer, training, data)
    assert [row["id"] for row in scored[0]["rows"]] == ["0", "1", "2"]
    given = data._replace(shown=(), weights=[row["weight"] for row in scored[0]["rows"]])
    assert scorings_and_losses(tokenizer, training, given) == ([], losses)
    exchanged = given._replace(weights=[given.weights[at] for at in (1, 0, 2)])
    assert scorings_and_losses(tokenizer, training, exchanged)[1] != losses


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


def taught(base, folder, *, two_phase, worked, processes=1):
    targets = ["Answer: 19", "yes no\nAnswer: 19" if worked else "Answer: 7", "Answer: true", "Answer: 12"]
    rows = [training_row(id=f"r{at}", question="What is 12 plus 7?", target=t) for at, t in enumerate(targets)]
    training = TrainingConfig(rank=4, alpha=8, batch_tokens=100, processes=processes)
    settings = TrainingSettings(1e-2, 2, 0, None, two_phase=two_phase)
    with closing(LocalStudent(StudentConfig(base=str(base), dtype="float32", threads=1), training, "")) as student:
        result = student.train(rows, settings, folder, folder.with_name("log"), lambda _: None)
    return result, folder / "adapter_model.safetensors"


def test_a_student_teaches_worked_solutions_last_where_it_is_told_and_there_are_any(base, tmp_path):
    mixed, one = taught(base, tmp_path / "a", two_phase=False, worked=True)
    phased, two = taught(base, tmp_path / "b", two_phase=True, worked=True)
    assert mixed.phase_steps == () and sum(phased.phase_steps) == phased.steps
    assert phased.phase_steps[1] == 2, "one row, two epochs"
    assert file_sha256(one) != file_sha256(two) and phased.target_tokens == mixed.target_tokens
    alone, three = taught(base, tmp_path / "c", two_phase=True, worked=False)
    _, four = taught(base, tmp_path / "d", two_phase=False, worked=False)
    assert alone.phase_steps == () and file_sha256(three) == file_sha256(four)


@pytest.mark.real
def test_several_processes_teach_the_same_phases(base, tmp_path):
    alone, one = taught(base, tmp_path / "a", two_phase=True, worked=True)
    together, two = taught(base, tmp_path / "b", two_phase=True, worked=True, processes=2)
    assert alone.phase_steps == together.phase_steps != ()
    for name, tensor in load_file(one).items():
        torch.testing.assert_close(load_file(two)[name], tensor, rtol=1e-3, atol=1e-4)
