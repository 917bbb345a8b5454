"""Which adapters stay loaded, and who waits for room."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from worker.engines.adapter_files import BadAdapter
from worker.engines.adapter_line import AdapterLine


@dataclass(eq=False)
class Row:
    adapter: str
    name: str = ""


class World:
    """A line over adapters that are only noted."""

    def __init__(self, most: int = 2, quota: int = 100) -> None:
        self.events: list[str] = []
        self.bad: set[str] = set()
        self.line: AdapterLine[Row] = AdapterLine(
            self._load, lambda key: self.events.append(f"-{key}"), most=most, quota=quota
        )

    def _load(self, key: str) -> None:
        if key in self.bad:
            raise BadAdapter("broken")
        self.events.append(f"+{key}")

    def add(self, *keys: str) -> list[Row]:
        rows = [Row(key) for key in keys]
        for row in rows:
            self.line.add(row)
        return rows

    def board(self) -> list[Row]:
        boarded, failed = self.line.board()
        assert failed == []
        return boarded


def test_rows_board_in_order_and_an_adapter_is_loaded_once() -> None:
    world = World()
    rows = world.add("a", "b", "a")
    assert world.board() == rows
    assert world.events == ["+a", "+b"]
    assert world.board() == []


def test_the_least_recently_used_idle_adapter_makes_room() -> None:
    world = World()
    for row in world.add("a", "b", "a"):
        world.board()
        world.line.leave(row)
    world.add("c")
    world.board()
    assert world.events == ["+a", "+b", "-b", "+c"]
    assert world.line.loaded == ["a", "c"]


def test_an_adapter_with_rows_is_never_dropped() -> None:
    world = World(most=1)
    (first,) = world.add("a")
    world.board()
    waiting = world.add("b")
    assert world.board() == []
    assert world.line.waiting == 1
    world.line.leave(first)
    assert world.board() == waiting
    assert world.events == ["+a", "-a", "+b"]


def test_rows_may_pass_one_that_waits_but_not_for_ever() -> None:
    world = World(most=1, quota=2)
    world.add("a")
    running = world.board()
    world.add("b", "a", "a", "a")
    running += world.board()
    assert len(running) == 3
    assert world.line.waiting == 2
    world.add("a")
    assert world.board() == []  # the quota is spent
    for row in running:
        world.line.leave(row)
    assert [row.adapter for row in world.board()] == ["b"]
    # … and those behind it wait for room in their turn.
    assert [row.adapter for row in world.line._waiting] == ["a", "a"]


def test_a_new_first_in_line_gives_a_new_quota() -> None:
    world = World(most=1, quota=1)
    (first,) = world.add("a")
    world.board()
    (gone, *_) = world.add("b", "a", "c")
    assert [row.adapter for row in world.board()] == ["a"]
    world.line.leave(gone)
    world.add("a")
    assert [row.adapter for row in world.board()] == ["a"]
    world.add("a")
    assert world.board() == []
    assert first.adapter == "a"


def test_all_rows_of_a_bad_adapter_fail_and_nothing_else() -> None:
    world = World()
    world.bad = {"x"}
    rows = world.add("x", "a", "x")
    boarded, failed = world.line.board()
    assert boarded == [rows[1]]
    assert [row for row, _ in failed] == [rows[0], rows[2]]
    assert world.line.loaded == ["a"]
    world.bad.clear()  # mended meanwhile
    assert world.board() == []
    assert world.add("x") == world.board()


def test_a_row_that_waits_may_leave() -> None:
    world = World(most=1)
    world.add("a")
    world.board()
    (row,) = world.add("b")
    world.line.leave(row)
    assert world.line.waiting == 0
    with pytest.raises(KeyError):
        world.line.leave(Row("never"))
