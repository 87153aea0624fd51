"""The estimate grows with what it must, counts weights exactly, and agrees with autograd and with a real peak."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from curriculum.forecast_config import ModelSizes
from curriculum.training_config import TrainingConfig
from student.chat_format import EncodedRow, collate
from student.lora import add_lora, token_losses, weighted_loss
from student.memory_estimate import (
    adapter_count,
    batch_tokens,
    key_value_bytes,
    layer_activations,
    read_sizes,
    serving_memory,
    training_memory,
    weight_count,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from training_memory import compare

PLAIN = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
QWEN_1_5B = ModelSizes(
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    vocab_size=151936,
    tie_word_embeddings=True,
)
SIZES = st.builds(
    ModelSizes,
    hidden_size=st.integers(1, 64).map(lambda n: 64 * n),
    intermediate_size=st.integers(1, 20_000),
    num_hidden_layers=st.integers(1, 80),
    num_attention_heads=st.just(8),
    num_key_value_heads=st.sampled_from([None, 1, 2, 8]),
    vocab_size=st.integers(1, 200_000),
    tie_word_embeddings=st.booleans(),
)
TRAININGS = st.builds(
    TrainingConfig,
    rank=st.integers(1, 128),
    batch_tokens=st.integers(1, 20_000),
    max_length=st.integers(1, 4096),
    processes=st.integers(1, 16),
)
WIDTHS = st.sampled_from([2, 4])


@given(SIZES, TRAININGS, WIDTHS, st.sampled_from(["batch_tokens", "rank", "max_length"]), st.integers(1, 5000))
def test_training_takes_no_less_for_more_of_the_recipe(sizes, training, width, key, more):
    larger = training.model_copy(update={key: getattr(training, key) + more})
    assert training_memory(sizes, larger, width).total >= training_memory(sizes, training, width).total
    if key == "rank":
        assert training_memory(sizes, larger, width).adapter > training_memory(sizes, training, width).adapter


@given(
    SIZES,
    TRAININGS,
    WIDTHS,
    st.sampled_from(["num_hidden_layers", "intermediate_size", "vocab_size"]),
    st.integers(1, 9),
)
def test_both_take_more_for_more_of_the_model(sizes, training, width, key, more):
    larger = sizes.model_copy(update={key: getattr(sizes, key) + more})
    assert training_memory(larger, training, width).total > training_memory(sizes, training, width).total
    one, other = (serving_memory(s, 16, width, answers=8, tokens=200, step_tokens=500) for s in (sizes, larger))
    assert other.total > one.total


@given(TRAININGS)
def test_a_process_has_no_more_of_a_batch_than_there_is_and_at_least_the_longest_row(training):
    alone = batch_tokens(training.model_copy(update={"processes": 1}))
    assert training.max_length <= batch_tokens(training) <= alone
    assert batch_tokens(training) * training.processes >= training.batch_tokens


@given(SIZES, WIDTHS, st.integers(1, 500), st.integers(1, 4096), st.integers(1, 8))
def test_the_cache_holds_every_token_of_every_answer_on_all_gpus_together(sizes, width, answers, tokens, gpus):
    made = serving_memory(sizes, 0, width, answers, tokens, step_tokens=512, gpus=gpus)
    needed = answers * tokens * key_value_bytes(sizes, width)
    assert needed <= made.key_values * gpus < needed + gpus
    assert made.adapter == 0


def test_known_sizes_of_a_known_model():
    assert weight_count(QWEN_1_5B) == pytest.approx(1.5437e9, rel=1e-3)
    # 28 layers · 2 · 2 heads · 128 · 2 bytes.
    assert key_value_bytes(QWEN_1_5B, 2) == 28_672


@pytest.mark.parametrize("family", [LlamaConfig, Qwen2Config])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_and_adapter_are_counted_as_they_are(tmp_path, family, tied):
    config = family(**PLAIN | {"tie_word_embeddings": tied})
    config.save_pretrained(tmp_path)
    sizes = read_sizes(tmp_path)
    model = AutoModelForCausalLM.from_config(config)
    count = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("bias"))
    assert weight_count(sizes) == count
    lora = add_lora(model, TrainingConfig(rank=5), "tiny")
    assert adapter_count(sizes, 5) == sum(p.numel() for p in lora.parameters() if p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", [LlamaConfig, Qwen2Config])
def test_layers_keep_what_autograd_saves(family, dtype):
    sizes = ModelSizes(**PLAIN)
    model = add_lora(AutoModelForCausalLM.from_config(family(**PLAIN), dtype=dtype), TrainingConfig(rank=8), "tiny")
    batch = collate([EncodedRow(tuple(range(100)), 50)] * 4, [1.0] * 4, pad=0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        weighted_loss(token_losses(model, batch), batch, len(batch.labels))
    log_probabilities = 4 * len(batch.labels) * PLAIN["vocab_size"]
    measured = sum(storage.nbytes() for storage in kept.values()) - log_probabilities
    estimated = batch.input_ids.numel() * 3 * layer_activations(sizes, 8, dtype.itemsize)
    assert measured == pytest.approx(estimated, rel=0.02)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hidden_size": "wide"}', '{"text_config": 3}'])
def test_a_config_without_sizes_gives_none(tmp_path, text):
    assert read_sizes(tmp_path) is None
    (tmp_path / "config.json").write_text(text)
    assert read_sizes(tmp_path) is None


def test_sizes_of_the_language_model_inside_another(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"text_config": PLAIN, "vision_config": {"hidden_size": 1}}))
    assert read_sizes(tmp_path) == ModelSizes(**PLAIN)


@pytest.mark.real
def test_the_estimate_is_near_the_measured_peak_of_a_real_training(capsys):
    measured, estimate = compare("smollm2-135m", 256, "float32", lean=True)
    with capsys.disabled():
        sys.stdout.write(f"\npeak measured {measured / 1e6:,.0f} MB, estimated {estimate.total / 1e6:,.0f} MB\n")
    assert 0.9 < measured / estimate.total < 1.2
