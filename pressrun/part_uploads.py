"""Large files in parts: what broke off is sent again, a part at a time."""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable
from pathlib import Path

from pressrun.api_client import ApiClient, Json
from pressrun.exit_codes import CommandError, ExitCode
from shared.backoff import delay_seconds

PART_BYTES = 64 * 2**20
PART_TRIES = 5
_CHUNK_BYTES = 2**20

OnBytes = Callable[[int], None]


class Window:
    """A part of an open file, as the HTTP client wants it; reports what is read of it."""

    def __init__(self, file: io.FileIO, start: int, size: int, on_bytes: OnBytes) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._place = 0
        self._on_bytes = on_bytes

    def read(self, size: int = -1, /) -> bytes:
        left = self._size - self._place
        self._file.seek(self._start + self._place)
        data = self._file.read(left if size < 0 else min(size, left)) or b""
        self._place += len(data)
        self._on_bytes(len(data))
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place


def upload_in_parts(client: ApiClient, path: Path, purpose: str, on_bytes: OnBytes) -> Json:
    """Uploads the file and returns the file object. Raises CommandError, or OSError when the file
    can't be read."""
    size = path.stat().st_size
    upload = client.post(
        "/v1/uploads",
        {
            "filename": path.name,
            "purpose": purpose,
            "bytes": size,
            "mime_type": "application/octet-stream",
        },
    )
    resource = f"/v1/uploads/{upload['id']}"
    digest = hashlib.md5(usedforsecurity=False)
    part_ids = []
    with io.FileIO(path) as file:
        for number in range(math.ceil(size / PART_BYTES)):
            start = number * PART_BYTES
            length = min(PART_BYTES, size - start)
            _digest_part(file, start, length, digest.update)
            part_ids.append(_send_part(client, resource, file, (start, length), on_bytes))
    # Under a key, as it may be asked again: a second time it goes on waiting for the first.
    done = client.post(
        f"{resource}/complete",
        {"part_ids": part_ids, "md5": digest.hexdigest()},
        idempotency_key=upload["id"],
    )
    file_object: Json = done["file"]
    return file_object


def _digest_part(file: io.FileIO, start: int, length: int, update: Callable[[bytes], None]) -> None:
    window = Window(file, start, length, lambda _: None)
    while data := window.read(_CHUNK_BYTES):
        update(data)


def _send_part(
    client: ApiClient,
    resource: str,
    file: io.FileIO,
    place: tuple[int, int],
    on_bytes: OnBytes,
) -> str:
    """The part's id. A part that was stored twice, as its answer was lost, is left out of the file
    by its id."""
    tries = 0
    while True:
        tries += 1
        sent = 0

        def count(more: int) -> None:
            nonlocal sent
            sent += more
            on_bytes(more)

        window = Window(file, *place, count)
        try:
            part = client.post_file(
                f"{resource}/parts", {}, {"data": ("part", window, "application/octet-stream")}
            )
        except CommandError as error:
            if error.exit_code is not ExitCode.UNREACHABLE or tries == PART_TRIES:
                raise
            on_bytes(-sent)
            time.sleep(delay_seconds(tries, base=0.5, cap=10.0))
            continue
        return str(part["id"])
