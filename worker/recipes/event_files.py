"""TensorBoard's event files, made from a training's numbers.

At the end and at once: they are whole after any number of interruptions, and name no machine.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_GROUPS = {"full_valid_": "full_valid/", "valid_": "valid/", "train_": "train/"}


def write_event_files(rows: Sequence[Mapping[str, Any]], folder: Path) -> bool:
    """A scalar for each number of each step; False when tensorboard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for row in rows:
        for name, value in row.items():
            if name != "step" and math.isfinite(value):
                writer.add_scalar(tag(name), value, row["step"])
    writer.close()
    for number, path in enumerate(sorted(folder.glob("events.out.tfevents.*"))):
        path.rename(folder / f"events.out.tfevents.{number}")  # it had the host's name
    return True


def tag(name: str) -> str:
    """TensorBoard groups by what stands before the slash."""
    for prefix, group in _GROUPS.items():
        if name.startswith(prefix):
            return group + name.removeprefix(prefix)
    return f"training/{name}"
