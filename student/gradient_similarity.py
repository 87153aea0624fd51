"""LESS: how alike a candidate's Adam step and a validation gradient are, in the adapter's weights.

Candidates' features are what Adam would make of their gradients with the moments of a warm-up; those of validation
rows are plain gradients. Both have length 1, so a dot product is a cosine, and no side gains by its answers' length.
The features of candidates are used as they come, matrix by matrix, and never kept.

Source: Xia et al. 2024 (LESS, arXiv 2402.04333) and the authors' code, which has ε inside the root and no correction
of the moments' bias. They project features to store them; here nothing is stored, so a projection is a choice.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from student.chat_format import Batch
from student.influence import backward_rows, lora_matrices, per_row, row_gradients

if TYPE_CHECKING:
    from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8
BLOCK = 1 << 15
"""Coordinates whose signs are drawn at once."""
PROJECTED = "projected"


class Moments(NamedTuple):
    """Adam's running means of a matrix's gradients and of their squares: each `out × in`."""

    mean: "Tensor"
    square: "Tensor"


def adam_moments(model: Any, optimizer: Any) -> dict[str, Moments]:
    """The moments of every LoRA matrix after at least one step."""
    states = {name: optimizer.state[matrix.weight] for name, matrix in lora_matrices(model).items()}
    return {name: Moments(state["exp_avg"], state["exp_avg_sq"]) for name, state in states.items()}


def adam_step(gradients: "Tensor", moments: Moments) -> "Tensor":
    """Γ = m' / √(v' + ε) of each row's gradient g: m' = β₁ m + (1 − β₁) g, v' = β₂ v + (1 − β₂) g².

    Args:
        gradients: [rows, out, in].
        moments: of the same matrix.
    """
    first, second = BETAS
    mean = first * moments.mean + (1 - first) * gradients
    square = second * moments.square + (1 - second) * gradients.square()
    return mean / (square + EPSILON).sqrt()


class Projection(NamedTuple):
    """A fixed random matrix of ±1/√d that is drawn anew, the same each time, wherever it is used."""

    dimensions: int
    seed: int

    def of(self, at: int, part: "Tensor") -> "Tensor":
        """What a part of a vector adds to its projection: [rows, n] → [rows, dimensions].

        Dot products of projections are those of the vectors, give or take 1/√d of the product of their lengths.

        Args:
            at: the part's number; each has signs of its own.
            part: float32.

        Source: Achlioptas 2003, Database-friendly random projections: the signs (Rademacher).
        """
        import torch

        total = part.new_zeros(len(part), self.dimensions)
        for begin in range(0, part.shape[1], BLOCK):
            columns = part[:, begin : begin + BLOCK]
            generator = torch.Generator(device=part.device)
            generator.manual_seed(hash((self.seed, at, begin)) % 2**63)  # of integers: the same in every process
            shape = (columns.shape[1], self.dimensions)
            signs = torch.randint(0, 2, shape, generator=generator, device=part.device, dtype=torch.int8)
            total += columns @ signs.to(part.dtype).mul_(2).sub_(1)
        return total.div_(self.dimensions**0.5)


def validation_directions(
    model: Any, batches: Iterable[tuple[Batch, Sequence[Sequence[int]]]], groups: int, projection: Projection | None
) -> "dict[str, Tensor]":
    """The mean of each group's validation gradients, each of length 1: matrix → [groups, weights].

    A cosine is linear in it, so one direction stands for all rows of a group. With a projection there is one entry,
    `PROJECTED`: [groups, dimensions].

    Args:
        model: with an adapter; dropout is the caller's to switch off.
        batches: each with the groups that its rows belong to; every group has a row.
        groups: how many there are.
        projection: none for the gradients as they are.
    """
    import torch

    sums: dict[str, Tensor] = {}
    counts = torch.zeros(groups)
    for batch, members in batches:
        parts = {name: g.flatten(1) for name, g in row_gradients(model, batch).items()}
        if projection is not None:
            order = list(lora_matrices(model))
            parts = {PROJECTED: sum(projection.of(order.index(name), part) for name, part in parts.items())}  # type: ignore[dict-item]
        lengths = torch.stack([part.square().sum(1) for part in parts.values()]).sum(0).sqrt()
        belongs = torch.zeros(groups, len(members))
        for row, of_row in enumerate(members):
            belongs[list(of_row), row] = 1
        counts += belongs.sum(1)
        share = belongs.to(lengths.device) / lengths.clamp_min(1e-30)
        for name, part in parts.items():
            sums[name] = sums[name] + share @ part if name in sums else share @ part
    return {name: total / counts.to(total.device)[:, None] for name, total in sums.items()}


def cosines(
    model: Any,
    batch: Batch,
    moments: Mapping[str, Moments],
    directions: "Mapping[str, Tensor]",
    projection: Projection | None,
) -> "Tensor":
    """Each candidate's mean cosine with the rows of each group: [rows, groups].

    Args:
        model: with an adapter; dropout is the caller's to switch off.
        batch: candidates.
        moments: from `adam_moments`, of this adapter.
        directions: from `validation_directions`, with the same projection.
        projection: none for the features as they are.
    """
    import torch

    order = {name: at for at, name in enumerate(lora_matrices(model))}
    some = next(iter(directions.values()))
    rows, (groups, width) = len(batch.input_ids), some.shape
    dots, squares = some.new_zeros(rows, groups), some.new_zeros(rows)
    projected = some.new_zeros(rows, width) if projection is not None else None

    def take(name: str, x: "Tensor", delta: "Tensor") -> None:
        part = adam_step(per_row(x, delta), moments[name]).flatten(1)
        if projection is not None and projected is not None:
            projected.add_(projection.of(order[name], part))
        else:
            dots.add_(part @ directions[name].T)
            squares.add_(part.square().sum(1))

    backward_rows(model, batch, take)
    if projected is not None:
        dots, squares = projected @ directions[PROJECTED].T, projected.square().sum(1)
    return dots / torch.sqrt(squares).clamp_min(1e-30)[:, None]
