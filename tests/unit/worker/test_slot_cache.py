"""Slots: what is inserted, written, moved and grown stays the row's own."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from worker.engines.slot_cache import SlotCache, decoding_mask

LAYERS, HEADS, SIZE = 2, 3, 4


def prefilled(*lengths: int) -> DynamicCache:
    """Random right-padded rows; heads and sizes as above."""
    cache = DynamicCache()
    for layer in range(LAYERS):
        states = torch.randn(2, len(lengths), HEADS, max(lengths), SIZE)
        cache.update(states[0], states[1], layer)
    return cache


def keys_of(cache: DynamicCache | SlotCache, layer: int, row: int, length: int) -> Tensor:
    if isinstance(cache, SlotCache):
        stored: Tensor = cache.layers[layer].stores[0]  # type: ignore[union-attr]
        return stored[row, :length].transpose(0, 1)
    states: Tensor = cache.layers[layer].keys  # type: ignore[union-attr, assignment]
    return states[row, :, :length]


def seated(*lengths: int, byte_limit: int = 2**30) -> tuple[SlotCache, DynamicCache]:
    source = prefilled(*lengths)
    cache = SlotCache(byte_limit)
    cache.adopt(source)
    cache.reserve(len(lengths), max(lengths) + 1, live=0)
    cache.insert(0, source, torch.arange(len(lengths)), max(lengths))
    return cache, source


def test_rows_are_copied_in() -> None:
    cache, source = seated(5, 3)
    for layer in range(LAYERS):
        for row, length in enumerate((5, 3)):
            assert torch.equal(
                keys_of(cache, layer, row, length), keys_of(source, layer, row, length)
            )


def test_each_row_writes_at_its_own_position() -> None:
    cache, source = seated(5, 3)
    cache.prepare(torch.tensor([5, 3]))
    new = torch.randn(2, HEADS, 1, SIZE)
    keys, values = cache.update(new, -new, 0)
    assert keys.shape == values.shape == (2, HEADS, 6, SIZE)
    assert torch.equal(keys[0, :, 5], new[0, :, 0])
    assert torch.equal(values[1, :, 3], -new[1, :, 0])
    assert torch.equal(keys[0, :, :5], keys_of(source, 0, 0, 5))
    assert torch.equal(keys[1, :, :3], keys_of(source, 0, 1, 3))


def test_growing_keeps_the_live_rows() -> None:
    cache, source = seated(5, 3)
    cache.reserve(9, 300, live=2)
    assert (cache.slots, cache.slot_length) >= (9, 300)
    for row, length in enumerate((5, 3)):
        assert torch.equal(keys_of(cache, 1, row, length), keys_of(source, 1, row, length))


def test_growth_stays_within_the_byte_limit_by_giving_up_slots() -> None:
    per_token = LAYERS * 2 * HEADS * SIZE * 4
    cache, _ = seated(5, 3, byte_limit=per_token * 64 * 20)
    assert cache.bytes_per_token == per_token
    cache.reserve(20, 64, live=2)
    assert cache.slots == 20
    cache.reserve(2, 600, live=2)
    assert cache.slots == 2
    assert cache.nbytes <= per_token * 64 * 20


def test_a_moved_row_is_the_same_row() -> None:
    cache, source = seated(5, 3, 4)
    cache.move(2, 0, 4)
    assert torch.equal(keys_of(cache, 1, 0, 4), keys_of(source, 1, 2, 4))


def test_the_mask_hides_what_is_not_the_rows_own() -> None:
    mask = decoding_mask(torch.tensor([0, 2]), torch.float32)
    assert mask.shape == (2, 1, 1, 3)
    assert (mask[0, 0, 0] == 0).tolist() == [True, False, False]
    assert (mask[1, 0, 0] == 0).tolist() == [True, True, True]


def test_clearing_gives_the_memory_back() -> None:
    cache, _ = seated(5, 3)
    assert cache.nbytes > 0
    cache.clear()
    assert cache.nbytes == 0
