"""Keys and values of the texts a student is reading, and the attention of a new token to them.

transformers' `DynamicCache` copies every key and value for each new token and again when a row leaves, and its
attention copies them once more for each query head that shares them. On a CPU those copies take longer than
the mathematics; here a new token costs its own copy and a row that leaves costs one row's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import CacheLayerMixin, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from curriculum.errors import UserError

GROUPED = "grouped_sdpa"


class RowLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers' own hook
    """One layer's keys and values, `rows × heads × tokens × size`, with room for every token to come."""

    def __init__(self, like: Tensor, rows: int, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _, heads, _, size = like.shape
        self.keys: Tensor = like.new_empty(rows, heads, room, size)
        self.values: Tensor = torch.empty_like(self.keys)
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to be done: memory is claimed when the layer is made."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends new tokens to the first rows, as many rows as are given; returns all keys and values of those."""
        rows, end = len(key_states), self.length + key_states.shape[-2]
        self.keys[:rows, :, self.length : end] = key_states
        self.values[:rows, :, self.length : end] = value_states
        self.length = end
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys a query of this length sees, and the position of the first."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """How many tokens have been read."""
        return self.length

    def get_max_length(self) -> int:
        """No length is the last one as far as masks are concerned."""
        return -1


class RowCache(Cache):
    """The keys and values of all rows of a batch; `length` tokens of each are there once every row is placed."""

    def __init__(self, like: DynamicCache, rows: int, length: int, room: int) -> None:
        self._row_layers = [RowLayer(_tensors(layer)[0], rows, room) for layer in like.layers]
        super().__init__(layers=list(self._row_layers))
        for layer in self._row_layers:
            layer.length = length

    def place(self, first_row: int, prefix_length: int, group: DynamicCache) -> None:
        """Takes over rows that were read by themselves: the prefix to the left, the rest to the right.

        What lies between them is zero, and to be masked.
        """
        for layer, read in zip(self._row_layers, group.layers, strict=True):
            for whole, part in zip((layer.keys, layer.values), _tensors(read), strict=True):
                rows = whole[first_row : first_row + len(part), :, : layer.length]
                rest = part.shape[-2] - prefix_length
                rows[:, :, :prefix_length] = part[:, :, :prefix_length]
                rows[:, :, prefix_length : layer.length - rest] = 0
                rows[:, :, layer.length - rest :] = part[:, :, prefix_length:]

    def move_rows(self, from_rows: Tensor, to_rows: Tensor) -> None:
        """Copies rows over others."""
        for layer in self._row_layers:
            for whole in (layer.keys, layer.values):
                whole[to_rows, :, : layer.length] = whole[from_rows, :, : layer.length]


def _tensors(layer: Any) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    return layer.keys, layer.values


def use_grouped_attention(model: Any) -> None:
    """Makes a model that attends by torch's own function do so without copies of the keys.

    Raises:
        UserError: the model keeps something else than keys and values.
    """
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    odd = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers if type(layer) not in plain}
    if odd:
        raise UserError(
            f"student.base: expected a model that attends in every layer, got one with {', '.join(sorted(odd))}: "
            "the transformers engine cannot serve it. Use another base model"
        )
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(GROUPED, _grouped_attention)
        AttentionMaskInterface.register(GROUPED, sdpa_mask)
        model.set_attn_implementation(GROUPED)


def _grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention in which the heads of one new token that share their keys are taken for its queries.

    They see the same keys under the same mask, so the result is that of grouped-query attention (Ainslie et al.
    2023, section 2.2). More tokens at once go the way of transformers.
    """
    rows, heads, tokens, _ = query.shape
    if tokens > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **others)
    queries = query.view(rows, key.shape[1], -1, query.shape[-1])
    attended = scaled_dot_product_attention(queries, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(rows, 1, heads, -1), None
