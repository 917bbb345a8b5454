"""Texts of rows in microbatches: like lengths together, none lost, rows whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.engines.input_queue import TOO_LARGE, Input, InputQueue, InputRow

ROWS = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=6)


def add(queue: InputQueue[None], lengths: list[int], index: int = 0, shard: int = 1) -> None:
    row: InputRow[None] = InputRow(shard, 1, index, None, sum(lengths), [None] * len(lengths))
    queue.add(row, [Input(row, place, [0] * n) for place, n in enumerate(lengths)])


@given(ROWS, st.integers(1, 5), st.integers(1, 60))
def test_every_text_is_taken_once_and_rows_end_with_their_last(
    rows: list[list[int]], most: int, tokens: int
) -> None:
    queue: InputQueue[None] = InputQueue(rows=most, tokens=tokens)
    for index, lengths in enumerate(rows):
        add(queue, lengths, index)
    ended: list[int] = []
    while taken := queue.take():
        longest = max(len(item.tokens) for item in taken)
        assert len(taken) <= most
        assert len(taken) == 1 or longest * len(taken) <= tokens
        for item in taken:
            assert item.row.answers[item.place] is None
            item.row.answers[item.place] = len(item.tokens)
        for row in queue.settle(taken):
            assert row.answers == rows[row.index]
            ended.append(row.index)
    assert sorted(ended) == list(range(len(rows)))
    assert len(queue) == 0


def test_a_cancelled_shard_leaves_nothing() -> None:
    queue: InputQueue[None] = InputQueue(rows=4, tokens=100)
    add(queue, [1, 2], shard=1)
    add(queue, [3], shard=2)
    queue.cancel(1, 1)
    assert [item.row.shard for item in queue.take()] == [2]
    assert len(queue) == 1


def test_what_is_too_much_waits_for_smaller_microbatches() -> None:
    queue: InputQueue[None] = InputQueue(rows=4, tokens=100)
    add(queue, [5, 5, 5, 5])
    taken = queue.take()
    assert (len(taken), queue.retreat(taken)) == (4, [])
    again = queue.take()
    assert len(again) == 2
    assert queue.settle(again) == []
    alone = queue.take()[:1]
    assert queue.retreat(alone) == []
    assert alone[0].row.failure == TOO_LARGE
