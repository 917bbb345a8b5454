"""Reads a range of an object, and takes it up again where the body broke off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from shared.backoff import delay_seconds
from shared.errors import NotFound, StorageUnavailable
from shared.storage.s3_errors import mapped_errors, status_of

CHUNK_BYTES = 256 * 2**10
MOST_BREAKS = 5
"""Breaks in a row without a single new byte."""
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416

log = structlog.get_logger(__name__)


class S3Reading:
    """One read of the bytes ``[start, end)``, opened at once. Raises what ``Store.read`` does."""

    def __init__(self, client: Any, bucket: str, key: str, start: int, end: int | None) -> None:
        self._client = client
        self._where = {"Bucket": bucket, "Key": key}
        self._offset = start
        self._wanted_end = end
        self._end = start
        self._etag: str | None = None
        self._body: Any = None
        self._open()

    def chunks(self) -> Iterator[bytes]:
        breaks = 0
        try:
            while self._offset < self._end:
                try:
                    data = self._body.read(CHUNK_BYTES)
                except (BotoCoreError, OSError):
                    data = b""
                if data:
                    breaks = 0
                    self._offset += len(data)
                    yield data
                else:
                    breaks += 1
                    self._take_up_again(breaks)
        finally:
            self._close()

    def _take_up_again(self, breaks: int) -> None:
        log.warning("storage_body_truncated", key=self._where["Key"], breaks=breaks)
        self._close()
        if breaks == MOST_BREAKS:
            raise StorageUnavailable("The artifact store broke off again and again.")
        time.sleep(delay_seconds(breaks, base=0.1, cap=2.0))
        before = self._etag, self._end
        try:
            self._open()
        except NotFound as error:
            raise StorageUnavailable("The object was removed while it was read.") from error
        # Compared here rather than by If-Match, which not every server understands.
        if (self._etag, self._end) != before:
            raise StorageUnavailable("The object was replaced while it was read.")

    def _open(self) -> None:
        """Asks for the rest of the range, and learns where it ends."""
        ranged = self._offset > 0 or self._wanted_end is not None
        last = "" if self._wanted_end is None else self._wanted_end - 1
        wanted = {"Range": f"bytes={self._offset}-{last}"} if ranged else {}
        with mapped_errors("get", self._where["Key"]):
            try:
                answer = self._client.get_object(**self._where, **wanted)
            except ClientError as error:
                if status_of(error)[1] != _RANGE_NOT_SATISFIABLE:
                    raise
                self._end = self._offset
                return
        self._body = answer["Body"]
        if ranged and answer["ResponseMetadata"]["HTTPStatusCode"] != _PARTIAL_CONTENT:
            self._close()
            raise StorageUnavailable("The artifact store does not answer ranges.")
        self._etag = answer.get("ETag")
        self._end = self._offset + int(answer["ContentLength"])

    def _close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
