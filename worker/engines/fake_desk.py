"""Where the fake engine makes the files of one row."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from shared.errors import InvalidRequest
from shared.ids import artifact_id
from worker.engines import fake_files
from worker.engines.protocol import OutputFile, Row


class Where(NamedTuple):
    """Where files go and how the API calls them; of ``Load``."""

    model: str
    spool: str
    public_url: str


class Desk:
    """Makes the files of one row."""

    def __init__(self, row: Row, where: Where, text: str) -> None:
        self._row = row
        self._where = where
        self.files: list[OutputFile] = []
        self.inputs = {
            name: hashlib.sha256(Path(path).read_bytes()).hexdigest()
            for name, path in sorted(row.inputs.items())
        }
        said = "\0".join([where.model, text, *self.inputs.values()])
        self._digest = hashlib.blake2b(said.encode(), digest_size=16)

    @property
    def model(self) -> str:
        return self._where.model

    def colour(self, what: str) -> fake_files.Colour:
        digest = self._digest.copy()
        digest.update(what.encode())
        red, green, blue = digest.digest()[:3]
        return red, green, blue

    def seed(self) -> int:
        return int.from_bytes(self._digest.digest()[:6])

    def write(self, name: str, data: bytes, role: str, media_type: str, **facts: Any) -> OutputFile:
        path = Path(self._where.spool) / f"{uuid.uuid4().hex}{Path(name).suffix}"
        path.write_bytes(data)
        file = OutputFile(
            id=artifact_id(self._row.id, name),
            name=name,
            path=str(path),
            role=role,
            media_type=media_type,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            **facts,
        )
        self.files.append(file)
        return file

    def provenance(self, **facts: Any) -> dict[str, Any]:
        return {"model": self.model, "engine": "fake", "inputs": self.inputs} | facts

    def illustrate(
        self, parent: OutputFile, suffix: str, role: str, width: int, height: int
    ) -> OutputFile:
        """A companion of one colour, as WebP or PNG by its name."""
        name = parent.name.rpartition(".")[0] + suffix
        picture, kind = (
            (fake_files.png, "png") if suffix.endswith(".png") else (fake_files.webp, "webp")
        )
        data = picture(width, height, self.colour(role))
        return self.write(
            name, data, role, f"image/{kind}", parent=parent.id, width=width, height=height
        )

    def links(self, file: OutputFile) -> dict[str, str]:
        url = f"{self._where.public_url}/v1/artifacts/{file.id}/content"
        return {"artifact_id": file.id, "url": url}


def spoiled(file: OutputFile, how: str) -> OutputFile:
    """The description as an engine gone wrong would send it; ``missing`` and ``link`` change what
    is there instead. Raises InvalidRequest for an unknown way."""
    path = Path(file.path)
    match how:
        case "hash":
            return msgspec.structs.replace(file, sha256="0" * 64)
        case "size":
            return msgspec.structs.replace(file, bytes=file.bytes + 1)
        case "outside":
            return msgspec.structs.replace(file, path="/etc/hostname")
        case "id":
            return msgspec.structs.replace(file, id=artifact_id("another row", file.name))
        case "role":
            return msgspec.structs.replace(file, role="manifest")
        case "missing":
            path.unlink()
        case "link":
            path.rename(path.with_suffix(".real"))
            path.symlink_to(path.with_suffix(".real"))
        case _:
            raise InvalidRequest(f"[[bad-file]] knows no {how!r}")
    return file
