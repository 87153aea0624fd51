"""PRISM's scores without a backward pass: how a row's loss changes along one direction, in forward mode.

A dot product of a row's gradient with a direction is the derivative of its loss along that direction. Forward-mode
differentiation carries it beside the values, layer by layer: it costs a second forward pass in place of a backward
one, keeps nothing for later, and, as tokens see only those before them, what several rows begin with is read once
for all of them. Nothing is approximated.

Source: Baydin et al. 2018, Automatic differentiation in machine learning: a survey, section 3.1 (forward mode).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from student.chat_format import EncodedRow, collate
from student.influence import Direction, lora_matrices

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 4
"""Times `batch_tokens` of keys and values in a batch: a token keeps less of them than training keeps of it."""


def shared_prefix(rows: Sequence[EncodedRow]) -> int:
    """How many tokens all rows begin with, before the last of any prompt: that one predicts a target."""
    most = min(row.prompt_length for row in rows) - 1
    first, last = min(rows), max(rows)  # whatever these two share lies between them in all others
    pairs = zip(first.input_ids[:most], last.input_ids[:most], strict=True)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), most)


def prefix_batches(rows: Sequence[EncodedRow], batch_tokens: int) -> list[list[int]]:
    """Every row's index once, in batches that read the fewest tokens: rows of like length, or of like beginnings.

    Args:
        rows: at least one.
        batch_tokens: most tokens of a batch, padding included and what its rows share left out; with it, `KEPT` times
            as many. A row longer than that is a batch of its own.
    """
    every = range(len(rows))
    by_length = _packed(rows, sorted(every, key=lambda at: (-len(rows[at].input_ids), rows[at], at)), batch_tokens)
    by_beginning = _packed(rows, sorted(every, key=lambda at: (rows[at], at)), batch_tokens)
    return min(by_length, by_beginning, key=lambda batches: sum(tokens_read([rows[at] for at in b]) for b in batches))


def _packed(rows: Sequence[EncodedRow], order: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Batches of neighbours."""
    batches: list[list[int]] = []
    shared = width = 0
    for at in order:
        row = rows[at]
        if batches:
            together, wide = shared_prefix([rows[batches[-1][0]], row]), max(width, len(row.input_ids))
            together, count = min(shared, together), len(batches[-1]) + 1
            if count * (wide - together) <= batch_tokens and count * wide <= KEPT * batch_tokens:
                batches[-1].append(at)
                shared, width = together, wide
                continue
        batches.append([at])
        shared, width = row.prompt_length - 1, len(row.input_ids)
    return batches


def tokens_read(rows: Sequence[EncodedRow]) -> int:
    """Tokens of a batch, padding included: what is shared once, the rest of each row."""
    shared = shared_prefix(rows)
    return shared + len(rows) * (max(len(row.input_ids) for row in rows) - shared)


def directional_derivatives(model: Any, rows: Sequence[EncodedRow], direction: Direction, pad: int) -> "Tensor":
    """Each row's gradient of its mean target loss, times the direction: [rows].

    The same as `influence.dot_products`, which it is tested against.

    Args:
        model: with an adapter; dropout is the caller's to switch off.
        rows: of one batch.
        direction: LoRA matrix → a tensor of its shape.
        pad: a token to pad with.

    Raises:
        NotImplementedError: the base has an operation without a forward mode, such as that of weights in 4 bits.
    """
    import torch
    from torch.autograd.forward_ad import dual_level, unpack_dual
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shared = shared_prefix(rows)
    own = [EncodedRow(row.input_ids[shared:], row.prompt_length - shared) for row in rows]
    batch = collate(own, [1.0] * len(own), pad)
    batch = type(batch)(*(tensor.to(model.device) for tensor in batch))
    before = batch.attention_mask.new_ones(len(rows), shared)
    # Fused attention has no forward mode.
    with torch.no_grad(), dual_level(), sdpa_kernel([SDPBackend.MATH]), _along(model, direction):
        logits = _target_logits(
            model,
            batch.predicts,
            input_ids=batch.input_ids,
            attention_mask=torch.cat([before, batch.attention_mask], dim=1),
            past_key_values=_read_once(model, rows[0].input_ids[:shared], len(rows)) if shared else None,
            use_cache=bool(shared),
        )
        values, slopes = unpack_dual(logits)
    assert slopes is not None, "the direction touches no matrix of the adapter"
    # Of −ln softmax(z)_y: Σ_v p_v ż_v − ż_y.
    slopes = slopes.float()
    mean = (values.float().softmax(-1) * slopes).sum(-1)
    losses = mean - slopes.gather(1, batch.labels[:, None])[:, 0]
    sums = torch.zeros(len(rows), device=losses.device).index_add(0, batch.rows, losses)
    return sums / batch.predicts.sum(1)


def _target_logits(model: Any, predicts: "Tensor", **inputs: Any) -> "Tensor":
    """Logits where a target is predicted, and nowhere else."""
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, seen: (seen[0][predicts],))
    try:
        logits: Tensor = model(**inputs).logits
    finally:
        hook.remove()
    return logits


def _read_once(model: Any, ids: Sequence[int], rows: int) -> Any:
    """Keys and values of what all rows begin with, and how these change along the direction, one copy a row."""
    import torch
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config())
    decoder = model.get_base_model().base_model
    decoder(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(rows)
    return cache


@contextmanager
def _along(model: Any, direction: Direction) -> Iterator[None]:
    """Lets each LoRA matrix move along its part of the direction: y = W x has ẏ = W ẋ + D x."""
    from torch.autograd.forward_ad import make_dual, unpack_dual

    def moved(matrix: "Tensor") -> Callable[[Any, Any, Any], Any]:
        def seen(_: Any, inputs: Any, output: Any) -> Any:
            own = unpack_dual(inputs[0]).primal @ matrix.T
            value, slope = unpack_dual(output)
            return make_dual(value, own if slope is None else slope + own)

        return seen

    with ExitStack() as stack:
        for name, module in lora_matrices(model).items():
            hook = module.register_forward_hook(moved(direction[name].to(module.weight.dtype)))
            stack.callback(hook.remove)
        yield
