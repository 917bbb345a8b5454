"""Removing what nobody needs: intermediate objects, expired files, old keys and sessions."""

from __future__ import annotations

import structlog
from sqlalchemy import Engine

from shared.db import retention
from shared.db.session import autocommit
from shared.storage.base import Store
from worker.outputs import slices_prefix

log = structlog.get_logger()


class Cleaner:
    """One pass over what is due. Objects go before rows, so a crash between leaves only a row."""

    def __init__(self, database: Engine, store: Store) -> None:
        self._database = database
        self._store = store

    def run(self) -> None:
        """Raises SQLAlchemyError, StorageUnavailable."""
        self._clean_batches()
        self._delete_expired_files()
        with autocommit(self._database) as connection:
            retention.forget_old_keys(connection)
            retention.forget_old_sessions(connection)

    def _clean_batches(self) -> None:
        with autocommit(self._database) as connection:
            for job in retention.uncleaned_batches(connection):
                prefix = slices_prefix(job.tenant_id, job.job_id)
                removed = self._store.delete_prefix(prefix)
                retention.mark_cleaned(connection, job.job_id)
                log.info("batch_cleaned", job=job.job_id, objects=removed)

    def _delete_expired_files(self) -> None:
        with autocommit(self._database) as connection:
            for file_id, storage_key in retention.expired_files(connection):
                self._store.delete(storage_key)
                retention.mark_deleted(connection, file_id)
                log.info("file_expired", file=file_id)
