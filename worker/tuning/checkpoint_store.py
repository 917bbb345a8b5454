"""Folders of a training in the store: checkpoints, models, result files; verified both ways.

A checkpoint's files go first, its manifest last, and only then its row, under the fence. So what a
row names was complete, and what was torn by a crash is named by nothing.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path, PurePosixPath

import msgspec

from shared.db.models import ModelFile
from shared.errors import NotFound, PressrunError
from shared.storage.base import Store, StoredObject
from shared.storage.keys import InvalidKey, check_key
from worker.upkeep.assembly import Interrupted

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 * 2**20
_DEFAULT_TYPE = "application/octet-stream"


class Corrupt(Exception):
    """A stored checkpoint is not what its manifest, or its row, says."""


class BadFolder(Exception):
    """A training left something that can't be stored: a link, or a name that no store takes."""


class Entry(msgspec.Struct, frozen=True):
    """One file of a checkpoint."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a checkpoint consists of; the recipe writes it, last of all."""

    step: int
    files: dict[str, Entry]
    """By path, with ``/``."""


def store_folder(
    store: Store,
    threads: Executor,
    folder: Path,
    prefix: str,
    interrupted: Callable[[], bool] = lambda: False,
    *,
    but: str = "",
) -> list[ModelFile]:
    """Stores every file below ``folder`` under ``prefix``, several at a time, ``but`` one; by path.

    Raises BadFolder, Interrupted, StorageUnavailable or StorageFull.
    """
    paths = [path for path in list_files(folder) if path != but]

    def put(path: str) -> ModelFile:
        if interrupted():
            raise Interrupted
        media_type = mimetypes.guess_type(path)[0] or _DEFAULT_TYPE
        stored = store.put_file(prefix + path, folder / path, media_type=media_type)
        return ModelFile(path, stored.key, stored.bytes, stored.sha256)

    for path in paths:
        try:
            check_key(prefix + path)
        except InvalidKey as error:
            raise BadFolder(str(error)) from None
    return list(threads.map(put, paths))


def list_files(folder: Path) -> list[str]:
    """Every plain file below, by its path with ``/``. Raises BadFolder for anything else."""
    found = []
    for top, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(top, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found.append(path.relative_to(folder).as_posix())
            elif not stat.S_ISDIR(mode):
                raise BadFolder(f"{path.name} is no plain file")
    return sorted(found)


def store_checkpoint(
    store: Store,
    threads: Executor,
    folder: Path,
    prefix: str,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[list[ModelFile], StoredObject]:
    """Stores a checkpoint, its manifest last; returns all files, and the manifest.

    Raises as ``store_folder`` does, and BadFolder when the files are not those of the manifest.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(data, type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise BadFolder(f"a checkpoint without a manifest: {type(error).__name__}") from None
    files = store_folder(store, threads, folder, prefix, interrupted, but=MANIFEST)
    if {file.path: Entry(file.bytes, file.sha256) for file in files} != manifest.files:
        raise BadFolder("a checkpoint that is not what its manifest says")
    last = store.put_bytes(prefix + MANIFEST, data, media_type="application/json")
    return [*files, ModelFile(MANIFEST, last.key, last.bytes, last.sha256)], last


def fetch_checkpoint(
    store: Store,
    threads: Executor,
    *,
    manifest_key: str,
    manifest_sha256: str,
    folder: Path,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Brings a checkpoint's files into ``folder``. Raises Corrupt when one of them, or the
    manifest, is missing or differs; Interrupted; StorageUnavailable."""
    try:
        data = b"".join(store.read(manifest_key, 0, LARGEST_MANIFEST))
    except NotFound:
        raise Corrupt("its manifest is missing") from None
    if hashlib.sha256(data).hexdigest() != manifest_sha256:
        raise Corrupt("its manifest differs")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError:
        raise Corrupt("its manifest can't be read") from None
    prefix = manifest_key.removesuffix(MANIFEST)
    files = [
        ModelFile(path, prefix + path, entry.bytes, entry.sha256)
        for path, entry in manifest.files.items()
    ]
    fetch_files(store, threads, files, folder, interrupted)
    (folder / MANIFEST).write_bytes(data)


def fetch_files(
    store: Store,
    threads: Executor,
    files: Iterable[ModelFile],
    folder: Path,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Brings files into ``folder``, several at a time. Raises as ``fetch_checkpoint`` does."""

    def get(file: ModelFile) -> None:
        target = _inside(folder, file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            sha256 = download(store, file.key, target, interrupted)
        except NotFound:
            raise Corrupt(f"{file.path} is missing") from None
        if target.stat().st_size != file.bytes or sha256 != file.sha256:
            raise Corrupt(f"{file.path} differs")

    list(threads.map(get, files))


def download(
    store: Store, key: str, target: Path, interrupted: Callable[[], bool] = lambda: False
) -> str:
    """Writes an object to ``target`` and returns its SHA-256. Raises NotFound, Interrupted,
    StorageUnavailable or OSError."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for chunk in store.read(key):
            if interrupted():
                raise Interrupted
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def forget(store: Store, keys: Iterable[str]) -> int:
    """Removes objects that nobody needs; what the store refuses stays for the cleaner. Returns
    how many are gone."""
    removed = 0
    for key in keys:
        try:
            store.delete(key)
        except PressrunError:
            break
        removed += 1
    return removed


def _inside(folder: Path, path: str) -> Path:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise Corrupt("it names a file outside of its folder")
    return folder.joinpath(*parts.parts)
