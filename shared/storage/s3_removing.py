"""Removing from a bucket: many objects at once, and uploads that nobody will end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from botocore.exceptions import ClientError

from shared.errors import StorageUnavailable
from shared.storage.s3_errors import mapped_errors, status_of

MOST_AT_ONCE = 1_000
"""Keys that the protocol lists or deletes in one request."""

log = structlog.get_logger(__name__)


def delete_objects(client: Any, bucket: str, keys: Sequence[str]) -> None:
    """Removes these objects, ``MOST_AT_ONCE`` at most; botocore's errors are the caller's to map.
    Raises StorageUnavailable when the store refuses one."""
    if not keys:
        return
    listed = [{"Key": key} for key in keys]
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": listed, "Quiet": True})
    if refused := answer.get("Errors"):
        code = refused[0].get("Code")
        log.warning("storage_failed", operation="delete", code=code, n=len(refused))
        raise StorageUnavailable("The artifact store refused to delete objects.")


def abort_uploads(client: Any, bucket: str, folder: str, older_than_seconds: float) -> int:
    """Drops multipart uploads below ``folder`` that were begun so long ago; returns how many.
    Raises StorageUnavailable."""
    before = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
    aborted = 0
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=folder)
    with mapped_errors("abort", folder):
        for page in pages:
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] <= before:
                    aborted += _abort(client, bucket, upload)
    return aborted


def _abort(client: Any, bucket: str, upload: dict[str, Any]) -> int:
    try:
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except ClientError as error:  # its writer has ended it meanwhile
        if status_of(error)[0] != "NoSuchUpload":
            raise
        return 0
    return 1
