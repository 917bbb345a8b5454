"""Carries deletions out, and proves them: the hash of a key is noted before its object goes, rows
are counted in the transaction that removes them, and a record is complete when a look at the store
and at the tables finds nothing, at a time at which nobody can be writing any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from shared.db import file_retention, retention
from shared.db.session import autocommit
from shared.errors import PressrunError
from shared.lifecycle import deletion as requests
from shared.lifecycle import deletion_rows as purging
from shared.lifecycle import deletion_work as work
from shared.lifecycle.deletion_work import PendingDeletion
from shared.storage.base import Store
from shared.storage.keys import models_prefix
from worker.outputs import job_prefix

log = structlog.get_logger()

KEYS_AT_ONCE = 500
MOST_AT_ONCE = 50
"""Deletions of one round: others have things to do on this thread, too."""


class Deletions:
    """One round over deletions that are due. Any number of processes may run it: every step may be
    repeated, and whoever is killed has its lease taken over."""

    def __init__(
        self, database: Engine, store: Store, *, grace_seconds: float = requests.GRACE_SECONDS
    ) -> None:
        """``grace_seconds``: how long a worker that was given up may still write objects."""
        self._database = database
        self._store = store
        self._grace_seconds = grace_seconds
        self._kinds: dict[str, Callable[[PendingDeletion], bool]] = {
            "job": self._job,
            "file": self._file,
            "artifact": self._artifact,
            "model": self._model,
            "tenant": self._tenant,
        }

    def run(self) -> int:
        """Takes up what is due; returns how many records it completed. What the store refuses is
        looked at again. Raises SQLAlchemyError."""
        completed = 0
        for _ in range(MOST_AT_ONCE):
            with autocommit(self._database) as connection:
                found = work.lease_deletion(connection)
            if found is None:
                break
            completed += self._carry_out(found)
        return completed

    def _carry_out(self, found: PendingDeletion) -> bool:
        try:
            done = self._kinds[found.kind](found)
        except PressrunError as error:
            log.warning("deletion_postponed", deletion=found.id, code=error.code)
            done = False
        except IntegrityError:
            # Something of it is there again, or of a kind that goes later.
            log.warning("deletion_postponed", deletion=found.id, code="still_referenced")
            done = False
        with self._database.begin() as connection:
            if done:
                work.complete_deletion(connection, found.id)
            else:
                work.defer_deletion(connection, found.id)
        if done:
            log.info("deletion_completed", deletion=found.id, kind=found.kind)
        return done

    # --- what there is to delete ------------------------------------------------------------

    def _job(self, found: PendingDeletion) -> bool:
        with autocommit(self._database) as connection:
            held = work.is_held(connection, found.jobs)
        prefixes = [job_prefix(found.tenant_id, job_id) for job_id in found.jobs]
        if not held:
            prefixes += [models_prefix(found.tenant_id, job_id) for job_id in found.jobs]
        left = sum(self._empty(found, prefix) for prefix in prefixes)
        if held:
            return False
        self._purge(found, partial(purging.purge_jobs, jobs=found.jobs, told=True))
        self._purge_own_files(found, prefixes)
        return found.settled and not left

    def _purge_own_files(self, found: PendingDeletion, prefixes: Sequence[str]) -> None:
        with self._database.begin() as connection:
            files = [
                file_id
                for prefix in prefixes
                for file_id in file_retention.files_below(connection, found.tenant_id, prefix)
            ]
            removed = purging.purge_files(connection, found.tenant_id, files)
            work.count_removed(connection, found.id, removed)

    def _file(self, found: PendingDeletion) -> bool:
        self._store.delete_keys(found.keys)
        with self._database.begin() as connection:
            removed = purging.purge_files(connection, found.tenant_id, [found.target])
            work.count_removed(connection, found.id, removed)
        return True

    def _artifact(self, found: PendingDeletion) -> bool:
        self._store.delete_keys(found.keys)
        return found.settled

    def _model(self, found: PendingDeletion) -> bool:
        with autocommit(self._database) as connection:
            if not work.is_model_left(connection, found.tenant_id, found.target):
                return True
            model = retention.deleted_model(
                connection, found.target, grace_seconds=self._grace_seconds
            )
        if model is None:
            return False
        self._remove(found, model.keys)
        with self._database.begin() as connection:
            rows = work.remove_model(connection, found.tenant_id, found.target)
            work.count_removed(connection, found.id, {"models": rows})
        return True

    def _tenant(self, found: PendingDeletion) -> bool:
        """Stops its jobs, waits for whoever works on one, and removes everything; the row of the
        tenant goes last, when nobody can be writing any more."""
        tenant_id = found.tenant_id
        with self._database.begin() as connection:
            quiet = work.stop_tenant(connection, tenant_id)
        if not quiet:
            return False
        with self._database.begin() as connection:
            settled = work.settle_tenant(connection, found, grace_seconds=self._grace_seconds)
        self._purge_tenant(found)
        left = self._empty(found, f"t/{tenant_id}/")
        self._store.abort_uploads(f"t/{tenant_id}/", older_than_seconds=0)
        if left or not settled:
            return False
        with self._database.begin() as connection:
            removed = work.remove_tenant(connection, tenant_id)
            work.count_removed(connection, found.id, {"tenants": removed})
        return True

    def _purge_tenant(self, found: PendingDeletion) -> None:
        tenant_id = found.tenant_id
        while True:
            with autocommit(self._database) as connection:
                jobs = purging.jobs_of_tenant(connection, tenant_id)
            if not jobs:
                break
            self._purge(found, partial(purging.purge_jobs, jobs=jobs, told=True))
        with self._database.begin() as connection:
            circuits = purging.purge_circuits(connection, tenant_id)
            work.count_removed(connection, found.id, {"webhook_circuits": circuits})
        for table in purging.OF_TENANTS:
            self._purge(found, partial(_one_table, table=table, tenant_id=tenant_id))

    # --- steps ------------------------------------------------------------------------------

    def _purge(
        self,
        found: PendingDeletion,
        portion: Callable[[Connection], tuple[purging.Removed, bool]],
    ) -> None:
        """Portion after portion, each counted in its own transaction."""
        done = False
        while not done:
            with self._database.begin() as connection:
                removed, done = portion(connection)
                work.count_removed(connection, found.id, removed)

    def _empty(self, found: PendingDeletion, prefix: str) -> int:
        """Removes every object below ``prefix``; returns how many there were."""
        removed = 0
        while keys := self._store.keys(prefix, limit=KEYS_AT_ONCE):
            self._remove(found, keys)
            removed += len(keys)
        return removed

    def _remove(self, found: PendingDeletion, keys: Sequence[str]) -> None:
        with self._database.begin() as connection:
            requests.record_keys(connection, found.id, found.tenant_id, keys)
            work.renew_deletion(connection, found.id)
        self._store.delete_keys(keys)


def _one_table(
    connection: Connection, *, table: str, tenant_id: str
) -> tuple[purging.Removed, bool]:
    rows = purging.purge_tenant_table(connection, table, tenant_id)
    return {table: rows}, rows < purging.AT_ONCE
