"""The last stage of a batch: its slices' lines, streamed into one output and one error file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from shared.db.shards import SliceRecord
from shared.errors import PressrunError
from shared.lifecycle.working import Claim
from shared.states import ShardState
from shared.storage.base import ObjectWriter, Store, StoredObject
from worker.outputs import MEDIA_TYPE, RowError, assembly_prefix, error_line, stopped_error
from worker.rows import slice_rows
from worker.upkeep.error_counts import ErrorCounts


class Interrupted(Exception):
    """The shard was taken away or the worker leaves."""


class DamagedObject(PressrunError):
    """The store returned other bytes than were written: no outage, and not ours to wait out."""


class LazyWriter:
    """Opens its object at the first byte, so that an empty file is no file."""

    def __init__(self, open_writer: Callable[[], ObjectWriter]) -> None:
        self._open = open_writer
        self._writer: ObjectWriter | None = None

    def write(self, data: bytes) -> None:
        if self._writer is None:
            self._writer = self._open()
        self._writer.write(data)

    def finish(self) -> StoredObject | None:
        return None if self._writer is None else self._writer.finish()


class Assembler:
    """Writes the files of one batch. Holds a part of each file and one slice's rows at most."""

    def __init__(self, store: Store, claim: Claim, interrupted: Callable[[], bool]) -> None:
        self._store = store
        self._claim = claim
        self._interrupted = interrupted
        self.rows_completed = 0
        self.rows_failed = 0
        self.explained: dict[int, int] = {}
        """Bytes of the lines that stand for slices which never ran to their end, by ordinal."""
        self._errors = ErrorCounts()

    @property
    def error_counts(self) -> dict[str, int]:
        """How often each code stands in the error file."""
        return self._errors.counts

    @property
    def commonest_message(self) -> str | None:
        """What the first row said that failed with the commonest code."""
        return self._errors.commonest_message

    def run(self, slices: Iterable[SliceRecord]) -> tuple[StoredObject | None, StoredObject | None]:
        """The stored output and error files, None for one without lines.

        Raises Interrupted, StorageUnavailable, StorageFull, NotFound or DamagedObject.
        """
        with ExitStack() as stack:
            output = self._writer(stack, "output.jsonl")
            errors = self._writer(stack, "errors.jsonl")
            for part in slices:
                self._add(part, output, errors)
            return output.finish(), errors.finish()

    def _writer(self, stack: ExitStack, name: str) -> LazyWriter:
        claim = self._claim
        prefix = assembly_prefix(claim.tenant_id, claim.job_id, claim.epoch)
        return LazyWriter(
            lambda: stack.enter_context(self._store.writer(prefix + name, media_type=MEDIA_TYPE))
        )

    def _add(self, part: SliceRecord, output: LazyWriter, errors: LazyWriter) -> None:
        if not part.has_results:
            self._explain(part, errors)
            return

        def write_error(data: bytes) -> None:
            errors.write(data)
            self._errors.feed(data)

        self._copy(part.output_key, part.output_sha256, part.output_bytes, output.write)
        self._copy(part.errors_key, part.errors_sha256, part.errors_bytes, write_error)
        self.rows_completed += part.rows_completed
        self.rows_failed += part.rows_failed

    def _copy(
        self, key: str | None, sha256: str | None, size: int | None, write: Callable[[bytes], None]
    ) -> None:
        if key is None:
            return
        digest, copied = hashlib.sha256(), 0
        for chunk in self._store.read(key):
            if self._interrupted():
                raise Interrupted
            digest.update(chunk)
            copied += len(chunk)
            write(chunk)
        if copied != size or digest.hexdigest() != sha256:
            raise DamagedObject("the store returned other bytes than a slice had written")

    def _explain(self, part: SliceRecord, errors: LazyWriter) -> None:
        """A slice that never ran to its end: a line for each of its rows, saying why."""
        claim = self._claim
        if self._interrupted():
            raise Interrupted
        if part.state == ShardState.FAILED:
            error = RowError(
                part.error_code or "internal_error", part.error_message or "the worker failed"
            )
        else:
            error = stopped_error(claim.stop_reason)
        assert claim.input_key is not None  # noqa: S101 - a batch always has one
        chunks = self._store.read(claim.input_key, part.byte_start, part.byte_end)
        rows = slice_rows(chunks, part.first_line, part.lines)
        written = 0
        for row in rows:
            line = error_line(claim.job_id, row.line, row.custom_id, error)
            errors.write(line)
            written += len(line)
        self.explained[part.ordinal] = written
        self.rows_failed += len(rows)
        if rows:
            self._errors.add(error.code, len(rows), error.message)
