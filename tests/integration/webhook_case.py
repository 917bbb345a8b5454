"""Webhook endpoints in a plant's database, and short names for what their sender does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Row, create_engine, text

from pressrun.embedded_postgres_server import EmbeddedPostgres
from shared.db import webhooks
from shared.ids import new_webhook_endpoint_id
from shared.lifecycle import JobWebhook, attach_webhook
from shared.lifecycle.webhook_attempts import (
    Attempt,
    LeasedDelivery,
    claim_deliveries,
    record_attempts,
)
from shared.lifecycle.webhooks import announce_ends
from shared.webhook_events import event_types
from shared.webhook_signing import new_secret
from tests.conftest import _database
from tests.integration.protocol import TENANT, Plant

URL = "https://hooks.example.com/x"


@pytest.fixture(scope="module", name="module_database_url")
def module_database_fixture(
    postgres_server: EmbeddedPostgres, database_template: str
) -> Iterator[str]:
    """A database for all tests of a module: a new one costs more than most of them."""
    for name in _database(postgres_server, database_template):
        yield postgres_server.url_of(name)


@pytest.fixture(name="emptied_database_url")
def emptied_database_fixture(module_database_url: str) -> str:
    """The module's database, without a row."""
    engine = create_engine(module_database_url)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE tenants, sessions, webhook_circuits CASCADE"))
    engine.dispose()
    return module_database_url


def endpoint(
    plant: Plant, *, tenant: str = TENANT, types: Sequence[str] | None = None, url: str = URL
) -> str:
    """The id of an endpoint that is told everything, or ``types``."""
    with plant.engine.begin() as connection:
        made = webhooks.create_endpoint(
            connection,
            endpoint_id=new_webhook_endpoint_id(),
            tenant_id=tenant,
            name="e",
            url=url,
            event_types=event_types() if types is None else types,
            secret=new_secret(),
        )
    assert made is not None
    return made.id


def attach(plant: Plant, job_id: str, url: str, events: tuple[str, ...] | None = None) -> None:
    with plant.engine.begin() as connection:
        attach_webhook(connection, job_id, JobWebhook(url, events))


def announce(plant: Plant, limit: int = 500) -> tuple[int, int]:
    with plant.engine.begin() as connection:
        return announce_ends(connection, limit=limit)


def ended(plant: Plant, count: int, *, tenant: str = TENANT) -> list[str]:
    """So many jobs that were cancelled while they waited; nobody was told yet."""
    jobs = [plant.generation(tenant) for _ in range(count)]
    assert all(plant.stop(job, tenant) for job in jobs)
    return jobs


def claim(
    plant: Plant, lease: str = "s1", *, limit: int = 99, each: int = 99, seconds: float = 60
) -> list[LeasedDelivery]:
    with plant.engine.begin() as connection:
        return claim_deliveries(
            connection, lease=lease, lease_seconds=seconds, limit=limit, each=each
        )


def record(
    plant: Plant, claimed: Sequence[LeasedDelivery], lease: str = "s1", **outcome: Any
) -> int:
    """All of them came to the same; a success where no ``error_code`` is given."""
    outcome = outcome or {"status_code": 200}
    attempts = [Attempt(delivery=item, at=1e9, milliseconds=5, **outcome) for item in claimed]
    with plant.engine.begin() as connection:
        return record_attempts(connection, lease, attempts)


def fail(plant: Plant, claimed: Sequence[LeasedDelivery], lease: str = "s1", **more: Any) -> int:
    return record(plant, claimed, lease, error_code="timeout", **more)


def make_due(plant: Plant) -> None:
    """Time passes: pauses and leases are over, and open circuits may be probed."""
    plant.sql(
        "UPDATE webhook_deliveries SET next_attempt_at = clock_timestamp() - interval '1 s'"
        " WHERE status = 'pending'"
    )
    plant.sql("UPDATE webhook_circuits SET open_until = NULL")


def deliveries(plant: Plant) -> list[Row[Any]]:
    return list(plant.sql("SELECT * FROM webhook_deliveries ORDER BY id"))


def told(plant: Plant) -> list[tuple[str, str]]:
    """(job, type) of every delivery."""
    return [(row.about, row.event_type) for row in deliveries(plant)]
