"""Loads a base model and its tokenizer, the same way for serving and training.

Takes a folder, a number format and a device, returns model and tokenizer. Code that comes with a model is never
run and only safetensors are read.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curriculum.errors import UserError
from curriculum.records import Message
from student.chat_format import encode_row, pieces
from student.subprocess_job import Event, is_out_of_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def here(rank: int = 0) -> str:
    """The device that a process computes on: the GPU of its rank, or the CPU where there is none."""
    import torch

    return f"cuda:{rank}" if torch.cuda.is_available() else "cpu"


def load_base(
    folder: Path, dtype: str, threads: int, device: str = "cpu", quantise: str | None = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Loads a model folder, and makes this process deterministic for a number of threads.

    Args:
        folder: with config, tokenizer, chat template and safetensors.
        dtype: `bfloat16` or `float32`; see `native_dtype`.
        threads: CPU threads; the roundings depend on them.
        device: `cpu`, or a GPU such as `cuda:0`, where not every operation is deterministic.
        quantise: `nf4` keeps the linear layers but the output in 4 bits and computes in `dtype`; none keeps all.

    Source of `nf4`: Dettmers et al. 2023, QLoRA, section 3 (without double quantisation), by bitsandbytes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    # Filling fresh memory only makes use of uninitialised values visible; nothing here reads any.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    with _told_when_unreadable(folder):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=native_dtype(dtype, device),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **_four_bits(native_dtype(dtype, device), device) if quantise else {},
        )
    if not quantise:
        model.to(torch.device(device))  # type: ignore[arg-type]  # its wrapper hides what it takes
    return model, _load_tokenizer(folder)


def load_job_base(job: Event, rank: int = 0, ranks: int = 1) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The base of a job (`base`, `dtype`, `threads`, `quantise`), on the device of this process, one of `ranks`."""
    threads = max(1, job["threads"] // ranks)
    return load_base(Path(job["base"]), job["dtype"], threads, here(rank), job.get("quantise"))


def load_student(job: Event) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The base of a job with its `adapter`, merged into the weights where these are not of 4 bits: that is faster.

    Without dropout, on this process's device; `adapter` may be none.
    """
    model, tokenizer = load_job_base(job)
    if job["adapter"]:
        model = _with_adapter(model, job["adapter"])
    model.train(False)
    return model, tokenizer


def _with_adapter(model: Any, adapter: str) -> Any:
    """The model with an adapter: merged, or beside weights of 4 bits, which would round it."""
    from peft import PeftModel

    taught = PeftModel.from_pretrained(model, adapter, local_files_only=True)
    return taught.get_base_model() if getattr(model, "is_quantized", False) else taught.merge_and_unload()


def _four_bits(dtype: "torch.dtype | None" = None, device: str = "cpu") -> dict[str, Any]:
    """What `from_pretrained` is told to keep weights in 4 bits on a device.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError(
            "student.quantise: expected bitsandbytes to be installed, got none. Install it: pip install "
            "'tutelage[quantise]', or leave student.quantise out"
        )
    kept = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": kept, "device_map": {"": device}}


@contextmanager
def _told_when_unreadable(folder: Path) -> Iterator[None]:
    """What transformers cannot make a model of becomes a message for the person who chose it."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"student.base {folder}: expected a causal language model that this version of transformers reads without "
            f"code from the model, got: {reason}. Give another base model, or save this one again"
        ) from None


def check(job: Event) -> Iterator[Event]:
    """Loads config and tokenizer of `base` and encodes the row `messages`, `target`: what a first batch would find.

    Raises:
        UserError: they cannot be read, or the chat template does not serve.
    """
    from transformers import AutoConfig

    folder = Path(job["base"])
    with _told_when_unreadable(folder):
        AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if job.get("quantise"):
        _four_bits()
    encode_row(_load_tokenizer(folder), [Message.model_validate(m) for m in job["messages"]], job["target"])
    yield {"checked": str(folder)}


def encode(job: Event) -> Iterator[Event]:
    """Encodes `rows` (`messages`, `target`) with the tokenizer of `base`; with `show`, sends their texts in pieces.

    Raises:
        UserError: the tokenizer cannot be read, or the chat template does not serve for a row.
    """
    tokenizer = _load_tokenizer(Path(job["base"]))
    for row in job["rows"]:
        encoded = encode_row(tokenizer, [Message.model_validate(m) for m in row["messages"]], row["target"])
        at = encoded.prompt_length
        prompt, target = encoded.input_ids[:at], encoded.input_ids[at:]
        yield {
            "prompt_tokens": len(prompt),
            "target_tokens": len(target),
            "prompt": pieces(tokenizer, prompt) if job["show"] else [],
            "target": pieces(tokenizer, target) if job["show"] else [],
        }


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    with _told_when_unreadable(folder):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def native_dtype(dtype: str, device: str = "cpu") -> "torch.dtype":
    """The number format to compute in: bf16 on a GPU and where the CPU has it, else float32 with the same weights.

    Every bf16 number is a float32 number, so the model stays the same; without bf16 instructions its
    matrix products would take several times as long in bf16.
    """
    import torch

    if dtype == "bfloat16" and device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        logging.warning("this CPU has no bf16 instructions: computing in float32")
        return torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32
