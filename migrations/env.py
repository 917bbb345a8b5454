"""Runs migrations: one transaction each, giving up on a lock rather than blocking traffic."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from shared.db.tables import metadata

LOCK_TIMEOUT = "4s"
ADVISORY_LOCK = 7_703_001
"""Two processes that migrate at once take turns."""


def run_migrations() -> None:
    engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": ADVISORY_LOCK})
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
        context.configure(
            connection=connection, target_metadata=metadata, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run_migrations()
