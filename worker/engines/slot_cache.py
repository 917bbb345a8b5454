"""A KV cache of slots: each row of the microbatch writes at its own position of its own slot.

No left padding, no concatenation per step. Rows are kept compact in slots [0, n): whoever leaves
gives its slot to the last row. Prompts are prefilled elsewhere and copied in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

_GROWTH = 1.5
_LENGTH_STEP = 64


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values, each (slots, length, heads, head size)."""

    is_sliding = False

    def __init__(self, owner: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owner = owner
        self.key_store: Tensor | None = None
        self.value_store: Tensor | None = None

    @property
    def stores(self) -> tuple[Tensor, Tensor]:
        return cast(Tensor, self.key_store), cast(Tensor, self.value_store)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the layer is made by the first insert."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes one new token per row and answers with all keys and values of the rows.

        ``key_states`` is (rows, heads, 1, head size).
        """
        keys, values = self.stores
        plan = self._owner
        keys.view(-1, *keys.shape[2:]).index_copy_(0, plan.flat, key_states[:, :, 0])
        values.view(-1, *values.shape[2:]).index_copy_(0, plan.flat, value_states[:, :, 0])
        rows, length = plan.rows, plan.length
        return keys[:rows, :length].transpose(1, 2), values[:rows, :length].transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._owner.length, 0

    def get_seq_length(self) -> int:
        return self._owner.length - 1

    def get_max_length(self) -> int:
        return -1

    def reshape(self, slots: int, length: int, live: int) -> None:
        """Reallocates, keeping the first ``live`` slots."""
        key_store, value_store = self.stores
        self.key_store = _moved(key_store, slots, length, live)
        self.value_store = _moved(value_store, slots, length, live)

    def adopt(self, keys: Tensor, values: Tensor) -> None:
        """Takes heads, sizes, dtype and device from states as models hand them to a cache."""
        self.key_store, self.value_store = _no_slots(keys), _no_slots(values)


def _no_slots(states: Tensor) -> Tensor:
    return states.new_empty((0, 0, states.shape[1], states.shape[3]))


def _moved(old: Tensor, slots: int, length: int, live: int) -> Tensor:
    new = old.new_zeros((slots, length, *old.shape[2:]))
    kept = min(old.shape[1], length)
    new[:live, :kept] = old[:live, :kept]
    return new


class SlotCache(Cache):
    """All layers. The owner of the rows says who sits where; nothing here knows of tokens."""

    def __init__(self, byte_limit: int) -> None:
        super().__init__(layers=[])
        self._byte_limit = byte_limit
        self.slots = 0
        self.slot_length = 0
        self.rows = 0
        self.length = 0
        self.flat = torch.empty(0, dtype=torch.int64)

    @property
    def nbytes(self) -> int:
        return sum(store.nbytes for store in self._stores())

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token of one row holds over all layers; 0 before ``adopt``."""
        return sum(math.prod(s.shape[2:]) * s.element_size() for s in self._stores())

    def _stores(self) -> Iterator[Tensor]:
        for layer in self._slot_layers:
            yield from layer.stores

    @property
    def _slot_layers(self) -> list[SlotLayer]:
        return cast("list[SlotLayer]", self.layers)

    def adopt(self, prefilled: DynamicCache) -> None:
        """Learns the layers' shapes from a first prefill; later calls change nothing."""
        if self.layers:
            return
        layers = [SlotLayer(self) for _ in prefilled.layers]
        for layer, (keys, values) in zip(layers, states_of(prefilled), strict=True):
            layer.adopt(keys, values)
        self.layers = list(layers)

    def reserve(self, slots: int, length: int, live: int) -> None:
        """Makes room for ``slots`` rows of ``length`` tokens, keeping the first ``live`` slots.

        Grows geometrically while that stays within the byte limit, else to what is needed. May
        raise the allocator's out-of-memory error; the content is lost then: ``clear`` it.
        """
        if slots <= self.slots and length <= self.slot_length:
            return
        shape = self._shape(slots, length)
        for layer in self._slot_layers:
            layer.reshape(*shape, live)
        self.slots, self.slot_length = shape

    def _shape(self, slots: int, length: int) -> tuple[int, int]:
        length = -(-length // _LENGTH_STEP) * _LENGTH_STEP
        if length > self.slot_length:
            length = max(length, int(self.slot_length * _GROWTH))
        wide = max(slots, self.slots), max(length, self.slot_length)
        if wide[0] * wide[1] * self.bytes_per_token <= self._byte_limit:
            return wide
        return slots, length

    def insert(self, first: int, prefilled: DynamicCache, rows: Tensor, length: int) -> None:
        """Copies the first ``length`` tokens of ``prefilled``'s ``rows`` into slots from ``first``.

        What a shorter row copies beyond its own tokens is masked, then overwritten.
        """
        into = slice(first, first + rows.shape[0])
        for layer, (keys, values) in zip(self._slot_layers, states_of(prefilled), strict=True):
            key_store, value_store = layer.stores
            key_store[into, :length] = keys[rows, :, :length].transpose(1, 2)
            value_store[into, :length] = values[rows, :, :length].transpose(1, 2)

    def move(self, source: int, target: int, length: int) -> None:
        """Copies ``length`` tokens of one slot into another."""
        for store in self._stores():
            store[target, :length] = store[source, :length]

    def prepare(self, positions: Tensor) -> None:
        """Says where the next token of each row goes: row i of slot i at ``positions[i]``."""
        self.rows = positions.shape[0]
        self.length = int(positions.max()) + 1
        self.flat = torch.arange(self.rows, device=positions.device) * self.slot_length + positions

    def clear(self) -> None:
        """Gives the memory back."""
        self.layers = []
        self.slots = self.slot_length = 0


def states_of(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, (rows, heads, tokens, head size) each."""
    layers = cast("list[DynamicLayer]", cache.layers)
    return [(cast(Tensor, layer.keys), cast(Tensor, layer.values)) for layer in layers]


def decoding_mask(positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive (rows, 1, 1, longest) mask: a row sees its own tokens up to its position."""
    length = int(positions.max()) + 1
    seen = torch.arange(length, device=positions.device)[None] <= positions[:, None]
    mask = torch.zeros(seen.shape, dtype=dtype, device=positions.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None, None]
