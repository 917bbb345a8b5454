"""Limits of tenants with much that waits, beside much that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from shared.db.session import autocommit
from shared.errors import QuotaExceeded
from shared.lifecycle.quotas import hold, let_go, standing_of
from tests.integration.protocol import OTHER, TENANT, Plant

WAITING, ENDED = 4_000, 30_000


@pytest.fixture(name="plant")
def plant_fixture(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    yield plant
    plant.close()


def fill(plant: Plant, tenant: str, jobs: int, state: str) -> None:
    plant.sql(
        "WITH job AS ("
        " INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec)"
        " SELECT concat('job_', CAST(:state AS text), n), :tenant, 'generate', :state, 'generate',"
        "        '/v1/completions', '{}' FROM generate_series(1, :jobs) n RETURNING id, tenant_id)"
        " INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state)"
        " SELECT id, tenant_id, 'text', 'generate', 0, :state FROM job",
        tenant=tenant,
        state=state,
        jobs=jobs,
    )


def limit(plant: Plant, rows: int) -> None:
    plant.sql(
        "INSERT INTO tenant_limits (tenant_id, queued_rows) VALUES (:tenant, :rows)"
        " ON CONFLICT (tenant_id) DO UPDATE SET queued_rows = excluded.queued_rows",
        tenant=TENANT,
        rows=rows,
    )


def reserve(plant: Plant) -> None:
    """A row for each shard of the tenant's."""
    plant.sql(
        "INSERT INTO reservations (shard_id, tenant_id, rows, tokens, cost)"
        " SELECT id, tenant_id, 1, 0, 0 FROM shards WHERE tenant_id = :tenant",
        tenant=TENANT,
    )


def explained(connection: Connection, act: Any) -> list[str]:
    """The plans of the statements that ``act`` runs."""
    seen: list[tuple[Any, Any]] = []

    def note(_: Any, __: Any, statement: Any, parameters: Any, *___: Any) -> None:
        seen.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    act(connection)
    event.remove(connection, "before_cursor_execute", note)
    return [
        "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
        for statement, parameters in seen
    ]


def test_what_has_ended_is_not_read_to_accept_work(plant: Plant) -> None:
    """Whatever it is that the limits say."""
    fill(plant, OTHER, ENDED, "succeeded")
    fill(plant, TENANT, WAITING, "queued")
    limit(plant, WAITING)
    reserve(plant)
    plant.sql("ANALYZE shards")
    plant.sql("ANALYZE reservations")
    new = plant.generation(OTHER)

    def act(connection: Connection) -> None:
        hold(connection, TENANT, [new])
        standing_of(connection, TENANT)
        let_go(connection)

    with plant.engine.begin() as connection:
        plans = explained(connection, act)
    assert len(plans) >= 4
    assert [plan for plan in plans if "Seq Scan on shards" in plan] == []


def test_reservations_of_what_has_ended_are_let_go_of_and_count_for_nothing(plant: Plant) -> None:
    fill(plant, TENANT, 3, "succeeded")
    fill(plant, TENANT, 2, "queued")
    limit(plant, 2)
    reserve(plant)
    with autocommit(plant.engine) as connection:
        before = standing_of(connection, TENANT)
        assert before.open_rows == 2
        assert let_go(connection, limit=2) == 2
        assert standing_of(connection, TENANT).open_rows == 2
        assert (let_go(connection), let_go(connection)) == (1, 0)
        assert standing_of(connection, TENANT).open_rows == 2
        assert connection.execute(text("SELECT count(*) FROM reservations")).scalar() == 2


def test_limits_are_as_exact_before_reservations_were_let_go_of(plant: Plant) -> None:
    """All that is reserved would be too much; what is open is not, and then it is."""
    plant.sql(
        "INSERT INTO models (id, pool, engine, source, endpoints)"
        " VALUES ('m', 'text', 'fake', 'm', '{/v1/chat/completions}')"
    )
    limit(plant, 2)
    plant.session()
    for _ in range(4):
        plant.generation()
        claim = plant.claim_one()
        assert plant.finish("w1", claim.held)
    assert plant.scalar("SELECT count(*) FROM reservations") == 4
    plant.generation()
    plant.generation()
    with pytest.raises(QuotaExceeded):
        plant.generation()
    assert plant.scalar("SELECT count(*) FROM reservations") == 6
