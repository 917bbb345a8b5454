"""What one claim of a production works with: the data, the answers, the files that it writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sqlalchemy import Engine

from shared.db.productions import ProducedBatch
from shared.db.session import autocommit
from shared.db.shards import slices_of
from shared.lifecycle.working import Claim
from shared.productions.augmenting import augmenting
from shared.storage.base import ObjectWriter, Store, StoredObject
from worker.outputs import attempt_prefix
from worker.tuning.data.source import Source
from worker.upkeep.productions.answers import Answers
from worker.upkeep.productions.augmenting import good_seeds
from worker.upkeep.productions.duplicates import NearDuplicates
from worker.upkeep.productions.joining import Numbered
from worker.upkeep.productions.opening import Order, good_rows, source_of
from worker.upkeep.productions.records import MEDIA_TYPE

WORK = "w"
"""The folder, within the job's, of what passes write for each other …"""
FINAL = "final"
"""… and of the output."""


class TemporaryFile(NamedTuple):
    """A file on this machine."""

    path: Path
    file: BinaryIO


@dataclass(slots=True)
class Workbench:
    """Of one attempt: everything that it stores has a name of its own, under its epoch."""

    database: Engine
    store: Store
    scratch: Path | None
    claim: Claim
    order: Order
    interrupted: Callable[[], bool]
    _written: int = 0

    @contextmanager
    def rows(self) -> Iterator[Iterator[Numbered]]:
        """The data, from their first row."""
        with good_rows(self.order, self.source(), self.scratch) as rows:
            yield rows

    def source(self) -> Source:
        """The data as they were uploaded."""
        source = source_of(self.store, self.claim.input_key, self.order.spec.data_format)
        return source.interruptible(self.interrupted)

    def answers(self, batch: ProducedBatch | None) -> Answers:
        """Without a batch there are none."""
        if batch is None:
            return Answers(self.store, [], None, None)
        with autocommit(self.database) as connection:
            slices = list(slices_of(connection, batch.job_id))
        return Answers(self.store, slices, batch.output_key, batch.errors_key)

    def writer(self, name: str) -> ObjectWriter:
        return self.store.writer(self._key(WORK, name), media_type=MEDIA_TYPE)

    @contextmanager
    def temporary(self) -> Iterator[TemporaryFile]:
        """A file that is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="made-", dir=self.scratch) as folder:
            path = Path(folder) / "file"
            with path.open("w+b") as file:
                yield TemporaryFile(path, file)

    def stored(self, path: Path, part: str, name: str, media_type: str) -> StoredObject:
        return self.store.put_file(self._key(part, name), path, media_type=media_type)

    def known(
        self, stack: ExitStack, threshold: float | None, key: str | None
    ) -> NearDuplicates | None:
        """The texts that were kept in the rounds before, which ``key`` has, and before the first
        round the examples that more is made of; None where nobody asks for them."""
        if threshold is None:
            return None
        scratch = self.scratch or Path(tempfile.gettempdir())
        if key is None:
            known = stack.enter_context(NearDuplicates(threshold, scratch))
            task = augmenting(self.order.template.head)
            if task is not None:
                known.add([each.said for each in good_seeds(self.source(), task)])
            return known
        with self.temporary() as (_, file):
            for chunk in self.store.read(key):
                file.write(chunk)
            file.seek(0)
            return stack.enter_context(NearDuplicates.restore(file, scratch))

    def saved(self, known: NearDuplicates) -> str:
        """The key of what ``known`` restores."""
        with self.temporary() as (path, file):
            known.save(file)
            file.flush()
            return self.stored(path, WORK, "duplicates", "application/octet-stream").key

    def _key(self, part: str, name: str) -> str:
        self._written += 1
        claim = self.claim
        prefix = attempt_prefix(claim.tenant_id, claim.job_id, part, claim.epoch)
        return f"{prefix}{self._written}-{name}"
