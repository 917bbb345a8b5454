"""Result lines of a batch, and the objects they are stored in."""

from __future__ import annotations

import json
from dataclasses import dataclass

from shared.lifecycle import Claim
from shared.storage.base import Store, StoredObject
from worker.rows import RowInput

MEDIA_TYPE = "application/jsonl"

EXPIRED = (
    "batch_expired",
    "This request could not be executed before the completion window expired.",
)
CANCELLED = ("batch_cancelled", "This request was not executed: the batch was cancelled.")


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


def assembly_prefix(tenant_id: str, job_id: str, epoch: int) -> str:
    """The folder of one attempt to assemble; the one that succeeded has the batch's files."""
    return attempt_prefix(tenant_id, job_id, "final", epoch)


def store_lines(store: Store, claim: Claim, name: str, lines: list[bytes]) -> StoredObject | None:
    """Stores a slice's lines as one verified object; None when there are none."""
    if not lines:
        return None
    prefix = attempt_prefix(claim.tenant_id, claim.job_id, f"s/{claim.ordinal}", claim.epoch)
    return store.put_bytes(prefix + name, b"".join(lines), media_type=MEDIA_TYPE)
