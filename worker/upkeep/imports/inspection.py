"""Everything about a package that is judged before any of it is stored, in order of cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from shared.db.models import Model
from shared.lifecycle import BadLine
from shared.storage.base import Store
from worker.tuning.data.example import Refused, clipped
from worker.upkeep.imports import names
from worker.upkeep.imports.adapters import base_shapes, compare, layers_of
from worker.upkeep.imports.examination import examine
from worker.upkeep.imports.layout import INDEX_FILE, Layout, check_layout, layout_of, lies_in
from worker.upkeep.imports.package import Package
from worker.upkeep.imports.rewriting import MOST_BYTES, Rewritten, rewrite
from worker.upkeep.imports.weights import Tensors, verify_weights

MOST_PROBLEMS = 100


class Rejected(Exception):
    """The package is not imported; ``problems`` say why."""

    def __init__(self, problems: Sequence[BadLine]) -> None:
        super().__init__(problems[0].code)
        self.problems = [clipped(problem) for problem in problems[:MOST_PROBLEMS]]


@dataclass
class Found:
    """A package that was found good."""

    layout: Layout
    left_out: Sequence[str]
    rewritten: Rewritten = field(default_factory=Rewritten)
    plain: dict[str, bytes] = field(default_factory=dict)
    """Vocabularies and templates, by path."""
    tensors: dict[str, Tensors] = field(default_factory=dict)
    """Of each part, by its folder."""
    parameters: int = 0
    compared: bool = False
    """Whether tensors were compared with what they are loaded into."""

    def report(self) -> dict[str, Any]:
        """What is kept of it with the model."""
        return {
            "architecture": self.layout.kind.architecture,
            "tensors": sum(map(len, self.tensors.values())),
            "parameters": self.parameters,
            "compared": self.compared,
            "dropped_settings": self.rewritten.dropped,
            "dropped_settings_n": self.rewritten.dropped_n,
            "left_out_files": list(self.left_out)[:MOST_PROBLEMS],
        }


def inspect(
    package: Package,
    folder: Path,
    base: Model | None,
    store: Store,
    interrupted: Callable[[], bool],
) -> Found:
    """What the package is. ``folder`` is empty, and for the sandbox; ``base`` is the model that an
    adapter is for. Raises Rejected or Refused, Interrupted, and as the store does."""
    if package.problems:
        raise Rejected(package.problems)
    layout = layout_of(package)
    _check_base(layout, base)
    if problems := check_layout(package, layout):
        raise Rejected(problems)
    found = Found(layout, package.left_out)
    if problems := _read_settings(package, found):
        raise Rejected(problems)
    for part in layout.parts:
        tensors = verify_weights(package, part, found.rewritten.documents, interrupted)
        found.tensors[part.folder] = tensors
    found.parameters = sum(
        prod(tensor.shape) for tensors in found.tensors.values() for tensor in tensors.values()
    )
    if base is None:
        _examine(found, folder, interrupted)
    else:
        _compare_with(base, found, store)
    return found


def _check_base(layout: Layout, base: Model | None) -> None:
    if layout.kind.adapter and base is None:
        raise Refused("base_model_required", "it is an adapter: say of which model", "base_model")
    if base is None:
        return
    if not layout.kind.adapter:
        raise Refused("base_model_unused", "it is a whole model and needs no other", "base_model")
    if base.adapter or base.engine != layout.kind.engine:
        message = f"'{base.id}' is not a whole model of the engine '{layout.kind.engine}'"
        raise Refused("base_model_unsupported", message, "base_model")


def _read_settings(package: Package, found: Found) -> list[BadLine]:
    """Fills what is not weights; gives what is wrong with it."""
    problems = []
    if found.layout.index is not None:
        found.rewritten.put(INDEX_FILE, found.layout.index)
        for name in found.layout.dropped:
            found.rewritten.drop(INDEX_FILE, name)
    for path in package.paths:
        part = next((p for p in found.layout.parts if lies_in(path, p)), None)
        if part is None:
            continue
        name = path[len(part.folder) :]
        try:
            if name in part.rewrites:
                data = package.read(path, MOST_BYTES)
                rewrite(path, data, part.rewrites[name], found.rewritten)
            elif name in part.plain:
                is_template = name == names.CHAT_TEMPLATE
                most = names.MOST_TEMPLATE_BYTES if is_template else names.MOST_BYTES
                found.plain[path] = package.read(path, most)
        except Refused as refusal:
            problems.append(refusal.bad_line(member=path))
    return problems


def _examine(found: Found, folder: Path, interrupted: Callable[[], bool]) -> None:
    """In the sandbox, which gets everything but the weights."""
    for path, data in (found.rewritten.files | found.plain).items():
        if path.endswith(".safetensors.index.json"):
            continue  # there are no such files for a loader to look for
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    examined = examine(folder, found.layout, found.tensors, interrupted)
    if examined.problems:
        raise Rejected(examined.problems)
    found.compared = examined.looked


def _compare_with(base: Model, found: Found, store: Store) -> None:
    layers = layers_of(found.tensors[""])
    shapes = base_shapes(base, store)
    if shapes is not None:
        compare(layers, shapes)
        found.compared = True
