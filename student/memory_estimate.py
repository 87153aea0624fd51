"""The memory that training and answering take, from a model's sizes alone: arithmetic, nothing is loaded.

Decoder layers with gated feed-forward, as Llama's and Qwen's: biases and norms of heads are left out. A real peak is
higher by what programs and libraries take and by what an allocator keeps of freed memory (glibc's up to half as much
again: benchmarks/training_memory.py), and lower when batches are not full. Bytes throughout.
"""

import json
from math import ceil
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from curriculum.forecast_config import ModelSizes
from curriculum.training_config import TrainingConfig

FLOAT32 = 4
VALIDATION_ROWS = 8
"""Failures whose whole gradients LESS has in memory at once."""
TARGET_SHARE = 0.5
"""Share of a batch's tokens that are targets, as assumed: only these get logits."""


class TrainingMemory(NamedTuple):
    """Of each process that trains."""

    weights: int
    adapter: int
    """And its gradients."""
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All at once, which is when the backward pass begins."""
        return sum(self)


class ServingMemory(NamedTuple):
    """Of each GPU a model is spread over, or of the machine."""

    weights: int
    adapter: int
    activations: int
    key_values: int

    @property
    def total(self) -> int:
        """All at once."""
        return sum(self)


def read_sizes(folder: Path) -> ModelSizes | None:
    """The sizes in a model folder's `config.json`; none where it does not have them."""
    try:
        plain = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        plain = plain.get("text_config", plain)
        return ModelSizes.model_validate({name: plain[name] for name in ModelSizes.model_fields if name in plain})
    except (OSError, ValueError, AttributeError, TypeError, ValidationError):
        return None


def linear_layers(sizes: ModelSizes) -> list[tuple[int, int]]:
    """Inputs and outputs of one decoder layer's linear layers: q, k, v, o, gate, up, down."""
    h, i, q, k = sizes.hidden_size, sizes.intermediate_size, sizes.query_size, sizes.key_size
    return [(h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h)]


def weight_count(sizes: ModelSizes) -> int:
    """Embedding and output layer (one where tied), each layer's linear layers and two norms, and the last norm.

    Source: Touvron et al. 2023, LLaMA, section 2.2; the shapes in transformers' `LlamaModel`.
    """
    embeddings = sizes.vocab_size * sizes.hidden_size * (1 if sizes.tie_word_embeddings else 2)
    layer = sum(n * m for n, m in linear_layers(sizes)) + 2 * sizes.hidden_size
    return embeddings + sizes.num_hidden_layers * layer + sizes.hidden_size


def adapter_count(sizes: ModelSizes, rank: int) -> int:
    """Weights of a LoRA: rank · (inputs + outputs) over all linear layers but the output.

    Source: Hu et al. 2021, LoRA, section 4.1: W₀ + BA with B of outputs × r and A of r × inputs.
    """
    return sizes.num_hidden_layers * rank * sum(n + m for n, m in linear_layers(sizes))


def batch_tokens(training: TrainingConfig) -> int:
    """The most tokens of a process's part of a batch: a row longer than the budget is a batch of its own."""
    part = training.batch_tokens
    if training.processes > 1:
        part = min(part, ceil(part / training.processes) + training.max_length)
    return max(part, training.max_length)


def layer_activations(sizes: ModelSizes, rank: int, width: int) -> int:
    """What a decoder layer keeps of a token for its backward pass; `width` is the base's bytes a number.

    Base weights are frozen, so a linear layer keeps an input only for its LoRA: in float32, a copy for each layer where
    the base is not float32. With h, i, q, k the sizes of hidden states, feed-forward, queries and keys, and r the rank:
    two norms keep 2h in float32; inputs of q, k, v and gate, up are 5h (2h where no copy is needed), of o q, of down i;
    attention keeps queries, keys and values, q + 2k, its result q (where no copy is needed it is o's input), and a
    float32 a head; the feed-forward keeps 3i; seven LoRAs keep r each.

    Source: the counting of Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models,
    section 4.1, done for these layers, without dropout and with attention that keeps no scores (Dao et al. 2022,
    FlashAttention, section 3.1). Tested against what autograd saves.
    """
    h, i, q, k = sizes.hidden_size, sizes.intermediate_size, sizes.query_size, sizes.key_size
    copies = width != FLOAT32
    inputs = (5 if copies else 2) * h + q + i
    own = q + 2 * k + 3 * i + (q if copies else 0)
    return FLOAT32 * (2 * h + inputs + sizes.num_attention_heads + 7 * rank) + width * own


def logits(sizes: ModelSizes, width: int) -> int:
    """What a target token's logits take at the peak: themselves, and in float32 log-probabilities and gradients."""
    return sizes.vocab_size * (width + 2 * FLOAT32)


def training_memory(sizes: ModelSizes, training: TrainingConfig, width: int) -> TrainingMemory:
    """What a process that trains takes at its peak.

    The adapter, its gradients and AdamW's two moments are float32 (Loshchilov & Hutter 2019, Decoupled Weight Decay
    Regularization, algorithm 2); nothing is recomputed in the backward pass.

    Args:
        sizes: of the base.
        training: rank, tokens of a batch and number of processes.
        width: bytes of a number of the base: 2 in bf16, 4 in float32.
    """
    tokens, adapter = batch_tokens(training), FLOAT32 * adapter_count(sizes, training.rank)
    kept = tokens * sizes.num_hidden_layers * layer_activations(sizes, training.rank, width)
    targets = ceil(TARGET_SHARE * tokens)
    return TrainingMemory(width * weight_count(sizes), 2 * adapter, 2 * adapter, kept + targets * logits(sizes, width))


def scoring_memory(sizes: ModelSizes, training: TrainingConfig, width: int) -> int:
    """What a process that also scores rows takes at its peak: the larger batch, with its backward pass.

    PRISM and LESS go back as training does; in-context weights do not, and take less.
    """
    batch = training.model_copy(update={"batch_tokens": max(training.batch_tokens, training.scored_tokens)})
    return training_memory(sizes, batch, width).total


def less_memory(sizes: ModelSizes, training: TrainingConfig, width: int, skills: int, dimensions: int | None) -> int:
    """What LESS takes at its peak: a batch, taught or scored, a direction of each skill, some failures' gradients.

    Args:
        sizes: of the base.
        training: as for `training_memory`.
        width: as there.
        skills: that failures have.
        dimensions: that directions are projected to; none for whole ones.
    """
    adapter = adapter_count(sizes, training.rank)
    held = skills * (dimensions or adapter) + VALIDATION_ROWS * adapter
    return scoring_memory(sizes, training, width) + FLOAT32 * held


def key_value_bytes(sizes: ModelSizes, width: int) -> int:
    """A token's keys and values in all layers: 2 · layers · key heads · head size · width.

    Source: Kwon et al. 2023, PagedAttention (vLLM), section 3.
    """
    return 2 * sizes.num_hidden_layers * sizes.key_size * width


def serving_memory(
    sizes: ModelSizes, rank: int, width: int, answers: int, tokens: int, step_tokens: int, gpus: int = 1
) -> ServingMemory:
    """What answering takes, of each of the GPUs that a model is spread over.

    Activations are those of one layer at a time and the logits of one token an answer, in float32 too. An adapter that
    is loaded at run time is counted whole on every GPU, in the base's number format.

    Args:
        sizes: of the base.
        rank: of an adapter that is loaded beside the base; 0 where it is merged.
        width: bytes of a number of the base, of keys and values.
        answers: decoded together.
        tokens: of each, prompt included.
        step_tokens: read in one pass at most.
        gpus: that a model is spread over.
    """
    layer = width * (4 * sizes.hidden_size + 2 * sizes.query_size + 3 * sizes.intermediate_size)
    return ServingMemory(
        ceil(width * weight_count(sizes) / gpus),
        width * adapter_count(sizes, rank) if rank else 0,
        step_tokens * layer + answers * sizes.vocab_size * (width + FLOAT32),
        ceil(answers * tokens * key_value_bytes(sizes, width) / gpus),
    )
