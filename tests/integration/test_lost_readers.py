"""Sources that end whoever reads them: read alone after the first, and given up after some."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shared.errors import StorageUnavailable
from shared.specs.schedules import MOST_LOST_READERS
from tests.integration.feed_case import MONITORS, SCHEDULES, FeedCase, feeds_fixture, rss
from worker.upkeep.feeds_pass import FeedPass

__all__ = ["feeds_fixture"]

JUDGE = "judge"
HOOK = "/v1/webhook_endpoints"


@pytest.fixture(name="watch")
def watch_fixture(feeds: FeedCase) -> FeedCase:
    feeds.sql(
        "INSERT INTO models (id, pool, engine, source, endpoints)"
        " VALUES ('judge', 'text', 'fake', 'judge', '{/v1/classifications}')"
    )
    return feeds


def listen(feeds: FeedCase, *types: str) -> None:
    hook = {"name": "n", "url": "https://example.com/", "event_types": list(types)}
    assert feeds.post(HOOK, hook).status_code == 200


def told(feeds: FeedCase) -> list[tuple[str, str]]:
    rows = feeds.sql("SELECT event_type, about FROM webhook_deliveries ORDER BY id")
    return [(row.event_type, row.about) for row in rows]


def monitor(feeds: FeedCase, **more: Any) -> str:
    body = {"name": "n", "model": JUDGE, "label": "x", "limit": 0.5, "window": {"minutes": 5}}
    reply = feeds.post(MONITORS, body | more)
    assert reply.status_code == 200, reply.json
    return str(reply.json["id"])


def lease_ends(feeds: FeedCase) -> None:
    feeds.lease_ends()
    feeds.sql(
        "UPDATE monitors SET lease_until = clock_timestamp() - interval '1 s',"
        " next_look_at = clock_timestamp() WHERE lease_until IS NOT NULL"
    )


def lose_schedule_readers(feeds: FeedCase) -> None:
    for _ in range(MOST_LOST_READERS):
        assert feeds.runs.begin() is not None
        lease_ends(feeds)


def lose_monitor_readers(feeds: FeedCase) -> None:
    for lost in range(MOST_LOST_READERS):
        claim = feeds.monitors.begin()
        assert claim is not None
        assert claim.readers_lost == lost
        lease_ends(feeds)


def test_a_schedule_that_loses_its_readers_is_paused_told_and_resumed_afresh(
    feeds: FeedCase,
) -> None:
    listen(feeds, "schedule.paused")
    schedule_id = feeds.schedule()
    lose_schedule_readers(feeds)
    feeds.run_due()
    assert feeds.server.asked == []
    seen = feeds.look(schedule_id)
    assert (seen["status"], seen["paused_reason"]) == ("paused", "readers_lost")
    assert seen["error"]["code"] == "source_unreadable"
    assert told(feeds) == [("schedule.paused", schedule_id)]
    feeds.due(schedule_id)
    assert feeds.runs.begin() is None
    again = feeds.post(f"{SCHEDULES}/{schedule_id}/resume").json
    assert (again["status"], again["error"]) == ("active", None)
    feeds.server.body = rss("a")
    feeds.due(schedule_id)
    claim = feeds.runs.begin(alone=False)
    assert claim is not None
    assert claim.readers_lost == 0
    feeds.runs.run(claim)
    assert len(feeds.sql("SELECT 1 FROM productions")) == 1


def test_a_reader_that_comes_back_clears_those_before(feeds: FeedCase) -> None:
    feeds.server.status = 500
    schedule_id = feeds.schedule()
    for _ in range(MOST_LOST_READERS - 1):
        assert feeds.runs.begin() is not None
        lease_ends(feeds)
    feeds.run_due()
    assert feeds.look(schedule_id)["error"]["code"] == "http_500"
    feeds.due(schedule_id)
    claim = feeds.runs.begin(alone=False)
    assert claim is not None
    assert claim.readers_lost == 0


def test_an_outage_of_the_store_is_not_the_sources_doing(
    feeds: FeedCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StorageUnavailable("away")

    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    with monkeypatch.context() as patched:
        patched.setattr(feeds.services.store, "writer", away)
        for _ in range(MOST_LOST_READERS + 2):
            claim = feeds.runs.begin(alone=False)
            assert claim is not None
            with pytest.raises(StorageUnavailable):
                feeds.runs.run(claim)
            assert feeds.runs.begin() is None  # until its lease has ended
            lease_ends(feeds)
    feeds.run_due()
    assert feeds.look(schedule_id)["status"] == "active"
    assert len(feeds.sql("SELECT 1 FROM productions")) == 1


def test_a_monitor_that_loses_its_readers_is_paused_told_and_resumed_afresh(
    watch: FeedCase,
) -> None:
    listen(watch, "monitor.paused")
    monitor_id = monitor(watch, source={"url": watch.server.url})
    lose_monitor_readers(watch)
    claim = watch.monitors.begin()
    assert claim is not None
    watch.monitors.run(claim)
    assert watch.server.asked == []
    seen = watch.get(f"{MONITORS}/{monitor_id}").json
    assert (seen["status"], seen["error"]["code"]) == ("paused", "source_unreadable")
    assert told(watch) == [("monitor.paused", monitor_id)]
    assert watch.monitors.begin() is None
    again = watch.post(f"{MONITORS}/{monitor_id}/resume").json
    assert (again["status"], again["error"]) == ("active", None)
    claim = watch.monitors.begin(alone=False)
    assert claim is not None
    assert claim.readers_lost == 0


def test_a_batch_that_ends_whoever_counts_it_is_given_up_once_the_monitor_is_paused(
    watch: FeedCase,
) -> None:
    monitor_id = monitor(watch)
    assert watch.post(f"{MONITORS}/{monitor_id}/texts", {"texts": ["a", "b"]}).status_code == 202
    watch.sql(
        "UPDATE monitor_windows SET starts_at = starts_at - interval '1 hour',"
        " ends_at = ends_at - interval '1 hour'"
    )
    watch.sql("UPDATE monitors SET next_look_at = clock_timestamp()")
    claim = watch.monitors.begin()
    assert claim is not None
    watch.monitors.run(claim)  # its batch is submitted
    watch.sql("UPDATE monitors SET next_look_at = clock_timestamp()")
    for _ in range(2):
        lose_monitor_readers(watch)
        claim = watch.monitors.begin()
        assert claim is not None
        watch.monitors.run(claim)
    assert watch.sql("SELECT 1 FROM monitor_batches") == []
    watch.sql("UPDATE monitors SET next_look_at = clock_timestamp()")
    assert watch.monitors.begin() is None
    assert watch.post(f"{MONITORS}/{monitor_id}/resume").status_code == 200
    claim = watch.monitors.begin()
    assert claim is not None
    watch.monitors.run(claim)  # another batch judges them
    assert len(watch.sql("SELECT 1 FROM monitor_texts WHERE job_id IS NOT NULL")) == 2


def test_one_that_has_cost_a_reader_is_read_beside_no_other(
    feeds: FeedCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three schedules are due, two of which lost their readers: those are read one after the other
    before the third."""
    feeds.server.body = rss("a")
    lost = {feeds.schedule(), feeds.schedule()}
    for _ in lost:
        assert feeds.runs.begin() is not None
    lease_ends(feeds)
    third = feeds.schedule()
    order: list[str] = []
    beside: list[int] = []
    under_way = 0
    lock = threading.Lock()
    run = feeds.runs.run

    def watched(claim: Any) -> None:
        nonlocal under_way
        with lock:
            under_way += 1
            order.append(claim.schedule_id)
            beside.append(under_way)
        run(claim)
        with lock:
            under_way -= 1

    monkeypatch.setattr(feeds.runs, "run", watched)
    FeedPass(feeds.runs, feeds.monitors, pause_seconds=60.0).run_once()
    assert set(order[:2]) == lost
    assert order[2:] == [third]
    assert beside == [1, 1, 1]
    assert len(feeds.sql("SELECT 1 FROM productions")) == 3
