"""The last step of a campaign: manifest, contact sheet and ZIP of all that it has made.

Nothing large is ever in memory: media are copied chunk by chunk from the store into the ZIP and
into the standalone contact sheet, and what the store returns is checked against the hash that was
committed. Ids, keys and bytes depend on the job and the attempt alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection

from shared.db.bundles import MadeArtifact, created_at, made_artifacts, made_steps
from shared.db.steps import StepRecord
from shared.ids import artifact_id
from shared.lifecycle.working import Claim, NewArtifact
from shared.storage.base import Store, StoredObject
from worker.outputs import file_part, files_prefix
from worker.upkeep import bundle_sheet, bundle_zip
from worker.upkeep.assembly import DamagedObject, Interrupted
from worker.upkeep.bundle_contents import Contents, Text, gather
from worker.upkeep.bundle_links import EmbeddedLinks, FolderLinks
from worker.upkeep.bundle_manifest import manifest

MANIFEST = "manifest.json"
SHEET = "contact-sheet.html"
ZIP = "campaign.zip"
JSON = "application/json"

Connect = Callable[[], AbstractContextManager[Connection]]


def make_bundle(
    connect: Connect,
    store: Store,
    claim: Claim,
    step: StepRecord,
    interrupted: Callable[[], bool],
) -> tuple[dict[str, Any], list[NewArtifact]]:
    """Stores the three files of the bundle; returns the step's result and what to commit with it.

    Raises Interrupted, PlanError, SQLAlchemyError, StorageUnavailable, StorageFull, NotFound or
    DamagedObject.
    """
    with connect() as connection:
        contents = gather(
            step.body,
            job_id=step.job_id,
            line=step.line,
            created_at=created_at(connection, step.job_id),
            steps=made_steps(connection, step.job_id, step.line),
            artifacts=made_artifacts(
                connection, claim.tenant_id, step.job_id, step.line, last=step.name
            ),
        )
    return Bundler(store, claim, step.name, interrupted, contents).run()


class Bundler:
    """Writes the files of one bundle step's attempt."""

    def __init__(
        self,
        store: Store,
        claim: Claim,
        step: str,
        interrupted: Callable[[], bool],
        contents: Contents,
    ) -> None:
        self._store = store
        self._step = step
        self._interrupted = interrupted
        self._contents = contents
        part = file_part(claim.stage, claim.ordinal, claim.shard_id)
        self._prefix = files_prefix(claim.tenant_id, claim.job_id, part, claim.epoch)
        self._row = f"{claim.job_id}-{contents.line}-{step}"

    def run(self) -> tuple[dict[str, Any], list[NewArtifact]]:
        described = manifest(self._contents)
        made = [
            self._new(MANIFEST, "manifest", JSON, self._put(MANIFEST, JSON, [described])),
            self._new(ZIP, "bundle", bundle_zip.MEDIA_TYPE, self._zip(described)),
            self._new(SHEET, "contact_sheet", bundle_sheet.MEDIA_TYPE, self._sheet()),
        ]
        ids = [artifact.id for artifact in made]
        body = {
            "object": "campaign.bundle",
            "manifest_id": ids[0],
            "zip_id": ids[1],
            "contact_sheet_id": ids[2],
            "artifacts": len(self._contents.artifacts),
        }
        return body, made

    def _sheet(self) -> StoredObject:
        """The page that stands alone."""
        links = EmbeddedLinks(self._contents, self._read)
        page = bundle_sheet.contact_sheet(self._contents, links)
        return self._put(SHEET, bundle_sheet.MEDIA_TYPE, page)

    def _zip(self, described: bytes) -> StoredObject:
        contents = self._contents
        writer = self._store.writer(self._key(ZIP), media_type=bundle_zip.MEDIA_TYPE)
        with bundle_zip.BundleZip(writer, contents.created_at) as archive:
            page = bundle_sheet.contact_sheet(contents, FolderLinks(contents))
            archive.add("index.html", page, media_type=bundle_sheet.MEDIA_TYPE)
            archive.add("manifest.json", [described], media_type=JSON)
            for name, texts in contents.text_files().items():
                archive.add(name, [_written(texts)], media_type="text/plain")
            for artifact in contents.artifacts:
                archive.add(
                    contents.files[artifact.id],
                    self._read(artifact),
                    media_type=artifact.media_type,
                    size=artifact.bytes,
                )
            return archive.finish()

    def _put(self, name: str, media_type: str, chunks: Iterable[bytes]) -> StoredObject:
        with self._store.writer(self._key(name), media_type=media_type) as writer:
            for chunk in chunks:
                self._check()
                writer.write(chunk)
            return writer.finish()

    def _read(self, artifact: MadeArtifact) -> Iterator[bytes]:
        digest, size = hashlib.sha256(), 0
        for chunk in self._store.read(artifact.storage_key):
            self._check()
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if (size, digest.hexdigest()) != (artifact.bytes, artifact.sha256):
            raise DamagedObject("the store returned other bytes than a step had written")

    def _check(self) -> None:
        if self._interrupted():
            raise Interrupted

    def _key(self, name: str) -> str:
        return f"{self._prefix}{artifact_id(self._row, name)}.{name.rpartition('.')[2]}"

    def _new(self, name: str, role: str, media_type: str, stored: StoredObject) -> NewArtifact:
        return NewArtifact(
            id=artifact_id(self._row, name),
            name=name,
            role=role,
            media_type=media_type,
            stored=stored,
            line=self._contents.line,
            step=self._step,
        )


def _written(texts: Iterable[Text]) -> bytes:
    """A text file: its pieces a paragraph each, empty ones left out."""
    pieces = (text.text for text in texts if text.text)
    return ("\n\n".join(pieces) + "\n").encode("utf-8", "replace")
