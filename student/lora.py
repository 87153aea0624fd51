"""LoRA fine-tuning in parts: adapter, batches, learning rate, loss, and the files an adapter is.

Pure functions around peft and torch; the loop is in `train_worker`. A row's weight scales the loss of each
of its target tokens: two counts the row twice, and what is divided by does not depend on the weights.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curriculum.errors import UserError
from curriculum.training_config import TrainingConfig
from student.chat_format import Batch
from student.subprocess_job import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

RSLORA_ABOVE_RANK = 32
READABLE = 0o644
"""A server may run as another user; safetensors makes files only their owner can read."""


def add_lora(model: Any, training: TrainingConfig, base_name: str) -> Any:
    """The model with a fresh LoRA on every linear layer but the output; the base weights are frozen.

    LoRA weights are float32, whatever the base is in. Above rank 32 the scaling is rank-stabilised.

    Source: Hu et al. 2021, LoRA, section 4.1; Kalajdzievski 2023, rsLoRA, section 3.
    """
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=training.rank,
        lora_alpha=training.alpha,  # type: ignore[arg-type]  # peft only divides by the rank's root
        lora_dropout=training.dropout,
        use_rslora=training.rank > RSLORA_ABOVE_RANK,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, lora)
    peft_model.peft_config["default"].base_model_name_or_path = base_name
    return peft_model


def load_lora(model: Any, folder: Path) -> Any:
    """The model with a trained LoRA, to be trained further."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, is_trainable=True, local_files_only=True)


def draw_batches(lengths: Sequence[int], batch_tokens: int, generator: random.Random) -> list[list[int]]:
    """One epoch: every row's index exactly once, in batches of like length and in random order.

    Args:
        lengths: tokens of each row.
        batch_tokens: most tokens of a batch, padding included; a longer row is a batch of its own.
        generator: breaks ties between rows of one length, and orders the batches.
    """
    order = list(range(len(lengths)))
    generator.shuffle(order)
    order.sort(key=lambda row: lengths[row], reverse=True)
    batches: list[list[int]] = []
    for row in order:
        # Longest first: the first row of a batch is as long as the batch is wide.
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    generator.shuffle(batches)
    return batches


def learning_rate_factor(step: int, steps: int, warmup_share: float) -> float:
    """What the learning rate is multiplied by at a step, from 0: linear warm-up to 1, then linear decay to 0."""
    warmup = round(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / (steps - warmup)


def token_losses(model: Any, batch: Batch) -> "Tensor":
    """Cross entropy of each target token of a batch, in nats, in float32.

    Hidden states of all other positions are dropped before the output layer, inside the model's own
    forward pass: no logits are made for prompts, and models that scale or cap their logits still do.
    """
    import torch.nn.functional as F

    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][batch.predicts],))
    try:
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    finally:
        hook.remove()
    return F.cross_entropy(logits.float(), batch.labels, reduction="none")


def weighted_loss(losses: "Tensor", batch: Batch, tokens: int) -> "Tensor":
    """Σ w·ce / T over the rows at hand; T counts the target `tokens` of the whole batch, not their weights.

    So on a given batch the gradient is linear in the weights: a weight of two adds the row's gradient twice,
    and a weight of zero adds none of it.
    """
    return (losses * batch.weights).sum() / tokens


def dft_factors(losses: "Tensor", taught_so: "Tensor") -> "Tensor":
    """What each token's loss is multiplied by: its own probability where DFT is wanted, else 1; a constant.

    −sg(p)·ln p has the gradient of p times that of −ln p: tokens the model finds unlikely teach little, and where p
    is 1 DFT and SFT are the same.

    Args:
        losses: −ln p of each target token.
        taught_so: whether each is of a row that gets this loss.

    Source: Wu et al. 2025, DFT (arXiv 2508.05629), equation 9.
    """
    import torch

    return torch.where(taught_so, torch.exp(-losses.detach()), 1.0)


def sum_over_ranks(parameters: Sequence["Parameter"], loss: "Tensor") -> "Tensor":
    """Replaces the gradients by their sums over all ranks, in one message; returns the sum of `loss`, a scalar.

    A rank that had no row of the batch has no gradients and adds nothing.
    """
    import torch
    from torch.distributed import all_reduce

    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients] + [loss.reshape(1)])
    all_reduce(flat)
    sums = torch.split(flat[:-1], [p.numel() for p in parameters])
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total.view_as(parameter)
    return flat[-1]


def save_adapter(model: Any, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`; the same adapter gives the same bytes."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    # Python orders sets differently in each process.
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / "adapter_config.json").write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.contiguous() for name, tensor in sorted(state.items())}
    file = folder / "adapter_model.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(READABLE)


@contextmanager
def whole_adapter(folder: Path) -> Iterator[Path]:
    """A folder to write an adapter into, which is `folder` once all of it is written, and nothing before.

    Raises:
        UserError: it could not be written; the message says why.
        OSError: or another error that means that memory ran out.
    """
    from safetensors import SafetensorError

    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            file.chmod(READABLE)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{folder}: expected to write the adapter, got: {error}. Free some space or mend the folder's rights, then "
            "go on with: tutelage resume RUN"
        ) from None
