"""The second wall has no gap: every table is behind it, and each way through it is listed here.

A new table fails here until its migration enables row-level security, gives it a policy and grants
what the API does with it, and until it is listed below. What it takes is in docs/tenants.md.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, TextClause, create_engine, text

import api.app  # noqa: F401 - and with it all that the API has for requests
from shared.db.columns import metadata
from shared.db.jobs import _GETS
from shared.db.polling import _STANDINGS
from shared.db.security import ADMIN_ROLE, API_ROLE, SETTING, WORKER_ROLE
from shared.quotas.limits import Limits

ROOT = Path(__file__).resolve().parents[2]
LOCK = "id"
"""To hold a row, Postgres asks for the right to update a column of it; no id is ever updated."""
HELD_BY = {("artifacts", LOCK), ("tenants", LOCK), ("tenant_limits", "tenant_id")}
"""Columns that may be updated so that rows can be held."""

API_MAY = {
    "archived_jobs": "DELETE SELECT",
    "artifacts": "DELETE SELECT",
    "begun_objects": "DELETE INSERT SELECT",
    "checkpoints": "SELECT",
    "deletion_objects": "INSERT SELECT",
    "deletions": "INSERT SELECT",
    "deltas": "SELECT",
    "events": "INSERT SELECT",
    "feed_rows": "DELETE SELECT",
    "files": "INSERT SELECT",
    "idempotency_keys": "DELETE INSERT SELECT",
    "job_models": "INSERT SELECT",
    "job_webhooks": "INSERT",
    "jobs": "INSERT SELECT",
    "limit_notices": "SELECT",
    "model_alias_moves": "INSERT SELECT",
    "model_aliases": "DELETE INSERT SELECT",
    "models": "SELECT",
    "monitor_batches": "SELECT",
    "monitor_texts": "INSERT SELECT",
    "monitor_windows": "INSERT SELECT",
    "monitors": "DELETE INSERT SELECT",
    "production_batches": "SELECT",
    "productions": "INSERT SELECT",
    "rate_buckets": "INSERT SELECT",
    "reservations": "INSERT SELECT",
    "retention_policies": "SELECT",
    "schedule_runs": "SELECT",
    "schedules": "DELETE INSERT SELECT",
    "shards": "INSERT SELECT",
    "steps": "DELETE INSERT SELECT",
    "sweeps": "SELECT",
    "tenant_limits": "SELECT",
    "tenants": "SELECT",
    "training_metrics": "SELECT",
    "trials": "SELECT",
    "upload_parts": "INSERT SELECT",
    "uploads": "INSERT SELECT",
    "usage": "SELECT",
    "usage_days": "SELECT",
    "webhook_circuits": "SELECT",
    "webhook_deliveries": "INSERT SELECT",
    "webhook_endpoints": "INSERT SELECT",
    "webhook_secrets": "INSERT SELECT",
}
"""What requests of tenants do with which table. Least privilege: add what a route needs."""
API_CHANGES = {
    "artifacts": LOCK,
    "begun_objects": "begun_at",
    "files": "expires_at deleted_at",
    "idempotency_keys": "claim claimed_at fingerprint job_id object_id created_at",
    "jobs": "state stage spec result metadata version detail request_hash shards_open"
    " rows_completed rows_failed input_tokens output_tokens error_code error_message"
    " stop_reason cancel_requested_at paused_at finalizing_at ended_at cleaned_at deleted_at",
    "model_aliases": "model version standing moved_at gate_job_id",
    "models": "deleted_at",
    "monitor_windows": "texts",
    "monitors": "state error_code error_message next_look_at readers_out updated_at",
    "rate_buckets": "full_at",
    "schedules": "state paused_reason failures run_asked next_run_at readers_out updated_at",
    "shards": "state blocked_n ready_seq rows_completed rows_failed ended_at",
    "steps": "ended",
    "tenant_limits": "tenant_id",
    "tenants": LOCK,
    "uploads": "join_id join_sha256 cancelled_at ended_at",
    "webhook_deliveries": "status attempt_n next_attempt_at lease status_code error_code"
    " queued_at ended_at",
    "webhook_endpoints": "name url event_types secret old_secret old_secret_until"
    " disabled_at disabled_reason updated_at deleted_at",
    "webhook_secrets": "secret old_secret old_secret_until updated_at",
}
"""The columns that they change, and no others."""
ADMIN_MAY = {
    "api_keys": "INSERT SELECT",
    "archived_jobs": "SELECT",
    "deletion_objects": "INSERT SELECT",
    "deletions": "INSERT SELECT",
    "retention_policies": "DELETE INSERT SELECT",
    "tenant_limits": "DELETE INSERT SELECT",
    "tenants": "INSERT SELECT",
    "usage": "SELECT",
    "usage_days": "SELECT",
}
"""What requests with the admin key do."""
ADMIN_CHANGES = {
    "api_keys": "revoked_at",
    "retention_policies": "days updated_at",
    "tenant_limits": " ".join((*Limits._fields, "settled")),
    "tenants": "name weight disabled_at max_running_shards",
}
NOT_FOR_TENANTS = {
    "sessions": "workers, of nobody in particular",
    "shares": "what every tenant was served; dispatch alone looks at it",
}
"""Tables without a policy for requests of tenants, who have no right to them either."""
VIEWS = {
    "pool_work": ["ended_at", "pool", "started_at", "state"],
    "served_pools": ["pool"],
}
"""What the API sees of everybody's work, and its columns: nobody's name, and no id."""
ACTS = {
    "api/acting.py": "streams go on for whom their request was",
    "api/app.py": "requests of several tenants share one INSERT",
    "api/delta_reader.py": "one thread reads for all streams",
    "api/idempotency.py": "claims are released after the view",
    "api/polling_again.py": "polls that no view answers",
    "api/rate_limiting.py": "limits are looked at before the view",
    "api/routes/admin.py": "limits that are new count what the tenant has open",
    "api/routing.py": "every view, for the tenant or the administrator who calls",
    "api/waiting.py": "one thread asks for all who wait",
}
"""Who says for whom a transaction is; why there."""


@pytest.fixture(name="database")
def database_fixture(database_url: str) -> Iterator[Connection]:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def rows(database: Connection, query: str, **values: Any) -> list[Any]:
    return list(database.execute(text(query), values))


def test_every_table_is_behind_the_wall(database: Connection) -> None:
    found = rows(
        database,
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
        " WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace",
    )
    open_ = {row.relname for row in found if not (row.relrowsecurity and row.relforcerowsecurity)}
    assert open_ == {"alembic_version"}, "tables whose migration enables no row-level security"
    assert {row.relname for row in found} == {*metadata.tables, "alembic_version"}


def test_each_table_shows_tenants_their_rows_and_workers_all(database: Connection) -> None:
    policies: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in rows(database, "SELECT * FROM pg_policies WHERE schemaname = 'public'"):
        assert row.permissive == "PERMISSIVE"
        [role] = row.roles
        policies[row.tablename].setdefault(role, []).append(row)
    assert set(policies) == set(metadata.tables)
    for table, by_role in policies.items():
        [workers] = by_role[WORKER_ROLE]
        assert (workers.cmd, workers.qual) == ("ALL", "true"), table
        if table in NOT_FOR_TENANTS:
            assert API_ROLE not in by_role, table
            continue
        for policy in by_role[API_ROLE]:
            own = f"current_setting('{SETTING}'::text, true)" in policy.qual
            parents = [parent for parent in metadata.tables if f"FROM {parent} p" in policy.qual]
            assert own or parents, f"{table}: {policy.qual}"
            assert all(parent not in NOT_FOR_TENANTS for parent in parents)


def granted(database: Connection, role: str) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Verbs by table, alphabetically; and the columns that may be updated, by table."""
    verbs: dict[str, set[str]] = defaultdict(set)
    changes: dict[str, set[str]] = defaultdict(set)
    whole = rows(
        database,
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
        " WHERE grantee = :role AND table_schema = 'public'",
        role=role,
    )
    for row in whole:
        verbs[row.table_name].add(row.privilege_type)
    columns = rows(
        database,
        "SELECT table_name, column_name, privilege_type"
        " FROM information_schema.role_column_grants"
        " WHERE grantee = :role AND table_schema = 'public'",
        role=role,
    )
    for row in columns:
        if row.privilege_type not in verbs[row.table_name]:
            assert row.privilege_type == "UPDATE", tuple(row)
            changes[row.table_name].add(row.column_name)
    return {table: " ".join(sorted(found)) for table, found in verbs.items() if found}, changes


def listed(columns: dict[str, str]) -> dict[str, set[str]]:
    return {table: set(names.split()) for table, names in columns.items()}


def test_requests_may_do_what_is_listed_and_no_more(database: Connection) -> None:
    may, changes = granted(database, API_ROLE)
    assert may == API_MAY | dict.fromkeys(VIEWS, "SELECT")
    assert changes == listed(API_CHANGES)
    may, changes = granted(database, ADMIN_ROLE)
    assert may == ADMIN_MAY
    assert changes == listed(ADMIN_CHANGES)


SETS = re.compile(r"([a-z_0-9]+) = ")


def statements(value: object, depth: int = 3) -> Iterator[str]:
    """The SQL in a module's global, which may be a table of statements."""
    if isinstance(value, TextClause):
        yield value.text
    elif depth and isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from statements(item, depth - 1)


def changed_columns() -> dict[str, set[str]]:
    """By table, every column that a statement sets which the API has loaded."""
    found: dict[str, set[str]] = defaultdict(set)
    loaded = [module for name, module in sys.modules.items() if name.startswith("shared.")]
    for text_ in {
        each for module in loaded for value in vars(module).values() for each in statements(value)
    }:
        updates = re.split(r"\bUPDATE\s+(?=[a-z_]+\s+(?:[a-z]+\s+)?SET\b)", text_)[1:]
        for update in updates:
            table = re.match(r"[a-z_]+", update)
            assert table is not None
            found[table[0]] |= set(SETS.findall(update.partition("WHERE")[0]))
        for conflict in re.findall(r"INTO ([a-z_]+).*DO UPDATE\s+SET (.*)", text_, re.DOTALL):
            found[conflict[0]] |= set(SETS.findall(conflict[1].partition("WHERE")[0]))
    return found


def test_what_may_be_changed_is_changed_by_some_statement() -> None:
    """A column that no request writes any more is to be taken from its role. That none is missing
    is shown by every test of the API, which acts as these roles."""
    changed = changed_columns()
    idle = {
        (table, column)
        for columns in (API_CHANGES, ADMIN_CHANGES)
        for table, names in listed(columns).items()
        for column in names - changed[table]
    }
    assert idle == HELD_BY


def test_the_roles_are_nobody_special(database: Connection) -> None:
    found = rows(
        database,
        "SELECT rolname, rolsuper OR rolbypassrls OR rolcanlogin OR rolcreaterole OR rolcreatedb"
        "   AS special, EXISTS (SELECT FROM pg_class WHERE relowner = r.oid) AS owns,"
        "   EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) AS belongs"
        "  FROM pg_roles r WHERE rolname = ANY(:roles)",
        roles=[API_ROLE, ADMIN_ROLE, WORKER_ROLE],
    )
    roles = {row.rolname: (row.special, row.owns, row.belongs) for row in found}
    assert roles == dict.fromkeys((API_ROLE, ADMIN_ROLE, WORKER_ROLE), (False, False, False))
    assert not rows(
        database, "SELECT FROM pg_roles WHERE has_schema_privilege(:role, 'public', 'CREATE')"
        " AND rolname = :role", role=API_ROLE,
    )  # fmt: skip


def test_what_is_seen_of_everybody_names_nobody(database: Connection) -> None:
    seen = rows(
        database,
        "SELECT table_name, array_agg(CAST(column_name AS text) ORDER BY column_name) AS columns"
        "  FROM information_schema.columns JOIN pg_views ON viewname = table_name"
        " WHERE table_schema = 'public' AND schemaname = 'public' GROUP BY table_name",
    )
    assert {row.table_name: row.columns for row in seen} == VIEWS
    functions = rows(
        database,
        "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') AS for_all"
        "  FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
        " ORDER BY proname",
    )
    assert [tuple(row) for row in functions] == [
        (name, ["search_path=public, pg_temp"], False)
        for name in ("pressrun_key_owner", "pressrun_rivals_ahead")
    ]


@pytest.mark.parametrize("statement", [*_GETS.values(), *_STANDINGS.values()])
def test_statements_that_say_for_whom_say_it_before_they_look(
    database: Connection, statement: Any
) -> None:
    """The plan begins with the call that says it: only then is anything below it run."""
    values = {"tenant": "ten_x", "id": "job_x"}
    explained = text(f"EXPLAIN (FORMAT JSON, VERBOSE) {statement.text}")
    for small in ("on", "off"):  # as plans are of small tables, and of large ones
        database.execute(text(f"SET LOCAL enable_seqscan = {small}"))
        [plan] = database.execute(explained, values | {"acting_for": "ten_x"}).scalar_one()
        node = plan["Plan"]
        while node["Node Type"] in {"Limit", "Sort"}:
            [node] = node["Plans"]
        assert "IS NOT NULL" in node["One-Time Filter"], json.dumps(plan, indent=1)
        name = node["One-Time Filter"].partition("(InitPlan ")[2].partition(")")[0]
        [said] = [one for one in node["Plans"] if one.get("Subplan Name") == f"InitPlan {name}"]
        assert SETTING in said["Output"][0]


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Where the API calls the function, and how."""
    for path in sorted((ROOT / "api").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name:
                yield str(path.relative_to(ROOT)), node


def test_few_say_for_whom_a_transaction_is() -> None:
    names = ("acting_for", "acting_as", "administrating")
    assert {path for name in names for path, _ in calls(name)} == set(ACTS)
    assert [path for path, _ in calls("administrating")] == ["api/routing.py"]


def test_every_connection_of_the_api_is_walled() -> None:
    made = list(calls("make_engine"))
    assert [path for path, _ in made] == ["api/app.py"] * len(made)
    assert len(made) >= 2
    for _, call in made:
        roles = [ast.unparse(word.value) for word in call.keywords if word.arg == "role"]
        assert roles == ["API_ROLE"]
    assert not list(calls("create_engine"))
