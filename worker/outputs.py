"""Result lines of a batch, rows' files, and the objects they are stored in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from shared.ids import artifact_id
from shared.lifecycle.working import Claim, NewArtifact
from shared.states import Stage
from shared.storage.base import Store, StoredObject
from worker.engines.protocol import OutputFile
from worker.rows import RowInput, row_id
from worker.spool import BadFile, Taken

MEDIA_TYPE = "application/jsonl"

EXPIRED = (
    "batch_expired",
    "This request could not be executed before the completion window expired.",
)
CANCELLED = ("batch_cancelled", "This request was not executed: the batch was cancelled.")

MOST_FILES = 64
"""Of one row: ten pictures with their thumbnails leave room."""
LONGEST_PROVENANCE = 2**20
LARGEST_SIDE = 2**16
PREVIEW = "preview"
ROLES = frozenset(
    {"image", "audio", "video", "thumbnail", "waveform", "spritesheet", "captions", PREVIEW}
)
MEDIA_TYPES = frozenset(
    {
        "image/png", "image/jpeg", "image/webp",
        "audio/mpeg", "audio/ogg", "audio/opus", "audio/flac", "audio/wav", "audio/pcm",
        "video/mp4", "video/webm", "text/vtt",
    }
)  # fmt: skip
"""All that an engine may make; nothing in it is ever run by a browser."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.[a-z0-9]{1,8}\Z")


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no response: it was never run, or never to its end."""

    code: str
    message: str


def stopped_error(stop_reason: str | None) -> RowError:
    """What rows say that a cancel or the deadline kept from running."""
    return RowError(*(EXPIRED if stop_reason == "expired" else CANCELLED))


def response_line(job_id: str, row: RowInput, status: int, body: bytes) -> bytes:
    """A line with the endpoint's answer, good or bad; ``body`` is its JSON."""
    if b"\n" in body or b"\r" in body:  # only ever between tokens; inside strings JSON escapes them
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
    return (
        b'{"id":"batch_req_%(id)s","custom_id":%(custom_id)s,"response":{"status_code":%(status)d,'
        b'"request_id":"req_%(id)s","body":%(body)s},"error":null}\n'
        % {
            b"id": _line_id(job_id, row.line),
            b"custom_id": json.dumps(row.custom_id).encode(),
            b"status": status,
            b"body": body,
        }
    )


def error_line(job_id: str, line: int, custom_id: str | None, error: RowError) -> bytes:
    """A line for a row without a response."""
    return (
        json.dumps(
            {
                "id": "batch_req_" + _line_id(job_id, line).decode(),
                "custom_id": custom_id,
                "response": None,
                "error": {"code": error.code, "message": error.message},
            },
            separators=(",", ":"),
        ).encode()
        + b"\n"
    )


def _line_id(job_id: str, line: int) -> bytes:
    """Made of the job and the line, so that a repeated attempt writes the same bytes."""
    return f"{job_id.removeprefix('batch_')}-{line}".encode()


def attempt_prefix(tenant_id: str, job_id: str, part: str, epoch: int) -> str:
    """Where one attempt keeps its objects; no other attempt ever writes there."""
    return f"{job_prefix(tenant_id, job_id)}{part}/e{epoch}/"


def job_prefix(tenant_id: str, job_id: str) -> str:
    return f"t/{tenant_id}/j/{job_id}/"


def slices_prefix(tenant_id: str, job_id: str) -> str:
    """The folder of everything that the slices' attempts have stored; temporary."""
    return job_prefix(tenant_id, job_id) + "s/"


def own_inputs_prefix(tenant_id: str, job_id: str) -> str:
    """The folder of inputs that attempts made of another batch's rows; one of them stays."""
    return job_prefix(tenant_id, job_id) + "input/"


def assembly_prefix(tenant_id: str, job_id: str, epoch: int) -> str:
    """The folder of one attempt to assemble; the one that succeeded has the batch's files."""
    return attempt_prefix(tenant_id, job_id, "final", epoch)


def store_lines(store: Store, claim: Claim, name: str, lines: list[bytes]) -> StoredObject | None:
    """Stores a slice's lines as one verified object; None when there are none."""
    if not lines:
        return None
    prefix = attempt_prefix(claim.tenant_id, claim.job_id, f"s/{claim.ordinal}", claim.epoch)
    return store.put_bytes(prefix + name, b"".join(lines), media_type=MEDIA_TYPE)


# --- files --------------------------------------------------------------------------------------


def files_prefix(tenant_id: str, job_id: str, part: str, epoch: int) -> str:
    """The folder of the files that one attempt stored; the one that succeeded keeps them."""
    return attempt_prefix(tenant_id, job_id, f"a/{part}", epoch)


def all_files_prefix(tenant_id: str, job_id: str) -> str:
    """The folder of every file that any attempt of the job stored."""
    return job_prefix(tenant_id, job_id) + "a/"


def file_part(stage: str, ordinal: int, shard_id: int) -> str:
    """What stands for a shard in the keys of its files."""
    return str(shard_id if stage == Stage.STEP else ordinal)


def store_files(
    store: Store, claim: Claim, row: RowInput, files: Sequence[Taken]
) -> list[NewArtifact]:
    """Stores the files of a row, verified; again, with the same end, as often as need be.

    Raises BadFile when one of them is not what the engine says, and StorageUnavailable or
    StorageFull.
    """
    check_files(row_id(claim, row), [taken.file for taken in files])
    part = file_part(claim.stage, claim.ordinal, claim.shard_id)
    prefix = files_prefix(claim.tenant_id, claim.job_id, part, claim.epoch)
    line = claim.step_line or row.line
    return [_store_file(store, claim, prefix, line, taken) for taken in files]


def check_files(row: str, files: Sequence[OutputFile]) -> None:
    """Raises BadFile unless the descriptions can be those of the row ``row``."""
    if len(files) > MOST_FILES:
        raise BadFile(f"a row makes at most {MOST_FILES} files")
    ids = {file.id for file in files}
    if len(ids) < len(files):
        raise BadFile("two files of the row have one name")
    for file in files:
        if not _NAME.match(file.name) or file.id != artifact_id(row, file.name):
            raise BadFile("its id is not that of its row and name")
        if file.role not in ROLES or file.media_type not in MEDIA_TYPES:
            raise BadFile("it has an unknown role or media type")
        if file.parent is not None and file.parent not in ids and file.role != PREVIEW:
            raise BadFile("it illustrates a file of another row")
        _check_facts(file)


def _check_facts(file: OutputFile) -> None:
    if not all(side is None or 0 < side <= LARGEST_SIDE for side in (file.width, file.height)):
        raise BadFile("it has impossible sides")
    if file.seconds is not None and not (math.isfinite(file.seconds) and file.seconds >= 0):
        raise BadFile("it has an impossible duration")
    try:
        length = len(json.dumps(file.provenance, allow_nan=False))
    except ValueError:
        raise BadFile("its provenance is no JSON") from None
    if length > LONGEST_PROVENANCE:
        raise BadFile("its provenance is too long")


def _store_file(store: Store, claim: Claim, prefix: str, line: int, taken: Taken) -> NewArtifact:
    file = taken.file
    key = f"{prefix}{file.id}{PurePath(file.name).suffix}"
    stored = store.put_file(key, taken.path, media_type=file.media_type)
    if (stored.sha256, stored.bytes) != (file.sha256, file.bytes):
        store.delete(key)
        raise BadFile("its content is not what was described")
    return NewArtifact(
        id=file.id,
        name=file.name,
        role=file.role,
        media_type=file.media_type,
        stored=stored,
        line=line,
        step=claim.step,
        parent_id=file.parent,
        width=file.width,
        height=file.height,
        seconds=file.seconds,
        provenance=file.provenance,
    )
