"""Tables of jobs, and of what they made and told."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from shared.db.columns import count, metadata, moment, now, total
from shared.states import OPEN_JOB
from shared.webhook_events import UNANNOUNCED

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, comment="of a batch: the one that all of its rows name, once validated"),
    # JSON, not JSONB: prompts and outputs may hold \u0000, which JSONB refuses.
    Column("spec", JSON, nullable=False),
    Column("metadata", JSON),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("input_file_id", ForeignKey("files.id")),
    Column(
        "validation_file_id",
        ForeignKey("files.id"),
        comment="of a fine-tuning job; of a batch of another one's rows: the file that says which",
    ),
    Column("output_file_id", ForeignKey("files.id")),
    Column("error_file_id", ForeignKey("files.id")),
    Column("result", JSON, comment="the endpoint's response body of a single generation"),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_param", Text),
    Column("errors", JSON, comment="bad lines of a rejected batch, up to a cap"),
    count("shards_open"),
    count("rows_total"),
    count("rows_completed"),
    count("rows_failed"),
    total("input_tokens"),
    total("output_tokens"),
    Column("progress", Double, comment="of a job of one row while it runs: 0 to 1"),
    Column(
        "detail",
        JSON,
        nullable=False,
        server_default="{}",
        comment="of a fine-tuning job: what was found in its data, what its training said;"
        " of a batch: how often each error came",
    ),
    Column("client_id", Text, comment="the caller's own id"),
    Column("client_fingerprint", LargeBinary, comment="SHA-256 of the body that was put there"),
    Column(
        "request_hash",
        LargeBinary,
        comment="of the request that made it, where its client may send that again by itself",
    ),
    Column("stop_reason", Text, comment="cancelled or expired, once asked to stop"),
    moment("paused_at"),
    moment("cancel_requested_at"),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    now(),
    moment("started_at"),
    moment("in_progress_at"),
    moment("finalizing_at"),
    moment("ended_at"),
    moment("expires_at"),
    moment("cleaned_at"),
    moment("deleted_at"),
    Index("ix_jobs_tenant_id_id", "tenant_id", "id"),
    Index(
        "uq_jobs_tenant_id_client_id",
        "tenant_id",
        "client_id",
        unique=True,
        postgresql_where=text("client_id IS NOT NULL AND deleted_at IS NULL"),
    ),
    Index(
        "ix_jobs_request_hash",
        "request_hash",
        postgresql_where=text("request_hash IS NOT NULL"),
    ),
    Index(
        "ix_jobs_input_file_id",
        "input_file_id",
        postgresql_where=text("input_file_id IS NOT NULL"),
    ),
    Index(
        "ix_jobs_validation_file_id",
        "validation_file_id",
        postgresql_where=text("validation_file_id IS NOT NULL"),
    ),
    Index(
        "ix_jobs_output_file_id",
        "output_file_id",
        postgresql_where=text("output_file_id IS NOT NULL"),
    ),
    Index(
        "ix_jobs_error_file_id",
        "error_file_id",
        postgresql_where=text("error_file_id IS NOT NULL"),
    ),
    Index(
        "ix_jobs_uncleaned",
        "ended_at",
        postgresql_where=text(
            "(kind NOT IN ('generate', 'response') OR endpoint NOT IN"
            " ('/v1/chat/completions', '/v1/completions', '/v1/embeddings',"
            " '/v1/classifications', '/v1/responses', '/v1/moderations'))"
            " AND cleaned_at IS NULL"
        ),
    ),
    Index(
        "ix_jobs_ended",
        "tenant_id",
        "ended_at",
        postgresql_where=text("ended_at IS NOT NULL"),
    ),
    Index(
        "ix_jobs_deleted",
        "deleted_at",
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    Index(
        "ix_jobs_open_tunings",
        "model",
        postgresql_where=text(f"kind = 'fine_tune' AND state IN ({OPEN_JOB})"),
    ),
    Index(
        "ix_jobs_open_of_media",
        "tenant_id",
        postgresql_where=text(
            f"state IN ({OPEN_JOB}) AND endpoint NOT IN"
            " ('/v1/chat/completions', '/v1/completions', '/v1/embeddings',"
            " '/v1/classifications', '/v1/responses', '/v1/moderations')"
        ),
    ),
    Index(
        "ix_jobs_open_of_tuned",
        "model",
        postgresql_where=text(f"model LIKE 'ft:%' AND state IN ({OPEN_JOB})"),
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
    now(),
    Index("ix_artifacts_job_id_id", "job_id", "id"),
    Index("ix_artifacts_tenant_id", "tenant_id"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("type", Text, nullable=False),
    Column("data", JSON, nullable=False, server_default="{}"),
    now(),
    Column(
        "xact",
        BigInteger,
        server_default=text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
        comment="the transaction that told it",
    ),
    Column(
        "announced",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="of the end of a job: its webhooks were made",
    ),
    Index("ix_events_job_id_id", "job_id", "id"),
    Index("ix_events_unannounced", "id", postgresql_where=text(UNANNOUNCED)),
)
