"""Files as an engine child would leave and describe them."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

from shared.ids import artifact_id
from worker.engines.protocol import OutputFile


def made(
    folder: str, row: str = "job_1-0", name: str = "0.png", data: bytes = b"picture", **fields: Any
) -> OutputFile:
    """A file in ``folder``, described rightly but for ``fields``."""
    path = Path(folder) / f"{secrets.token_hex(8)}{Path(name).suffix}"
    path.write_bytes(data)
    values: dict[str, Any] = {
        "id": artifact_id(row, name),
        "name": name,
        "path": str(path),
        "role": "image",
        "media_type": "image/png",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return OutputFile(**(values | fields))
