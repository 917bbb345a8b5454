"""Folders of the operators' that sources may be read from, by name."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def parse_roots(text: str) -> dict[str, Path]:
    """``drop=/srv/drop, crm=/mnt/crm``. Raises ValueError."""
    found: dict[str, Path] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, path = (part.strip() for part in item.partition("="))
        if not _NAME.fullmatch(name) or not Path(path).is_absolute():
            raise ValueError(f"{item!r} is no name=/absolute/path")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = Path(path)
    return found
