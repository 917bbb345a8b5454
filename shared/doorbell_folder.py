"""Doorbells in a folder: kombu's filesystem transport, with messages that are whole or not there.

kombu's own takes a message while it is still being written, moves it through the machine's
temporary folder, and keeps what nobody fetches for ever.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import structlog
from kombu.transport import filesystem

TTL_SECONDS = 60
MOST_WAITING = 1_000
_SUFFIX = ".msg"

log = structlog.get_logger(__name__)


def folder_options(folder: Path) -> dict[str, Any]:
    """Makes the folders, 0700, and returns the transport options that name them."""
    folder = folder.absolute()
    queue, taken, control = folder / "queue", folder / "taken", folder / "control"
    for made in (folder, queue, taken, control):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
    _drop_leftovers(taken)
    return {
        "data_folder_in": str(queue),
        "data_folder_out": str(queue),
        "processed_folder": str(taken),
        "control_folder": str(control),
        "store_processed": False,
        "polling_interval": 0.1,
    }


class Channel(filesystem.Channel):
    """Each message is one file ``{milliseconds}_{random}.{queue}.msg``."""

    def _put(  # type: ignore[override]  # as kombu's own file transport has it
        self, queue: str, payload: dict[str, Any], **_: Any
    ) -> None:
        folder = Path(self.data_folder_out)
        names = list(self._waiting(queue))
        for name in names[: max(0, len(names) - MOST_WAITING + 1)]:
            (folder / name).unlink(missing_ok=True)
        name = f"{time.time_ns() // 10**6}_{secrets.token_hex(8)}.{queue}{_SUFFIX}"
        partial = Path(self.processed_folder) / f"{name}.part"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(payload, file)
        os.rename(partial, folder / name)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for name in self._waiting(queue):
            taken = Path(self.processed_folder) / name
            try:
                os.rename(Path(self.data_folder_in) / name, taken)
                payload = json.loads(taken.read_bytes())
                taken.unlink()
            except FileNotFoundError:  # another process was first
                continue
            except (ValueError, RecursionError):
                payload = None
                taken.unlink(missing_ok=True)
            if _is_message(payload):
                return payload
            log.warning("doorbell_refused", reason="not a message")
        raise Empty

    def _waiting(self, queue: str) -> Iterator[str]:
        """Names of the queue's messages, oldest first; what outlived its time is removed."""
        oldest = (time.time() - TTL_SECONDS) * 1000
        for name in sorted(os.listdir(self.data_folder_in)):
            if name.partition(".")[2] != queue + _SUFFIX:
                continue
            stamp = name.partition("_")[0]
            if stamp.isdecimal() and int(stamp) >= oldest:
                yield name
            else:
                (Path(self.data_folder_in) / name).unlink(missing_ok=True)


class Transport(filesystem.Transport):
    Channel = Channel


def _is_message(payload: object) -> bool:
    if not isinstance(payload, dict):
        return False
    properties = payload.get("properties")
    return isinstance(properties, dict) and isinstance(properties.get("delivery_info"), dict)


def _drop_leftovers(taken: Path) -> None:
    """Removes what processes left behind that were killed halfway."""
    for leftover in taken.iterdir():
        try:
            if leftover.stat().st_mtime < time.time() - TTL_SECONDS:
                leftover.unlink()
        except FileNotFoundError:
            continue
