"""Settings that say where things are: the database, the broker, the store, the models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


class PlaceSettings(BaseModel):
    """Where things are, and the keys to them."""

    model_config = ConfigDict(defer_build=True)

    database_url: Annotated[
        str,
        Field(description="SQLAlchemy URL of Postgres 15 or newer: `postgresql+psycopg://…`."),
    ]
    api_database_url: Annotated[
        str | None,
        Field(
            description="For `pressrun db roles`: what `DATABASE_URL` is for API processes. The "
            "user in it is made."
        ),
    ] = None
    worker_database_url: Annotated[
        str | None,
        Field(description="For `pressrun db roles`: likewise, for workers and upkeep."),
    ] = None
    broker_url: Annotated[
        str,
        Field(
            description="Celery broker for doorbells: `amqp://…`, or `filesystem://DIR` on one "
            "machine. Empty: no doorbells, work is found by polling alone."
        ),
    ] = ""
    storage_dir: Annotated[
        Path | None,
        Field(description="Keep artifacts in this local directory. Exclusive with `S3_BUCKET`."),
    ] = None
    s3_bucket: Annotated[
        str | None, Field(description="Keep artifacts in this bucket of an S3-compatible store.")
    ] = None
    s3_endpoint: Annotated[
        str | None, Field(description="Address of the S3 store; empty for AWS itself.")
    ] = None
    s3_public_endpoint: Annotated[
        str | None,
        Field(
            description="Address that partners reach, for presigned URLs; default `S3_ENDPOINT`."
        ),
    ] = None
    s3_region: Annotated[str, Field(description="Region used to sign S3 requests.")] = "us-east-1"
    s3_access_key: Annotated[
        str | None, Field(description="S3 access key; empty: boto3's own credential chain.")
    ] = None
    s3_secret_key: Annotated[SecretStr | None, Field(description="S3 secret key.")] = None
    admin_key: Annotated[
        SecretStr | None,
        Field(description="Key of the `/v1/admin` routes; without one they answer 403."),
    ] = None
    signing_key: Annotated[
        SecretStr,
        Field(
            min_length=16,
            description="Secret that signs download URLs of the local directory store; the same "
            "on every API process.",
        ),
    ]
    public_url: Annotated[
        str | None,
        Field(description="Address partners use, for absolute URLs; default: the request's own."),
    ] = None
    models_file: Annotated[
        Path | None,
        Field(description="TOML catalog of models; `pressrun migrate` loads it into the database."),
    ] = None
    scratch_dir: Annotated[
        Path,
        Field(description="Folder for uploads in flight and for results waiting to be stored."),
    ] = Path("/tmp/pressrun")  # noqa: S108  (a default that works anywhere; mode 0700 when made)

    @field_validator("database_url")
    @classmethod
    def _names_the_driver(cls, url: str) -> str:
        if not url.startswith("postgresql+psycopg://"):
            raise ValueError("must start with postgresql+psycopg://")
        return url
