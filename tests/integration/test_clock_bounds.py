"""Queries about time read what is due, however much there is that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from shared.db.file_retention import expired_files
from shared.db.queue_estimates import mean_output_tokens, recent_pace
from shared.db.retention import forget_old_keys
from shared.db.webhook_retention import _FORGET as FORGET
from shared.lifecycle import working
from shared.lifecycle.webhook_attempts import claim_deliveries
from tests.integration.protocol import CHAT, TENANT, Plant

MANY = 3_000
FEW = MANY // 10
"""Rows that a query may look at which finds none of ``MANY`` due."""

JOBS = f"""
INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, model, spec, expires_at)
SELECT 'job_' || lpad(CAST(i AS text), 26, '0'), '{TENANT}', 'generate', 'queued', 'generate',
       '{CHAT}', 'm', '{{}}', clock_timestamp() + interval '1 day'
  FROM generate_series(1, {MANY}) i
"""
SHARDS = f"""
INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, started_at, ended_at)
SELECT id, tenant_id, 'text', 'generate', 0, 'succeeded', clock_timestamp() - interval '3 hours',
       clock_timestamp() - interval '2 hours'
  FROM jobs WHERE tenant_id = '{TENANT}'
"""
USAGE = """
INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                   output_tokens, created_at)
SELECT s.id, j.endpoint, j.model, 1, j.tenant_id, j.id, 1, 1, 1,
       clock_timestamp() - interval '3 days'
  FROM shards s JOIN jobs j ON j.id = s.job_id
"""
FILES = f"""
INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key, expires_at)
SELECT 'file-' || i, '{TENANT}', 'f', 'batch_output', 1, 'sha', 'k' || i,
       clock_timestamp() + interval '1 day'
  FROM generate_series(1, {MANY}) i
"""
DELIVERIES = f"""
INSERT INTO webhook_deliveries (id, tenant_id, url, circuit, event_id, event_type, event_at, about,
                                status, attempt_n, next_attempt_at, ended_at)
SELECT w.status || i, '{TENANT}', 'https://a.example', 'a', 'e' || i, 'job.succeeded',
       clock_timestamp(), 'job', w.status, 1,
       CASE w.status WHEN 'pending' THEN clock_timestamp() + interval '1 hour' END,
       CASE w.status WHEN 'delivered' THEN clock_timestamp() END
  FROM generate_series(1, {MANY}) i, (VALUES ('pending'), ('delivered')) w (status)
"""


KEYS = f"""
INSERT INTO idempotency_keys (tenant_id, route, key, fingerprint, job_id)
SELECT tenant_id, 'r', id, 'f', id FROM jobs WHERE tenant_id = '{TENANT}'
"""

CASES: dict[str, Callable[[Connection], object]] = {
    "pace": lambda connection: recent_pace(connection, "text"),
    "outputs": lambda connection: mean_output_tokens(connection, TENANT, CHAT, "m"),
    "deadlines": working.expire_overdue,
    "files": expired_files,
    "keys": forget_old_keys,
    "deliveries that are due": lambda connection: claim_deliveries(
        connection, lease="l", lease_seconds=30, limit=8, each=8
    ),
    "old deliveries": lambda connection: connection.execute(FORGET),
}


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    for statement in (JOBS, SHARDS, USAGE, FILES, DELIVERIES, KEYS, "ANALYZE"):
        plant.sql(statement)
    yield plant
    plant.close()


def test_what_is_not_due_is_not_read(plant: Plant) -> None:
    looked_at = {name: _rows_looked_at(plant, call) for name, call in CASES.items()}
    assert {name: rows for name, rows in looked_at.items() if rows > FEW} == {}


def _rows_looked_at(plant: Plant, call: Callable[[Connection], object]) -> int:
    """By the statements of ``call``: rows that came out of tables and indexes, and rows that were
    dropped there."""
    asked: list[tuple[str, Any]] = []

    def remember(connection: Connection, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with plant.engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", remember)
        call(connection)
        event.remove(connection, "before_cursor_execute", remember)
        connection.rollback()
        assert asked
        # Tables that are this small would be read whole, whatever indexes there are.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        total = 0
        for statement, values in asked:
            explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
            (plan,) = connection.exec_driver_sql(explain, values).scalar_one()
            total += _rows(plan["Plan"])
        connection.rollback()
    return total


def _rows(node: dict[str, Any]) -> int:
    names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    own = 0
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        own = round(node["Actual Loops"] * sum(node.get(name, 0) for name in names))
    return own + sum(_rows(child) for child in node.get("Plans", ()))
