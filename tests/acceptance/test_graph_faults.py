"""Campaigns among the rows of a batch: whatever is killed, every row has exactly one line, and a
step that fails fails its row alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pressrun.embedded_postgres_server import EmbeddedPostgres
from shared.models_catalog import IMAGE_ENDPOINTS, ModelEntry
from tests.plant import FAST, SLOW, Plant, chat_row, plant, wait_until
from tests.services.rabbitmq import RabbitMQ

SLOWLY = {"seconds_per_row": 0.3}
MODELS = [
    FAST,
    SLOW,
    ModelEntry(
        id="fake-image", engine="fake", pool="image", endpoints=IMAGE_ENDPOINTS, settings=SLOWLY
    ),
    ModelEntry(
        id="fake-speech",
        engine="fake",
        pool="speech",
        endpoints=["/v1/audio/speech"],
        settings=SLOWLY,
    ),
]
CAMPAIGNS = 4
CHATS = 12


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    database_template: str,
    postgres_server: EmbeddedPostgres,
    rabbitmq: RabbitMQ,
) -> Iterator[Plant]:
    """One for all: each test makes jobs of its own."""
    name = "graph_faults"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    folder = tmp_path_factory.mktemp("graph faults") / "plant"
    with plant(folder, postgres_server.url_of(name), rabbitmq.url, models=MODELS) as made:
        yield made.start()


def campaign_row(number: int, product: str = "soap", **brief: Any) -> dict[str, Any]:
    body = {
        "model": "fake",
        "product": product,
        "outputs": ["copy", "pictures", "voice_over"],
        "image_model": "fake-image",
        "speech_model": "fake-speech",
    }
    return {
        "custom_id": f"campaign-{number}",
        "method": "POST",
        "url": "/v1/campaigns",
        "body": body | brief,
    }


def mixed_rows() -> list[dict[str, Any]]:
    """Rows of two kinds, one after the other as long as both last."""
    rows = [chat_row(n) for n in range(CHATS)]
    for number in range(CAMPAIGNS):
        rows.insert(number * 2, campaign_row(number))
    return rows


def steps_done(running: Plant, batch_id: str) -> int:
    return int(
        running.scalar(
            "SELECT count(*) FROM shards WHERE job_id = :id AND stage = 'step'"
            " AND state = 'succeeded'",
            id=batch_id,
        )
    )


@pytest.mark.parametrize("victim", ["upkeep", "worker-0"])
def test_killed_half_way_each_row_has_one_line(running: Plant, victim: str) -> None:
    rows = mixed_rows()
    batch_id = running.submit_batch(rows, endpoint="/v1/*")
    wait_until(lambda: steps_done(running, batch_id) >= CAMPAIGNS, 60)

    running.processes[victim].kill()
    running.restart(victim)
    batch = running.wait_batch(batch_id)

    results = running.results(batch)
    assert batch.status == "completed"
    assert set(results) == {row["custom_id"] for row in rows}
    assert all(row["response"]["status_code"] == 200 for row in results.values())
    bundles = [results[f"campaign-{number}"]["response"]["body"] for number in range(CAMPAIGNS)]
    assert {bundle["object"] for bundle in bundles} == {"campaign.bundle"}
    assert len({bundle["zip_id"] for bundle in bundles}) == CAMPAIGNS
    made = running.scalar(
        "SELECT count(*) FROM artifacts WHERE job_id = :id AND role = 'bundle'", id=batch_id
    )
    assert made == CAMPAIGNS


def test_a_row_whose_step_fails_fails_alone(running: Plant) -> None:
    rows = [campaign_row(0), campaign_row(1, "[[error 400 too_rude]]"), chat_row(2)]

    batch = running.wait_batch(running.submit_batch(rows, endpoint="/v1/*"))

    results = running.results(batch)
    assert batch.status == "completed"
    assert results["campaign-0"]["response"]["status_code"] == 200
    assert results["campaign-1"]["error"]["code"] == "step_failed"
    assert results["row-2"]["response"]["status_code"] == 200


def test_a_cancelled_batch_ends_with_a_line_for_every_row(running: Plant) -> None:
    rows = [campaign_row(n, sizes=["64x64", "64x96", "96x64"], variants=4) for n in range(4)]
    batch_id = running.submit_batch(rows, endpoint="/v1/campaigns")
    wait_until(lambda: steps_done(running, batch_id) >= 4, 60)

    running.client().batches.cancel(batch_id)
    batch = running.wait_batch(batch_id)

    results = running.results(batch)
    assert batch.status == "cancelled"
    assert set(results) == {row["custom_id"] for row in rows}
    codes = {row["error"]["code"] for row in results.values() if row["error"] is not None}
    assert codes == {"batch_cancelled"}
    open_shards = running.scalar(
        "SELECT count(*) FROM shards WHERE job_id = :id"
        " AND state IN ('queued', 'ready', 'running')",
        id=batch_id,
    )
    assert open_shards == 0


def test_a_campaign_by_itself_shows_its_steps_and_ends_in_a_bundle(running: Plant) -> None:
    with running.http() as http:
        brief = campaign_row(0)["body"]
        answer = http.post("/v1/campaigns", json=brief)
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        wait_until(
            lambda: http.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded",
            60,
            lambda: http.get(f"/v1/jobs/{job_id}").text,
        )
    total, done = running.scalar(
        "SELECT array[rows_total, rows_completed] FROM jobs WHERE id = :id", id=job_id
    )
    assert total == done > 4
    assert running.scalar("SELECT result ->> 'object' FROM jobs WHERE id = :id", id=job_id) == (
        "campaign.bundle"
    )
