"""Schedules and monitors in a whole plant: a feed is read by upkeep, the fake engine writes and
judges, and a receiver is told, once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook

from pressrun.main import main
from tests.integration.feed_case import FeedServer, rss
from tests.integration.webhook_receiver import Receiver, receiver
from tests.plant import Plant, plant, wait_until
from worker.engines.fake_responses import fake_result

PATIENCE = 120.0
CLASSIFY = "/v1/classifications"


@pytest.fixture(name="feed")
def feed_fixture() -> Iterator[FeedServer]:
    made = FeedServer()
    yield made
    made.close()


def label_of(said: str) -> str:
    """What the fake engine judges it to be."""
    body = fake_result(CLASSIFY, json.dumps({"model": "fake", "input": said}).encode(), "fake").body
    return str(json.loads(body)["data"][0]["label"])


def test_a_feed_becomes_copy_and_texts_become_an_alert(
    tmp_path: Path, database_url: str, feed: FeedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    feed.body = rss("first", "second")
    with ExitStack() as stack:
        told = stack.enter_context(receiver())
        settings = {
            "FEED_ALLOWED_HOSTS": feed.host,
            "WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{told.port}",
        }
        running = stack.enter_context(plant(tmp_path, database_url, settings=settings))
        running.start(pools="text")
        http = stack.enter_context(running.http())
        hook = {"name": "n", "url": told.url, "event_types": ["monitor.alert"]}
        secret = http.post("/v1/webhook_endpoints", json=hook).json()["signing_secret"]
        _copy(running, http, feed)
        window_id = _watch(running, http)
        _alert(told, secret, window_id)
        monitor_id = http.get(f"/v1/monitor_windows/{window_id}").json()["monitor_id"]
        main_prints(running, capsys, monitor_id)


def _copy(running: Plant, http: httpx2.Client, feed: FeedServer) -> None:
    body = {
        "name": "news",
        "template": "Praise {{ title }}",
        "source": {"url": feed.url},
        "every": "hour",
        "model": "fake",
    }
    made = http.post("/v1/schedules", json=body)
    assert made.status_code == 200, made.text
    path = f"/v1/schedules/{made.json()['id']}"

    def runs(count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def ended() -> bool:
            found[:] = http.get(f"{path}/runs").json()["data"]
            return len(found) == count and all(run["ended_at"] is not None for run in found)

        wait_until(ended, PATIENCE, lambda: str(found))
        return found

    (first,) = runs(1)
    assert (first["status"], first["rows_new"], first["lines_kept"]) == ("succeeded", 2, 2)
    feed.body = rss("third", "first", "second")
    assert http.post(f"{path}/run").status_code == 202
    second = runs(2)[0]
    assert (second["status"], second["rows_new"], second["manual"]) == ("succeeded", 1, True)
    output = http.get(f"/v1/productions/{second['production_id']}/output")
    link = running.url_for(output.headers["Location"])
    assert b"id-third" in httpx2.get(link).content


def _watch(running: Plant, http: httpx2.Client) -> str:
    """The window that is told of."""
    texts = [f"text {number}" for number in range(12)]
    labels = [label_of(said) for said in texts]
    watched = max(set(labels), key=labels.count)
    body = {
        "name": "mood",
        "model": "fake",
        "label": watched,
        "limit": 0.01,
        "minimum": 12,
        "window": {"minutes": 600},
    }
    made = http.post("/v1/monitors", json=body)
    assert made.status_code == 200, made.text
    path = f"/v1/monitors/{made.json()['id']}"
    window_id = str(http.post(f"{path}/texts", json={"texts": texts}).json()["window_id"])
    with running.engine.begin() as connection:  # ten hours pass
        connection.execute(
            text("UPDATE monitor_windows SET ends_at = clock_timestamp() - interval '1 s'")
        )
        connection.execute(text("UPDATE monitors SET next_look_at = clock_timestamp()"))

    def judged() -> bool:
        return bool(http.get(f"/v1/monitor_windows/{window_id}").json()["judged"])

    wait_until(judged, PATIENCE, lambda: http.get(path).text)
    window = http.get(f"/v1/monitor_windows/{window_id}").json()
    assert window["labels"] == {name: labels.count(name) for name in set(labels)}
    assert window["alerted_at"] is not None
    return window_id


def _alert(told: Receiver, secret: str, window_id: str) -> None:
    (request,) = told.wait(1, PATIENCE)
    event: dict[str, Any] = Webhook(secret).verify(request.body, request.headers)
    assert (event["type"], event["data"]) == ("monitor.alert", {"id": window_id})


def main_prints(running: Plant, capsys: pytest.CaptureFixture[str], monitor_id: str) -> None:
    where = ["--url", running.url, "--api-key", running.api_key]
    for command in (["monitors", "show", monitor_id], ["schedules", "list"], ["monitors", "list"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, *where])
        assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "last 1 windows" in shown
    assert "alerts" in shown
    assert "news" in shown
