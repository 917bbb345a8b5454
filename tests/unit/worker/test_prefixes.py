"""Beginnings of prompts that are prefilled once, for each adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from worker.engines.prefixes import PrefixStore
from worker.engines.slot_cache import states_of

HEAD = list(range(100, 130))


class Forward:
    """Keys that say which adapter made them, values which token they are of."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[str]]] = []

    def prefill(
        self, prompts: Sequence[Sequence[int]], cache: Any, adapters: Sequence[str]
    ) -> tuple[torch.Tensor, DynamicCache]:
        self.calls.append((len(prompts[0]), list(adapters)))
        values = torch.tensor([list(prompt) for prompt in prompts]).float()[:, None, :, None]
        owners = torch.tensor([float(sum(map(ord, name))) for name in adapters])
        keys = owners[:, None, None, None].expand_as(values)
        made = DynamicCache()
        made.update(keys.clone(), values, 0)
        return torch.empty(0), made


def store() -> tuple[PrefixStore, Forward]:
    forward: Any = Forward()
    return PrefixStore(forward, 1000), forward


def prompts(adapters: Sequence[str], head: Sequence[int] = HEAD) -> list[list[int]]:
    return [[*head, row, row] for row in range(len(adapters))]


def check(found: tuple[int, DynamicCache | None], adapters: Sequence[str], length: int) -> None:
    """Each row's keys are its own adapter's, over the whole beginning."""
    count, cache = found
    assert count == length
    assert cache is not None
    ((keys, values),) = states_of(cache)
    assert keys.shape == (len(adapters), 1, length, 1)
    assert values[0, 0, :, 0].tolist() == HEAD[:length]
    for row, name in enumerate(adapters):
        assert set(keys[row].flatten().tolist()) == {float(sum(map(ord, name)))}


def test_a_beginning_is_prefilled_once_for_each_adapter_in_one_pass() -> None:
    kept, forward = store()
    adapters = ["a", "", "b", "a", "b", ""]
    for _ in range(2):
        check(kept.begin(prompts(adapters), adapters), adapters, len(HEAD))
    assert forward.calls == [(len(HEAD), ["a", "", "b"])]


def test_only_what_an_adapter_lacks_is_added() -> None:
    kept, forward = store()
    check(kept.begin(prompts(["a"] * 4), ["a"] * 4), ["a"] * 4, len(HEAD))
    adapters = ["b", "a", "b", "b", "a"]
    check(kept.begin(prompts(adapters), adapters), adapters, len(HEAD))
    assert forward.calls[1:] == [(len(HEAD), ["b"])]


def test_what_makes_room_is_never_what_is_wanted_now() -> None:
    """More adapters than are kept by default, the oldest of them among those wanted."""
    kept, _ = store()
    for names in (["a", "b", "c", "d"], ["d", "e", "f", "g"], ["a", "g", "h", "i", "j", "d", "b"]):
        adapters = names * 3
        check(kept.begin(prompts(adapters), adapters), adapters, len(HEAD))


def test_a_beginning_of_one_adapter_is_not_anothers() -> None:
    kept, forward = store()
    kept.begin(prompts(["a"] * 4), ["a"] * 4)
    assert kept.begin(prompts(["b"]), ["b"]) == (0, None)
    assert len(forward.calls) == 1


def test_what_is_too_short_or_saves_too_little_is_not_shared() -> None:
    kept, forward = store()
    short = prompts(["a"] * 9, HEAD[:5])
    assert kept.begin(short, ["a"] * 9) == (0, None)
    several = ["a", "b", "c"]  # a row each: nothing would be saved
    assert kept.begin(prompts(several), several) == (0, None)
    assert forward.calls == []


class Continuing:
    """Keys and values of one layer that go on from the cache they are given."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def prefill(
        self, prompts: Sequence[Sequence[int]], cache: Any, adapters: Sequence[str]
    ) -> tuple[torch.Tensor, DynamicCache]:
        self.calls.append(list(prompts[0]))
        values = torch.tensor([list(prompt) for prompt in prompts]).float()[:, None, :, None]
        made = DynamicCache() if cache is None else cache
        made.update(values.clone(), values.clone(), 0)
        return torch.empty(0), made


def continuing(most_tokens: int, **more: Any) -> tuple[PrefixStore, Continuing]:
    forward: Any = Continuing()
    return PrefixStore(forward, most_tokens, **more), forward


def tokens_of(cache: DynamicCache | None) -> list[list[float]]:
    assert cache is not None
    return [row.flatten().tolist() for row in states_of(cache)[0][1]]


def test_a_long_beginning_takes_several_steps() -> None:
    kept, forward = continuing(12, most_kept_tokens=100)
    rows = prompts([""] * 4)
    assert [kept.begin(rows), kept.begin(rows)] == [None, None]
    begun = kept.begin(rows)
    assert begun is not None
    assert tokens_of(begun[1]) == [HEAD] * 4
    assert forward.calls == [HEAD[:12], HEAD[12:24], HEAD[24:]]


def test_a_longer_beginning_goes_on_from_a_shorter_one() -> None:
    kept, forward = continuing(1_000)
    kept.begin([[*HEAD[:12], 1], [*HEAD[:12], 2]], uses=9)
    begun = kept.begin(prompts([""] * 5))
    assert begun is not None
    assert tokens_of(begun[1]) == [HEAD] * 5
    assert forward.calls == [HEAD[:12], HEAD[12:]]


def test_waves_of_single_rows_share_what_the_first_of_them_began_with() -> None:
    kept, forward = continuing(1_000)
    lengths = []
    for row in range(4):
        prompt = [*HEAD, *range(200, 300), row, row]
        [family] = kept.families([prompt])
        begun = kept.begin([prompt], shared=family.shared, uses=family.uses)
        assert begun is not None
        lengths.append(begun[0])
    assert lengths == [0, 130, 130, 130]
    assert len(forward.calls) == 1


def test_what_is_kept_stays_within_its_tokens() -> None:
    kept, _ = continuing(20, most_kept_tokens=70)
    for number in range(4):
        head = [number * 1_000 + token for token in range(20)]
        kept.begin([[*head, row] for row in range(5)])
    assert kept._kept_tokens() == 60


def test_nothing_is_shared_when_it_is_turned_off() -> None:
    kept, forward = continuing(1_000, share=False)
    rows = prompts([""] * 6)
    [family] = kept.families(rows)
    assert (family.shared, family.members) == (0, list(range(6)))
    assert kept.begin(rows, shared=family.shared, uses=family.uses) == (0, None)
    assert forward.calls == []
