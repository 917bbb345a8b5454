"""A campaign that was made: its plan, a result for every step, and real small files in a store."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from shared.db.bundles import MadeArtifact, MadeStep
from shared.ids import artifact_id
from shared.plans import Step
from shared.storage.base import Store, StoredObject
from tests.unit.shared.plans_case import CHAT, IMAGES, SPEECH, campaign, completed, sample_result
from worker.upkeep.bundle_contents import Contents, gather

JOB = "campaign_0001"
TENANT = "ten_1"
CREATED = 1_790_000_000.25

FILES = {
    IMAGES: [("0.png", "image", "image/png"), ("0.thumbnail.webp", "thumbnail", "image/webp")],
    SPEECH: [
        ("speech.mp3", "audio", "audio/mpeg"),
        ("speech.waveform.png", "waveform", "image/png"),
    ],
    "/v1/videos/compositions": [
        ("video.mp4", "video", "video/mp4"),
        ("video.thumbnail.webp", "thumbnail", "image/webp"),
        ("video.spritesheet.webp", "spritesheet", "image/webp"),
        ("captions.vtt", "captions", "text/vtt"),
    ],
}  # fmt: skip


class MemoryStore:
    """As much of a ``Store`` as a bundle needs, without the pauses of a disk that is busy."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.largest_write = 0

    def put_bytes(self, key: str, data: bytes, *, media_type: str) -> StoredObject:
        with self.writer(key, media_type=media_type) as writer:
            writer.write(data)
            return writer.finish()

    def writer(self, key: str, *, media_type: str) -> MemoryWriter:
        return MemoryWriter(self, key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        data = self.objects[key][start:end]
        for at in range(0, len(data), 2**16):
            yield data[at : at + 2**16]


class MemoryWriter:
    """Implements ``ObjectWriter``."""

    def __init__(self, store: MemoryStore, key: str) -> None:
        self._store = store
        self._key = key
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._store.largest_write = max(self._store.largest_write, len(data))
        self._data += data

    def finish(self) -> StoredObject:
        data = self._store.objects[self._key] = bytes(self._data)
        return StoredObject(self._key, hashlib.sha256(data).hexdigest(), len(data))

    def abort(self) -> None:
        self._data.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.abort()


def png(width: int, height: int) -> bytes:
    """A grey picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\x80" * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@dataclass
class MadeCampaign:
    """What the database and the store hold when the bundle's turn has come."""

    plan: list[Step]
    steps: list[MadeStep]
    artifacts: list[MadeArtifact]

    @property
    def body(self) -> dict[str, Any]:
        return self.plan[-1].body

    def contents(self) -> Contents:
        return gather(
            self.body,
            job_id=JOB,
            line=0,
            created_at=CREATED,
            steps=self.steps,
            artifacts=self.artifacts,
        )


def made_campaign(
    store: Store | MemoryStore,
    texts: Mapping[str, str] | None = None,
    *,
    data: bytes = b"",
    **brief: Any,
) -> MadeCampaign:
    """``texts`` by step are what the model wrote; ``data`` makes every file longer."""
    plan = campaign(f"{JOB}-0", **{"seed": 7} | brief)
    completed(plan, texts)
    steps, artifacts = [], []
    for step in plan[:-1]:
        text = (texts or {}).get(step.name, "Light for the night.")
        files = list(_files(store, step, data))
        result = sample_result(step, text)
        if files:
            result = _with_id(step, result, files[0].id)
        steps.append(
            MadeStep(
                step.name, step.endpoint, step.model, list(step.needs), step.body, result,
                1, CREATED + 1, CREATED + 2,
            )
        )  # fmt: skip
        artifacts += files
    return MadeCampaign(plan, steps, sorted(artifacts, key=lambda artifact: artifact.id))


def _with_id(step: Step, result: dict[str, Any], made: str) -> dict[str, Any]:
    if step.endpoint == IMAGES:
        return result | {"data": [result["data"][0] | {"artifact_id": made}]}
    return result | {"artifact_id": made}


def _files(store: Store | MemoryStore, step: Step, more: bytes) -> Iterator[MadeArtifact]:
    if step.endpoint == CHAT:
        return
    row = f"{JOB}-0-{step.name}"
    parent: str | None = None
    for name, role, media_type in FILES[step.endpoint]:
        made = artifact_id(row, name)
        content = png(8, 4) + step.name.encode() + role.encode() + more
        key = f"t/{TENANT}/j/{JOB}/a/1/e1/{made}.bin"
        stored = store.put_bytes(key, content, media_type=media_type)
        yield MadeArtifact(
            id=made,
            name=name,
            role=role,
            parent_id=parent,
            step=step.name,
            media_type=media_type,
            bytes=stored.bytes,
            sha256=stored.sha256,
            width=None if role in {"audio", "captions"} else 8,
            height=None if role in {"audio", "captions"} else 4,
            seconds=1.5 if role in {"audio", "video"} else None,
            storage_key=key,
            provenance={"model": step.model},
            created_at=CREATED + 3,
        )
        parent = parent or made


def renamed(made: MadeCampaign, **fields: Any) -> MadeCampaign:
    """The same campaign with every artifact changed in ``fields``."""
    return replace(made, artifacts=[replace(item, **fields) for item in made.artifacts])
