"""Webhooks of a whole plant, to an unmodified client, with the sender killed in between."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import openai
import pytest

from tests.integration.webhook_receiver import Authority, Receiver, make_authority, receiver, reply
from tests.plant import Plant, chat_row, plant, wait_until

HOST = "localhost"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), HOST)


def settings(authority: Authority, made: Receiver) -> dict[str, str]:
    return {
        "WEBHOOK_ALLOWED_HOSTS": f"{HOST}:{made.port}",
        "WEBHOOK_CA_FILE": str(authority.ca_file),
    }


def test_openais_client_makes_an_endpoint_and_reads_what_comes(
    tmp_path: Path, database_url: str, authority: Authority
) -> None:
    with receiver(tls=authority.server) as made:
        options = settings(authority, made)
        with plant(tmp_path, database_url, settings=options) as running:
            running.start(pools="text")
            hidden = use_it(running, made)
            logs = "".join(process.log() for process in running.processes.values())
            for text in (*hidden, f"{HOST}:{made.port}"):
                assert text not in logs


def use_it(running: Plant, made: Receiver) -> list[str]:
    """Returns the secrets that it was shown."""
    client = running.client()
    url = f"https://{HOST}:{made.port}/hook"
    with pytest.raises(openai.BadRequestError, match="not a public one"):
        client.webhooks.create(name="x", url="https://10.0.0.1/", event_types=["batch.completed"])
    endpoint = client.webhooks.create(
        name="mine", url=url, event_types=["batch.completed", "batch.failed"]
    )
    assert [item.id for item in client.webhooks.list()] == [endpoint.id]
    assert "batch.completed" in client.webhooks.event_types.list().data

    tested = client.webhooks.test(endpoint.id, event_type="batch.failed")
    assert (tested.status_code, tested.success) == (200, True)
    sample = made.received[0]
    receiving = openai.OpenAI(api_key="x", webhook_secret=endpoint.signing_secret)
    assert receiving.webhooks.unwrap(sample.body, sample.headers).type == "batch.failed"

    batch_id = running.submit_batch([chat_row(number) for number in range(3)])
    told = made.wait(2)[1]
    event = receiving.webhooks.unwrap(told.body, told.headers)
    assert (event.type, event.data.id) == ("batch.completed", batch_id)  # type: ignore[union-attr]
    assert client.batches.retrieve(batch_id).status == "completed"

    rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    client.webhooks.test(endpoint.id, event_type="batch.failed")
    for secret in (endpoint.signing_secret, rotated.signing_secret):
        last = made.received[-1]
        receiving.webhooks.verify_signature(last.body, last.headers, secret=secret)
    assert client.webhooks.update(endpoint.id, name="ours").name == "ours"
    assert client.webhooks.retrieve(endpoint.id).signing_secret_hint is not None

    with running.http() as http:
        own = http.post("/v1/webhook_signing_secret/rotate").json()["signing_secret"]
        body = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
        job = {"endpoint": "/v1/chat/completions", "body": body, "webhook": f"{url}/own"}
        job_id = http.post("/v1/jobs", json=job).json()["id"]
        made.wait(4)
        last = made.received[-1]
        assert last.path == "/hook/own"
        event = receiving.webhooks.unwrap(last.body, last.headers, secret=own)
        assert event.data.id == job_id  # type: ignore[union-attr]
    assert client.webhooks.delete(endpoint.id).deleted
    return [endpoint.signing_secret, rotated.signing_secret, own]


def test_a_sender_that_is_killed_before_it_could_write_it_down_sends_again(
    tmp_path: Path, database_url: str, authority: Authority
) -> None:
    answering = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if answering.wait(60):
            reply(handler)

    with receiver(answer, tls=authority.server) as made:
        options = settings(authority, made)
        with plant(tmp_path, database_url, settings=options) as running:
            running.start(workers=0)
            running.client().webhooks.create(
                name="mine",
                url=f"https://{HOST}:{made.port}/hook",
                event_types=["batch.failed"],
            )
            batch_id = running.submit_batch([chat_row(1, model="nobody's")])
            made.wait(1)  # it has all of it, and its answer is not there yet
            running.processes["upkeep"].kill()
            answering.set()
            running.restart("upkeep")
            expire_lease(running)
            first, second = made.wait(2, seconds=60)
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            assert first.body == second.body
            delivered = "SELECT count(*) FROM webhook_deliveries WHERE status = 'delivered'"
            wait_until(lambda: running.scalar(delivered) == 1, 30)
            assert running.scalar("SELECT about FROM webhook_deliveries") == batch_id


def expire_lease(running: Plant) -> None:
    """A lease lasts for half a minute; tests have less patience."""
    with running.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE webhook_deliveries SET next_attempt_at = clock_timestamp()"
        )
