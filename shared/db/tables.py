"""Every table. State columns are written by ``shared.lifecycle`` alone."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shared.db.columns import count, metadata, moment, now, total
from shared.db.tables_fairness import shares
from shared.db.tables_jobs import artifacts, events, jobs
from shared.db.tables_model_jobs import job_models
from shared.db.tables_models import model_alias_moves, model_aliases
from shared.db.tables_monitors import (
    monitor_batches,
    monitor_texts,
    monitor_windows,
    monitors,
)
from shared.db.tables_productions import production_batches, productions
from shared.db.tables_retention import (
    archived_jobs,
    deletion_objects,
    deletions,
    retention_marks,
    retention_policies,
)
from shared.db.tables_schedules import feed_rows, schedule_runs, schedules
from shared.db.tables_shards import ready_seq, sessions, shards, steps
from shared.db.tables_streams import deltas
from shared.db.tables_tenants import (
    limit_notices,
    rate_buckets,
    reservations,
    tenant_limits,
    usage_days,
)
from shared.db.tables_tuning import checkpoints, sweeps, training_metrics, trials
from shared.db.tables_uploads import upload_parts, uploads
from shared.db.tables_webhooks import (
    job_webhooks,
    webhook_circuits,
    webhook_deliveries,
    webhook_endpoints,
    webhook_secrets,
)
from shared.weights import LEAST_WEIGHT, MOST_WEIGHT

__all__ = [
    "api_keys",
    "archived_jobs",
    "artifacts",
    "checkpoints",
    "deletion_objects",
    "deletions",
    "deltas",
    "events",
    "feed_rows",
    "files",
    "idempotency_keys",
    "job_models",
    "job_webhooks",
    "jobs",
    "limit_notices",
    "metadata",
    "model_alias_moves",
    "model_aliases",
    "models",
    "monitor_batches",
    "monitor_texts",
    "monitor_windows",
    "monitors",
    "production_batches",
    "productions",
    "rate_buckets",
    "ready_seq",
    "reservations",
    "retention_marks",
    "retention_policies",
    "schedule_runs",
    "schedules",
    "sessions",
    "shards",
    "shares",
    "steps",
    "sweeps",
    "tenant_limits",
    "tenants",
    "training_metrics",
    "trials",
    "upload_parts",
    "uploads",
    "usage",
    "usage_days",
    "webhook_circuits",
    "webhook_deliveries",
    "webhook_endpoints",
    "webhook_secrets",
]

tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    now(),
    moment("disabled_at"),
    Column(
        "weight",
        Double,
        nullable=False,
        server_default=text("1"),
        comment="its part of a pool, over the weights of all who wait there",
    ),
    Column(
        "max_running_shards",
        Integer,
        comment="at a time, in all pools; null: as many as there is room for",
    ),
    CheckConstraint(f"weight >= {LEAST_WEIGHT} AND weight <= {MOST_WEIGHT}", name="weight"),
    CheckConstraint("max_running_shards >= 0", name="max_running_shards"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False, index=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("prefix", Text, nullable=False, comment="the visible start of the key"),
    Column("hash", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the whole key"),
    now(),
    moment("expires_at"),
    moment("revoked_at"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("storage_key", Text, nullable=False),
    now(),
    moment("expires_at"),
    moment("deleted_at"),
    Index("ix_files_tenant_id_id", "tenant_id", "id"),
    Index(
        "ix_files_tenant_id_created_at",
        "tenant_id",
        "created_at",
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index("ix_files_deleted_at", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    Index(
        "ix_files_expires_at",
        "expires_at",
        postgresql_where=text("deleted_at IS NULL AND expires_at IS NOT NULL"),
    ),
)

models = Table(
    "models",
    metadata,
    Column("id", Text, primary_key=True, comment="the name that requests use"),
    Column("tenant_id", ForeignKey("tenants.id"), comment="null: offered to every tenant"),
    Column("pool", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("source", Text, nullable=False, comment="a local directory or a hub id"),
    Column("endpoints", ARRAY(Text), nullable=False),
    Column("settings", JSON, nullable=False, server_default="{}"),
    Column("owned_by", Text, nullable=False, server_default="pressrun"),
    Column("base_model", Text, comment="the name of the model that it was tuned from"),
    Column(
        "adapter",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="weights on top of base_model, which must be there to serve it",
    ),
    Column(
        "files",
        JSON,
        nullable=False,
        server_default="[]",
        comment="path, key, bytes and sha256 of each, where the store has them",
    ),
    total("bytes"),
    Column(
        "detail",
        JSON,
        nullable=False,
        server_default="{}",
        comment="how it was made: recipe, hyperparameters, metrics, data, parents",
    ),
    Column("job_id", Text, comment="the job that made or imported it"),
    now(),
    moment("deleted_at"),
    moment("cleaned_at"),
    Index("ix_models_tenant_id_id", "tenant_id", "id"),
    Index("ix_models_job_id", "job_id", postgresql_where=text("job_id IS NOT NULL")),
    Index(
        "ix_models_uncleaned",
        "deleted_at",
        postgresql_where=text(
            "deleted_at IS NOT NULL AND cleaned_at IS NULL AND job_id IS NOT NULL"
        ),
    ),
)

usage = Table(
    "usage",
    metadata,
    Column("shard_id", BigInteger, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("job_id", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    count("images"),
    Column(
        "media_seconds",
        Double,
        nullable=False,
        server_default=text("0"),
        comment="of sound and video made",
    ),
    Column(
        "compute_seconds",
        Double,
        nullable=False,
        server_default=text("0"),
        comment="its share of its engine's working time",
    ),
    Column(
        "cost",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="millionths of the prices' unit",
    ),
    Column(
        "counted",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether it is a part of usage_days",
    ),
    now(),
    PrimaryKeyConstraint("shard_id", "endpoint", "model"),
    Index("ix_usage_tenant_id_created_at", "tenant_id", "created_at"),
    Index("ix_usage_uncounted", "tenant_id", postgresql_where=text("NOT counted")),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("route", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of the request body"),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE")),
    Column("object_id", Text, comment="what it was used for, where that is no job"),
    Column("claim", Text, comment="who uses the key at the moment; null: it was used"),
    moment("claimed_at"),
    now(),
    PrimaryKeyConstraint("tenant_id", "route", "key"),
    Index("ix_idempotency_keys_created_at", "created_at"),
    Index("ix_idempotency_keys_job_id", "job_id", postgresql_where=text("job_id IS NOT NULL")),
)
