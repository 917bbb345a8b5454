"""Which shards of a line-up a worker takes: turns, loaded models, caps."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shared.fairness import OWN_STEPS, PATIENCE, InLine, Waiting, choose


def waiting(number: int, model: str | None = "m", *, priority: int = 0, seq: int = -1) -> Waiting:
    return Waiting(number, 1, 1.0, model, priority, number if seq < 0 else seq)


def in_line(
    tenant: str,
    shards: Sequence[Waiting],
    *,
    start: float = 0.0,
    served: bool = False,
    room: int | None = None,
    more: bool = False,
) -> InLine:
    return InLine(tenant, 1.0, start, served, room, shards, more)


def chosen(line: Sequence[InLine], shards: int = 1, **options: object) -> list[int]:
    options = {"pool_time": 0.0, "max_rows": 1_000_000} | options
    return [p.shard.shard_id for p in choose(line, max_shards=shards, **options)]  # type: ignore[arg-type]


LINES = st.lists(
    st.builds(
        in_line,
        st.sampled_from("abcdef"),
        st.lists(st.builds(waiting, st.integers(0, 99), st.sampled_from("xyz")), max_size=4),
        start=st.sampled_from([0.0, 1.0, 500.0, 5_000.0]),
        served=st.booleans(),
        room=st.sampled_from([None, 0, 1, 2]),
        more=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda line: line.tenant_id,
)


@given(line=LINES, loaded=st.sets(st.sampled_from("xyz")), rows=st.integers(1, 5))
def test_no_worker_is_idle_while_something_is_ready_for_it(
    line: list[InLine], loaded: set[str], rows: int
) -> None:
    taken = choose(line, pool_time=0.0, max_shards=4, max_rows=rows, loaded=loaded)
    assert bool(taken) == any(item.shards and item.room != 0 for item in line)
    assert len(taken) <= min(4, rows)
    for item in line:
        mine = [pick.shard for pick in taken if pick.tenant_id == item.tenant_id]
        assert len(mine) <= len(item.shards)
        assert item.room is None or len(mine) <= item.room


def test_a_loaded_model_goes_first_among_tenants_that_are_served() -> None:
    line = [
        in_line("a", [waiting(1, "x")], served=True),
        in_line("b", [waiting(2, "y")], start=PATIENCE, served=True),
    ]
    assert chosen(line, loaded={"y"}, in_use={"x", "y"}) == [2]
    assert chosen(line, loaded={"x"}, in_use={"x", "y"}) == [1]
    assert chosen(line, loaded={"y"}, in_use={"x", "y"}, patience=PATIENCE - 1) == [1]


def test_whoever_has_nothing_waits_for_nobodys_model() -> None:
    line = [
        in_line("new", [waiting(1, "x")]),
        in_line("b", [waiting(2, "y")], start=1.0, served=True),
    ]
    assert chosen(line, loaded={"y"}, in_use={"y"}) == [1]
    assert chosen(line, loaded={"y"}, in_use={"x", "y"}) == [2]  # the worker with x takes it next
    assert chosen(line, loaded={"x"}, in_use={"x", "y"}) == [1]


def test_a_newcomer_is_not_passed_over_together_with_the_fairest() -> None:
    line = [
        in_line("a", [waiting(1, "x")], served=True),
        in_line("new", [waiting(2, "z")], start=1.0),
        in_line("b", [waiting(3, "y")], start=2.0, served=True),
    ]
    assert chosen(line, loaded={"y"}, in_use={"x", "y"}) == [2]


def test_a_model_that_nobody_runs_is_loaded_before_a_second_time_one_that_somebody_does() -> None:
    line = [
        in_line("a", [waiting(1, "x")], served=True),
        in_line("b", [waiting(2, "z")], start=1.0, served=True),
    ]
    assert chosen(line, loaded={"y"}, in_use={"x"}) == [2]
    assert chosen(line, loaded={"y"}, in_use={"x", "z"}) == [1]


def test_shards_of_a_model_are_taken_together() -> None:
    line = [in_line("a", [waiting(number, "xy"[number % 2]) for number in range(6)], served=True)]
    assert chosen(line, 6, loaded=()) == [0, 2, 4, 1, 3, 5]


def test_a_tenants_own_shards_are_passed_over_within_a_priority_and_not_for_long() -> None:
    urgent = [waiting(1, "x", priority=0), waiting(2, "y", priority=1)]
    assert chosen([in_line("a", urgent)], loaded={"y"}) == [1]
    near = [waiting(1, "x", seq=10), waiting(2, "y", seq=10 + OWN_STEPS)]
    assert chosen([in_line("a", near)], loaded={"y"}) == [2]
    far = [waiting(1, "x", seq=10), waiting(2, "y", seq=11 + OWN_STEPS)]
    assert chosen([in_line("a", far)], loaded={"y"}) == [1]


def test_a_turn_whose_shards_are_not_shown_is_waited_for() -> None:
    line = [
        in_line("a", [waiting(1)], more=True),
        in_line("b", [waiting(2), waiting(3), waiting(4)]),
    ]
    assert chosen(line, 4) == [1, 2]  # then a's second would be next
    assert chosen([in_line("b", line[1].shards)], 4) == [2, 3, 4]


def test_a_cap_ends_a_tenants_turns_and_holds_nobody_up() -> None:
    line = [
        in_line("a", [waiting(1), waiting(2), waiting(3)], room=2, more=True),
        in_line("b", [waiting(number) for number in range(4, 9)], start=0.5),
    ]
    assert chosen(line, 7) == [1, 4, 2, 5, 6, 7, 8]
