"""A whole plant whose processes log in to the database as users of their own, and which tells its
tenants how much of their limits is used up: once, whoever is killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from shared.db.logins import ensure_login, login_of_api, login_of_workers
from shared.models_catalog import ModelEntry, Price
from shared.webhook_events import THRESHOLD_REACHED
from tests.integration.webhook_receiver import Receiver, receiver
from tests.plant import Plant, chat_row, plant, wait_until

API, HANDS = "web_of_a_plant", "hands_of_a_plant"
ROWS = 30
PATIENCE_SECONDS = 120.0


@pytest.fixture(name="urls")
def urls_fixture(database_url: str) -> Iterator[tuple[str, str]]:
    """Of the API's user and of that of workers, as ``pressrun db roles`` makes them."""
    parts = make_url(database_url)
    urls = [
        parts.set(username=name, password="p").render_as_string(hide_password=False)
        for name in (API, HANDS)
    ]
    owner = create_engine(database_url)
    with owner.begin() as connection:
        ensure_login(connection, login_of_api(urls[0]))
        ensure_login(connection, login_of_workers(urls[1]))
    yield urls[0], urls[1]
    with owner.begin() as connection:
        for name in (API, HANDS):
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))
    owner.dispose()


@pytest.fixture(name="hook")
def hook_fixture() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture(name="running")
def running_fixture(
    tmp_path: Path, database_url: str, urls: tuple[str, str], hook: Receiver
) -> Iterator[Plant]:
    model = ModelEntry(id="fake", engine="fake", price=Price(output_per_million=1.0))
    settings = {"WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{hook.port}"}
    with plant(tmp_path, database_url, models=[model], settings=settings) as made:
        made.settings["DATABASE_URL"] = urls[0]
        made.start_api()
        made.settings["DATABASE_URL"] = urls[1]
        made.start_worker("upkeep", "upkeep")
        made.start_worker("worker-0", "text")
        made.wait_ready()
        yield made


def told(hook: Receiver) -> dict[str, Any]:
    """By ``webhook-id``, what came; with it may come the same again."""
    return {item.headers["webhook-id"]: json.loads(item.body) for item in hook.received}


def limits_told(hook: Receiver) -> list[dict[str, Any]]:
    return [event for event in told(hook).values() if event["type"] == THRESHOLD_REACHED]


def test_budgets_are_told_of_once_by_a_plant_that_is_killed_meanwhile(
    running: Plant, hook: Receiver, database_url: str
) -> None:
    tenant = running.new_tenant("first")
    running.api_key = running.new_key(tenant)
    with running.http() as http:
        asked = {"name": "n", "url": f"http://127.0.0.1:{hook.port}/", "event_types": [
            THRESHOLD_REACHED, "batch.completed"]}  # fmt: skip
        assert http.post("/v1/webhook_endpoints", json=asked).status_code == 200
        batches = [running.submit_batch([chat_row(number) for number in range(ROWS)])]
        assert running.wait_batch(batches[0], PATIENCE_SECONDS).status == "completed"
        used = http.get("/v1/usage").json()["totals"]["cost"]
        assert used > 0
        limits = {"monthly_budget": int(used * 2 / 0.85)}  # 43 %, 85 %, 128 %
        running.admin("PATCH", f"/v1/admin/tenants/{tenant}", {"limits": limits})
        running.processes["upkeep"].kill()
        running.restart("upkeep")
        settled = "SELECT settled FROM tenant_limits"
        wait_until(lambda: running.scalar(settled) is True, PATIENCE_SECONDS)
        assert http.get("/v1/limit_notices").json()["data"] == []
        for percent in (80, 100):
            consume_again(database_url, times=percent)
            running.processes["upkeep"].kill()
            running.restart("upkeep")
            reached = f"SELECT count(*) FROM limit_notices WHERE percent = {percent}"
            wait_until(lambda asked=reached: running.scalar(asked) == 1, PATIENCE_SECONDS)
        wait_until(lambda: len(limits_told(hook)) == 2, PATIENCE_SECONDS, lambda: str(told(hook)))
        uncounted = "SELECT count(*) FROM usage WHERE NOT counted"
        wait_until(lambda: running.scalar(uncounted) == 0, PATIENCE_SECONDS)
        notices = {
            event["data"]["id"]: http.get(f"/v1/limit_notices/{event['data']['id']}").json()
            for event in limits_told(hook)
        }
    assert sorted((one["limit"], one["percent"]) for one in notices.values()) == [
        ("monthly_budget", 80),
        ("monthly_budget", 100),
    ]
    made = "SELECT count(*) FROM webhook_deliveries WHERE event_type = :kind"
    assert running.scalar(made, kind=THRESHOLD_REACHED) == 2
    for process in running.processes.values():
        assert "permission denied" not in process.log()


def consume_again(database_url: str, *, times: int) -> None:
    """As much as the batch consumed, by other shards: reservations would not admit as much. Whoever
    counts it may be killed before, meanwhile or after."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(
            text("""
INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                   output_tokens, images, media_seconds, compute_seconds, cost)
SELECT shard_id + 1000000 * :times, endpoint, model, epoch, tenant_id, job_id, rows,
       input_tokens, output_tokens, images, media_seconds, compute_seconds, cost
  FROM usage WHERE shard_id < 1000000
"""),
            {"times": times},
        )
    engine.dispose()
