"""Monitors: every text is judged and counted once, and each window is told of at most once."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.db.models import sync_catalog
from shared.lifecycle import working
from shared.lifecycle.working import Claim, MonitorClaim, SliceEnd, UsageLine
from shared.models_catalog import ModelEntry
from shared.states import ShardState
from tests.integration.api_case import MODEL
from tests.integration.feed_case import MONITORS, FeedCase, feeds_fixture, rss
from worker.engines.fake_responses import fake_result
from worker.outputs import RowError, error_line, response_line, store_lines
from worker.rows import read_slice
from worker.upkeep import monitors

__all__ = ["feeds_fixture"]

JUDGE = "judge"
CLASSIFY = "/v1/classifications"


@pytest.fixture(name="watch")
def watch_fixture(feeds: FeedCase) -> FeedCase:
    """With a model that judges."""
    with feeds.begin() as connection:
        entries = [
            ModelEntry(id=JUDGE, engine="fake", endpoints=[CLASSIFY]),
            ModelEntry(id=MODEL, engine="fake", endpoints=["/v1/chat/completions"]),
        ]
        sync_catalog(connection, entries)
    return feeds


def monitor(watch: FeedCase, **changed: Any) -> str:
    body = {
        "name": "mood", "model": JUDGE, "label": "negative", "limit": 0.3, "minimum": 4,
        "window": {"minutes": 60},
    }  # fmt: skip
    reply = watch.post(MONITORS, body | changed)
    assert reply.status_code == 200, reply.json
    return str(reply.json["id"])


def post(watch: FeedCase, monitor_id: str, *texts: str) -> str:
    reply = watch.post(f"{MONITORS}/{monitor_id}/texts", {"texts": list(texts)})
    assert reply.status_code == 202, reply.json
    return str(reply.json["window_id"])


def windows_end(watch: FeedCase) -> None:
    """Time passes: every window is over, and everything is due."""
    watch.sql(
        "UPDATE monitor_windows SET ends_at = ends_at - interval '1 day',"
        " starts_at = starts_at - interval '1 day' WHERE ends_at > clock_timestamp()"
    )
    due(watch)


def due(watch: FeedCase) -> None:
    watch.sql(
        "UPDATE monitors SET next_look_at = clock_timestamp() - interval '1 s',"
        " next_read_at = next_read_at - interval '1 day'"
    )


def leases_end(watch: FeedCase) -> None:
    watch.sql("UPDATE monitors SET lease_until = clock_timestamp() - interval '1 s'")


def look(watch: FeedCase) -> MonitorClaim:
    claim = watch.monitors.begin()
    assert claim is not None
    watch.monitors.run(claim)
    return claim


def label_of(text: str) -> str:
    """The words of a test say what they are."""
    return "negative" if "bad" in text else "positive"


def judge(watch: FeedCase) -> None:
    """Batches that wait are worked on to their end."""
    while watch.upkeep() or _answer_all(watch):
        pass


def _answer_all(watch: FeedCase) -> bool:
    claims = watch.claim("text", 64)
    for claim in claims:
        _answer(watch, claim)
    return bool(claims)


def _answer(watch: FeedCase, claim: Claim) -> None:
    good, bad = [], []
    for row in read_slice(watch.services.store, claim):
        text = json.loads(row.body)["input"]
        if "broken" in text:
            bad.append(
                error_line(claim.job_id, row.line, row.custom_id, RowError("engine_crashed", "x"))
            )
            continue
        body = {"data": [{"index": 0, "label": label_of(text), "score": 1.0}]}
        good.append(response_line(claim.job_id, row, 200, json.dumps(body).encode()))
    end = SliceEnd(
        claim.held,
        ShardState.SUCCEEDED,
        store_lines(watch.services.store, claim, "output.jsonl", good),
        store_lines(watch.services.store, claim, "errors.jsonl", bad),
        len(good),
        len(bad),
        [UsageLine(CLASSIFY, JUDGE, len(good), 3, 0)],
    )
    with watch.begin() as connection:
        assert working.finish_slice(connection, watch.me, end)


def counted(watch: FeedCase) -> None:
    """From texts whose windows are over to their counts."""
    look(watch)
    judge(watch)
    due(watch)
    look(watch)


def windows(watch: FeedCase, monitor_id: str) -> list[dict[str, Any]]:
    return list(watch.get(f"{MONITORS}/{monitor_id}/windows").json["data"])


def alerts(watch: FeedCase) -> list[str]:
    rows = watch.sql("SELECT about FROM webhook_deliveries WHERE event_type = 'monitor.alert'")
    return [row.about for row in rows]


def listen(watch: FeedCase) -> None:
    hook = {"name": "n", "url": "https://example.com/", "event_types": ["monitor.alert"]}
    assert watch.post("/v1/webhook_endpoints", hook).status_code == 200


def test_a_window_is_judged_counted_and_told_of_once(watch: FeedCase) -> None:
    listen(watch)
    monitor_id = monitor(watch)
    window_id = post(watch, monitor_id, "good", "bad", "bad too")
    assert post(watch, monitor_id, "good again", "fine", "broken") == window_id
    windows_end(watch)
    counted(watch)
    (window,) = windows(watch, monitor_id)
    assert window["id"] == window_id
    assert (window["texts"], window["judged"], window["failed"]) == (6, 5, 1)
    assert window["labels"] == {"negative": 2, "positive": 3}
    assert window["share"] == 0.4
    assert window["alerted_at"] is not None
    assert alerts(watch) == [window_id]
    assert watch.get(f"/v1/monitor_windows/{window_id}").json == window
    assert watch.sql("SELECT 1 FROM monitor_texts") == []
    due(watch)
    look(watch)
    assert alerts(watch) == [window_id]
    (batch,) = watch.get("/v1/batches").json["data"]
    assert (batch["endpoint"], batch["metadata"]) == (CLASSIFY, {"monitor": monitor_id})


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["bad", "bad", "bad"], False),  # fewer than the minimum
        (["bad"] * 3 + ["good"] * 7, False),  # at the limit, not over it
        (["bad"] * 4 + ["good"] * 6, True),
    ],
)
def test_only_over_the_limit_and_with_enough_texts(
    watch: FeedCase, texts: list[str], told: bool
) -> None:
    listen(watch)
    monitor_id = monitor(watch)
    window_id = post(watch, monitor_id, *texts)
    windows_end(watch)
    counted(watch)
    assert alerts(watch) == ([window_id] if told else [])


def test_texts_wait_for_the_end_of_their_window(watch: FeedCase) -> None:
    monitor_id = monitor(watch)
    look(watch)
    post(watch, monitor_id, "good")
    assert watch.monitors.begin() is None
    due(watch)
    look(watch)
    assert watch.sql("SELECT 1 FROM jobs") == []
    assert watch.get(f"{MONITORS}/{monitor_id}").json["waiting"] == 1


def test_a_window_is_judged_by_all_of_its_texts(
    watch: FeedCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its first batch alone would be too many of the label."""
    monkeypatch.setattr(monitors, "TEXTS_A_BATCH", 6)
    listen(watch)
    monitor_id = monitor(watch)
    post(watch, monitor_id, *["bad"] * 5, *["good"] * 13)
    windows_end(watch)
    for _ in range(3):
        look(watch)
        judge(watch)
        due(watch)
    look(watch)
    (window,) = windows(watch, monitor_id)
    assert window["labels"] == {"negative": 5, "positive": 13}
    assert len(watch.sql("SELECT 1 FROM jobs WHERE kind = 'batch'")) == 3
    assert (window["alerted_at"], alerts(watch)) == (None, [])


def test_a_late_text_does_not_tell_of_its_window_again(watch: FeedCase) -> None:
    listen(watch)
    monitor_id = monitor(watch)
    window_id = post(watch, monitor_id, *["bad"] * 5)
    windows_end(watch)
    counted(watch)
    watch.sql(
        "INSERT INTO monitor_texts (monitor_id, tenant_id, window_id, body)"
        " SELECT monitor_id, tenant_id, id, '\"bad\"' FROM monitor_windows"
    )
    due(watch)
    counted(watch)
    assert windows(watch, monitor_id)[0]["labels"] == {"negative": 6}
    assert alerts(watch) == [window_id]


def test_a_worker_that_is_killed_judges_nothing_twice(
    watch: FeedCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    def killed_at(name: str) -> None:
        lost = watch.monitors.begin()
        assert lost is not None
        with monkeypatch.context() as patched:
            patched.setattr(working, name, die)
            with pytest.raises(Killed):
                watch.monitors.run(lost)
        assert watch.monitors.begin() is None
        watch.sql("UPDATE monitors SET lease_until = clock_timestamp() - interval '1 s'")

    monitor_id = monitor(watch)
    post(watch, monitor_id, "good", "bad")
    windows_end(watch)
    killed_at("open_monitor_batch")
    assert watch.sql("SELECT 1 FROM jobs") == []
    look(watch)
    judge(watch)
    due(watch)
    killed_at("count_answers")
    killed_at("release_monitor")
    look(watch)
    (window,) = windows(watch, monitor_id)
    assert window["labels"] == {"negative": 1, "positive": 1}
    assert len(watch.sql("SELECT 1 FROM jobs WHERE kind = 'batch'")) == 1


@pytest.mark.parametrize("when", ["seen_before", "new_batch_id"])
def test_a_worker_that_is_late_adds_nothing(
    watch: FeedCase, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one takes the monitor over, and does all of it, between its look and its commit."""
    watch.server.body = rss("bad news", "good news")
    monitor_id = monitor(watch, source={"url": watch.server.url})
    if when == "new_batch_id":
        look(watch)
        windows_end(watch)
    late = watch.monitors.begin()
    assert late is not None
    asked = getattr(monitors, when)

    def overtaken(*args: Any, **options: Any) -> Any:
        found = asked(*args, **options)
        monkeypatch.setattr(monitors, when, asked)
        leases_end(watch)
        due(watch)
        look(watch)
        return found

    monkeypatch.setattr(monitors, when, overtaken)
    watch.monitors.run(late)
    if when == "seen_before":
        windows_end(watch)
        look(watch)
    (batch,) = watch.sql("SELECT id FROM jobs WHERE kind = 'batch'")
    assert {row.job_id for row in watch.sql("SELECT job_id FROM monitor_texts")} == {batch.id}
    key = f"t/{watch.tenant_id}/w/{batch.id}.jsonl"
    assert watch.services.store.keys(f"t/{watch.tenant_id}/w/", limit=9) == [key]
    judge(watch)
    due(watch)
    look(watch)
    (window,) = windows(watch, monitor_id)
    assert (window["texts"], window["labels"]) == (2, {"negative": 1, "positive": 1})


def test_one_that_lets_go_late_leaves_the_lease_to_its_heir(watch: FeedCase) -> None:
    monitor(watch)
    late = watch.monitors.begin()
    assert late is not None
    leases_end(watch)
    assert watch.monitors.begin() is not None
    with watch.begin() as connection:
        working.release_monitor(
            connection, late, error=("x", "late"), worked=False, pause_seconds=0
        )
    due(watch)
    assert watch.monitors.begin() is None
    assert watch.sql("SELECT 1 FROM monitors WHERE error_code IS NOT NULL") == []


def test_of_many_processes_one_works_for_a_monitor(watch: FeedCase) -> None:
    monitor(watch)
    start = threading.Barrier(6)

    def claim() -> MonitorClaim | None:
        start.wait(60)
        return watch.monitors.begin()

    with ThreadPoolExecutor(6) as threads:
        found = [one.result() for one in [threads.submit(claim) for _ in range(6)]]
    (mine,) = [one for one in found if one is not None]
    watch.sql("UPDATE monitors SET lease_until = clock_timestamp() - interval '1 s'")
    due(watch)
    assert watch.monitors.begin() is not None
    with watch.begin() as connection:
        assert not working.hold_monitor(connection, mine)


def test_a_source_is_read_and_its_rows_are_judged_once(watch: FeedCase) -> None:
    watch.server.body = rss("bad news", "good news")
    monitor_id = monitor(watch, source={"url": watch.server.url})
    look(watch)
    watch.server.body = rss("fine news", "bad news", "good news")
    due(watch)
    look(watch)
    windows_end(watch)
    counted(watch)
    labels: dict[str, int] = {}
    for window in windows(watch, monitor_id):
        for label, count in window["labels"].items():
            labels[label] = labels.get(label, 0) + count
    assert labels == {"negative": 1, "positive": 2}


def test_a_source_that_fails_is_shown_and_read_again(watch: FeedCase) -> None:
    watch.server.status = 503
    monitor_id = monitor(watch, source={"url": watch.server.url})
    look(watch)
    assert watch.get(f"{MONITORS}/{monitor_id}").json["error"]["code"] == "http_503"
    watch.server.status, watch.server.body = 200, rss("a")
    due(watch)
    look(watch)
    assert watch.get(f"{MONITORS}/{monitor_id}").json["error"] is None


def test_a_batch_that_was_deleted_lets_its_texts_go(watch: FeedCase) -> None:
    monitor_id = monitor(watch)
    post(watch, monitor_id, "good")
    windows_end(watch)
    look(watch)
    watch.sql("DELETE FROM shards")
    watch.sql("DELETE FROM jobs")
    due(watch)
    counted(watch)
    assert windows(watch, monitor_id)[0]["labels"] == {"positive": 1}


def test_a_batch_without_an_answer_counts_as_failed(watch: FeedCase) -> None:
    monitor_id = monitor(watch)
    post(watch, monitor_id, "good", "bad")
    windows_end(watch)
    look(watch)
    batch_id = watch.get(f"{MONITORS}/{monitor_id}").json["batch_id"]
    assert watch.post(f"/v1/batches/{batch_id}/cancel").status_code == 200
    judge(watch)
    due(watch)
    look(watch)
    (window,) = windows(watch, monitor_id)
    assert (window["failed"], window["share"]) == (2, None)
    assert watch.get(f"{MONITORS}/{monitor_id}").json["error"]["code"] == "texts_not_judged"


def test_a_quota_postpones_and_is_shown(watch: FeedCase) -> None:
    monitor_id = monitor(watch)
    post(watch, monitor_id, "good")
    windows_end(watch)
    watch.sql(
        "INSERT INTO tenant_limits (tenant_id, stored_bytes) VALUES (:tenant, 1)",
        tenant=watch.tenant_id,
    )
    look(watch)
    shown = watch.get(f"{MONITORS}/{monitor_id}").json
    assert (shown["error"]["code"], shown["waiting"]) == ("quota_exceeded", 1)
    watch.sql("DELETE FROM tenant_limits")
    due(watch)
    counted(watch)
    assert windows(watch, monitor_id)[0]["judged"] == 1


def test_pausing_and_deleting(watch: FeedCase) -> None:
    monitor_id = monitor(watch)
    path = f"{MONITORS}/{monitor_id}"
    post(watch, monitor_id, "good")
    assert watch.post(f"{path}/pause").json["status"] == "paused"
    assert watch.post(f"{path}/texts", {"texts": ["x"]}).status_code == 409
    windows_end(watch)
    assert watch.monitors.begin() is None
    assert watch.post(f"{path}/resume").json["status"] == "active"
    look(watch)
    assert watch.delete(path).json["deleted"]
    for table in ("monitors", "monitor_windows", "monitor_texts", "monitor_batches"):
        assert watch.sql(f"SELECT 1 FROM {table}") == []
    assert watch.get(f"{path}/windows").status_code == 404


def test_what_is_old_goes(watch: FeedCase) -> None:
    monitor_id = monitor(watch)
    post(watch, monitor_id, "good", "bad")
    watch.sql("UPDATE monitor_texts SET created_at = created_at - interval '8 days'")
    watch.monitors.clean()
    (window,) = windows(watch, monitor_id)
    assert (window["texts"], window["failed"]) == (2, 2)
    assert watch.sql("SELECT 1 FROM monitor_texts") == []
    watch.sql("UPDATE monitor_windows SET ends_at = ends_at - interval '401 days'")
    watch.monitors.clean()
    assert windows(watch, monitor_id) == []


def test_the_same_post_with_a_key_counts_once(watch: FeedCase) -> None:
    monitor_id = monitor(watch)
    path, key = f"{MONITORS}/{monitor_id}/texts", {"Idempotency-Key": "k"}
    first = watch.post(path, {"texts": ["a \ud83d\ude00"]}, key)
    assert (first.status_code, watch.post(path, {"texts": ["a \ud83d\ude00"]}, key).json) == (
        202, first.json,
    )  # fmt: skip
    assert windows(watch, monitor_id)[0]["texts"] == 1


@pytest.mark.parametrize(
    ("changed", "status", "param"),
    [
        ({"model": MODEL}, 404, "model"),
        ({"model": "nobody"}, 404, "model"),
        ({"limit": 1}, 400, "limit"),
        ({"minimum": 0}, 400, "minimum"),
        ({"window": {"minutes": 0}}, 400, "window.minutes"),
        ({"source": {"url": "http://example.com/"}}, 400, "source.url"),
        ({"column": "x"}, 400, "column"),
        ({"webhook": "https://example.com/"}, 400, "webhook"),
        ({"label": ""}, 400, "label"),
    ],
)
def test_what_is_wrong_is_named(
    watch: FeedCase, changed: dict[str, Any], status: int, param: str
) -> None:
    body = {"name": "n", "model": JUDGE, "label": "x", "limit": 0.5, "window": {"minutes": 5}}
    reply = watch.post(MONITORS, body | changed)
    assert (reply.status_code, reply.json["error"]["param"]) == (status, param), reply.json


def test_what_the_fake_classifier_says_is_read(watch: FeedCase) -> None:
    """As engines write it, and not only as this module does."""
    from worker.upkeep.monitors_answers import labels_of

    body = fake_result(CLASSIFY, json.dumps({"model": "m", "input": "x"}).encode(), "m").body
    line = {"custom_id": "17", "response": {"status_code": 200, "body": json.loads(body)}}
    others = (b"", b"[]", b'{"custom_id":"1","response":null}', b'{"custom_id":"x"}')
    output = b"\n".join([*others, json.dumps(line).encode()])
    label = json.loads(body)["data"][0]["label"]
    assert list(labels_of([output[:50], output[50:]])) == [(17, label)]
