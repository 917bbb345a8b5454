"""The key in ``DIR/api-key``: good from the ready line on, also in a database that is new."""

from __future__ import annotations

import hashlib
from pathlib import Path

import structlog
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import IntegrityError

from pressrun.admin_commands import TENANTS
from pressrun.api_client import ApiClient
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.up.data_folder import write_private
from shared.db.api_keys import find_owner, insert_key
from shared.db.tables import tenants
from shared.db.tenants import insert_tenant
from shared.ids import new_key_id, new_tenant_id

TENANT = "default"
KEY_NAME = "pressrun up"
PREFIX_CHARACTERS = 14
"""What is kept of a key in the clear."""

log = structlog.get_logger()


def ensure_tenant_key(path: Path, database: Engine, admin: ApiClient) -> None:
    """Makes the key in ``path`` one that works, of the tenant ``default``.

    A key of another database is added to this one. Without a file, or when the key was revoked,
    a new one is made by the API. Raises CommandError and sqlalchemy's errors.
    """
    key = path.read_text().strip() if path.exists() else ""
    if key and _is_known(database, key) and _is_accepted(admin.url, key):
        path.chmod(0o600)
        return
    with database.begin() as connection:
        tenant_id = _tenant_id(connection)
    made = admin.post(f"{TENANTS}/{tenant_id}/keys", {"name": KEY_NAME})
    write_private(path, str(made["key"]))
    log.info("tenant_key_made", path=str(path))


def _is_accepted(url: str, key: str) -> bool:
    """Whether the API takes the key: the file may have been edited."""
    try:
        with ApiClient(url, key) as client:
            client.get("/v1/models")
    except CommandError as error:
        if error.exit_code is not ExitCode.AUTH:
            raise
        return False
    return True


def _is_known(database: Engine, key: str) -> bool:
    """Whether the key is good in this database, after adding it where it is unknown."""
    digest = hashlib.sha256(key.encode()).digest()
    try:
        with database.begin() as connection:
            if find_owner(connection, digest) is not None:
                return True
            insert_key(
                connection,
                key_id=new_key_id(),
                tenant_id=_tenant_id(connection),
                name=KEY_NAME,
                prefix=key[:PREFIX_CHARACTERS],
                key_hash=digest,
                expires_in_seconds=None,
            )
    except IntegrityError:
        return False  # known, and not good: revoked or expired on purpose
    return True


def _tenant_id(connection: Connection) -> str:
    oldest = (
        select(tenants.c.id)
        .where(tenants.c.name == TENANT, tenants.c.disabled_at.is_(None))
        .order_by(tenants.c.created_at)
        .limit(1)
    )
    found = connection.execute(oldest).scalar()
    return found or insert_tenant(connection, tenant_id=new_tenant_id(), name=TENANT).id
