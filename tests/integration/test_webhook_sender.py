"""The sender against a receiver on this machine: what arrives, what is written down, and that
nobody waits for those who hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import openai
import pytest
import structlog
from sqlalchemy.exc import OperationalError
from standardwebhooks import Webhook

from shared.db import webhooks
from shared.egress import parse_allowed
from shared.lifecycle import add_test_delivery
from shared.webhook_retries import FAILURES_TO_OPEN
from shared.webhook_signing import new_secret
from tests.integration.protocol import OTHER, TENANT, Plant
from tests.integration.webhook_case import (
    attach,
    deliveries,
    emptied_database_fixture,
    ended,
    endpoint,
    make_due,
    module_database_fixture,
)
from tests.integration.webhook_receiver import Received, Receiver, receiver, reply
from tests.plant import wait_until
from worker.egress import Egress
from worker.upkeep import webhooks as sending
from worker.upkeep.webhooks import EACH_RECEIVER, WebhookSender

TIMEOUT_SECONDS = 10.0

__all__ = ["emptied_database_fixture", "module_database_fixture"]


@pytest.fixture
def plant(emptied_database_url: str) -> Iterator[Plant]:
    made = Plant(emptied_database_url)
    yield made
    made.close()


@contextmanager
def sender(plant: Plant, *receivers: Receiver, concurrency: int = 24) -> Iterator[WebhookSender]:
    allowed = parse_allowed(",".join(f"127.0.0.1:{made.port}" for made in receivers))
    made = WebhookSender(
        plant.engine,
        Egress(allowed=allowed, timeout_seconds=TIMEOUT_SECONDS),
        concurrency=concurrency,
        timeout_seconds=TIMEOUT_SECONDS,
        pause_seconds=0.05,
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


def until(plant: Plant, condition: Callable[[], bool]) -> None:
    wait_until(condition, 30, lambda: str([tuple(row) for row in deliveries(plant)]), 0.02)


def statuses(plant: Plant) -> list[str]:
    return sorted(row.status for row in deliveries(plant))


def secret_of(plant: Plant, endpoint_id: str) -> str:
    return str(plant.scalar("SELECT secret FROM webhook_endpoints WHERE id = :id", id=endpoint_id))


def verified(request: Received, secret: str) -> Any:
    """By the library of the specification, and by OpenAI's."""
    Webhook(secret).verify(request.body, request.headers)
    client = openai.OpenAI(api_key="x", webhook_secret=secret)
    return client.webhooks.unwrap(request.body, request.headers)


def test_what_arrives_is_signed_and_what_came_of_it_is_written_down(plant: Plant) -> None:
    with receiver() as made, sender(plant, made), structlog.testing.capture_logs() as logs:
        listening = endpoint(plant, url=made.url)
        with plant.engine.begin() as connection:
            own = webhooks.rotate_secret(connection, TENANT, secret=new_secret(), keep_old=False)
        [job] = ended(plant, 1)
        [request] = made.wait(1)
        event = verified(request, secret_of(plant, listening))
        assert (event.type, event.data.id) == ("job.cancelled", job)
        assert request.headers["content-type"] == "application/json"
        assert request.headers["webhook-id"] == event.id
        until(plant, lambda: statuses(plant) == ["delivered"])
        [row] = deliveries(plant)
        assert (row.status_code, row.error_code, row.lease) == (200, None, None)
        [attempt] = row.attempts
        assert attempt["status_code"] == 200
        assert 0 <= attempt["milliseconds"] < 10_000

        second = plant.generation(OTHER)
        attach(plant, second, f"{made.url}?of={second}")
        third = plant.generation()
        attach(plant, third, f"{made.url}?of={third}")
        for job_id, tenant in ((second, OTHER), (third, TENANT)):
            plant.stop(job_id, tenant)
        until(plant, lambda: statuses(plant).count("delivered") == 3)
        mine = [item for item in made.received if item.path.endswith(third)]
        assert verified(mine[0], own.secret).data.id == third
        # Nobody could verify it: it is not sent at all.
        assert not [item for item in made.received if item.path.endswith(second)]
        [unsent] = [row for row in deliveries(plant) if row.tenant_id == OTHER]
        assert (unsent.status, unsent.error_code) == ("failed", "no_secret")
    written = str(logs)
    for hidden in (own.secret, secret_of(plant, listening), made.url, "127.0.0.1"):
        assert hidden not in written


def test_in_a_rotation_both_secrets_verify(plant: Plant) -> None:
    with receiver() as made:
        listening = endpoint(plant, url=made.url)
        old = secret_of(plant, listening)
        with plant.engine.begin() as connection:
            webhooks.rotate_endpoint_secret(
                connection, TENANT, listening, secret=new_secret(), keep_old=True
            )
        ended(plant, 1)
        with sender(plant, made):
            [request] = made.wait(1)
        for secret in (old, secret_of(plant, listening)):
            verified(request, secret)


def test_answers_that_are_no_success_are_tried_again_or_not(plant: Plant) -> None:
    answers: dict[str, tuple[int, dict[str, str]]] = {
        "/500": (500, {}),
        "/302": (302, {"Location": "/200"}),
        "/404": (404, {}),
        "/429": (429, {"Retry-After": "1234"}),
        "/410": (410, {}),
        "/204": (204, {}),
    }

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status, headers = answers[handler.path]
        reply(handler, status, b"" if status == 204 else b"no", **headers)

    with receiver(answer) as made, sender(plant, made):
        base = made.url.removesuffix("/hook")
        ids = {path: endpoint(plant, url=base + path) for path in answers}
        ended(plant, 1)
        made.wait(len(answers))
        until(plant, lambda: all(row.attempts for row in deliveries(plant)))
    found = {row.endpoint_id: row for row in deliveries(plant)}
    rows = {path: found[endpoint_id] for path, endpoint_id in ids.items()}
    assert {path: (row.status, row.error_code) for path, row in rows.items()} == {
        "/500": ("pending", "http_500"),
        "/302": ("pending", "http_302"),
        "/404": ("pending", "http_404"),
        "/429": ("pending", "http_429"),
        "/410": ("failed", "http_410"),
        "/204": ("delivered", None),
    }
    pause = "SELECT extract(epoch FROM next_attempt_at - clock_timestamp()) FROM webhook_deliveries"
    assert 1_200 < plant.scalar(f"{pause} WHERE status_code = 429") <= 1_234
    assert 0 < plant.scalar(f"{pause} WHERE status_code = 500") <= 6
    assert plant.scalar("SELECT url FROM webhook_endpoints WHERE disabled_reason = 'gone'") == (
        base + "/410"
    )


def test_attempts_have_one_id_and_their_own_times(plant: Plant) -> None:
    codes = iter([500, 503, 200])
    with receiver(lambda handler: reply(handler, next(codes))) as made, sender(plant, made):
        endpoint(plant, url=made.url)
        ended(plant, 1)
        for number in range(1, 4):
            made.wait(number)
            until(plant, lambda: len(deliveries(plant)[0].attempts) == number)  # noqa: B023
            make_due(plant)
        until(plant, lambda: statuses(plant) == ["delivered"])
    ids = {request.headers["webhook-id"] for request in made.received}
    assert len(ids) == 1
    times = [int(request.headers["webhook-timestamp"]) for request in made.received]
    assert times == sorted(times)
    assert len({request.body for request in made.received}) == 1


def test_receivers_that_hang_delay_nobody_else(plant: Plant) -> None:
    release = threading.Event()
    under_way: list[int] = []

    def hang(handler: BaseHTTPRequestHandler) -> None:
        under_way.append(1)
        release.wait(TIMEOUT_SECONDS)
        reply(handler)

    with receiver(hang) as dead, receiver() as alive:
        endpoint(plant, url=dead.url)
        endpoint(plant, tenant=OTHER, url=alive.url)
        ended(plant, 3 * EACH_RECEIVER)
        ended(plant, 30, tenant=OTHER)
        with sender(plant, dead, alive):
            alive.wait(30)
            dead.wait(EACH_RECEIVER)
            until(plant, lambda: statuses(plant).count("delivered") == 30)
            assert len(dead.received) == EACH_RECEIVER == len(under_way)
            release.set()
            until(plant, lambda: set(statuses(plant)) == {"delivered"})
            assert len(dead.received) == 3 * EACH_RECEIVER


def test_a_dead_receiver_is_left_alone_and_gets_everything_when_it_is_back(plant: Plant) -> None:
    back = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 200 if back.is_set() else 500)

    with receiver(answer) as made, sender(plant, made, concurrency=FAILURES_TO_OPEN):
        listening = endpoint(plant, url=made.url)
        jobs = ended(plant, 40)
        made.wait(FAILURES_TO_OPEN)
        until(
            plant,
            lambda: bool(plant.sql("SELECT 1 FROM webhook_circuits WHERE open_until > now()")),
        )
        until(
            plant,
            lambda: (
                plant.scalar("SELECT count(*) FROM webhook_deliveries WHERE lease IS NOT NULL") == 0
            ),
        )
        tried = len(made.received)
        assert tried < 2 * FAILURES_TO_OPEN
        # A sample goes past it, and tells how it is.
        with plant.engine.begin() as connection:
            add_test_delivery(
                connection, tenant_id=TENANT, endpoint_id=listening, kind="batch.failed"
            )
        made.wait(tried + 1)
        back.set()
        make_due(plant)
        until(plant, lambda: statuses(plant).count("delivered") == 40)
    told = {str(verified(item, secret_of(plant, listening)).data.id) for item in made.received}
    assert told == {*jobs, f"test_{listening}"}


def test_what_was_sent_is_written_down_once_the_database_is_back(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = sending.record_attempts

    def record(*arguments: Any) -> int:
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("UPDATE", {}, Exception("gone"))
        return real(*arguments)

    monkeypatch.setattr(sending, "record_attempts", record)
    with receiver() as made, sender(plant, made), structlog.testing.capture_logs() as logs:
        endpoint(plant, url=made.url)
        ended(plant, 1)
        until(plant, lambda: statuses(plant) == ["delivered"])
    assert len(made.received) == 1
    assert "webhooks_postponed" in {line["event"] for line in logs}


def test_nothing_that_goes_wrong_ends_the_sender(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = sending.payload

    def broken(**fields: Any) -> bytes:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return real(**fields)

    monkeypatch.setattr(sending, "payload", broken)
    monkeypatch.setattr(sending, "clean_webhooks", lambda connection: 1 // 0)
    with receiver() as made, sender(plant, made, concurrency=1):
        endpoint(plant, url=made.url)
        ended(plant, 1)
        until(plant, lambda: bool(deliveries(plant)) and bool(deliveries(plant)[0].attempts))
        assert deliveries(plant)[0].error_code == "internal_error"
        make_due(plant)
        until(plant, lambda: statuses(plant) == ["delivered"])


def test_a_stop_writes_down_what_is_under_way(plant: Plant) -> None:
    go = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        go.wait(TIMEOUT_SECONDS)
        reply(handler)

    with receiver(answer) as made:
        endpoint(plant, url=made.url)
        ended(plant, 1)
        with sender(plant, made):
            made.wait(1)
            threading.Timer(0.3, go.set).start()
        assert statuses(plant) == ["delivered"]
