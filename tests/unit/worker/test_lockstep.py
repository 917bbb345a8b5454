"""Work in a helper thread that goes on only while somebody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from worker.engines.images.lockstep import Finished, LockStep, Pause


def counting(seen: list[int], last: int = 3) -> Callable[[Pause], int]:
    def work(pause: Pause) -> int:
        for number in range(last):
            seen.append(number)
            pause()
        return last

    return work


def test_work_goes_on_only_as_far_as_it_is_asked() -> None:
    seen: list[int] = []
    lockstep: LockStep[int] = LockStep("test")
    lockstep.begin(counting(seen))
    assert seen == []
    for expected in ([0], [0, 1], [0, 1, 2]):
        assert lockstep.advance() is None
        assert seen == expected
    assert lockstep.advance() == Finished(3)


def test_one_thread_serves_all_work() -> None:
    lockstep: LockStep[int] = LockStep("test")
    threads = set()

    def work(pause: Pause) -> int:
        threads.add(threading.get_ident())
        pause()
        return 1

    for _ in range(3):
        lockstep.begin(work)
        assert lockstep.advance() is None
        assert lockstep.advance() == Finished(1)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_work_raises_comes_out_where_it_is_awaited_and_ends_it() -> None:
    lockstep: LockStep[int] = LockStep("test")

    def work(pause: Pause) -> int:
        pause()
        raise ValueError("broken")

    lockstep.begin(work)
    assert lockstep.advance() is None
    with pytest.raises(ValueError, match="broken"):
        lockstep.advance()
    lockstep.begin(lambda pause: 7)
    assert lockstep.advance() == Finished(7)


def test_abandoned_work_unwinds_at_its_pause() -> None:
    lockstep: LockStep[int] = LockStep("test")
    unwound: list[str] = []

    def work(pause: Pause) -> int:
        try:
            pause()
        except Exception:
            unwound.append("caught by mistake")
        finally:
            unwound.append("cleaned up")
        return 1

    lockstep.begin(work)
    lockstep.advance()
    lockstep.abandon()
    assert unwound == ["cleaned up"]
    lockstep.abandon()
    lockstep.begin(lambda pause: 8)
    assert lockstep.advance() == Finished(8)


def test_abandoned_work_that_pauses_again_is_told_again() -> None:
    lockstep: LockStep[int] = LockStep("test")
    told = []

    def stubborn(pause: Pause) -> int:
        for _ in range(3):
            try:
                pause()
            except BaseException as error:
                told.append(type(error).__name__)
        return 1

    lockstep.begin(stubborn)
    lockstep.advance()
    lockstep.abandon()
    assert told == ["Abandoned"] * 3


def test_work_that_never_began_is_simply_forgotten() -> None:
    lockstep: LockStep[int] = LockStep("test")
    seen: list[int] = []
    lockstep.begin(counting(seen))
    with pytest.raises(RuntimeError):
        lockstep.begin(counting(seen))
    lockstep.abandon()
    lockstep.begin(lambda pause: 9)
    assert lockstep.advance() == Finished(9)
    assert seen == []


def test_a_call_goes_through_the_same_thread_in_one_go() -> None:
    lockstep: LockStep[int] = LockStep("test")
    assert lockstep.call(lambda: threading.current_thread().name) == "test"
    with pytest.raises(ZeroDivisionError):
        lockstep.call(lambda: 1 // 0)
    lockstep.begin(lambda pause: threading.get_ident())
    assert lockstep.advance() == Finished(lockstep.call(threading.get_ident))


def test_nothing_is_called_while_work_is_held() -> None:
    lockstep: LockStep[int] = LockStep("test")
    lockstep.begin(counting([]))
    lockstep.advance()
    with pytest.raises(RuntimeError):
        lockstep.call(lambda: 1)
    lockstep.abandon()


def test_two_pieces_of_work_run_at_the_same_time_when_both_are_let_go() -> None:
    meeting = threading.Barrier(2)

    def work(pause: Pause) -> int:
        meeting.wait(timeout=60)  # breaks unless the other is there too
        pause()
        return meeting.wait(timeout=60)

    both: list[LockStep[int]] = [LockStep("a"), LockStep("b")]
    for each in both:
        each.begin(work)
    for _ in range(2):
        for each in both:
            each.let_go()
        came = [each.wait() for each in both]
    assert {each.value for each in came if each is not None} == {0, 1}
