"""Which images share a microbatch, and how many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from worker.engines.images.batches import AUTO_IMAGES, Group, Room, next_microbatch, shares
from worker.engines.images.pipelines import Task
from worker.engines.images.previews import preview_steps

SQUARE = Group(Task.TEXT_TO_IMAGE, 64, 64, 20, 7.5, negative=False)
WIDE = replace(SQUARE, width=128)


@dataclass(frozen=True)
class Item:
    name: str
    group: Group = SQUARE


def names(items: list[Item]) -> str:
    return "".join(item.name for item in items)


def test_the_oldest_goes_first_with_all_who_can_join_it() -> None:
    waiting = [Item("a"), Item("b", WIDE), Item("c"), Item("d", WIDE), Item("e")]
    assert names(next_microbatch(waiting, lambda group: 8)) == "ace"
    assert names(next_microbatch(waiting, lambda group: 2)) == "ac"
    assert names(next_microbatch(waiting[1:], lambda group: 8)) == "bd"
    assert next_microbatch([], lambda group: 8) == []


def test_a_rare_group_is_never_starved() -> None:
    waiting = [Item(str(n)) for n in range(4)] + [Item("w", WIDE)]
    taken = []
    while waiting:
        batch = next_microbatch(waiting, lambda group: 2)
        taken.append(names(batch))
        waiting = [item for item in waiting if item not in batch]
        if len(taken) < 3:
            waiting.append(Item("x" * len(taken)))  # the common kind keeps coming
    assert taken.index("w") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"task": Task.IMAGE_TO_IMAGE},
        {"width": 72},
        {"height": 72},
        {"steps": 21},
        {"guidance": 7.0},
        {"negative": True},
        {"strength": 0.5},
        {"adapter": ("style", 1.0)},
        {"adapter": ("style", 0.5)},
        {"alone": "1-1-0"},
    ],
)
def test_what_a_call_takes_once_separates(change: dict[str, Any]) -> None:
    other = Item("b", replace(SQUARE, **change))
    assert names(next_microbatch([Item("a"), other], lambda group: 8)) == "a"


def test_room_goes_by_pixels_unless_the_catalog_says_a_number() -> None:
    room = Room(None)
    assert [room.images(side * side) for side in (64, 512, 1024, 4096)] == [AUTO_IMAGES, 16, 4, 1]
    assert [Room(6).images(side * side) for side in (64, 1024, 4096)] == [6, 6, 6]


def test_every_lane_has_room_until_the_pixels_are_too_many() -> None:
    room = Room(None, lanes=2)
    sides = (64, 512, 1024, 4096)
    assert [room.images(side * side) for side in sides] == [2 * AUTO_IMAGES, 16, 4, 1]
    assert Room(6, lanes=2).images(64) == 6


@pytest.mark.parametrize(
    ("count", "lanes", "parts"),
    [(1, 4, "a"), (2, 4, "a b"), (7, 3, "abc de fg"), (6, 2, "abc def"), (3, 1, "abc")],
)
def test_lanes_have_about_the_same_to_do(count: int, lanes: int, parts: str) -> None:
    images = [Item(name) for name in "abcdefg"[:count]]
    assert " ".join(names(list(part)) for part in shares(images, lanes)) == parts


@pytest.mark.parametrize("microbatch", [None, 16])
def test_out_of_memory_halves_and_calm_restores(microbatch: int | None) -> None:
    room = Room(microbatch)
    before = room.images(SQUARE.pixels)
    room.shrink([Item("a")] * 16)
    assert room.images(SQUARE.pixels) == 8
    assert room.images(WIDE.pixels) == 4
    room.shrink([Item("a")] * 8)
    assert room.images(SQUARE.pixels) == 4
    for _ in range(256 * 20):
        room.calm()
    assert room.images(SQUARE.pixels) >= min(before, 16)


def test_one_image_always_has_room() -> None:
    room = Room(4)
    for _ in range(40):
        room.shrink([Item("a")])
    assert room.images(SQUARE.pixels) == 1


def test_previews_are_spread_and_never_the_last_step() -> None:
    assert preview_steps(20, 3) == {5, 10, 15}
    assert preview_steps(20, 1) == {10}
    assert preview_steps(20, 0) == set()
    assert preview_steps(1, 3) == set()
    assert all(step < 3 for step in preview_steps(3, 3))
