"""A ZIP that a tenant made, believed in nothing: names, sizes and contents are checked.

Members are read one at a time and never extracted under their own names. Whatever could only serve
an attack, or could run code when it is loaded, is named as a bad line and not opened.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from shared.lifecycle import BadLine
from worker.tuning.data.example import Refused
from worker.tuning.data.limits import MIB, DataLimits

PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz"})
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".lzma"})
CLUTTER = frozenset({"thumbs.db", "desktop.ini"})
"""What file managers leave behind, next to names that begin with a dot."""
GROWS_FREELY = MIB
"""Bytes up to which a member may be as compressible as it likes."""
NAME_CHARACTERS = 512
READ_BYTES = 2**16

_DAMAGES = (
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError,
    ValueError, IndexError, OverflowError,
)  # fmt: skip
"""What ``zipfile`` raises for files that are broken, some of it without meaning to."""
_END, _END_64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES, _END_64_BYTES, _COMMENT_BYTES = 22, 20, 56, 2**16
_IN_64, _IN_64_ENTRIES = 2**32 - 1, 2**16 - 1
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """The usable members of a ZIP in its own order, and what is wrong with the others."""

    def __init__(self, file: IO[bytes], limits: DataLimits) -> None:
        """Raises Refused when the archive as a whole can't be used."""
        self._limits = limits
        self.problems: list[BadLine] = []
        self.bad_members = 0
        self.members: dict[str, zipfile.ZipInfo] = {}
        size, entries = _directory(file)
        if size > limits.directory_bytes or entries > limits.members:
            raise Refused("too_many_members", f"a ZIP has at most {limits.members} files")
        try:
            self._zip = zipfile.ZipFile(file)
        except _DAMAGES:
            raise _broken() from None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise _broken() from None  # it says that something lies before its first byte
        listed = self._zip.infolist()
        if len(listed) > limits.members:
            raise Refused("too_many_members", f"a ZIP has at most {limits.members} files")
        if sum(info.file_size for info in listed) > limits.unpacked_bytes:
            message = f"the files of a ZIP have at most {limits.unpacked_bytes} bytes together"
            raise Refused("archive_too_large", message)
        for info in listed:
            self._judge(info)

    def _judge(self, info: zipfile.ZipInfo) -> None:
        try:
            if info.filename in self.members:
                raise Refused("duplicate_member", "there are two files of this name")
            _check_name(info)
            if info.is_dir() or is_clutter(info.filename):
                return
            _check_kind(info)
            grows = info.file_size > self._limits.ratio * max(1, info.compress_size)
            if info.file_size > GROWS_FREELY and grows:
                message = f"it grows more than {self._limits.ratio} times when it is unpacked"
                raise Refused("archive_bomb", message)
        except Refused as refusal:
            self.bad_members += 1
            if len(self.problems) < self._limits.reported:
                self.problems.append(refusal.bad_line(member=info.filename))
            return
        self.members[info.filename] = info

    def read(self, name: str, most_bytes: int) -> bytes:
        """A whole member. Raises Refused for one that is larger, damaged, or not what it says."""
        info = self.members[name]
        if info.file_size > most_bytes:
            message = f"it has {info.file_size} bytes, {most_bytes} are the most"
            raise Refused("file_too_large", message)
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """A member piece by piece. Raises Refused for one that is damaged."""
        try:
            # zipfile stops at the size that is declared, whatever the member would unpack to.
            with self._zip.open(self.members[name]) as member:
                while chunk := member.read(READ_BYTES):
                    yield chunk
        except _DAMAGES:
            raise Refused("invalid_member", "the file is damaged in the ZIP") from None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Refused("invalid_member", "the file is damaged in the ZIP") from None


def _broken() -> Refused:
    return Refused("invalid_archive", "the file is not a whole ZIP")


def _directory(file: IO[bytes]) -> tuple[int, int]:
    """Bytes and entries of the list of files by the archive's own account; zipfile would read a
    list of any size into memory. Raises Refused."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _END_BYTES - _COMMENT_BYTES)
    file.seek(start)
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < _END_BYTES:
        raise _broken()
    entries, length = struct.unpack_from("<HI", tail, place + 10)
    found = [(0 if length == _IN_64 else length, 0 if entries == _IN_64_ENTRIES else entries)]
    locator = start + place - _LOCATOR_BYTES
    if locator >= 0:
        file.seek(locator)
        mark, _, record = struct.unpack("<4sIQ", file.read(16))
        if mark == _LOCATOR:
            # Versions of zipfile differ in which of the two they read.
            found += [_record_64(file, at) for at in (record, locator - _END_64_BYTES)]
    return max(length for length, _ in found), max(entries for _, entries in found)


def _record_64(file: IO[bytes], at: int) -> tuple[int, int]:
    if not 0 <= at < 2**63:
        return 0, 0
    file.seek(at)
    record = file.read(_END_64_BYTES)
    if len(record) < _END_64_BYTES or record[:4] != _END_64:
        return 0, 0
    entries, length = struct.unpack_from("<QQ", record, 32)
    return length, entries


def is_clutter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        "__MACOSX" in parts
        or any(part.startswith(".") for part in parts)
        or parts[-1].lower() in CLUTTER
    )


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.filename
    raw = info.orig_filename  # zipfile cuts names at a NUL byte
    parts = name.rstrip("/").split("/")
    if (
        not name.strip("/")
        or name.startswith("/")
        or "\\" in raw
        or "\0" in raw
        or ":" in parts[0]
        or any(part in ("", ".", "..") for part in parts)
        or len(name) > NAME_CHARACTERS
    ):
        raise Refused("unsafe_name", "the name is absolute, leaves its folder or is malformed")


def _check_kind(info: zipfile.ZipInfo) -> None:
    suffix = PurePosixPath(info.filename).suffix.lower()
    if suffix in PICKLES:
        raise Refused("pickle_refused", "files that may hold pickled code are not taken")
    if suffix in ARCHIVES:
        raise Refused("nested_archive", "archives in archives are not taken")
    if info.flag_bits & _ENCRYPTED:
        raise Refused("encrypted_member", "the file is encrypted")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise Refused("unsafe_member", "only plain files are taken: no links, no devices")
    if info.compress_type not in _METHODS:
        raise Refused("unsupported_compression", "files must be stored or deflated")
