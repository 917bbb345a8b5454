"""Removing what nobody needs: intermediate objects, states of trainings, expired files, deleted
models, objects that nobody came back for, reservations of ended work, old keys and sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine

from shared.db import file_retention, retention
from shared.db.begun_objects import left_objects
from shared.db.productions import batches_of_production, kept_output
from shared.db.session import autocommit
from shared.db.streams import forget_deltas
from shared.db.uploads import SpentUpload, forget_parts, spent_uploads
from shared.errors import PressrunError
from shared.lifecycle.quotas import let_go
from shared.storage.base import Store
from shared.storage.keys import models_prefix, upload_prefix
from worker.outputs import (
    all_files_prefix,
    assembly_prefix,
    file_part,
    files_prefix,
    job_prefix,
    own_inputs_prefix,
    slices_prefix,
)
from worker.upkeep.begun_objects import BegunObjects

log = structlog.get_logger()

MOST_REFUSALS = 3
"""Objects that the store may refuse before a pass leaves the rest to the next one."""

MOST_ROUNDS = 20
"""Of expired files, of which there may be very many at once: a policy became shorter."""

T = TypeVar("T")


class Cleaner:
    """One pass over what is due. Objects go before rows, so a crash between leaves only a row."""

    def __init__(self, database: Engine, store: Store) -> None:
        self._database = database
        self._store = store

    def run(self) -> None:
        """Everything that is due; what the store refuses is left for the next pass, and holds
        nothing else up. Raises SQLAlchemyError."""
        with autocommit(self._database) as connection:
            retention.mark_spotless(connection)
            forget_deltas(connection)
        self._each(self._list(retention.uncleaned_jobs), self._clean_job)
        self._delete_expired_files()
        self._each(self._list(retention.deleted_models), self._delete_model)
        self._each(self._list(spent_uploads), self._clean_upload)
        self._each(self._list(left_objects), self._drop_left)
        with autocommit(self._database) as connection:
            let_go(connection)
            retention.forget_old_keys(connection)
            retention.forget_old_sessions(connection)

    def _delete_expired_files(self) -> None:
        for _ in range(MOST_ROUNDS):
            found = self._list(file_retention.expired_files)
            if (
                not self._each(found, self._delete_expired_file)
                or len(found) < file_retention.LIMIT
            ):
                return

    def _list(self, query: Callable[[Connection], list[T]]) -> list[T]:
        with autocommit(self._database) as connection:
            return query(connection)

    @staticmethod
    def _each(items: list[T], clean: Callable[[T], None]) -> bool:
        """Whether the store took all of it."""
        refusals = 0
        for item in items:
            try:
                clean(item)
            except PressrunError as error:
                refusals += 1
                log.warning("cleaning_postponed", code=error.code)
                if refusals == MOST_REFUSALS:  # it is the store, not the object
                    break
        return not refusals

    def _clean_job(self, job: retention.EndedJob) -> None:
        removed = 0
        if job.is_batch:
            removed = self._store.delete_prefix(slices_prefix(job.tenant_id, job.job_id))
            for epoch in range(1, job.vain_assemblies + 1):
                prefix = assembly_prefix(job.tenant_id, job.job_id, epoch)
                removed += self._store.delete_prefix(prefix)
        if job.input_key is not None:
            folder = own_inputs_prefix(job.tenant_id, job.job_id)
            keep = (job.input_key,) if job.input_key.startswith(folder) else ()
            removed += self._store.delete_prefix(folder, keep=keep)
        if job.is_production:
            removed = self._remove_intermediate(job)
        elif job.is_training:
            removed = self._remove_states(job)
        elif job.deleted:
            removed += self._store.delete_prefix(all_files_prefix(job.tenant_id, job.job_id))
        elif job.makes_files:
            removed += self._remove_vain_files(job)
        with autocommit(self._database) as connection:
            retention.mark_cleaned(connection, job.job_id)
        log.info("job_cleaned", job=job.job_id, objects=removed)

    def _remove_intermediate(self, job: retention.EndedJob) -> int:
        """What a production's passes wrote for each other, and all of its batches; its output
        stays."""
        with autocommit(self._database) as connection:
            keep = kept_output(connection, job.job_id)
            batches = batches_of_production(connection, job.job_id)
        removed = self._store.delete_prefix(job_prefix(job.tenant_id, job.job_id), keep=keep)
        for batch_id in batches:
            removed += self._store.delete_prefix(job_prefix(job.tenant_id, batch_id))
        return removed

    def _remove_states(self, job: retention.EndedJob) -> int:
        """What a training could have gone on from, and what attempts left that came to nothing;
        models and results stay."""
        with autocommit(self._database) as connection:
            keep = retention.keys_of_training(connection, job.job_id)
        return sum(
            self._store.delete_prefix(prefix, keep=[key for key in keep if key.startswith(prefix)])
            for prefix in (
                job_prefix(job.tenant_id, job.job_id),
                models_prefix(job.tenant_id, job.job_id),
            )
        )

    def _remove_vain_files(self, job: retention.EndedJob) -> int:
        """Files of attempts that came to nothing, and all previews."""
        with autocommit(self._database) as connection:
            previews = retention.previews_of(connection, job.job_id)
            attempts = retention.vain_attempts(connection, job.job_id)
        for key in previews:
            self._store.delete(key)
        removed = len(previews)
        for shard in attempts:
            part = file_part(shard.stage, shard.ordinal, shard.shard_id)
            for epoch in range(1, shard.last + 1):
                prefix = files_prefix(job.tenant_id, job.job_id, part, epoch)
                removed += self._store.delete_prefix(prefix)
        with autocommit(self._database) as connection:
            retention.forget_previews(connection, job.job_id)
        return removed

    def _delete_model(self, model: retention.DeletedModel) -> None:
        for key in model.keys:
            self._store.delete(key)
        with autocommit(self._database) as connection:
            retention.mark_model_cleaned(connection, model.id)
        log.info("model_deleted", model=model.id, objects=len(model.keys))

    def _clean_upload(self, upload: SpentUpload) -> None:
        keep = () if upload.file_key is None else (upload.file_key,)
        prefix = upload_prefix(upload.tenant_id, upload.id)
        removed = self._store.delete_prefix(prefix, keep=keep)
        with autocommit(self._database) as connection:
            forget_parts(connection, upload.id)
        log.info("upload_cleaned", upload=upload.id, objects=removed)

    def _drop_left(self, key: str) -> None:
        BegunObjects(self._database, self._store).drop([key])
        log.info("object_dropped")

    def _delete_expired_file(self, file: tuple[str, str]) -> None:
        file_id, storage_key = file
        self._store.delete(storage_key)
        with autocommit(self._database) as connection:
            file_retention.mark_deleted(connection, file_id)
        log.info("file_expired", file=file_id)
