"""An API with models of every kind, and a worker that answers as engines would.

Import ``media_fixture`` into a test module to have the fixture ``media`` there.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.db.models import sync_catalog
from shared.ids import artifact_id
from shared.lifecycle import working
from shared.lifecycle.artifacts import NewArtifact
from shared.lifecycle.working import Claim, GenerationEnd
from shared.models_catalog import ModelEntry
from shared.states import ShardState
from tests.integration.api_case import MODEL, PATIENCE_SECONDS, ApiCase, make_settings

WRITER, PAINTER, READER = "writer", "painter", "reader"
FILMER, COMPOSER = "filmer", "video-composer"
VOICES = [
    {"id": "anna", "name": "Anna", "language": "en"},
    {"id": "ben", "name": "Ben", "language": "de"},
]
CATALOG = [
    ModelEntry(id=MODEL, engine="fake", endpoints=["/v1/completions"]),
    ModelEntry(id=WRITER, engine="text"),
    ModelEntry(id=PAINTER, engine="image"),
    ModelEntry(id=READER, engine="speech", settings={"voices": VOICES}),
    ModelEntry(id=FILMER, engine="video"),
    ModelEntry(id=COMPOSER, engine="composer"),
]
POOLS = ["text", "image", "speech", "video"]
SOUND = b"RIFF" + b"\0" * 300_000
BRIEF = {"model": WRITER, "product": "A kettle that <sings>", "languages": ["en", "de"]}


def png(width: int, height: int, *, data: bytes | None = None) -> bytes:
    """A black picture; with ``data`` as its content, whatever size it claims."""
    rows = zlib.compress((b"\0" * (1 + 3 * width)) * height) if data is None else data

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


@dataclass(frozen=True, slots=True)
class File:
    """One that a test's engine makes."""

    name: str
    role: str
    media_type: str
    content: bytes
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a test's engine says to a row: a body, or an error."""

    body: Callable[[Callable[[str], str]], dict[str, Any]] | None = None
    """Made with a function from a file's name to its artifact id."""
    files: tuple[File, ...] = ()
    code: str | None = None
    message: str = "no"
    param: str | None = None


def picture_answer(count: int = 1) -> Answer:
    files = [File(f"{n}.png", "image", "image/png", png(4 + n, 4)) for n in range(count)]
    small = [
        File(f"{n}.thumbnail.webp", "thumbnail", "image/webp", b"w", parent=f"{n}.png")
        for n in range(count)
    ]

    def body(ids: Callable[[str], str]) -> dict[str, Any]:
        data = [{"artifact_id": ids(file.name), "url": "/stale", "seed": 1} for file in files]
        usage = {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}
        return {"created": 1, "model": PAINTER, "data": data, "size": "4x4",
                "output_format": "png", "steps": 2, "usage": usage}  # fmt: skip

    return Answer(body, (*files, *small))


def speech_answer() -> Answer:
    def body(ids: Callable[[str], str]) -> dict[str, Any]:
        return {"object": "audio.speech", "model": READER, "voice": "anna",
                "artifact_id": ids("speech.wav"), "url": "/stale", "media_type": "audio/wav",
                "seconds": 1.0, "sample_rate": 8000, "loudness_lufs": None,
                "sentences": []}  # fmt: skip

    return Answer(body, (File("speech.wav", "audio", "audio/wav", SOUND),))


def video_answer() -> Answer:
    files = (
        File("video.mp4", "video", "video/mp4", b"v" * 5_000),
        File("video.thumbnail.webp", "thumbnail", "image/webp", b"t", parent="video.mp4"),
        File("video.spritesheet.webp", "spritesheet", "image/webp", b"s", parent="video.mp4"),
    )

    def body(ids: Callable[[str], str]) -> dict[str, Any]:
        return {"object": "video.file", "model": FILMER, "artifact_id": ids("video.mp4"),
                "url": "/stale", "media_type": "video/mp4", "seconds": 4.0, "size": "1280x720",
                "fps": 8, "thumbnail_id": ids("video.thumbnail.webp"),
                "spritesheet_id": ids("video.spritesheet.webp"), "captions_id": None}  # fmt: skip

    return Answer(body, files)


def bundle_body(ids: Callable[[str], str]) -> dict[str, Any]:
    return {"object": "campaign.bundle", "zip_id": ids("bundle.zip"), "artifacts": 2,
            "manifest_id": ids("manifest.json"),
            "contact_sheet_id": ids("contact-sheet.html")}  # fmt: skip


BUNDLE_FILES = (
    File("bundle.zip", "bundle", "application/zip", b"PK"),
    File("manifest.json", "manifest", "application/json", b"{}"),
    File("contact-sheet.html", "contact_sheet", "text/html", b"<h1>hello</h1>"),
)


class MediaCase(ApiCase):
    """One API, one tenant, and the worker's side of its jobs."""

    def __init__(self, database_url: str, folder: Path, **settings: Any) -> None:
        terms = {"key_cache_seconds": 60, "direct_seconds": PATIENCE_SECONDS} | settings
        super().__init__(make_settings(database_url, folder, **terms))
        with self.begin() as connection:
            sync_catalog(connection, CATALOG)
            self.session = working.open_session(
                connection, session_id="ses_media", host="test", pid=1, pools=POOLS,
                ttl_seconds=600,
            ) or "ses_media"  # fmt: skip

    def claim(self) -> Claim | None:
        with self.begin() as connection:
            for pool in POOLS:
                working.dispatch(connection, pool=pool, window=32)
            claims = working.claim(
                connection, session_id="ses_media", pools=POOLS, max_shards=1, max_rows=1
            )
        return claims[0] if claims else None

    def finish(self, claim: Claim, answer: Answer) -> None:
        """Commits a single row's answer, files first."""

        def ids(name: str) -> str:
            return artifact_id(f"{claim.job_id}-0", name)

        made = [self._store(claim, file, ids) for file in answer.files]
        body = None if answer.body is None else json.dumps(answer.body(ids))
        end = GenerationEnd(
            claim.held,
            ShardState.FAILED if body is None else ShardState.SUCCEEDED,
            "0" * 64,
            result=body,
            error_code=answer.code,
            error_message=answer.message if body is None else None,
            error_param=answer.param,
            artifacts=made,
        )
        with self.begin() as connection:
            assert working.finish_generations(connection, "ses_media", [end]) == {claim.held}

    def _store(self, claim: Claim, file: File, ids: Callable[[str], str]) -> NewArtifact:
        key = f"t/{claim.tenant_id}/j/{claim.job_id}/a/0/e{claim.epoch}/{ids(file.name)}"
        stored = self.services.store.put_bytes(key, file.content, media_type=file.media_type)
        assert stored.sha256 == hashlib.sha256(file.content).hexdigest()
        return NewArtifact(
            ids(file.name), file.name, file.role, file.media_type, stored,
            parent_id=None if file.parent is None else ids(file.parent),
            provenance={"prompt": "a \0 prompt"},
        )  # fmt: skip

    @contextmanager
    def worker(self, *answers: Answer) -> Iterator[list[Claim]]:
        """Answers the next rows that come, in order, on a thread of its own."""
        seen: list[Claim] = []
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(list(answers), seen, stop))
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join(PATIENCE_SECONDS)

    def _work(self, answers: list[Answer], seen: list[Claim], stop: threading.Event) -> None:
        while answers and not stop.is_set():
            claim = self.claim()
            if claim is None:
                time.sleep(0.01)
                continue
            seen.append(claim)
            self.finish(claim, answers.pop(0))

    def finish_next(self, answer: Answer) -> str:
        """Claims the one row that waits and answers it; returns its job."""
        claim = self.claim()
        assert claim is not None
        self.finish(claim, answer)
        return claim.job_id


@pytest.fixture(name="media")
def media_fixture(database_url: str, tmp_path: Path) -> Iterator[MediaCase]:
    case = MediaCase(database_url, tmp_path)
    yield case
    case.close()
