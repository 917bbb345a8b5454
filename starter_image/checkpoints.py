"""Resumable training state in one safetensors file: tensors, and the rest as JSON in its header."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_HEADER_KEY = "state"


class CheckpointError(Exception):
    """A checkpoint is not of this training: other sizes, another seed, or a damaged file."""


@dataclass(frozen=True)
class Position:
    """Where a training stands: steps done and planned, seconds spent, what it was started with."""

    step: int
    steps: int
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class Checkpoint:
    """A position and every tensor that the next step needs, under names chosen by the training."""

    position: Position
    tensors: dict[str, torch.Tensor]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes ``path`` whole or not at all: a crash leaves the checkpoint before."""
    partial = path.with_suffix(".partial")
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    header = json.dumps(asdict(checkpoint.position))
    save_file(tensors, partial, metadata={_HEADER_KEY: header})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> Checkpoint | None:
    """Reads ``path``, or returns None when there is none. Raises CheckpointError."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            position = Position(**json.loads(file.metadata()[_HEADER_KEY]))
            return Checkpoint(position, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - not a mapping
    except Exception as error:
        raise CheckpointError(f"{path} can't be read ({error}); delete it to begin anew") from error
