"""How large a base model is, read off its safetensors headers: torch-free and quick."""

from __future__ import annotations

import json
import math
from pathlib import Path

_MAX_HEADER = 100 * 1024 * 1024


def count(base: str) -> int | None:
    """Parameters in a directory's safetensors files; None for a hub id, or when there are none."""
    folder = Path(base)
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    return sum(_count(file) for file in files) if files else None


def _count(path: Path) -> int:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= _MAX_HEADER:
            return 0
        header = json.loads(file.read(size))
    return sum(
        math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"
    )
