"""Every table. State columns are written by ``shared.lifecycle`` alone."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shared.states import OPEN_JOB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ready_seq = Sequence("ready_seq", metadata=metadata)
"""Gives shards their place in line when they enter the ready window."""


def _now(name: str = "created_at") -> Column[object]:
    return Column(
        name, DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")
    )


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True))


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"))


def _total(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    _now(),
    _time("disabled_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False, index=True),
    Column("name", Text, nullable=False, server_default=""),
    Column("prefix", Text, nullable=False, comment="the visible start of the key"),
    Column("hash", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the whole key"),
    _now(),
    _time("expires_at"),
    _time("revoked_at"),
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
    _now(),
    _time("expires_at"),
    _time("deleted_at"),
    Index("ix_files_tenant_id_id", "tenant_id", "id"),
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
    _now(),
    _time("deleted_at"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, comment="null for a batch: its rows name theirs"),
    # JSON, not JSONB: prompts and outputs may hold \u0000, which JSONB refuses.
    Column("spec", JSON, nullable=False),
    Column("metadata", JSON),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("input_file_id", ForeignKey("files.id")),
    Column("output_file_id", ForeignKey("files.id")),
    Column("error_file_id", ForeignKey("files.id")),
    Column("result", JSON, comment="the endpoint's response body of a single generation"),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_param", Text),
    Column("errors", JSON, comment="bad lines of a rejected batch, up to a cap"),
    _count("shards_open"),
    _count("rows_total"),
    _count("rows_completed"),
    _count("rows_failed"),
    _total("input_tokens"),
    _total("output_tokens"),
    Column("progress", Double, comment="of a job of one row while it runs: 0 to 1"),
    Column("stop_reason", Text, comment="cancelled or expired, once asked to stop"),
    _time("cancel_requested_at"),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _now(),
    _time("started_at"),
    _time("in_progress_at"),
    _time("finalizing_at"),
    _time("ended_at"),
    _time("expires_at"),
    _time("cleaned_at"),
    _time("deleted_at"),
    Index("ix_jobs_tenant_id_id", "tenant_id", "id"),
    Index(
        "ix_jobs_input_file_id",
        "input_file_id",
        postgresql_where=text(f"state IN ({OPEN_JOB}) AND input_file_id IS NOT NULL"),
    ),
    Index(
        "ix_jobs_uncleaned",
        "ended_at",
        postgresql_where=text(
            "(kind <> 'generate' OR endpoint NOT IN"
            " ('/v1/chat/completions', '/v1/completions', '/v1/embeddings'))"
            " AND cleaned_at IS NULL"
        ),
    ),
    Index(
        "ix_jobs_expires_at",
        "expires_at",
        postgresql_where=text(f"state IN ({OPEN_JOB}) AND stop_reason IS NULL"),
    ),
    Index(
        "ix_jobs_stopping",
        "id",
        postgresql_where=text(f"state IN ({OPEN_JOB}) AND stop_reason IS NOT NULL"),
    ),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pools", ARRAY(Text), nullable=False),
    Column("detail", JSON, nullable=False, server_default="{}"),
    _now("started_at"),
    Column("expires_at", DateTime(timezone=True), comment="null once declared dead"),
    Column("draining", Boolean, nullable=False, server_default=text("false")),
    _time("ended_at"),
    Index("ix_sessions_alive", "id", postgresql_where=text("expires_at IS NOT NULL")),
)

shards = Table(
    "shards",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("ordinal", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column(
        "blocked_n",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="what it still waits for; not dispatched above zero",
    ),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("session_id", ForeignKey("sessions.id")),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("ready_seq", BigInteger),
    _now("not_before"),
    Column("byte_start", BigInteger),
    Column("byte_end", BigInteger),
    Column("first_line", Integer),
    Column("row_count", Integer, nullable=False, server_default=text("1")),
    Column(
        "lines",
        ARRAY(Integer),
        comment="its lines of the input file, where other pools' rows lie between them",
    ),
    _count("rows_completed"),
    _count("rows_failed"),
    Column("progress", Double, comment="of a step while it runs: 0 to 1"),
    _count("error_n"),
    _count("crash_n"),
    _count("lost_n"),
    _count("preempt_n"),
    Column(
        "fenced_n",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="late writes of zombies that the fence refused",
    ),
    Column("suspect", Boolean, nullable=False, server_default=text("false")),
    Column("output_key", Text),
    Column("output_sha256", Text),
    Column("output_bytes", BigInteger),
    Column("errors_key", Text),
    Column("errors_sha256", Text),
    Column("errors_bytes", BigInteger),
    Column("error_code", Text),
    Column("error_message", Text),
    _now(),
    _time("started_at"),
    _time("ended_at"),
    UniqueConstraint("job_id", "stage", "ordinal"),
    Index("ix_shards_ready", "pool", "ready_seq", postgresql_where=text("state = 'ready'")),
    Index(
        "ix_shards_window",
        "pool",
        "tenant_id",
        "priority",
        "ready_seq",
        postgresql_where=text("state = 'ready'"),
    ),
    Index(
        "ix_shards_queued",
        "pool",
        "tenant_id",
        "priority",
        "id",
        postgresql_where=text("state = 'queued' AND blocked_n = 0"),
    ),
    Index("ix_shards_running", "session_id", postgresql_where=text("state = 'running'")),
)

steps = Table(
    "steps",
    metadata,
    Column("shard_id", ForeignKey("shards.id", ondelete="CASCADE"), primary_key=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column(
        "line",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="of the batch row that it works for; 0: for the job itself",
    ),
    Column("name", Text, nullable=False),
    Column("needs", ARRAY(Text), nullable=False, comment="names of the steps that come before"),
    Column("endpoint", Text, nullable=False),
    Column("model", Text),
    Column("spec", JSON, nullable=False, comment="the body, with references to other steps"),
    Column("last", Boolean, nullable=False, comment="its result is that of the job or the row"),
    Column("slice_id", BigInteger, comment="the batch's slice that waits for the row"),
    Column("result", JSON),
    Column(
        "ended",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="on the last step: its graph has its outcome, which is counted once",
    ),
    UniqueConstraint("job_id", "line", "name"),
    Index("ix_steps_job_id_line", "job_id", "line", unique=True, postgresql_where=text("last")),
    Index("ix_steps_slice_id", "slice_id", postgresql_where=text("slice_id IS NOT NULL")),
)
"""What a shard of stage ``step`` does: one node of the graph of a job of many kinds of output."""

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("shard_id", BigInteger, nullable=False),
    Column("line", Integer, nullable=False, server_default=text("0")),
    Column("step", Text, comment="the name of the step that made it"),
    Column("role", Text, nullable=False),
    Column("parent_id", Text, comment="the artifact that this one illustrates"),
    Column("name", Text, nullable=False),
    Column("width", Integer),
    Column("height", Integer),
    Column("seconds", Double),
    Column("storage_key", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("provenance", JSON, nullable=False, server_default="{}"),
    _now(),
    Index("ix_artifacts_job_id_id", "job_id", "id"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("type", Text, nullable=False),
    Column("data", JSON, nullable=False, server_default="{}"),
    _now(),
    Index("ix_events_job_id_id", "job_id", "id"),
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
    _now(),
    PrimaryKeyConstraint("shard_id", "endpoint", "model"),
    Index("ix_usage_tenant_id_created_at", "tenant_id", "created_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("route", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of the request body"),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    _now(),
    PrimaryKeyConstraint("tenant_id", "route", "key"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)
