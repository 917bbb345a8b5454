"""Schedules: rows once, runs once, whoever is killed and however many processes look."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.errors import PressrunError, StorageFull, StorageUnavailable
from shared.lifecycle import working
from shared.lifecycle.webhooks import announce_ends
from shared.lifecycle.working import RunClaim
from shared.specs.schedules import MOST_LOST_READERS
from tests.integration.feed_case import (
    MOST_FAILURES,
    SCHEDULES,
    FeedCase,
    feeds_fixture,
    rss,
)
from tests.integration.production_case import Said

__all__ = ["feeds_fixture"]


def test_each_run_makes_copy_of_what_is_new(feeds: FeedCase) -> None:
    feeds.server.body = rss("a", "b")
    schedule_id = feeds.schedule(metadata={"desk": "news"})
    feeds.run_whole()
    feeds.server.body = rss("c", "a", "b")
    feeds.due(schedule_id)
    feeds.run_whole()
    feeds.due(schedule_id)
    feeds.run_whole()
    first, second, third = feeds.history(schedule_id)
    assert [run["status"] for run in (first, second, third)] == [
        "succeeded", "succeeded", "unchanged",
    ]  # fmt: skip
    assert feeds.titles(first) == ["a", "b"]
    assert feeds.titles(second) == ["c"]
    assert (second["rows_found"], second["rows_new"], second["lines_kept"]) == (3, 1, 1)
    assert third["production_id"] is None
    metadata = feeds.see(first["production_id"])["metadata"]
    assert metadata == {"desk": "news", "schedule": schedule_id}


def test_a_document_that_is_unchanged_is_not_sent_again(feeds: FeedCase) -> None:
    feeds.server.body, feeds.server.etag = rss("a"), '"v1"'
    schedule_id = feeds.schedule()
    feeds.run_whole()
    feeds.due(schedule_id)
    feeds.run_whole()
    assert feeds.server.asked[1]["if-none-match"] == '"v1"'
    assert feeds.history(schedule_id)[1]["status"] == "unchanged"


def test_what_is_over_the_most_rows_waits_for_the_next_run(feeds: FeedCase) -> None:
    feeds.server.body, feeds.server.etag = rss("a", "b", "c"), '"v1"'
    schedule_id = feeds.schedule(max_rows=2)
    feeds.run_whole()
    feeds.due(schedule_id)
    feeds.run_whole()
    first, second = feeds.history(schedule_id)
    assert (first["rows_new"], first["rows_left"]) == (2, 1)
    assert feeds.titles(second) == ["c"]
    assert "if-none-match" not in feeds.server.asked[1]


def test_a_week_of_missed_runs_is_one(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule(every="hour")
    feeds.due(schedule_id, "7 days")
    feeds.run_whole()
    assert feeds.runs.begin() is None
    (left,) = feeds.sql("SELECT next_run_at > clock_timestamp() AS later FROM schedules")
    assert left.later
    assert len(feeds.history(schedule_id)) == 1


def test_runs_never_overlap(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    feeds.run_due()
    feeds.due(schedule_id)
    assert feeds.post(f"{SCHEDULES}/{schedule_id}/run").status_code == 202
    assert feeds.runs.begin() is None  # its production goes on
    feeds.run()
    feeds.runs.close()
    assert feeds.runs.begin() is not None
    assert feeds.runs.begin() is None


def test_of_many_processes_one_has_the_run(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    feeds.schedule()
    start = threading.Barrier(6)

    def look() -> RunClaim | None:
        start.wait(60)
        return feeds.runs.begin()

    with ThreadPoolExecutor(6) as threads:
        found = [one.result() for one in [threads.submit(look) for _ in range(6)]]
    assert len([one for one in found if one is not None]) == 1


@pytest.mark.parametrize("when", ["reading", "submitting"])
def test_a_reader_that_is_killed_loses_and_repeats_nothing(
    feeds: FeedCase, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    feeds.server.body = rss("a", "b")
    schedule_id = feeds.schedule()
    lost = feeds.runs.begin()
    assert lost is not None
    with monkeypatch.context() as patched:
        if when == "reading":
            patched.setattr(feeds.reader, "read", die)
        else:  # the last statement of the transaction
            patched.setattr(working, "accept_run", die)
        with pytest.raises(Killed):
            feeds.runs.run(lost)
    assert feeds.sql("SELECT 1 FROM jobs") == []
    assert feeds.sql("SELECT 1 FROM feed_rows") == []
    assert feeds.runs.begin() is None  # its lease is not over
    feeds.lease_ends()
    again = feeds.run_due()
    assert (again.run_id, again.epoch) == (lost.run_id, lost.epoch + 1)
    feeds.pretend_lost(lost)
    feeds.runs.run(lost)  # it was not dead: nothing comes of it
    feeds.run()
    feeds.runs.close()
    (run,) = feeds.history(schedule_id)
    assert feeds.titles(run) == ["a", "b"]
    assert len(feeds.sql("SELECT 1 FROM productions")) == 1
    (data,) = feeds.sql("SELECT storage_key FROM files WHERE purpose = 'user_data'")
    prefix = f"t/{again.tenant_id}/s/{again.run_id}/"
    assert feeds.services.store.keys(prefix, limit=9) == [data.storage_key]


@pytest.mark.parametrize(
    "refusal", [StorageFull("no room"), StorageUnavailable("no answer")], ids=["full", "away"]
)
def test_an_accepted_run_outlives_a_store_that_keeps_what_was_before_it(
    feeds: FeedCase, refusal: PressrunError, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    assert feeds.runs.begin() is not None
    feeds.lease_ends()

    def refuse(_: Any) -> None:
        raise refusal

    with monkeypatch.context() as patched:
        patched.setattr(feeds.services.store, "delete_keys", refuse)
        feeds.run_due()
    feeds.run()
    feeds.runs.close()
    (run,) = feeds.history(schedule_id)
    assert (run["status"], feeds.titles(run)) == ("succeeded", ["a"])


def test_a_late_reader_loses_to_the_one_that_took_over(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    feeds.schedule()
    late = feeds.runs.begin()
    assert late is not None
    feeds.lease_ends()
    second = feeds.runs.begin()
    assert second is not None
    feeds.runs.run(late)
    assert feeds.sql("SELECT 1 FROM jobs") == []
    feeds.runs.run(second)
    assert len(feeds.sql("SELECT 1 FROM jobs")) == 1


def test_a_source_that_ends_its_readers_is_given_up(feeds: FeedCase) -> None:
    schedule_id = feeds.schedule()
    for lost in range(MOST_LOST_READERS):
        claim = feeds.runs.begin(alone=lost > 0)
        assert claim is not None
        assert claim.readers_lost == lost
        feeds.lease_ends()
    feeds.run_due()
    assert feeds.server.asked == []
    (run,) = feeds.history(schedule_id)
    assert run["error"]["code"] == "source_unreadable"


def test_failing_in_a_row_pauses_and_tells(feeds: FeedCase) -> None:
    hook = {
        "name": "n", "url": "https://example.com/", "event_types": ["schedule.paused"],
    }  # fmt: skip
    assert feeds.post("/v1/webhook_endpoints", hook).status_code == 200
    feeds.server.status = 500
    schedule_id = feeds.schedule()
    for failed in range(1, MOST_FAILURES + 1):
        assert feeds.look(schedule_id)["status"] == "active"
        feeds.due(schedule_id)
        feeds.run_due()
        assert feeds.look(schedule_id)["failures"] == failed
    seen = feeds.look(schedule_id)
    assert (seen["status"], seen["paused_reason"], seen["next_run_at"]) == (
        "paused", "failures", None,
    )  # fmt: skip
    assert {run["error"]["code"] for run in feeds.history(schedule_id)} == {"http_500"}
    told = feeds.sql("SELECT event_type, about FROM webhook_deliveries")
    assert [tuple(row) for row in told] == [("schedule.paused", schedule_id)]
    feeds.due(schedule_id)
    assert feeds.runs.begin() is None
    feeds.server.status, feeds.server.body = 200, rss("a")
    assert feeds.post(f"{SCHEDULES}/{schedule_id}/resume").json["failures"] == 0
    feeds.due(schedule_id)
    feeds.run_whole()
    assert feeds.history(schedule_id)[-1]["status"] == "succeeded"


def test_a_rejected_production_gives_its_rows_back(feeds: FeedCase) -> None:
    feeds.server.body, feeds.server.etag = b"title,body\nx,1\n", '"v1"'
    schedule_id = feeds.schedule(template="Praise {{ missing }}")
    feeds.run_whole()
    (run,) = feeds.history(schedule_id)
    assert (run["status"], run["rows_new"]) == ("failed", 1)
    assert run["error"]["code"]
    assert feeds.sql("SELECT 1 FROM feed_rows") == []
    feeds.due(schedule_id)
    feeds.run_due()  # though the source is what it was, all of it is asked for
    assert "if-none-match" not in feeds.server.asked[1]
    assert feeds.history(schedule_id)[1]["rows_new"] == 1


def test_a_production_that_failed_and_left_something_keeps_its_rows(feeds: FeedCase) -> None:
    """Its output is there: the rows would be in two productions."""
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    feeds.run_due()
    feeds.run()
    feeds.sql("UPDATE jobs SET state = 'failed', error_code = 'x' WHERE kind = 'production'")
    feeds.runs.close()
    feeds.due(schedule_id)
    feeds.run_due()
    first, second = feeds.history(schedule_id)
    assert (first["status"], feeds.titles(first)) == ("failed", ["a"])
    assert (second["status"], second["rows_new"]) == ("unchanged", 0)


def test_a_row_is_remembered_for_as_long_as_it_is_in_the_source(feeds: FeedCase) -> None:
    feeds.server.body = rss("a", "b")
    schedule_id = feeds.schedule(remember_days=7)
    feeds.run_whole()
    feeds.sql("UPDATE feed_rows SET last_seen_at = last_seen_at - interval '8 days'")
    feeds.server.body = rss("c", "a")
    feeds.due(schedule_id)
    feeds.run_whole()
    feeds.server.body = rss("a", "b", "c")
    feeds.due(schedule_id)
    feeds.run_whole()
    _, second, third = feeds.history(schedule_id)
    assert feeds.titles(second) == ["c"]
    assert feeds.titles(third) == ["b"]  # it was gone for so long that it is news


def test_lines_that_fail_are_not_asked_again(feeds: FeedCase) -> None:
    """What was generated was accepted: the next run leaves it alone."""
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    feeds.run_due()
    feeds.run(lambda _: Said(code="engine_crashed"))
    feeds.runs.close()
    (run,) = feeds.history(schedule_id)
    assert (run["status"], run["lines_kept"], run["lines_failed"]) == ("succeeded", 0, 1)
    feeds.due(schedule_id)
    feeds.run_due()
    assert feeds.history(schedule_id)[1]["status"] == "unchanged"


def test_pausing_running_once_and_deleting(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    path = f"{SCHEDULES}/{schedule_id}"
    assert feeds.post(f"{path}/pause").json["paused_reason"] == "by_tenant"
    assert feeds.runs.begin() is None
    assert feeds.post(f"{path}/run").json["run_asked"]
    feeds.run_whole()
    (run,) = feeds.history(schedule_id)
    assert (run["manual"], run["status"]) == (True, "succeeded")
    assert feeds.look(schedule_id)["status"] == "paused"
    assert feeds.post(f"{path}/resume").json["status"] == "active"
    assert feeds.delete(path).json["deleted"]
    assert feeds.get(path).status_code == 404
    assert feeds.get(f"{path}/runs").status_code == 404
    for table in ("schedules", "schedule_runs", "feed_rows"):
        assert feeds.sql(f"SELECT 1 FROM {table}") == []
    assert feeds.see(run["production_id"])["status"] == "succeeded"


def test_a_run_of_a_schedule_that_was_deleted_makes_nothing(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    claim = feeds.runs.begin()
    assert claim is not None
    assert feeds.delete(f"{SCHEDULES}/{schedule_id}").status_code == 200
    feeds.runs.run(claim)
    assert feeds.sql("SELECT 1 FROM jobs") == []
    assert feeds.services.store.keys(f"t/{claim.tenant_id}/s/", limit=9) == []


def test_bad_rows_are_left_out_by_name(feeds: FeedCase) -> None:
    feeds.server.body = b"title,sku\na,1\nb\nc,3\na again,1\n"
    schedule_id = feeds.schedule(key=["sku"])
    feeds.run_whole()
    (run,) = feeds.history(schedule_id)
    assert (run["rows_found"], run["rows_new"], run["rows_bad"]) == (2, 2, 1)
    assert run["bad_rows"][0]["line"] == 3
    assert feeds.titles(run) == ["a", "c"]


def test_a_folder_is_the_tenants_own(feeds: FeedCase) -> None:
    own = feeds.roots["drop"] / feeds.tenant_id / "news"
    own.mkdir(parents=True)
    (own / "1.csv").write_bytes(b"title\na\n")
    (own / "2.jsonl").write_bytes(b'{"title":"b"}\n')
    (own / ".3.csv").write_bytes(b"title\nhidden\n")
    other = feeds.roots["drop"] / "ten_other"
    other.mkdir()
    (other / "4.csv").write_bytes(b"title\nsecret\n")
    (own / "5.csv").symlink_to(other / "4.csv")
    schedule_id = feeds.schedule(source={"folder": "drop/news"})
    feeds.run_whole()
    (run,) = feeds.history(schedule_id)
    assert feeds.titles(run) == ["a", "b"]
    (own.parent / "stolen").symlink_to(other)
    linked = feeds.schedule(source={"folder": "drop/stolen"})
    feeds.run_due()
    assert feeds.history(linked)[0]["error"]["code"] == "folder_not_found"


def test_the_end_of_each_production_is_told_to_the_schedules_webhook(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    assert feeds.post("/v1/webhook_signing_secret/rotate", {}).status_code == 200
    schedule_id = feeds.schedule(webhook="https://example.com/hook")
    feeds.run_whole()
    with feeds.begin() as connection:
        announce_ends(connection)
    (run,) = feeds.history(schedule_id)
    told = feeds.sql("SELECT event_type, about, url FROM webhook_deliveries")
    assert [tuple(row) for row in told] == [
        ("production.completed", run["production_id"], "https://example.com/hook")
    ]


def test_a_disabled_tenants_schedule_waits(feeds: FeedCase) -> None:
    feeds.schedule()
    feeds.sql("UPDATE tenants SET disabled_at = clock_timestamp()")
    assert feeds.runs.begin() is None


def test_a_quota_fails_the_run_and_leaves_nothing(feeds: FeedCase) -> None:
    feeds.server.body = rss("a")
    schedule_id = feeds.schedule()
    feeds.sql(
        "INSERT INTO tenant_limits (tenant_id, stored_bytes) VALUES (:tenant, 1)",
        tenant=feeds.tenant_id,
    )
    claim = feeds.run_due()
    (run,) = feeds.history(schedule_id)
    assert run["error"]["code"] == "quota_exceeded"
    assert feeds.sql("SELECT 1 FROM feed_rows") == []
    assert feeds.services.store.keys(f"t/{claim.tenant_id}/s/", limit=9) == []


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"source": {}}, "source"),
        ({"source": {"url": "http://10.0.0.1/"}}, "source.url"),
        ({"source": {"url": "https://localhost/"}}, "source.url"),
        ({"source": {"folder": "other/x"}}, "source.folder"),
        ({"source": {"folder": "drop/../x"}}, "source.folder"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"at": "24:00"}, "at"),
        ({"every": {"hours": 0}}, "every"),
        ({"every": {"hours": None}}, "every"),
        ({"every": "week"}, "every"),
        ({"model": "nobody"}, "model"),
        ({"template": "{{ open"}, "template"),
        ({"key": ["a", "a"]}, "key"),
        ({"webhook": "https://example.com/x"}, "webhook"),
    ],
)
def test_what_is_wrong_is_named(feeds: FeedCase, changed: dict[str, Any], param: str) -> None:
    body = {
        "name": "n", "template": "x", "source": {"url": feeds.server.url}, "every": "day",
        "model": "models/writer:1",
    }  # fmt: skip
    reply = feeds.post(SCHEDULES, body | changed)
    assert 400 <= reply.status_code < 500, reply.json
    assert reply.json["error"]["param"].startswith(param), reply.json
