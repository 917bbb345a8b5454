"""A process that works on whatever source is due, and is killed the moment that it has stored
something: ``python -m tests.integration.killed_reader DATABASE_URL STORE_FOLDER HOST``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from shared.db.session import make_engine
from shared.doorbell import Ringer
from shared.egress import parse_allowed
from shared.storage.base import StoredObject
from shared.storage.local import LocalStore
from worker.egress import Egress
from worker.upkeep.feeds_reading import SourceReader
from worker.upkeep.monitors import Monitors
from worker.upkeep.schedules import ScheduleRuns


class Dying:
    """A writer whose process does not outlive its object's last byte."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __enter__(self) -> Dying:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def finish(self) -> StoredObject:
        self._writer.finish()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")


class DyingStore(LocalStore):
    def writer(self, key: str, *, media_type: str) -> Any:
        return Dying(super().writer(key, media_type=media_type))


def main(url: str, folder: str, host: str) -> None:
    database = make_engine(url, process="killed")
    egress = Egress(allowed=parse_allowed(host), timeout_seconds=60.0)
    reader = SourceReader(egress, {}, max_bytes=2**20)
    common = (database, DyingStore(Path(folder), "a key"), Ringer(""), reader)
    runs = ScheduleRuns(*common, window=64, most_failures=5)
    monitors = Monitors(*common, window=64)
    run = runs.begin()
    if run is not None:
        runs.run(run)
    monitor = monitors.begin()
    if monitor is not None:
        monitors.run(monitor)


if __name__ == "__main__":
    main(*sys.argv[1:])
