"""From a request to a queued batch: of an uploaded file, or of rows of a batch that has ended."""

from __future__ import annotations

from typing import Any

from flask import request
from sqlalchemy import Connection

from api import batch_rendering, parsing, rendering
from api.deadlines import deadline_seconds
from api.limits import DEFAULT_PRIORITY
from api.requests import BatchRequest, BatchRetryRequest
from api.services import Services
from api.webhook_requests import job_webhook
from shared import lifecycle
from shared.db.files import FileRow, hold_file
from shared.db.jobs import JobRow, get_job
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.ids import new_batch_id
from shared.pools import UPKEEP
from shared.specs import ANY_ENDPOINT, spec_for

RETRY_OF = "retry_of"
MOST_LABELS = 16

_NEVER_RUN = {"expired": "batch_expired", "cancelled": "batch_cancelled"}


def read_batch(document: object) -> BatchRequest:
    """Raises InvalidRequest or a subclass."""
    asked = parsing.validate(BatchRequest, document)
    if asked.endpoint != ANY_ENDPOINT:
        spec_for(asked.endpoint)
    return asked


def submit_batch(
    services: Services, tenant_id: str, asked: BatchRequest, once: lifecycle.Idempotency | None
) -> JobRow:
    """Queues the batch and rings. Raises NotFound or InvalidRequest about its file or terms."""
    spec: dict[str, Any] = {
        "completion_window": asked.completion_window,
        "priority": asked.priority,
    }
    if asked.output_expires_after is not None:
        spec["output_expires_after_seconds"] = asked.output_expires_after.seconds
    if asked.dry_run:
        spec["dry_run"] = True
    seconds = _seconds(asked.completion_window)
    webhook = job_webhook(services, tenant_id, asked.webhook)
    with services.transaction() as connection:
        _require_input(connection, tenant_id, asked.input_file_id)
        batch_id = _queue(
            services,
            connection,
            tenant_id=tenant_id,
            endpoint=asked.endpoint,
            input_file_id=asked.input_file_id,
            spec=spec,
            metadata=asked.metadata,
            expires_in_seconds=seconds,
            idempotency=once,
        )
        lifecycle.attach_webhook(connection, batch_id, webhook)
        row = get_batch(connection, tenant_id, batch_id)
    services.bell.ring(UPKEEP)
    return row


def submit_retry(
    services: Services,
    tenant_id: str,
    batch_id: str,
    asked: BatchRetryRequest,
    once: lifecycle.Idempotency | None,
) -> JobRow:
    """Queues a batch of rows of an ended one, and rings. Raises NotFound, InvalidRequest about its
    terms, or Conflict when there are no such rows, or their files are gone."""
    webhook = job_webhook(services, tenant_id, asked.webhook)
    with services.transaction() as connection:
        first = get_batch(connection, tenant_id, batch_id)
        _require_rows(first, asked.only)
        _held(connection, tenant_id, first.input_file_id, "input")
        _held(connection, tenant_id, first.error_file_id, "error")
        spec = _retry_spec(first, asked)
        new_id = _queue(
            services,
            connection,
            tenant_id=tenant_id,
            endpoint=first.endpoint,
            input_file_id=first.input_file_id or "",
            rows_file_id=first.error_file_id,
            spec=spec,
            metadata=_labelled(first),
            expires_in_seconds=_seconds(spec["completion_window"]),
            idempotency=once,
        )
        lifecycle.attach_webhook(connection, new_id, webhook)
        row = get_batch(connection, tenant_id, new_id)
    services.bell.ring(UPKEEP)
    return row


def get_batch(connection: Connection, tenant_id: str, batch_id: str) -> JobRow:
    """Raises NotFound when the tenant has no such batch."""
    found = get_job(connection, tenant_id, parsing.one_id(batch_id, "batch"))
    if found is None or found[0].kind != "batch":
        raise NotFound("there is no such batch")
    return found[0]


def _queue(
    services: Services, connection: Connection, *, spec: dict[str, Any], **terms: Any
) -> str:
    batch_id = new_batch_id()
    lifecycle.submit_batch(
        connection,
        job_id=batch_id,
        spec=spec,
        priority=spec["priority"],
        window=services.settings.ready_window,
        **terms,
    )
    return batch_id


def _seconds(window: str) -> float:
    """Until the batch is given up: its window, or less where the request says so."""
    most = parsing.window_seconds(window)
    asked = deadline_seconds(request, None, None)
    return most if asked is None else min(asked, most)


def _require_input(connection: Connection, tenant_id: str, file_id: str) -> None:
    known = parsing.is_id(file_id)
    file = hold_file(connection, tenant_id, file_id) if known else None
    if file is None:
        raise NotFound("there is no such file", param="input_file_id")
    if file.purpose != "batch":
        raise InvalidRequest(
            f"the file's purpose is '{file.purpose}', not 'batch'", param="input_file_id"
        )


# --- another batch's rows -----------------------------------------------------------------------


def _require_rows(first: JobRow, only: str) -> None:
    """Raises Conflict unless the batch has ended with rows of this kind."""
    if not rendering.has_ended(first.state):
        status = batch_rendering.batch_status(first)
        raise Conflict(f"the batch has not ended: it is {status}")
    counts = first.error_counts or {}
    never_run = {name: counts.get(code, 0) for name, code in _NEVER_RUN.items()}
    rows = never_run | {
        "all": sum(counts.values()),
        "failed": sum(counts.values()) - sum(never_run.values()),
    }
    if not rows[only]:
        what = "without an answer" if only == "all" else only
        raise Conflict(f"the batch has no rows that are {what}")


def _held(connection: Connection, tenant_id: str, file_id: str | None, what: str) -> FileRow:
    file = hold_file(connection, tenant_id, file_id) if file_id else None
    if file is None:
        raise Conflict(f"the batch's {what} file was deleted, or has expired")
    return file


def _retry_spec(first: JobRow, asked: BatchRetryRequest) -> dict[str, Any]:
    before = first.batch_spec or {}
    window = before.get("completion_window") or "24h"
    priority = before.get("priority", DEFAULT_PRIORITY)
    spec: dict[str, Any] = {
        "completion_window": asked.completion_window or window,
        "priority": priority if asked.priority is None else asked.priority,
        "retry": {"of": first.id, "only": asked.only},
    }
    keep = before.get("output_expires_after_seconds")
    return spec if keep is None else spec | {"output_expires_after_seconds": keep}


def _labelled(first: JobRow) -> dict[str, str]:
    """The first batch's labels, and one more if there is room: ``retry_of`` is shown anyway."""
    labels = dict(first.metadata or {})
    if len(labels) < MOST_LABELS or RETRY_OF in labels:
        labels[RETRY_OF] = first.id
    return labels
