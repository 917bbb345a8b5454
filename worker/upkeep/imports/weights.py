"""A part's weights: each file by itself, and all of them against their index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from worker.tuning.data.example import Refused, shown
from worker.upkeep.assembly import Interrupted
from worker.upkeep.imports.layout import Part
from worker.upkeep.imports.names import is_weights
from worker.upkeep.imports.package import Package
from worker.upkeep.imports.safetensors_files import Tensor, verify

MOST_FILES = 500
INDEX_CODE = "weights_index"

Tensors = dict[str, Tensor]


def verify_weights(
    package: Package,
    part: Part,
    documents: Mapping[str, Any],
    interrupted: Callable[[], bool],
) -> Tensors:
    """Every tensor of the part. ``documents`` are its configurations by path. Raises Refused, whose
    ``param`` is the file at fault, and Interrupted."""
    if part.stem is None:
        return {}
    names = sorted(
        path[len(part.folder) :]
        for path in package.paths
        if path.startswith(part.folder) and is_weights(path[len(part.folder) :], part.stem)
    )
    if len(names) > MOST_FILES:
        raise Refused("too_many_members", f"its weights are in more than {MOST_FILES} files")
    files = {name: _verify(package, part.folder + name, interrupted) for name in names}
    index_name = f"{part.folder}{part.stem}.safetensors.index.json"
    return _together(files, documents.get(index_name), part, index_name)


def _verify(package: Package, path: str, interrupted: Callable[[], bool]) -> Tensors:
    def chunks() -> Iterator[bytes]:
        for chunk in package.chunks(path):
            if interrupted():
                raise Interrupted
            yield chunk

    try:
        return verify(chunks(), package.size(path))
    except Refused as refusal:
        raise Refused(refusal.code, f"{shown(path)}: {refusal.message}", shown(path)) from None


def _together(files: dict[str, Tensors], index: Any, part: Part, index_name: str) -> Tensors:
    """All tensors, each once and where the index says."""
    if index is None:
        if len(files) > 1 or f"{part.stem}.safetensors" not in files:
            raise Refused(INDEX_CODE, f"{index_name} is missing, which says what is where")
        return next(iter(files.values()))
    places = {name: file for file, tensors in files.items() for name in tensors}
    if len(places) != sum(map(len, files.values())):
        raise Refused(INDEX_CODE, "a tensor is in more than one file", index_name)
    if places != index["weight_map"]:
        differing = sorted(set(places.items()) ^ set(index["weight_map"].items()))[0]
        message = f"{index_name} is not true of '{shown(differing[0])}'"
        raise Refused(INDEX_CODE, message, index_name)
    return {name: tensor for tensors in files.values() for name, tensor in tensors.items()}
