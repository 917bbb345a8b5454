"""Monitors: texts of a source are gathered, batches judge those of windows that are over, and what
they say is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from shared import lifecycle
from shared.db.begun_objects import name_object
from shared.db.files import insert_file
from shared.db.monitors import MonitorBatch, WaitingText, batch_of, waiting_texts
from shared.db.schedules import seen_before
from shared.db.session import autocommit
from shared.doorbell import Ringer
from shared.errors import NotFound, PressrunError, StorageUnavailable
from shared.ids import new_batch_id, new_file_id
from shared.lifecycle import working
from shared.lifecycle.quotas import hold_bytes
from shared.lifecycle.working import MonitorClaim
from shared.pools import UPKEEP
from shared.specs.monitors import ENDPOINT, FILE_SECONDS, MOST_CHARACTERS, TEXTS_A_BATCH
from shared.specs.schedules import MOST_LOST_READERS, FeedSource
from shared.storage.base import Store, StoredObject
from worker.upkeep.begun_objects import BegunObjects
from worker.upkeep.feeds import SourceRow
from worker.upkeep.feeds_reading import Marks, SourceReader
from worker.upkeep.feeds_xml import FeedRefused
from worker.upkeep.monitors_answers import labels_of

log = structlog.get_logger()

LEASE_SECONDS = 300.0
LOOK_SECONDS = 1.0
PAUSE_SECONDS = 60.0
"""After something went wrong."""
PRIORITY = 5
TEXT_COLUMNS = ("title", "summary", "content", "text")
"""Of a source, put together, unless one is named."""
MEDIA_TYPE = "application/jsonl"

_Error = tuple[str, str]


class _Lost(Exception):
    """Somebody else has the monitor now, or it is gone."""


class Monitors:
    """Used by the threads of the feeds' pass, one monitor on each."""

    def __init__(
        self,
        database: Engine,
        store: Store,
        ringer: Ringer,
        reader: SourceReader,
        *,
        window: int,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._database = database
        self._store = store
        self._begun = BegunObjects(database, store)
        self._ringer = ringer
        self._reader = reader
        self._window = window
        self._lease_seconds = lease_seconds

    def begin(self, *, alone: bool | None = None) -> MonitorClaim | None:
        """One whose turn it is, now this caller's; ``alone``: one whose reader did not come back,
        to be worked on beside no other source."""
        with self._database.begin() as connection:
            return working.claim_monitor(connection, lease_seconds=self._lease_seconds, alone=alone)

    def clean(self) -> None:
        """What is too old."""
        with self._database.begin() as connection:
            working.clean_monitors(connection)

    def run(self, claim: MonitorClaim) -> None:
        """All that is to be done for it. Raises SQLAlchemyError and StorageUnavailable: somebody
        looks again when its lease has ended."""
        try:
            if claim.readers_lost >= MOST_LOST_READERS:
                self._give_up(claim)
            else:
                self._work_on(claim)
        except (SQLAlchemyError, StorageUnavailable):
            with self._database.begin() as connection:
                working.postpone_monitor(connection, claim)
            raise

    def _give_up(self, claim: MonitorClaim) -> None:
        with self._database.begin() as connection:
            given_up = working.give_up_monitor(connection, claim)
        if given_up:
            log.warning("source_given_up", monitor=claim.monitor_id)

    def _work_on(self, claim: MonitorClaim) -> None:
        worked, error = False, None
        try:
            if claim.source is not None and claim.is_active:
                error = self._read(claim)
                worked = error is None
            said, judged = self._judge(claim)
            error, worked = said or error, worked or judged
        except _Lost:
            log.info("monitor_lost", monitor=claim.monitor_id)
            return
        if error is not None:
            log.info("monitor_failed", monitor=claim.monitor_id, code=error[0])
        with self._database.begin() as connection:
            working.release_monitor(
                connection,
                claim,
                error=error,
                worked=worked,
                pause_seconds=LOOK_SECONDS if error is None else PAUSE_SECONDS,
            )

    # --- its source -----------------------------------------------------------------------------

    def _read(self, claim: MonitorClaim) -> _Error | None:
        source = FeedSource.model_validate(claim.source)
        marks = Marks(claim.etag, claim.last_modified)
        try:
            read = self._reader.read(source, claim.tenant_id, None, marks)
            if read.found is None:
                self._read_later(claim)
            else:
                self._take(claim, read.found.rows, read.marks)
        except FeedRefused as refused:
            self._read_later(claim)
            return refused.code, refused.message
        except PressrunError as refused:  # too many wait
            self._read_later(claim)
            return refused.code, str(refused)
        return None

    def _take(self, claim: MonitorClaim, rows: Sequence[SourceRow], marks: Marks) -> None:
        with autocommit(self._database) as connection:
            known = seen_before(connection, claim.monitor_id, [row.hash for row in rows])
        new = {row.hash: text_of(row.values, claim.text_column) for row in rows}
        taken = {key: text for key, text in new.items() if key not in known and text}
        with self._database.begin() as connection:
            self._hold(connection, claim)
            both = (marks.etag, marks.last_modified)
            working.take_rows(connection, claim, new=taken, again=sorted(known), marks=both)

    def _read_later(self, claim: MonitorClaim) -> None:
        with self._database.begin() as connection:
            self._hold(connection, claim)
            working.read_later(connection, claim)

    # --- its batches ----------------------------------------------------------------------------

    def _judge(self, claim: MonitorClaim) -> tuple[_Error | None, bool]:
        """Counts a batch that has ended, and submits the next: what went wrong, and whether
        something was done well."""
        with autocommit(self._database) as connection:
            batch = batch_of(connection, claim.monitor_id)
        if batch is not None and not batch.ended:
            return None, False
        error = None if batch is None else self._count(claim, batch)
        counted = batch is not None and error is None
        if not claim.is_active:
            return error, counted
        with self._database.begin() as connection:
            self._hold(connection, claim)
            working.let_texts_go(connection, claim)
            texts = waiting_texts(connection, claim.monitor_id, limit=TEXTS_A_BATCH)
        refused = self._submit(claim, texts) if texts else None
        return refused or error, counted

    def _count(self, claim: MonitorClaim, batch: MonitorBatch) -> _Error | None:
        labels = dict(self._labels(batch.output_key)) if batch.output_key else {}
        with self._database.begin() as connection:
            self._hold(connection, claim)
            told = working.count_answers(connection, claim, batch.job_id, labels)
        log.info(
            "monitor_counted",
            monitor=claim.monitor_id,
            job=batch.job_id,
            texts=len(labels),
            alerts=told,
        )
        if batch.state == "succeeded" and labels:
            return None
        code = batch.error_code or "texts_not_judged"
        return code, batch.error_message or f"the batch ended {batch.state}, without a label"

    def _labels(self, key: str) -> Iterator[tuple[int, str]]:
        """By text, what a batch's output says."""
        try:
            yield from labels_of(self._store.read(key))
        except NotFound:  # its tenant has deleted it
            return

    def _submit(self, claim: MonitorClaim, texts: Sequence[WaitingText]) -> _Error | None:
        job_id = new_batch_id()
        stored = self._store_input(claim, job_id, texts)
        try:
            with self._database.begin() as connection:
                self._hold(connection, claim)
                if not name_object(connection, stored.key):
                    raise _Lost
                self._queue(connection, claim, job_id, stored)
                ids = [each.id for each in texts]
                working.open_monitor_batch(connection, claim, job_id, ids)
        except (_Lost, PressrunError) as refused:
            self._begun.drop([stored.key])
            if isinstance(refused, _Lost | StorageUnavailable):
                raise
            return refused.code, str(refused)
        self._ringer.ring(UPKEEP)
        log.info("monitor_judges", monitor=claim.monitor_id, job=job_id, texts=len(texts))
        return None

    def _queue(
        self, connection: Connection, claim: MonitorClaim, job_id: str, stored: StoredObject
    ) -> None:
        """A batch like one that the tenant submits. Raises QuotaExceeded or BudgetExceeded."""
        file = insert_file(
            connection,
            file_id=new_file_id(),
            tenant_id=claim.tenant_id,
            filename=f"{job_id}.jsonl",
            purpose="batch",
            bytes=stored.bytes,
            sha256=stored.sha256,
            storage_key=stored.key,
            expires_in_seconds=FILE_SECONDS,
        )
        hold_bytes(connection, claim.tenant_id)
        lifecycle.submit_batch(
            connection,
            job_id=job_id,
            tenant_id=claim.tenant_id,
            endpoint=ENDPOINT,
            input_file_id=file.id,
            spec={
                "completion_window": "24h",
                "priority": PRIORITY,
                "output_expires_after_seconds": FILE_SECONDS,
            },
            metadata={"monitor": claim.monitor_id},
            priority=PRIORITY,
            expires_in_seconds=86_400.0,
            window=self._window,
        )

    def _store_input(
        self, claim: MonitorClaim, job_id: str, texts: Sequence[WaitingText]
    ) -> StoredObject:
        key = f"t/{claim.tenant_id}/w/{job_id}.jsonl"
        with self._begun.writer(claim.tenant_id, key, media_type=MEDIA_TYPE) as writer:
            for each in texts:
                body = {"model": claim.model, "input": json.loads(each.body), "top_k": 1}
                line = {"custom_id": str(each.id), "method": "POST", "url": ENDPOINT, "body": body}
                writer.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            return writer.finish()

    @staticmethod
    def _hold(connection: Connection, claim: MonitorClaim) -> None:
        if not working.hold_monitor(connection, claim):
            raise _Lost


def text_of(values: dict[str, Any], column: str | None) -> str:
    """What of a row is to be judged; empty where there is nothing."""
    names = TEXT_COLUMNS if column is None else (column,)
    parts = [str(values[name]).strip() for name in names if values.get(name) not in {None, ""}]
    return "\n".join(dict.fromkeys(parts))[:MOST_CHARACTERS].replace("\0", "").strip()
