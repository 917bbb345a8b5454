"""What an S3 server's or botocore's failure means to us."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NoReturn

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import NotFound, StorageFull, StorageUnavailable

_ABSENT_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
_FULL_CODES = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientStorage",
        "QuotaExceeded",
        "StorageFull",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)
_INSUFFICIENT_STORAGE = 507

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def mapped_errors(operation: str, key: str) -> Iterator[None]:
    """Raises NotFound, StorageFull or StorageUnavailable in place of botocore's errors."""
    try:
        yield
    except ClientError as error:
        _raise_mapped(operation, key, error)
    except (BotoCoreError, OSError) as error:
        log.warning("storage_failed", operation=operation, key=key, code=type(error).__name__)
        raise StorageUnavailable("The artifact store does not answer.") from error


def status_of(error: ClientError) -> tuple[str, int]:
    """The server's error code and HTTP status."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code, int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _raise_mapped(operation: str, key: str, error: ClientError) -> NoReturn:
    code, status = status_of(error)
    if code in _ABSENT_CODES:
        raise NotFound(f"There is no object {key!r}.") from error
    log.warning("storage_failed", operation=operation, key=key, code=code, status=status)
    if code in _FULL_CODES or status == _INSUFFICIENT_STORAGE:
        raise StorageFull("The artifact store has no room left.") from error
    raise StorageUnavailable("The artifact store does not answer.") from error
