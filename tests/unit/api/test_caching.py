"""The cache of recent look-ups."""

from __future__ import annotations

from api.caching import RecentCache


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_value_is_kept_for_its_time_and_no_longer() -> None:
    clock = FakeClock()
    cache: RecentCache[str, int] = RecentCache(10, clock)
    cache.put("a", 1, seconds=2)
    clock.now = 1.9
    assert cache.get("a") == 1
    clock.now = 2.0
    assert cache.get("a") is None
    assert len(cache) == 0


def test_the_least_recently_used_goes_first() -> None:
    cache: RecentCache[str, int] = RecentCache(2, FakeClock())
    cache.put("a", 1, seconds=9)
    cache.put("b", 2, seconds=9)
    assert cache.get("a") == 1
    cache.put("c", 3, seconds=9)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]


def test_no_time_means_no_caching() -> None:
    cache: RecentCache[str, int] = RecentCache(2, FakeClock())
    cache.put("a", 1, seconds=0)
    assert cache.get("a") is None
