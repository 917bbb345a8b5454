"""A second wall between tenants: row-level security, and roles that are let through it.

Roles belong to the server and not to the database: they are made where they are missing, by a user
who may, and a downgrade leaves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

API, ADMIN, WORKER = ROLES = ("pressrun_api", "pressrun_admin", "pressrun_worker")

MINE = "CAST((SELECT string_to_array(current_setting('pressrun.tenants', true), ',')) AS text[])"
"""The tenants of this transaction; a subquery, so that it is asked for once a statement."""

OWNED = {
    "api_keys": "",
    "archived_jobs": "SELECT, DELETE",
    "artifacts": "SELECT, UPDATE (id), DELETE",
    "checkpoints": "SELECT",
    "deletion_objects": "SELECT, INSERT",
    "deletions": "SELECT, INSERT, UPDATE",
    "deltas": "SELECT",
    "events": "SELECT, INSERT",
    "feed_rows": "SELECT, DELETE",
    "files": "SELECT, INSERT, UPDATE",
    "idempotency_keys": "SELECT, INSERT, UPDATE, DELETE",
    "job_models": "SELECT, INSERT",
    "jobs": "SELECT, INSERT, UPDATE",
    "model_alias_moves": "SELECT, INSERT",
    "model_aliases": "SELECT, INSERT, UPDATE, DELETE",
    "models": "SELECT, UPDATE (deleted_at)",
    "monitor_batches": "SELECT",
    "monitor_texts": "SELECT, INSERT",
    "monitor_windows": "SELECT, INSERT, UPDATE",
    "monitors": "SELECT, INSERT, UPDATE, DELETE",
    "production_batches": "SELECT",
    "productions": "SELECT, INSERT",
    "rate_buckets": "SELECT, INSERT, UPDATE",
    "reservations": "SELECT, INSERT, UPDATE, DELETE",
    "retention_marks": "",
    "retention_policies": "SELECT",
    "schedule_runs": "SELECT",
    "schedules": "SELECT, INSERT, UPDATE, DELETE",
    "shards": "SELECT, INSERT, UPDATE",
    "tenant_limits": "SELECT, UPDATE",
    "tenants": "SELECT, UPDATE (id)",
    "uploads": "SELECT, INSERT, UPDATE",
    "usage": "SELECT",
    "usage_days": "SELECT",
    "webhook_deliveries": "SELECT, INSERT, UPDATE",
    "webhook_endpoints": "SELECT, INSERT, UPDATE",
    "webhook_secrets": "SELECT, INSERT, UPDATE",
}
"""Tables that say whose each row is; and what requests of tenants do with them. Rows whose ``id``
may be updated are locked: an id is never changed."""
_NOBODYS = f"tenant_id IS NULL AND cardinality({MINE}) > 0"
EVERYBODYS = {
    "everybodys": f"FOR SELECT TO {API} USING ({_NOBODYS})",
    "everybodys_locks": f"FOR UPDATE TO {API} USING ({_NOBODYS}) WITH CHECK (false)",
}
"""Models without a tenant are offered to all: to be read, and held while something names them."""
PARENTS = {
    "job_webhooks": ("jobs", "id", "job_id", "INSERT"),
    "steps": ("jobs", "id", "job_id", "SELECT, INSERT, UPDATE, DELETE"),
    "sweeps": ("jobs", "id", "job_id", "SELECT"),
    "training_metrics": ("jobs", "id", "job_id", "SELECT"),
    "trials": ("jobs", "id", "job_id", "SELECT"),
    "upload_parts": ("uploads", "id", "upload_id", "SELECT, INSERT"),
    "webhook_circuits": ("webhook_endpoints", "id", "key", "SELECT"),
}
"""Tables whose rows are whose the row is that they belong to: its table, its key, their column."""
WORKERS = ("sessions", "shares")
"""Tables that workers alone look at."""
ADMINISTERED = {
    "api_keys": "SELECT, INSERT, UPDATE",
    "archived_jobs": "SELECT",
    "deletion_objects": "SELECT, INSERT",
    "deletions": "SELECT, INSERT, UPDATE",
    "retention_policies": "SELECT, INSERT, UPDATE, DELETE",
    "tenant_limits": "SELECT, INSERT, UPDATE, DELETE",
    "tenants": "SELECT, INSERT, UPDATE",
    "usage": "SELECT",
    "usage_days": "SELECT",
}
TABLES = (*OWNED, *PARENTS, *WORKERS)

VIEWS = {
    "pool_work": """
SELECT pool, state, started_at, ended_at FROM shards WHERE state IN ('succeeded', 'failed')
""",
    "served_pools": """
SELECT unnest(pools) AS pool FROM sessions
 WHERE expires_at > clock_timestamp() AND NOT draining
""",
}
"""What requests may know of other tenants' work: how fast lines move."""

KEY_OWNER = """
CREATE FUNCTION pressrun_key_owner(key_hash bytea)
RETURNS TABLE (tenant_id text, seconds_left double precision)
LANGUAGE sql SECURITY DEFINER SET search_path = {schema}, pg_temp ROWS 1 AS $$
SELECT k.tenant_id,
       CAST(extract(epoch FROM k.expires_at - clock_timestamp()) AS double precision)
  FROM api_keys k
 WHERE k.hash = key_hash AND k.revoked_at IS NULL
   AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
$$
"""
"""Whose key it is has to be asked before anybody is acted for."""

RIVALS_AHEAD = """
CREATE FUNCTION pressrun_rivals_ahead(of_pool text, of_tenant text, own bigint, most bigint)
RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
SELECT CAST(coalesce(sum(least(
           CASE WHEN (SELECT true FROM shards q WHERE q.pool = of_pool AND q.state = 'queued'
                         AND q.tenant_id = rival.tenant_id AND q.blocked_n = 0
                       ORDER BY q.priority, q.id LIMIT 1) THEN most ELSE rival.n END,
           ceil((own + 1) * theirs.weight / mine.weight))), 0) AS bigint)
  FROM (SELECT w.tenant_id, count(*) AS n
          FROM (SELECT tenant_id FROM shards WHERE pool = of_pool AND state = 'ready'
                   AND tenant_id <> of_tenant LIMIT most) w
         GROUP BY w.tenant_id) rival
  JOIN tenants theirs ON theirs.id = rival.tenant_id JOIN tenants mine ON mine.id = of_tenant
$$
"""
"""How many shards of others go before one that waits behind ``own`` of its tenant's: of each as
many as its weight is owed in the meantime, or all that it has. One number, of all together."""

FUNCTIONS = {
    "pressrun_key_owner(bytea)": KEY_OWNER,
    "pressrun_rivals_ahead(text, text, bigint, bigint)": RIVALS_AHEAD,
}


def upgrade() -> None:
    schema = op.get_bind().dialect.identifier_preparer.quote(_schema())
    for statement in _roles():
        op.execute(statement)
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {', '.join(ROLES)}")
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY workers ON {table} TO {WORKER} USING (true) WITH CHECK (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {WORKER}")
    op.execute(f"GRANT USAGE ON SEQUENCE ready_seq TO {API}, {WORKER}")
    for table, condition in _conditions().items():
        op.execute(f"CREATE POLICY tenants ON {table} TO {API} USING ({condition})")
    for policy, how in EVERYBODYS.items():
        op.execute(f"CREATE POLICY {policy} ON models {how}")
    _grant(API, OWNED)
    _grant(API, {table: verbs for table, (*_, verbs) in PARENTS.items()})
    for table in ADMINISTERED:
        op.execute(f"CREATE POLICY administration ON {table} TO {ADMIN} USING (true)")
    _grant(ADMIN, ADMINISTERED)
    for view, query in VIEWS.items():
        op.execute(f"CREATE VIEW {view} WITH (security_barrier) AS {query}")
        op.execute(f"GRANT SELECT ON {view} TO {API}, {WORKER}")
    for function, definition in FUNCTIONS.items():
        op.execute(definition.format(schema=schema))
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {API}, {WORKER}")


def downgrade() -> None:
    schema = op.get_bind().dialect.identifier_preparer.quote(_schema())
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for table in ADMINISTERED:
        op.execute(f"DROP POLICY administration ON {table}")
    for policy in EVERYBODYS:
        op.execute(f"DROP POLICY {policy} ON models")
    for table in _conditions():
        op.execute(f"DROP POLICY tenants ON {table}")
    for table in TABLES:
        op.execute(f"DROP POLICY workers ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"REVOKE ALL ON {table} FROM {', '.join(ROLES)}")
    op.execute(f"REVOKE ALL ON SEQUENCE ready_seq FROM {', '.join(ROLES)}")
    op.execute(f"REVOKE USAGE ON SCHEMA {schema} FROM {', '.join(ROLES)}")


def _schema() -> str:
    return str(op.get_bind().scalar(sa.text("SELECT current_schema()")))


def _roles() -> Iterator[str]:
    """Makes what is missing. Another database of the server may be migrated at the same time."""
    for role in ROLES:
        yield f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE {role} NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$"""
        yield f"""
DO $$ BEGIN
    IF NOT pg_has_role(current_user, '{role}', 'USAGE') THEN
        GRANT {role} TO CURRENT_USER;
    END IF;
END $$"""


def _conditions() -> dict[str, str]:
    """Of each table, which rows are those of the transaction's tenants."""
    owned = dict.fromkeys(OWNED, f"tenant_id = ANY ({MINE})")
    owned["tenants"] = f"id = ANY ({MINE})"
    children = {
        table: f"EXISTS (SELECT FROM {parent} p WHERE p.{key} = {table}.{column})"
        for table, (parent, key, column, _) in PARENTS.items()
    }
    return owned | children


def _grant(role: str, verbs_of: Mapping[str, str]) -> None:
    for table, verbs in verbs_of.items():
        if verbs:
            op.execute(f"GRANT {verbs} ON {table} TO {role}")
