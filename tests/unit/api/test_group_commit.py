"""Requests that share a statement, and faults that they do not share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from api.group_commit import LIMIT, GroupCommit


class Statements:
    """A commit that records its groups, and holds the first until the gate opens."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def commit(self, items: Sequence[int]) -> None:
        self.groups.append(list(items))
        self.entered.set()
        assert self.gate.wait(10)
        if any(item < 0 for item in items):
            raise IntegrityError("insert", {}, ValueError("negative"))


def test_one_alone_commits_at_once() -> None:
    statements = Statements()
    statements.gate.set()
    GroupCommit(statements.commit).add(1)
    assert statements.groups == [[1]]


def test_those_that_come_meanwhile_share_the_next_statement() -> None:
    statements = Statements()
    commit = GroupCommit(statements.commit)
    with ThreadPoolExecutor(LIMIT + 20) as threads:
        first = threads.submit(commit.add, 0)
        assert statements.entered.wait(10)
        others = [threads.submit(commit.add, n) for n in range(1, LIMIT + 11)]
        while len(commit._waiting) < len(others):
            threading.Event().wait(0.005)
        statements.gate.set()
        for done in (first, *others):
            done.result(timeout=10)
    assert [len(group) for group in statements.groups] == [1, LIMIT, 10]
    everything = [item for group in statements.groups for item in group]
    assert sorted(everything) == list(range(LIMIT + 11))


def test_a_fault_of_one_item_is_not_the_others() -> None:
    statements = Statements()
    commit = GroupCommit(statements.commit)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(commit.add, 0)
        assert statements.entered.wait(10)
        good = [threads.submit(commit.add, n) for n in (1, 2)]
        bad = threads.submit(commit.add, -1)
        while len(commit._waiting) < 3:
            threading.Event().wait(0.005)
        statements.gate.set()
        for done in (first, *good):
            done.result(timeout=10)
        with pytest.raises(IntegrityError):
            bad.result(timeout=10)


def test_an_outage_is_everybodys_and_tried_once() -> None:
    calls: list[int] = []

    def commit(items: Sequence[int]) -> None:
        calls.append(len(items))
        raise OperationalError("insert", {}, ConnectionError("gone"))

    with pytest.raises(OperationalError):
        GroupCommit(commit).add(1)
    assert calls == [1]
