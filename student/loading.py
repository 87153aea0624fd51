"""Loads a base model and its tokenizer for computing on the CPU, the same way for serving and training.

Takes a folder and a number format, returns model and tokenizer. Code that comes with a model is never
run and only safetensors are read.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_base(folder: Path, dtype: str, threads: int) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Loads a model folder, and makes this process deterministic for a number of threads.

    Args:
        folder: with config, tokenizer, chat template and safetensors.
        dtype: `bfloat16` or `float32`; see `native_dtype`.
        threads: CPU threads; the roundings depend on them.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory only makes use of uninitialised values visible; nothing here reads any.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=native_dtype(dtype), use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return model, tokenizer


def native_dtype(dtype: str) -> "torch.dtype":
    """The number format to compute in: bf16 where the CPU has it, else float32 with the same weights.

    Every bf16 number is a float32 number, so the model stays the same; without bf16 instructions its
    matrix products would take several times as long in bf16.
    """
    import torch

    if dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        logging.warning("this CPU has no bf16 instructions: computing in float32")
        return torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32
