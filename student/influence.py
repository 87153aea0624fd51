"""Influence by LoRA gradients: each row's own gradient from one backward pass of a batch, and dot products with it.

At a LoRA matrix W the gradient of row i's loss is Σ_t δ_it x_itᵀ, of its inputs x and the gradients δ at its outputs:
both are seen during one backward pass, so rows need not be taken one by one, and where only a dot product is wanted
the gradient itself is never made. Rows are batched as for training (`chat_format.Batch`); a row's loss is the mean of
its target tokens', so long answers weigh no more than short ones. Nothing is of the frozen base.

Source: Goodfellow 2015, Efficient per-example gradient computations (arXiv 1510.01799), for sequences.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curriculum.errors import UserError
from curriculum.plan_config import PreferenceWeight
from student.chat_format import Batch
from student.lora import token_losses

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear

Direction = Mapping[str, "Tensor"]
"""LoRA matrix → a tensor of its shape: a direction in the space of the adapter's weights."""
Take = Callable[[str, "Tensor", "Tensor"], None]
"""Told of each LoRA matrix, as the backward pass reaches it: its name, its inputs `rows × tokens × in`, and the
gradients at its outputs `rows × tokens × out`, of each row's own loss."""


def lora_matrices(model: Any) -> "dict[str, Linear]":
    """The linear maps A and B of every adapted layer, by name."""
    from torch.nn import Linear

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear) and (".lora_A." in name or ".lora_B." in name)
    }


def row_losses(model: Any, batch: Batch) -> "Tensor":
    """Each row's mean loss over its target tokens, in nats: [rows]."""
    import torch

    losses = token_losses(model, batch)
    owners = batch.predicts.nonzero()[:, 0]
    sums = torch.zeros(len(batch.input_ids), device=losses.device).index_add(0, owners, losses)
    return sums / batch.predicts.sum(1)


def backward_rows(model: Any, batch: Batch, take: Take) -> "Tensor":
    """One forward and backward pass that shows `take` what each row's gradient is made of; returns `row_losses`.

    Dropout is the caller's to switch off. No parameter's `grad` is touched.

    Raises:
        UserError: an adapted layer mixes the tokens of all rows, as experts do.
    """

    def watch(name: str) -> Callable[[Any, Any, Any], None]:
        def seen(_: Any, inputs: Any, output: Any) -> None:
            x = inputs[0].detach()
            if x.dim() != 3:
                raise UserError(
                    f"{name}: expected inputs of rows × tokens × width, got {x.dim()} dimensions: this base's layers "
                    "mix the tokens of several rows, and no row has a gradient of its own. Set plan.rank to random or "
                    "embed_sel"
                )
            output.register_hook(lambda gradient: take(name, x, gradient))

        return seen

    hooks = [matrix.register_forward_hook(watch(name)) for name, matrix in lora_matrices(model).items()]
    try:
        with _frozen(model):
            losses = row_losses(model, batch)
            losses.sum().backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    return losses.detach()


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No weight wants a gradient, but the embedded tokens do, so that there still is a backward pass."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    hook = model.get_input_embeddings().register_forward_hook(lambda _, __, output: output.requires_grad_())
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        hook.remove()
        for parameter in wanted:
            parameter.requires_grad_(True)


def row_gradients(model: Any, batch: Batch) -> "dict[str, Tensor]":
    """Each row's gradient of its own loss: LoRA matrix → [rows, out, in]."""
    gradients: dict[str, Tensor] = {}

    def take(name: str, x: "Tensor", delta: "Tensor") -> None:
        gradients[name] = per_row(x, delta)

    backward_rows(model, batch, take)
    return gradients


def per_row(x: "Tensor", delta: "Tensor") -> "Tensor":
    """Σ_t δ_t x_tᵀ of each row: [rows, out, in]."""
    return delta.float().transpose(1, 2) @ x.float()


def dot_products(model: Any, batch: Batch, direction: Direction) -> "Tensor":
    """Each row's gradient times the direction, without the gradient being made: [rows].

    Σ_t δ_tᵀ D x_t, with the wider side of D summed first: it costs about what a pass through the adapter does.
    """
    import torch

    scores = torch.zeros(len(batch.input_ids), device=batch.input_ids.device)

    def take(name: str, x: "Tensor", delta: "Tensor") -> None:
        matrix = direction[name]
        wide = matrix.shape[1] > matrix.shape[0]
        one, other = (x.float() @ matrix.T, delta.float()) if wide else (delta.float() @ matrix, x.float())
        scores.add_((one * other).sum((1, 2)))

    backward_rows(model, batch, take)
    return scores


def preference_weight(right: "Tensor", wrong: "Tensor", weight: PreferenceWeight) -> "Tensor":
    """What each pair counts in the target direction.

    π = p̄(right) / (p̄(right) + p̄(wrong)) = sigmoid(ℓ̄_wrong − ℓ̄_right), p̄ the likelihood per token: how far the
    student prefers the right answer already. 1 − π, its opposite, is the weight that a logistic loss would give.

    Args:
        right: mean losses of the right answers, in nats a token.
        wrong: those of the wrong ones.
        weight: `pi`, `1-pi` or `uniform`.

    Source: Lin et al. 2026 (PRISM, arXiv 2605.21422); the variants 1 − π and uniform are ours, to ablate it.
    """
    import torch

    pi = torch.sigmoid(wrong - right)
    return {"pi": pi, "1-pi": 1 - pi, "uniform": torch.ones_like(pi)}[weight]


def preference_direction(model: Any, batches: Iterable[Batch], weight: PreferenceWeight) -> "dict[str, Tensor]":
    """PRISM's target direction, Σ_q w_q (∇ℓ̄(right_q) − ∇ℓ̄(wrong_q)) / |Q|.

    A step of gradient descent on row z lowers ℓ̄(right) − ℓ̄(wrong) in proportion to the dot product of z's gradient
    with it, so a higher dot product is a more helpful row. With right and wrong exchanged it is a more harmful one.

    Args:
        model: with an adapter; dropout is the caller's to switch off.
        batches: pairs, right and wrong answer in turn.
        weight: see `preference_weight`.

    Source: Lin et al. 2026 (PRISM, arXiv 2605.21422), without its damped curvature, as in the authors' AgentDoG 1.5.
    """
    import torch

    matrices = lora_matrices(model)
    weights = [matrix.weight for matrix in matrices.values()]
    sums = [torch.zeros_like(w) for w in weights]
    pairs = 0
    for batch in batches:
        losses = row_losses(model, batch)
        right, wrong = losses[0::2], losses[1::2]
        counts = preference_weight(right.detach(), wrong.detach(), weight)
        for total, part in zip(sums, torch.autograd.grad((counts * (right - wrong)).sum(), weights), strict=True):
            total += part
        pairs += len(right)
    return {name: total / pairs for name, total in zip(matrices, sums, strict=True)}
