"""Runs of schedules: read the source, leave out what was seen, submit a production of the rest.

Whoever is killed on the way has changed nothing: rows become seen with the acceptance of their
production, in one transaction, which only the latest reader of the run may make.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared import lifecycle
from shared.db.begun_objects import name_object
from shared.db.files import insert_file
from shared.db.schedules import seen_before
from shared.db.session import autocommit
from shared.doorbell import Ringer
from shared.errors import PressrunError, StorageUnavailable
from shared.ids import new_file_id
from shared.lifecycle import working
from shared.lifecycle.quotas import hold_bytes
from shared.lifecycle.working import RowsRead, RunClaim
from shared.pools import UPKEEP
from shared.specs.schedules import MOST_LOST_READERS
from shared.storage.base import Store, StoredObject
from worker.upkeep.begun_objects import BegunObjects
from worker.upkeep.feeds import SourceRow, SourceRows
from worker.upkeep.feeds_reading import Marks, SourceReader
from worker.upkeep.feeds_xml import FeedRefused
from worker.upkeep.schedules_production import production_of_run

log = structlog.get_logger()

DATA_SECONDS = 30 * 86_400.0
"""Life of the file with a run's new rows; an open production keeps it longer."""
LEASE_SECONDS = 300.0
MEDIA_TYPE = "application/jsonl"


class _Lost(Exception):
    """Somebody else has the run now, or its schedule is gone."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """The new rows of a run, in the store."""

    rows: RowsRead
    data: StoredObject | None


class ScheduleRuns:
    """Used by the threads of the feeds' pass, one run on each."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        ringer: Ringer,
        reader: SourceReader,
        *,
        window: int,
        most_failures: int,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._database = database
        self._store = store
        self._begun = BegunObjects(database, store)
        self._ringer = ringer
        self._reader = reader
        self._window = window
        self._most_failures = most_failures
        self._lease_seconds = lease_seconds

    def close(self) -> int:
        """Ends runs whose production has ended; returns how many."""
        with self._database.begin() as connection:
            return working.close_runs(connection, most_failures=self._most_failures)

    def begin(self, *, alone: bool | None = None) -> RunClaim | None:
        """A run that is due, and now this caller's; ``alone``: one whose reader did not come back,
        to be read beside no other source."""
        with self._database.begin() as connection:
            return working.begin_run(connection, lease_seconds=self._lease_seconds, alone=alone)

    def run(self, claim: RunClaim) -> None:
        """One run, as far as to its production. Raises SQLAlchemyError and StorageUnavailable:
        the run is taken up again when its lease has ended."""
        try:
            if claim.readers_lost >= MOST_LOST_READERS:
                self._give_up(claim)
            else:
                self._read_and_submit(claim)
        except _Lost:
            log.info("run_lost", run=claim.run_id, schedule=claim.schedule_id)
            self._remove(claim)
        except FeedRefused as refused:
            self._remove(claim)
            self._fail(claim, refused.code, refused.message)
        except (SQLAlchemyError, StorageUnavailable):
            with self._database.begin() as connection:
                working.postpone_run(connection, claim)
            raise
        except PressrunError as error:
            self._remove(claim)
            self._fail(claim, error.code, str(error))

    def _read_and_submit(self, claim: RunClaim) -> None:
        marks = Marks(claim.etag, claim.last_modified)
        read = self._reader.read(claim.spec.source, claim.tenant_id, claim.spec.key, marks)
        if read.found is None:
            with self._database.begin() as connection:
                working.end_unchanged(connection, claim)
            log.info("run_unchanged", run=claim.run_id, schedule=claim.schedule_id)
            return
        taken = self._take(claim, read.found, read.marks)
        with self._database.begin() as connection:
            production_id = None
            if not working.hold_run(connection, claim):
                raise _Lost
            if taken.data is not None:
                self._name(connection, taken.data)
                production_id = self._submit(connection, claim, taken.data)
            working.accept_run(connection, claim, taken.rows, production_id)
        if production_id is not None:
            self._ringer.ring(UPKEEP)
        self._remove_earlier(claim)
        log.info(
            "run_accepted",
            run=claim.run_id,
            schedule=claim.schedule_id,
            job=production_id,
            rows=len(taken.rows.new),
        )

    def _take(self, claim: RunClaim, found: SourceRows, marks: Marks) -> _Taken:
        with autocommit(self._database) as connection:
            hashes = [row.hash for row in found.rows]
            known = seen_before(connection, claim.schedule_id, hashes)
        new = [row for row in found.rows if row.hash not in known]
        taken = new[: claim.spec.max_rows]
        rows = RowsRead(
            found=len(found.rows),
            new=[row.hash for row in taken],
            again=sorted(known),
            left=len(new) - len(taken),
            bad=found.bad,
            bad_n=found.bad_n,
            etag=marks.etag,
            last_modified=marks.last_modified,
        )
        return _Taken(rows, self._store_rows(claim, taken) if taken else None)

    def _store_rows(self, claim: RunClaim, rows: Sequence[SourceRow]) -> StoredObject:
        key = _key(claim, claim.epoch)
        with self._begun.writer(claim.tenant_id, key, media_type=MEDIA_TYPE) as writer:
            for row in rows:
                writer.write(json.dumps(row.values, separators=(",", ":")).encode() + b"\n")
            return writer.finish()

    @staticmethod
    def _name(connection: Connection, data: StoredObject) -> None:
        """The file's row, which the same transaction makes, names the object from here on."""
        if not name_object(connection, data.key):
            raise _Lost

    def _submit(self, connection: Connection, claim: RunClaim, data: StoredObject) -> str:
        """A production like one that the tenant submits. Raises InvalidRequest or a subclass, or
        QuotaExceeded."""
        file = insert_file(
            connection,
            file_id=new_file_id(),
            tenant_id=claim.tenant_id,
            filename=f"{claim.run_id}.jsonl",
            purpose="user_data",
            bytes=data.bytes,
            sha256=data.sha256,
            storage_key=data.key,
            expires_in_seconds=DATA_SECONDS,
        )
        hold_bytes(connection, claim.tenant_id)
        new = production_of_run(connection, claim, file.id)
        lifecycle.submit_production(connection, new, window=self._window)
        lifecycle.attach_webhook(connection, new.job_id, claim.webhook)
        return new.job_id

    def _fail(self, claim: RunClaim, code: str, message: str) -> None:
        with self._database.begin() as connection:
            failed = working.fail_run(
                connection, claim, code, message, most_failures=self._most_failures
            )
        if failed:
            log.info("run_failed", run=claim.run_id, schedule=claim.schedule_id, code=code)

    def _give_up(self, claim: RunClaim) -> None:
        self._remove_earlier(claim)
        with self._database.begin() as connection:
            given_up = working.give_up_run(connection, claim)
        if given_up:
            log.warning("source_given_up", run=claim.run_id, schedule=claim.schedule_id)

    def _remove(self, claim: RunClaim) -> None:
        """What this attempt, and those before it, stored in vain."""
        self._begun.drop([_key(claim, claim.epoch)])
        self._remove_earlier(claim)

    def _remove_earlier(self, claim: RunClaim) -> None:
        """Readers that were given up may yet write: their rows stay, for the cleaner. So a store
        that refuses changes nothing, least of all for a run that was accepted just now."""
        try:
            self._store.delete_keys([_key(claim, epoch) for epoch in range(1, claim.epoch)])
        except PressrunError as error:
            log.warning("cleaning_postponed", code=error.code)


def _key(claim: RunClaim, epoch: int) -> str:
    return f"t/{claim.tenant_id}/s/{claim.run_id}/e{epoch}.jsonl"
