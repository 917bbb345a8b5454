"""Chooses the store that the settings name."""

from __future__ import annotations

from shared.settings import Settings
from shared.storage.base import Store
from shared.storage.local import LocalStore


def open_store(settings: Settings) -> Store:
    """The local directory or the bucket. Raises StorageUnavailable if a directory can't be made.

    A bucket is not asked for anything before it is used.
    """
    if settings.storage_dir is not None:
        return LocalStore(settings.storage_dir, settings.signing_key.get_secret_value())
    # Here, since a machine without S3 need not spend the time and memory that boto3 takes.
    from shared.storage.s3 import S3Store

    secret = settings.s3_secret_key
    if settings.s3_bucket is None:
        raise ValueError("settings name neither a directory nor a bucket")
    return S3Store(
        settings.s3_bucket,
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=None if secret is None else secret.get_secret_value(),
    )
