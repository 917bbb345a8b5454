"""What Postgres makes of the statements that claim: none reads all shards, however many wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import TextClause, create_engine, text

from shared.db.session import make_engine
from shared.lifecycle.claim import _CLAIM_ALL, _CLAIM_ALONE
from shared.lifecycle.dispatch import _DISPATCH
from shared.lifecycle.turns import _LINE, _TAKE

QUEUED, READY = 20_000, 32
VALUES: dict[str, Any] = {
    "me": "w1", "pool": "text", "tenant": "ten_a", "max_shards": 64, "max_rows": 16,
    "upkeep": "upkeep", "window": 32, "most_tenants": 64, "most_shards": 256, "least_depth": 8,
    "most_depth": 96, "ids": [1, 2], "pool_times": [0.0, 0.0], "starts": [0.0, 0.0],
    "capped": [], "claims": [],
}  # fmt: skip
_TENANT = text("INSERT INTO tenants (id, name) VALUES ('ten_a', 'a'), ('ten_b', 'b')")
_JOB = text(
    "INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec)"
    " VALUES ('batch_a', 'ten_a', 'batch', 'running', 'generate', '-', '{}')"
)
_SHARDS = text(
    "INSERT INTO shards (job_id, tenant_id, pool, stage, ordinal, state, ready_seq, model)"
    " SELECT 'batch_a', 'ten_a', 'text', 'generate', n,"
    "        CASE WHEN n <= :ready THEN 'ready' ELSE 'queued' END,"
    "        CASE WHEN n <= :ready THEN n END, 'm'"
    "   FROM generate_series(1, :count) n"
)


@pytest.fixture(name="plans")
def plans_fixture(database_url: str) -> Iterator[Any]:
    """How Postgres would run a statement, as JSON, with many shards queued."""
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:

        def explain(statement: TextClause) -> str:
            found = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), VALUES)
            return json.dumps(found.scalar_one())

        connection.execute(_TENANT)
        connection.execute(_JOB)
        connection.execute(_SHARDS, {"count": QUEUED + READY, "ready": READY})
        connection.execute(text("ANALYZE shards"))
        yield explain
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [_CLAIM_ALL, _CLAIM_ALONE, _LINE, _TAKE, _DISPATCH],
    ids=["all", "alone", "line", "take", "dispatch"],
)
def test_no_plan_reads_all_shards(plans: Any, statement: TextClause) -> None:
    scans = [
        node
        for node in nodes(json.loads(plans(statement)))
        if node.get("Relation Name") == "shards" and node["Node Type"] == "Seq Scan"
    ]
    assert scans == []


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    if isinstance(plan, list):
        for part in plan:
            yield from nodes(part)
    elif isinstance(plan, dict):
        if "Node Type" in plan:
            yield plan
        for part in plan.values():
            yield from nodes(part)


def test_kept_plans_of_short_statements_read_no_whole_table(database_url: str) -> None:
    engine = make_engine(
        database_url, process="test", always_autocommit=True, short_statements=True
    )
    with engine.connect() as connection:
        plan = connection.execute(text("EXPLAIN SELECT 1 FROM shards WHERE id > 0"))
        assert "Seq Scan" not in "".join(plan.scalars())
    engine.dispose()
