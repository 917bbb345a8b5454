"""Files up and down, of any size, through a few kilobytes of memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pressrun.api_client import ApiClient, Json
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.part_uploads import PART_BYTES, upload_in_parts
from pressrun.terminal import Terminal

DOWNLOAD_TRIES = 3
SILENT_BYTES = 4 * 2**20
"""Smaller transfers get no bar."""

OnBytes = Callable[[int], None]
"""Told how many more bytes went over."""


class _CountedFile(io.FileIO):
    """A file that reports what is read of it. The HTTP client learns its size by ``fstat``."""

    def __init__(self, path: Path, on_bytes: OnBytes) -> None:
        super().__init__(path)
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        data = super().read(-1 if size is None else size)
        self._on_bytes(len(data or b""))
        return data


def upload(client: ApiClient, path: Path, purpose: str, terminal: Terminal) -> Json:
    """Streams a file to the server, a large one in parts; returns the file object. Raises
    CommandError."""
    try:
        size = path.stat().st_size
        if size > PART_BYTES:
            with _bar(terminal, f"uploading {path.name}", size) as on_bytes:
                return upload_in_parts(client, path, purpose, on_bytes)
        with (
            _bar(terminal, f"uploading {path.name}", size) as on_bytes,
            _CountedFile(path, on_bytes) as file,
        ):
            return client.post_file(
                "/v1/files",
                {"purpose": purpose},
                {"file": (path.name, file, "application/octet-stream")},
            )
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.USAGE) from None


def uploaded_id(client: ApiClient, file: str, purpose: str, terminal: Terminal) -> str:
    """The id of what a command was given: a file's id as it is, or a path, which is uploaded.

    Raises CommandError for a path that leads nowhere.
    """
    if file.startswith("file-") and not Path(file).exists():
        return file
    if not Path(file).is_file():
        raise CommandError(f"there is no file {file}", ExitCode.USAGE)
    return str(upload(client, Path(file), purpose, terminal)["id"])


def download(client: ApiClient, resource: str, target: Path, terminal: Terminal) -> int:
    """Streams ``/v1/files/ID`` or ``/v1/artifacts/ID`` to ``target``; returns its bytes.

    The file appears only when it is whole.
    Raises CommandError; what had arrived is then removed.
    """
    size = int(client.get(resource)["bytes"])
    partial = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for last in (False,) * (DOWNLOAD_TRIES - 1) + (True,):
            if _fetch(client, resource, partial, size, terminal, may_fail=not last):
                break
        partial.replace(target)
    except OSError as error:
        raise CommandError(f"cannot write {target}: {error.strerror}", ExitCode.USAGE) from None
    finally:
        partial.unlink(missing_ok=True)
    return size


def _fetch(
    client: ApiClient,
    resource: str,
    partial: Path,
    size: int,
    terminal: Terminal,
    *,
    may_fail: bool,
) -> bool:
    """One try at the whole file; False when another one may go better."""
    arrived = 0
    try:
        with (
            _bar(terminal, f"downloading {partial.stem}", size) as on_bytes,
            client.stream(f"{resource}/content") as response,
            partial.open("wb") as file,
        ):
            for chunk in response.iter_bytes():
                file.write(chunk)
                arrived += len(chunk)
                on_bytes(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except CommandError as error:
        if may_fail and error.exit_code is ExitCode.UNREACHABLE:
            return False
        raise
    if arrived == size:
        return True
    if may_fail:
        return False
    raise CommandError(
        f"only {arrived} of {size} bytes of {resource} arrived", ExitCode.UNREACHABLE
    )


@contextmanager
def _bar(terminal: Terminal, title: str, size: int) -> Iterator[OnBytes]:
    if terminal.json_only or not terminal.err.is_terminal or size < SILENT_BYTES:
        yield lambda _: None
        return
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        task = progress.add_task(title, total=size)
        yield lambda n: progress.advance(task, n)
