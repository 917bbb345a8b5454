"""Which rows a step has."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from worker.recipes.order import epoch_order, microbatches, step_rows, step_seed


@given(examples=st.integers(1, 60), batch=st.integers(1, 70), epochs=st.integers(1, 4))
def test_every_row_comes_once_an_epoch(examples: int, batch: int, epochs: int) -> None:
    steps = -(-examples * epochs // batch)
    rows = [row for step in range(1, steps + 1) for row in step_rows(3, step, batch, examples)]
    assert len(rows) == steps * batch
    for epoch in range(epochs):
        assert sorted(rows[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_epochs_differ_and_repeat_by_seed() -> None:
    assert epoch_order(1, 0, 50) != epoch_order(1, 1, 50)
    assert epoch_order(1, 0, 50) != epoch_order(2, 0, 50)
    epoch_order.cache_clear()
    first = list(epoch_order(1, 0, 50))
    epoch_order.cache_clear()
    assert list(epoch_order(1, 0, 50)) == first


@given(
    processes=st.integers(1, 4),
    accumulation=st.integers(1, 4),
    each=st.integers(1, 5),
    data=st.data(),
)
def test_processes_share_a_step(
    processes: int, accumulation: int, each: int, data: st.DataObject
) -> None:
    size = processes * accumulation * each
    rows = list(range(size))
    lengths = data.draw(
        st.none() | st.lists(st.integers(1, 9), min_size=size, max_size=size), label="lengths"
    )
    shares = [
        microbatches(
            rows, rank=rank, processes=processes, accumulation=accumulation, lengths=lengths
        )
        for rank in range(processes)
    ]
    assert all(len(part) == each for share in shares for part in share)
    assert Counter(row for share in shares for part in share for row in part) == Counter(rows)
    if lengths:
        for share in shares:
            mine = [lengths[row] for part in share for row in part]
            assert mine == sorted(mine)


def test_seeds_differ_by_seed_step_and_rank() -> None:
    seeds = {step_seed(a, b, c) for a in range(4) for b in range(4) for c in range(4)}
    assert len(seeds) == 64
    assert all(0 <= seed < 2**63 for seed in seeds)
