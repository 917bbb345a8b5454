"""A checkpoint's folder: written whole or not at all, and believed only when its manifest fits.

``model/`` is servable by name, ``state.safetensors`` and ``state.json`` are what goes on,
``best.safetensors`` the best weights when they are older, ``history.jsonl`` all numbers so far,
``files/`` what the reports have made. ``manifest.json`` names every file and is written last; the
folder gets its name after that.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file

from worker.recipes.reporting import HISTORY
from worker.recipes.shape import RecipeError
from worker.recipes.state import Progress, finite, storable
from worker.tuning.messages import CHECKPOINTS, DATA, TRAIN_DATA, VALIDATION_DATA, Plan

MANIFEST, MODEL, STATE, NUMBERS = "manifest.json", "model", "state.safetensors", "state.json"
BEST, FILES = "best.safetensors", "files"


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint that fits."""

    tensors: dict[str, torch.Tensor]
    progress: Progress
    folder: Path


def write_checkpoint(
    folder: Path,
    *,
    tensors: Mapping[str, torch.Tensor],
    progress: Progress,
    write_model: Callable[[Path], object],
    history: Path,
    files: Path,
    best: Path | None,
) -> Path:
    """Makes ``checkpoints/step-N`` in a training's folder, and returns it."""
    target = folder / CHECKPOINTS / f"step-{progress.step:08d}"
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / MODEL).mkdir(parents=True)
    write_model(partial / MODEL)
    save_file(storable(tensors), partial / STATE)
    (partial / NUMBERS).write_bytes(msgspec.json.encode(_readable(progress)))
    if history.exists():
        shutil.copyfile(history, partial / HISTORY)
    if best is not None:
        shutil.copyfile(best, partial / BEST)
    if any(files.iterdir()):
        shutil.copytree(files, partial / FILES)
    _write_manifest(partial, progress)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    _sync(target.parent)
    return target


def read_checkpoint(folder: Path, fingerprint: str) -> Restored:
    """Raises RecipeError ``checkpoint_damaged``, or ``checkpoint_mismatch`` when it is of another
    training: another recipe, base model, data, or other hyperparameters."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        for path, entry in manifest["files"].items():
            if _entry(folder / path) != entry:
                raise RecipeError("checkpoint_damaged", f"{path} of the checkpoint is damaged")
        progress = msgspec.json.decode((folder / NUMBERS).read_bytes(), type=Progress)
        tensors = load_file(folder / STATE)
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        reason = f"the checkpoint cannot be read: {type(error).__name__}"
        raise RecipeError("checkpoint_damaged", reason) from error
    if progress.fingerprint != fingerprint:
        raise RecipeError("checkpoint_mismatch", "the checkpoint is of another training")
    return Restored(tensors, progress, folder)


def fingerprint(plan: Plan, folder: Path, hyperparameters: Mapping[str, Any]) -> str:
    """SHA-256 over all that decides the steps of a training."""
    told = {
        "recipe": plan.recipe,
        "base": plan.base_model or Path(plan.base).name,
        "adapter": plan.adapter,
        "continues": bool(plan.base_adapter),
        "lora": plan.lora,
        "hyperparameters": dict(hyperparameters),
        "seed": plan.seed,
        "processes": plan.processes,
        "labels": plan.labels,
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for name in (TRAIN_DATA, VALIDATION_DATA):
        digest.update(_sha256(folder / DATA / name).encode())
    return digest.hexdigest()


def _readable(progress: Progress) -> Progress:
    numbers = {"newest": finite(progress.newest), "evaluated": finite(progress.evaluated)}
    return msgspec.structs.replace(progress, **numbers)


def _write_manifest(folder: Path, progress: Progress) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "step": progress.step,
        "fingerprint": progress.fingerprint,
        "files": {path.relative_to(folder).as_posix(): _entry(path) for path in files},
    }
    with (folder / MANIFEST).open("x", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
