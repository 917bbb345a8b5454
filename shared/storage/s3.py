"""A store in a bucket. Needs put, get, head, delete, list and multipart of the server, no more:
no conditional put, no copy of parts, no checksums newer than Content-MD5."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import boto3.session
import structlog
from botocore.config import Config
from botocore.exceptions import ClientError

from shared.errors import NotFound, PressrunError, StorageFull, StorageUnavailable
from shared.storage.base import PART_BYTES, StoredObject
from shared.storage.downloads import disposition, may_be_inline
from shared.storage.keys import check_key, check_range, folder_of
from shared.storage.s3_errors import mapped_errors, status_of
from shared.storage.s3_reading import S3Reading
from shared.storage.s3_removing import MOST_AT_ONCE, abort_uploads, delete_objects

MOST_PARTS = 10_000
_READ_BYTES = 2**20

log = structlog.get_logger(__name__)


class S3Store:
    """Implements ``Store``; threads may share it."""

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str | None = None,
        public_endpoint: str | None = None,
        region: str = "us-east-1",
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        """``public_endpoint`` is the address in presigned URLs. Connects to nothing yet."""
        # A session of our own: boto3's default one is shared, and no thread-safe place to start.
        session = boto3.session.Session(
            aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=region
        )
        self._bucket = bucket
        self._client: Any = _client(session, endpoint)
        public = public_endpoint or endpoint
        self._public: Any = self._client if public == endpoint else _client(session, public)

    def put_bytes(self, key: str, data: bytes, *, media_type: str) -> StoredObject:
        with self.writer(key, media_type=media_type) as writer:
            writer.write(data)
            return writer.finish()

    def put_file(self, key: str, path: Path, *, media_type: str) -> StoredObject:
        with path.open("rb") as source, self.writer(key, media_type=media_type) as writer:
            while data := source.read(_READ_BYTES):
                writer.write(data)
            return writer.finish()

    def writer(self, key: str, *, media_type: str) -> S3Writer:
        return S3Writer(self._client, self._bucket, check_key(key), media_type)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """A body that breaks off is taken up again where it broke, a few times."""
        check_range(start, end)
        if start == end:
            self.size(key)
            return iter(())
        return S3Reading(self._client, self._bucket, check_key(key), start, end).chunks()

    def size(self, key: str) -> int:
        with mapped_errors("head", key):
            return _size(self._client, {"Bucket": self._bucket, "Key": check_key(key)})

    def delete(self, key: str) -> None:
        with mapped_errors("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=check_key(key))

    def delete_prefix(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        deleted, kept = 0, frozenset(keep)
        folder = folder_of(prefix)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=folder
        )
        with mapped_errors("delete", prefix):
            for page in pages:
                keys = [item["Key"] for item in page.get("Contents", ())]
                keys = [key for key in keys if key not in kept]
                delete_objects(self._client, self._bucket, keys)
                deleted += len(keys)
        return deleted

    def keys(self, prefix: str, *, limit: int) -> list[str]:
        with mapped_errors("list", prefix):
            page = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=folder_of(prefix), MaxKeys=min(limit, MOST_AT_ONCE)
            )
        return [item["Key"] for item in page.get("Contents", ())]

    def delete_keys(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), MOST_AT_ONCE):
            page = [check_key(key) for key in keys[start : start + MOST_AT_ONCE]]
            with mapped_errors("delete", page[0]):
                delete_objects(self._client, self._bucket, page)

    def abort_uploads(self, prefix: str, *, older_than_seconds: float) -> int:
        return abort_uploads(self._client, self._bucket, folder_of(prefix), older_than_seconds)

    def download_url(
        self, key: str, *, filename: str, media_type: str, seconds: int, inline: bool = False
    ) -> str:
        shown = inline and may_be_inline(media_type)
        with mapped_errors("presign", key):
            url: str = self._public.generate_presigned_url(
                "get_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": check_key(key),
                    "ResponseContentDisposition": disposition(filename, inline=shown),
                    "ResponseContentType": media_type,
                },
                ExpiresIn=seconds,
            )
        return url


class S3Writer:
    """Implements ``ObjectWriter``: one put, or parts of 8 MiB when it does not fit in one."""

    def __init__(self, client: Any, bucket: str, key: str, media_type: str) -> None:
        self._client = client
        self._where = {"Bucket": bucket, "Key": key}
        self._media_type = media_type
        self._part = bytearray()
        self._parts: list[dict[str, Any]] = []
        self._upload_id: str | None = None
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._closed = False

    def write(self, data: bytes) -> None:
        self._check_open()
        left = memoryview(data)
        while left:
            # Only once more is to come: the last part is finish's, and may be the only one.
            if len(self._part) == PART_BYTES:
                self._send_part()
            taken = left[: PART_BYTES - len(self._part)]
            self._part += taken
            left = left[len(taken) :]
        self._sha256.update(data)
        self._bytes += len(data)

    def finish(self) -> StoredObject:
        self._check_open()
        key = self._where["Key"]
        with mapped_errors("put", key):
            if self._upload_id is None:
                self._client.put_object(**self._where, **self._body(), ContentType=self._media_type)
            else:
                self._send_part()
                self._complete()
            self._upload_id = None
            self._verify()
        self._closed = True
        return StoredObject(key, self._sha256.hexdigest(), self._bytes)

    def abort(self) -> None:
        self._closed = True
        self._part = bytearray()
        upload_id, self._upload_id = self._upload_id, None
        if upload_id is None:
            return
        # The bucket's lifecycle rule is what ends uploads that can't be aborted now.
        with suppress(PressrunError), mapped_errors("abort", self._where["Key"]):
            self._client.abort_multipart_upload(**self._where, UploadId=upload_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._closed:
            self.abort()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this writer was finished or aborted")

    def _send_part(self) -> None:
        if len(self._parts) == MOST_PARTS:
            raise StorageFull(f"An object can't be larger than {MOST_PARTS * PART_BYTES} bytes.")
        with mapped_errors("put", self._where["Key"]):
            if self._upload_id is None:
                made = self._client.create_multipart_upload(
                    **self._where, ContentType=self._media_type
                )
                self._upload_id = made["UploadId"]
            number = len(self._parts) + 1
            sent = self._client.upload_part(
                **self._where, **self._body(), UploadId=self._upload_id, PartNumber=number
            )
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        self._part = bytearray()

    def _body(self) -> dict[str, Any]:
        return {"Body": self._part, "ContentMD5": _md5(self._part)}

    def _complete(self) -> None:
        try:
            self._client.complete_multipart_upload(
                **self._where, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
        except ClientError as error:
            # A retry after a lost reply finds the upload gone because it was completed: the
            # size that finish reads next decides. Results live under keys of their own attempt,
            # so no other writer's object can stand there.
            if status_of(error)[0] != "NoSuchUpload":
                raise

    def _verify(self) -> None:
        found: int | None = None
        with suppress(NotFound), mapped_errors("head", self._where["Key"]):
            found = _size(self._client, self._where)
        if found != self._bytes:
            log.warning(
                "storage_size_differs", key=self._where["Key"], found=found, written=self._bytes
            )
            raise StorageUnavailable("The artifact store did not keep what was written.")


def _client(session: boto3.session.Session, endpoint: str | None) -> Any:
    client = session.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            signature_version="s3v4",
            # What else botocore adds by default is unknown to many S3-compatible servers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint else "auto"},
            retries={"mode": "standard", "total_max_attempts": 5},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=32,
            tcp_keepalive=True,
        ),
    )
    # Older servers accept this call only with the header that botocore no longer sends.
    client.meta.events.register_last("before-call.s3.DeleteObjects", _add_md5)
    return client


def _add_md5(params: dict[str, Any], **_: object) -> None:
    body = params["body"]
    params["headers"]["Content-MD5"] = _md5(body.encode() if isinstance(body, str) else body)


def _md5(data: bytes | bytearray) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _size(client: Any, where: dict[str, str]) -> int:
    return int(client.head_object(**where)["ContentLength"])
