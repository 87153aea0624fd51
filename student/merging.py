"""One adapter made of others, without training: each scaled with depth (LiNeS), then their mean (a soup).

What is scaled and averaged is ΔW = s·B·A, never A or B alone; s is peft's scaling. The full ΔW is never made: a mean is
the concatenation of the factors, and its way back to a lower rank goes through their QR decompositions.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from curriculum.errors import StudentError
from student.lora import whole_adapter
from student.subprocess_job import Event

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
A_END, B_END = ".lora_A.weight", ".lora_B.weight"
NUMBER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
PATTERNS = ("rank_pattern", "alpha_pattern", "modules_to_save")
"""Keys of an adapter's config that this project's adapters leave empty, and that would have to be merged, too."""


class Update(NamedTuple):
    """The change of one matrix, B·A: `b` is outputs × rank, `a` rank × inputs."""

    b: "Tensor"
    a: "Tensor"


def layer_of(module: str) -> int | None:
    """The layer a module lies in, from 0: the first number of its name; those of experts come after. None outside."""
    found = NUMBER.search(module)
    return int(found[1]) if found else None


def depth_factor(a: float, layer: int | None, layers: int) -> float:
    """LiNeS: λ = a + (1 − a)·l/(Λ − 1), so that the deepest layer keeps exactly 1; a outside of the layers.

    Args:
        a: of the first layer.
        layer: l, from 0; none outside.
        layers: Λ. A model of one layer keeps it.

    Raises:
        StudentError: the base has no such layer.

    Source: Wang et al. 2024, LiNeS (arXiv 2410.17146), with b = 1 − a, its choice for one task.
    """
    if layer is None:
        return a
    if layer >= layers:
        raise StudentError(f"expected an adapter of a base with {layers} layers, got one of its layer {layer}, from 0")
    return 1.0 if layers == 1 else 1 - (1 - a) * (layers - 1 - layer) / (layers - 1)


def scale_depth(tensors: Mapping[str, "Tensor"], a: float, layers: int) -> dict[str, "Tensor"]:
    """The tensors of an adapter with every B multiplied by its layer's factor: the rank stays, ΔW is scaled exactly."""
    return {
        name: tensor * depth_factor(a, layer_of(name), layers) if name.endswith(B_END) and a != 1 else tensor
        for name, tensor in tensors.items()
    }


def mean_update(updates: Sequence[Update]) -> Update:
    """The mean of updates, exact but for rounding: factors side by side, so the ranks add up."""
    import torch

    share = 1 / len(updates)
    return Update(torch.cat([share * u.b for u in updates], 1), torch.cat([u.a for u in updates], 0))


def lower_rank(update: Update, rank: int) -> tuple[Update, float]:
    """The nearest update of a rank in the Frobenius norm, and the square of what is left out.

    With B = Q·R and Aᵀ = P·S the singular values of B·A are those of the small matrix R·Sᵀ.

    Source: Eckart & Young 1936.
    """
    import torch

    q, r = torch.linalg.qr(update.b.double())
    p, s = torch.linalg.qr(update.a.double().T)
    u, values, v = torch.linalg.svd(r @ s.T)
    u, v = u[:, : len(values)], v[: len(values)]
    roots = values[:rank].sqrt()
    b, a = (q @ u[:, :rank]) * roots, roots[:, None] * (v[:rank] @ p.T)
    spare = rank - len(roots)  # a matrix narrower than the rank
    b, a = torch.nn.functional.pad(b, (0, spare)), torch.nn.functional.pad(a, (0, 0, 0, spare))
    return Update(b.to(update.b.dtype), a.to(update.a.dtype)), float(values[rank:].square().sum())


def squared_norm(update: Update) -> float:
    """‖B·A‖² by the Gram matrices of the factors."""
    b, a = update.b.double(), update.a.double()
    return max(0.0, float(((b.T @ b) * (a @ a.T)).sum()))


class Loaded(NamedTuple):
    """An adapter's files, read."""

    config: dict[str, Any]
    tensors: dict[str, "Tensor"]

    @property
    def scaling(self) -> float:
        """What peft multiplies B·A by: α/r, or α/√r where it is rank-stabilised."""
        rank = self.config["r"]
        return float(self.config["lora_alpha"] / (sqrt(rank) if self.config.get("use_rslora") else rank))

    def updates(self) -> dict[str, Update]:
        """ΔW by module."""
        return {
            name.removesuffix(A_END): Update(self.scaling * self.tensors[name.removesuffix(A_END) + B_END], a)
            for name, a in self.tensors.items()
            if name.endswith(A_END)
        }


def load_adapter(folder: Path) -> Loaded:
    """Reads an adapter.

    Raises:
        StudentError: it is none that can be merged.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / CONFIG).read_text())
    tensors = load_file(folder / WEIGHTS)
    strange = [key for key in PATTERNS if config.get(key)]
    strange += [name for name in sorted(tensors) if not name.endswith((A_END, B_END))]
    stacks = {name[: found.start()] for name in tensors if (found := NUMBER.search(name))}
    if strange or config.get("use_dora") or len(stacks) > 1:
        raise StudentError(
            f"{folder}: expected a plain LoRA of one stack of layers, got one with "
            f"{strange[0] if strange else 'DoRA' if config.get('use_dora') else f'stacks {sorted(stacks)}'}. Merge "
            "nothing: training.lines=null, training.soup=false"
        )
    return Loaded(config, tensors)


def merge(parts: Sequence[tuple[Loaded, float]], layers: int, limit: int | None) -> tuple[Loaded, Event]:
    """The mean of adapters, each scaled with depth; one adapter keeps its factors, and at a = 1 its every value.

    The scaling stays that of the first, so that training can go on from the result as from any adapter.

    Args:
        parts: adapters of one base on the same modules, each with its a.
        layers: of the base.
        limit: most rank of the result; none for any.

    Returns:
        The adapter, and `rank`, `norm` of ΔW, and `error`: the norm of what the limit left out, relative; none where it
        left out nothing.
    """
    first = parts[0][0]
    scaled = [Loaded(p.config, scale_depth(p.tensors, a, layers)) for p, a in parts]
    if len(parts) == 1:
        norm = sqrt(sum(map(squared_norm, scaled[0].updates().values())))
        return scaled[0], {"rank": first.config["r"], "norm": norm, "error": None}
    updates = [one.updates() for one in scaled]
    if any(one.keys() != updates[0].keys() for one in updates):
        raise StudentError("expected adapters on the same modules, got others: they are not of one base or recipe")
    whole = {name: mean_update([one[name] for one in updates]) for name in updates[0]}
    rank, lost = sum(p.config["r"] for p, _ in parts), 0.0
    norm2 = sum(map(squared_norm, whole.values()))
    lowered = limit is not None and rank > limit
    if limit is not None and lowered:
        rank = limit
        for name, update in whole.items():
            whole[name], left_out = lower_rank(update, limit)
            lost += left_out
    scaling = first.scaling
    tensors = {}
    for name, update in whole.items():
        tensors[name + A_END], tensors[name + B_END] = update.a.contiguous(), (update.b / scaling).contiguous()
    config = first.config | {"r": rank, "lora_alpha": scaling * rank, "use_rslora": False}
    error = min(1.0, sqrt(lost / norm2)) if norm2 else 0.0
    kept = sqrt(sum(map(squared_norm, whole.values())))
    return Loaded(config, tensors), {"rank": rank, "norm": kept, "error": error if lowered else None}


def merge_adapters(job: Event) -> Iterator[Event]:
    """Writes the merged adapter of a job whole or not at all: `base`, `parts` (`folder`, `a`), `limit`, `folder`.

    Raises:
        StudentError: the parts do not go together.
        UserError: it cannot be written.
    """
    from transformers import AutoConfig

    base = AutoConfig.from_pretrained(job["base"], trust_remote_code=False, local_files_only=True)
    parts = [(load_adapter(Path(part["folder"])), part["a"]) for part in job["parts"]]
    made, facts = merge(parts, base.get_text_config().num_hidden_layers, job["limit"])
    alone = Path(job["parts"][0]["folder"]) if len(parts) == 1 else None
    unchanged = alone is not None and parts[0][1] == 1
    with whole_adapter(Path(job["folder"])) as temporary:
        _save(made, temporary, alone, unchanged)
    yield facts


def _save(made: Loaded, folder: Path, alone: Path | None, unchanged: bool) -> None:
    """Writes an adapter; of a lone one the config, and where it is `unchanged` the weights, byte for byte."""
    from safetensors.torch import save_file

    if alone is None:
        (folder / CONFIG).write_text(json.dumps(made.config, indent=1, sort_keys=True) + "\n")
    else:
        shutil.copyfile(alone / CONFIG, folder / CONFIG)
    if alone is not None and unchanged:
        shutil.copyfile(alone / WEIGHTS, folder / WEIGHTS)
    else:
        save_file(dict(sorted(made.tensors.items())), folder / WEIGHTS, metadata={"format": "pt"})
