"""Folders of the operators' that tenants' files lie in: ``root/tenant id/…`` and nothing else.

Each part of a path is opened from the folder before it, and never through a symbolic link, so what
is read lies below the tenant's own folder whatever anybody renames meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from worker.upkeep.feeds_xml import FeedRefused

MOST_FILES = 1_000
MOST_ENTRIES = 20_000
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".xml", ".rss", ".atom")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Opened:
    """A folder's descriptor, for ``closing``."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        os.close(self.descriptor)


def read_folder(
    roots: Mapping[str, Path], folder: str, tenant_id: str, *, max_bytes: int
) -> Iterator[bytes]:
    """The files of the tenant's ``folder`` (``root/path``), by name, one at a time; a file whose
    name begins with a dot, or ends unlike a table or feed, is left alone. Raises FeedRefused."""
    name, *path = folder.split("/")
    if name not in roots:
        raise FeedRefused("folder_not_found", f"operators have given no root {name!r}")
    if not all(part not in {"", ".", ".."} for part in path):
        raise FeedRefused("folder_not_found", "this is no path")
    with closing(_Opened(_enter(roots[name], [tenant_id, *path]))) as opened:
        left = max_bytes
        for file_name in _names(opened.descriptor):
            content = _content(opened.descriptor, file_name, left)
            left -= len(content)
            yield content


def _enter(root: Path, parts: list[str]) -> int:
    """The descriptor of the folder. Raises FeedRefused."""
    try:
        # The root is the operators': it may be a link.
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parts:
            above, here = here, -1
            try:
                here = os.open(part, _FOLDER, dir_fd=above)
            finally:
                os.close(above)
    except OSError:
        raise FeedRefused("folder_not_found", "the folder is not there, or can't be read") from None
    return here


def _names(descriptor: int) -> list[str]:
    """Of the files that are meant, in order. Raises FeedRefused."""
    found: list[str] = []
    with os.scandir(descriptor) as entries:
        for number, entry in enumerate(entries):
            if number >= MOST_ENTRIES:
                raise FeedRefused("feed_too_large", f"the folder has over {MOST_ENTRIES} entries")
            if not entry.name.startswith(".") and entry.name.lower().endswith(ENDINGS):
                found.append(entry.name)
    if len(found) > MOST_FILES:
        raise FeedRefused("feed_too_large", f"the folder has more than {MOST_FILES} files")
    return sorted(found)


def _content(folder: int, name: str, most: int) -> bytes:
    """Of a plain file; nothing of a link, a pipe or a device. Raises FeedRefused."""
    with suppress(OSError):
        descriptor = os.open(name, _FILE, dir_fd=folder)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return b""
            content = file.read(most + 1)
        if len(content) > most:
            raise FeedRefused("feed_too_large", "the folder's files are too large together")
        return content
    return b""
