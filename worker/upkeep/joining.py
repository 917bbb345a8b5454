"""Joining the parts of an upload: streamed into the file's object, in memory of a few megabytes
however large the file is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable

import structlog
from sqlalchemy import Engine

from shared.db.session import autocommit
from shared.db.uploads import PartRow, get_upload, parts_of
from shared.errors import ChecksumMismatch, NotFound, PressrunError
from shared.ids import new_file_id
from shared.lifecycle import working
from shared.lifecycle.working import NewFile
from shared.specs.uploads import JoinSpec
from shared.storage.base import ObjectWriter, Store, StoredObject
from shared.storage.keys import joined_key, parts_prefix
from worker.upkeep.assembly import DamagedObject, Interrupted
from worker.upkeep.chore import Chore, ChoreEnds

log = structlog.get_logger()

MEDIA_TYPE = "application/octet-stream"
"""Of the object; a download brings the type that its name and purpose have."""


class Joins:
    """Runs the shards that join parts, on the threads of the chores."""

    def __init__(self, database: Engine, store: Store, ends: ChoreEnds) -> None:
        self._database = database
        self._store = store
        self._ends = ends

    def run(self, chore: Chore) -> None:
        """Raises Interrupted, and for the chore's ``judge`` whatever else goes wrong."""
        claim = chore.claim
        spec = JoinSpec(**json.loads(claim.spec))
        with autocommit(self._database) as connection:
            found = parts_of(connection, claim.tenant_id, spec.upload_id, spec.part_ids)
        if len(found) < len(spec.part_ids):
            raise NotFound("a part of the upload is gone")
        key = joined_key(claim.tenant_id, spec.upload_id, claim.job_id, claim.epoch)
        parts = [found[part_id] for part_id in spec.part_ids]
        try:
            stored = join(self._store, key, parts, spec.md5, chore.interrupted.is_set)
        except ChecksumMismatch as mismatch:
            self._refuse(chore, mismatch)
            return
        file = NewFile(new_file_id(), "", stored)
        self._ends.commit(
            chore,
            lambda connection: working.finish_join(connection, chore.session_id, claim.held, file),
        )
        log.info("parts_joined", upload=spec.upload_id, parts=len(parts), bytes=stored.bytes)
        with autocommit(self._database) as connection:
            upload = get_upload(connection, claim.tenant_id, spec.upload_id)
        if upload is not None and upload.file_id is not None:  # a zombie leaves others their parts
            self._remove_parts(claim.tenant_id, spec.upload_id)

    def _refuse(self, chore: Chore, mismatch: ChecksumMismatch) -> None:
        self._ends.commit(
            chore,
            lambda connection: working.refuse_join(
                connection, chore.session_id, chore.claim.held, mismatch
            ),
        )

    def _remove_parts(self, tenant_id: str, upload_id: str) -> None:
        """They take as much room as the file; what is left, the cleaner removes an hour later."""
        try:
            self._store.delete_prefix(parts_prefix(tenant_id, upload_id))
        except PressrunError as error:
            log.warning("cleaning_postponed", code=error.code)


def join(
    store: Store,
    key: str,
    parts: Iterable[PartRow],
    md5: str | None,
    interrupted: Callable[[], bool],
) -> StoredObject:
    """One object of all parts, in their order. Raises ChecksumMismatch (and leaves nothing) when
    it has not the MD5 that it should, Interrupted, DamagedObject, or what the store raises."""
    whole = hashlib.md5(usedforsecurity=False)
    with store.writer(key, media_type=MEDIA_TYPE) as writer:
        for part in parts:
            _copy(store, part, writer, whole.update, interrupted)
        if md5 is not None and whole.hexdigest() != md5:
            raise ChecksumMismatch(
                "the parts, in this order, have another MD5 than was said", param="md5"
            )
        return writer.finish()


def _copy(
    store: Store,
    part: PartRow,
    writer: ObjectWriter,
    also: Callable[[bytes], None],
    interrupted: Callable[[], bool],
) -> None:
    digest, copied = hashlib.sha256(), 0
    for chunk in store.read(part.storage_key):
        if interrupted():
            raise Interrupted
        digest.update(chunk)
        copied += len(chunk)
        also(chunk)
        writer.write(chunk)
    if copied != part.bytes or digest.hexdigest() != part.sha256:
        raise DamagedObject("the store returned other bytes than a part had")
