"""A model that was found good, on its way into the store."""

from __future__ import annotations

from collections.abc import Callable

from shared.db.models import ModelFile
from shared.storage.base import Store
from worker.model_paths import check_files
from worker.upkeep.assembly import Interrupted
from worker.upkeep.imports.inspection import Found
from worker.upkeep.imports.package import Package

JSON, BYTES = "application/json", "application/octet-stream"


def store_model(
    store: Store, prefix: str, package: Package, found: Found, interrupted: Callable[[], bool]
) -> list[ModelFile]:
    """Stores every file below ``prefix``: configurations as they were written anew, the rest as it
    is in the package. Raises Interrupted, Refused, and as the store does."""
    small = found.rewritten.files | found.plain
    files = []
    for path, data in sorted(small.items()):
        if interrupted():
            raise Interrupted
        stored = store.put_bytes(prefix + path, data, media_type=JSON)
        files.append(ModelFile(path, stored.key, stored.bytes, stored.sha256))
    weights = [path for path in package.paths if path.endswith(".safetensors")]
    files += [_stream(store, prefix, package, path, interrupted) for path in sorted(weights)]
    check_files(files)
    return files


def _stream(
    store: Store, prefix: str, package: Package, path: str, interrupted: Callable[[], bool]
) -> ModelFile:
    with store.writer(prefix + path, media_type=BYTES) as writer:
        for chunk in package.chunks(path):
            if interrupted():
                raise Interrupted
            writer.write(chunk)
        stored = writer.finish()
    return ModelFile(path, stored.key, stored.bytes, stored.sha256)
