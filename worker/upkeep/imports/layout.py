"""Where a model's files lie, by what it is: each folder, and what may be in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.lifecycle import BadLine
from worker.tuning.data.example import Refused, shown
from worker.upkeep.imports import rewriting, strict_json
from worker.upkeep.imports.dangers import refuse_dangers
from worker.upkeep.imports.kinds import (
    EMBEDDING,
    PIPELINES,
    TEXT,
    UNSUPPORTED,
    Kind,
    kind_of_config,
    kind_of_pipeline,
)
from worker.upkeep.imports.names import (
    DENOISER,
    MODEL,
    STORED_AS_THEY_ARE,
    TOKENIZER_FILES,
    is_weights,
)
from worker.upkeep.imports.package import Package
from worker.upkeep.imports.rewriting import Rewrite
from worker.upkeep.imports.settings_of_pipelines import DENOISERS, INDEX, READERS, ROLES, SCHEDULERS

INDEX_FILE, CONFIG, ADAPTER_CONFIG = "model_index.json", "config.json", "adapter_config.json"
ADAPTER = "adapter_model"
MISSING = "missing_file"
_VOCABULARIES = TOKENIZER_FILES & {
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm",
    "vocab.json", "vocab.txt",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One folder of a model that is loaded by one class."""

    folder: str
    """With its slash; empty for the model's own."""
    library: str
    name: str
    """Of the class."""
    rewrites: Mapping[str, Rewrite] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()
    """Files that are stored as they are."""
    stem: str | None = None
    """What its weights are named after; None for a part without."""
    required: tuple[str, ...] = ()
    reads_text: bool = False
    """Whether it needs a vocabulary."""

    def takes(self, name: str) -> bool:
        return (
            name in self.rewrites
            or name in self.plain
            or (self.stem is not None and is_weights(name, self.stem))
        )


@dataclass(frozen=True, slots=True)
class Layout:
    kind: Kind
    parts: tuple[Part, ...]
    index: dict[str, Any] | None = None
    """Of a pipeline: ``model_index.json``, written anew."""
    dropped: tuple[str, ...] = ()
    """Settings of ``index`` that were left out."""


def layout_of(package: Package) -> Layout:
    """What the package holds. Raises Refused for what is no model, or of no kind that is taken."""
    if INDEX_FILE in package:
        return _of_pipeline(_document(package, INDEX_FILE))
    if ADAPTER_CONFIG in package:
        return Layout(Kind(TEXT, "LoRA", adapter=True), (_adapter(),))
    if CONFIG in package:
        kind = kind_of_config(_document(package, CONFIG))
        return Layout(kind, (_model(kind),))
    message = f"it has no {CONFIG}, no {ADAPTER_CONFIG} and no {INDEX_FILE} in its first folder"
    raise Refused("not_a_model", message)


def check_layout(package: Package, layout: Layout) -> list[BadLine]:
    """Files that do not belong to the model, and files that it lacks."""
    problems = []
    if layout.kind.adapter:  # trainers write them beside it; its base has its own
        package.leave_out(TOKENIZER_FILES)
    for path in package.paths:
        if path != INDEX_FILE and not any(lies_in(path, part) for part in layout.parts):
            refusal = Refused("unexpected_file", "it is not a file of a model of this kind")
            problems.append(refusal.bad_line(member=path))
    for part in layout.parts:
        missing = [name for name in part.required if part.folder + name not in package]
        vocabulary = any(part.folder + name in package for name in _VOCABULARIES)
        if part.reads_text and not vocabulary:
            missing.append("tokenizer.json")
        weights = part.stem and any(
            path.startswith(part.folder) and is_weights(path[len(part.folder) :], part.stem)
            for path in package.paths
        )
        if part.stem and not weights:
            missing.append(f"{part.stem}.safetensors")
        problems += [
            Refused(MISSING, f"{part.folder}{name} is missing", part.folder + name).bad_line()
            for name in missing
        ]
    return problems


def lies_in(path: str, part: Part) -> bool:
    return path.startswith(part.folder) and part.takes(path[len(part.folder) :])


def _document(package: Package, path: str) -> dict[str, Any]:
    try:
        found = strict_json.decode_object(package.read(path, rewriting.MOST_BYTES))
        refuse_dangers(found)
    except Refused as refusal:
        raise Refused(refusal.code, f"{path}: {refusal.message}", path) from None
    return found


def _model(kind: Kind) -> Part:
    rewrites = dict(rewriting.TRANSFORMERS)
    del rewrites["preprocessor_config.json"]
    if kind.engine == EMBEDDING:
        rewrites |= rewriting.SENTENCE_FILES
    return Part(
        "", "transformers", kind.architecture, rewrites, STORED_AS_THEY_ARE, MODEL, (CONFIG,), True
    )


def _adapter() -> Part:
    return Part("", "peft", "LoRA", rewriting.ADAPTERS, frozenset(), ADAPTER, (ADAPTER_CONFIG,))


# --- pipelines ------------------------------------------------------------------------------


def _of_pipeline(index: dict[str, Any]) -> Layout:
    kind = kind_of_pipeline(index)
    kept: dict[str, Any] = {}
    dropped: list[str] = []
    parts: list[Part] = []
    for name, value in index.items():
        if name in INDEX:
            if value is not None and not INDEX[name](value):
                raise Refused(rewriting.INVALID, f"{INDEX_FILE}: '{name}' is not taken", name)
            kept[name] = value
        elif name not in ROLES:
            dropped.append(name)
        else:
            kept[name] = value
            if value != [None, None]:
                parts.append(_component(name, value))
    there = {part.folder.rstrip("/") for part in parts}
    lacking = [name for name in (*PIPELINES[kind.architecture], "scheduler") if name not in there]
    if lacking:
        message = f"{INDEX_FILE}: a {kind.architecture} needs its {', '.join(lacking)}"
        raise Refused(MISSING, message, lacking[0])
    return Layout(kind, tuple(parts), kept, tuple(dropped))


def _component(role: str, value: Any) -> Part:
    named = isinstance(value, list) and all(isinstance(part, str) for part in value)
    pair = tuple(value) if named else ()
    if pair not in ROLES[role]:
        known = ", ".join(sorted(name for _, name in ROLES[role]))
        message = f"{INDEX_FILE}: {shown(str(value))} is not taken as {role}; these are: {known}"
        raise Refused(UNSUPPORTED, message, role)
    library, name = pair
    folder = f"{role}/"
    if name in SCHEDULERS:
        required = ("scheduler_config.json",)
        return Part(folder, library, name, rewriting.SCHEDULERS, required=required)
    if name in DENOISERS:
        return Part(folder, library, name, rewriting.DENOISERS, stem=DENOISER, required=(CONFIG,))
    if name in READERS:
        rewrites = {"preprocessor_config.json": rewriting.TRANSFORMERS["preprocessor_config.json"]}
        return Part(folder, library, name, rewrites, required=tuple(rewrites))
    if role.startswith("tokenizer"):
        rewrites = {n: r for n, r in rewriting.TRANSFORMERS.items() if n in TOKENIZER_FILES}
        return Part(folder, library, name, rewrites, STORED_AS_THEY_ARE, reads_text=True)
    names = (CONFIG, "generation_config.json", "model.safetensors.index.json")
    rewrites = {n: rewriting.TRANSFORMERS[n] for n in names}
    return Part(folder, library, name, rewrites, stem=MODEL, required=(CONFIG,))
