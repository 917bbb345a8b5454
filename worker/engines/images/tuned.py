"""Adapters that rows bring along: LoRAs in diffusers' layout, loaded when they are first used."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from safetensors import SafetensorError, safe_open

from worker.engines.adapter_files import (
    BadAdapter,
    are_plain_names,
    check_config,
    check_folder,
)

log = structlog.get_logger()

WEIGHTS = "pytorch_lora_weights.safetensors"
_METADATA = "lora_adapter_metadata"
"""What diffusers makes a configuration of: JSON in the header of the weights."""
_NAMES = frozenset({"target_modules", "exclude_modules", "layers_pattern"})


@dataclass(frozen=True, slots=True)
class TunedAdapter:
    inner: str
    """What diffusers calls it."""
    sha256: str
    """Of its weights."""


class TunedAdapters:
    """The most recently used adapters of one model, by folder. One is in force at a time, so any
    other may go."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loaded: dict[str, TunedAdapter] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._loaded)

    def __getitem__(self, folder: str) -> TunedAdapter:
        return self._loaded[folder]

    def load(self, pipeline: Any, folder: str) -> TunedAdapter:
        """The adapter in ``folder``, beside the pipeline's weights from now on. Raises
        BadAdapter."""
        found = self._loaded.pop(folder, None)
        if found is None:
            while len(self._loaded) >= self._most:
                oldest = next(iter(self._loaded))
                pipeline.delete_adapters(self._loaded.pop(oldest).inner)
            found = self._read(pipeline, Path(folder))
        self._loaded[folder] = found
        return found

    def _read(self, pipeline: Any, folder: Path) -> TunedAdapter:
        sha256 = check(folder)
        self._number += 1
        inner = f"tuned_{self._number}"
        try:
            pipeline.load_lora_weights(
                str(folder),
                weight_name=WEIGHTS,
                adapter_name=inner,
                use_safetensors=True,
                local_files_only=True,
            )
            if inner not in {n for names in pipeline.get_list_adapters().values() for n in names}:
                raise BadAdapter("it holds no weights for this model")
        except Exception as error:
            with contextlib.suppress(Exception):  # as far as it came
                pipeline.delete_adapters(inner)
            if isinstance(error, BadAdapter):
                raise
            log.warning("adapter_refused", error=type(error).__name__)
            raise BadAdapter(f"it does not fit this model: {type(error).__name__}") from error
        log.info("adapter_loaded", resident=len(self._loaded) + 1)
        return TunedAdapter(inner, sha256)


def check(folder: Path) -> str:
    """Judges an adapter's files before diffusers sees them; returns the weights' sha256.

    Raises BadAdapter.
    """
    check_folder(folder)
    weights = folder / WEIGHTS
    try:
        with safe_open(weights, framework="pt") as opened:
            metadata = opened.metadata() or {}
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except (OSError, SafetensorError) as error:
        raise BadAdapter(f"{WEIGHTS} cannot be read: {type(error).__name__}") from None
    try:
        said = json.loads(metadata.get(_METADATA, "{}"))
    except (ValueError, RecursionError):
        raise BadAdapter("its metadata is no JSON") from None
    if not isinstance(said, dict):
        raise BadAdapter("its metadata is not an object")
    for name, value in said.items():  # "unet.r": a setting of a component
        setting = name.rpartition(".")[2]
        check_config({setting: value})
        if setting in _NAMES and not are_plain_names(value or []):
            raise BadAdapter(f"its {setting} is not made of plain names")
    return digest
