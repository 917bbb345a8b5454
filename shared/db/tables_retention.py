"""Tables of what goes: how long tenants keep things, what is left of old jobs, what was deleted."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.db.columns import metadata, moment, now

retention_policies = Table(
    "retention_policies",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column(
        "days",
        JSONB,
        nullable=False,
        comment="by what is kept; null: for ever; left out: as the settings say",
    ),
    now("updated_at"),
)

retention_marks = Table(
    "retention_marks",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("what", Text, nullable=False, comment="outputs or events"),
    Column(
        "until",
        DateTime(timezone=True),
        nullable=False,
        comment="those of jobs that ended by then are gone",
    ),
    PrimaryKeyConstraint("tenant_id", "what"),
)
"""How far the cleaner has come through the ended jobs of a tenant."""

archived_jobs = Table(
    "archived_jobs",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, comment="in which it ended"),
    Column("endpoint", Text, nullable=False),
    Column("model", Text),
    Column("client_id", Text),
    Column("error_code", Text),
    Column("rows_total", Integer, nullable=False),
    Column("rows_completed", Integer, nullable=False),
    Column("rows_failed", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True), nullable=False),
    now("archived_at"),
    PrimaryKeyConstraint("tenant_id", "id"),
    Index("ix_archived_jobs_tenant_id_ended_at", "tenant_id", "ended_at", "id"),
)
"""What is left of jobs that were kept for as long as their tenant's policy says: no words of it."""

deletions = Table(
    "deletions",
    metadata,
    Column("id", Text, primary_key=True),
    # Without a foreign key: the record of a tenant's erasure outlives the tenant.
    Column("tenant_id", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="job, file, artifact, model or tenant"),
    Column("target", Text, nullable=False, comment="the id of what was to be deleted"),
    Column("jobs", ARRAY(Text), nullable=False, server_default="{}", comment="that go with it"),
    Column(
        "keys", ARRAY(Text), nullable=False, server_default="{}", comment="objects still to remove"
    ),
    Column("rows", JSONB, nullable=False, server_default="{}", comment="removed, by table"),
    Column("usage", JSONB, comment="of an erased tenant: what it had consumed in all"),
    Column("objects", BigInteger, comment="that were removed, once complete"),
    Column("keys_sha256", Text, comment="of the sorted hashes of their keys, once complete"),
    now(),
    now("settles_at"),
    now("due_at"),
    moment("completed_at"),
    Index("ix_deletions_tenant_id_id", "tenant_id", "id"),
    Index(
        "ix_deletions_pending",
        "due_at",
        postgresql_where=text("completed_at IS NULL"),
    ),
    Index(
        "uq_deletions_target",
        "target",
        "kind",
        unique=True,
        postgresql_where=text("completed_at IS NULL"),
    ),
)
"""The proof: nobody deletes from it. ``settles_at``: by then whoever wrote late has stopped;
``due_at``: when to look next, and the end of the lease of who looks."""

deletion_objects = Table(
    "deletion_objects",
    metadata,
    Column("deletion_id", ForeignKey("deletions.id"), nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("key_sha256", LargeBinary, nullable=False),
    PrimaryKeyConstraint("deletion_id", "key_sha256"),
)
"""The hash of every key that a deletion removed from the store, written before it is removed."""

begun_objects = Table(
    "begun_objects",
    metadata,
    Column("key", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    now("begun_at"),
    Index("ix_begun_objects_begun_at", "begun_at"),
    Index("ix_begun_objects_tenant_id", "tenant_id"),
)
"""Objects that somebody began to store and that no other row names yet."""
