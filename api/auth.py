"""Who is calling: tenants by API keys from the database, the administrator by the settings' key."""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from hashlib import sha256

from sqlalchemy import Engine

from api.caching import RecentCache
from api.limits import MAX_CACHED_KEYS
from shared.db.api_keys import find_owner
from shared.errors import Forbidden, Unauthenticated

KEY_PREFIX = "pr_live_"
RANDOM_BYTES = 32
VISIBLE_CHARACTERS = len(KEY_PREFIX) + 6
"""How much of a key is kept in the clear, for people to tell keys apart."""

_KEY = re.compile(rf"{KEY_PREFIX}([A-Za-z0-9_-]{{43}})([0-9a-f]{{8}})")


def new_key() -> str:
    """``pr_live_``, 32 random bytes in base64url, 8 hex digits of checksum."""
    random = secrets.token_urlsafe(RANDOM_BYTES)
    return f"{KEY_PREFIX}{random}{_checksum(random)}"


def visible_prefix(key: str) -> str:
    return key[:VISIBLE_CHARACTERS]


def hash_key(key: str) -> bytes:
    """What is stored of a key, and how it is found: its SHA-256, so timing tells nothing of it."""
    return sha256(key.encode("latin-1", "replace")).digest()


def is_well_formed(key: str) -> bool:
    """Whether ``key`` could be one of ours; saves asking the database about typing errors."""
    match = _KEY.fullmatch(key)
    return match is not None and _checksum(match[1]) == match[2]


def _checksum(random: str) -> str:
    return f"{zlib.crc32(random.encode()):08x}"


class Authenticator:
    """Turns an ``Authorization`` header into a tenant, or into leave to administrate."""

    def __init__(self, engine: Engine, *, admin_key: str | None, cache_seconds: float) -> None:
        """``engine`` must autocommit; a key once found is trusted for ``cache_seconds``."""
        self._engine = engine
        self._admin_hash = hash_key(admin_key) if admin_key else None
        self._cache_seconds = cache_seconds
        self._tenants: RecentCache[bytes, str] = RecentCache(MAX_CACHED_KEYS)

    def tenant(self, authorization: str | None) -> str:
        """The id of the tenant whose key this is. Raises Unauthenticated, or Forbidden for the
        admin key."""
        key = _bearer(authorization)
        tenant_id = self._find(key)
        if tenant_id is not None:
            return tenant_id
        if self._is_admin(key):
            raise Forbidden("the admin key has no jobs or files: use a tenant's key")
        raise Unauthenticated("this API key is not valid")

    def require_admin(self, authorization: str | None) -> None:
        """Raises Unauthenticated, or Forbidden for a tenant's key or when no admin key is set."""
        if self._admin_hash is None:
            raise Forbidden("administration is switched off: no admin key is configured")
        key = _bearer(authorization)
        if self._is_admin(key):
            return
        if self._find(key) is not None:
            raise Forbidden("this call takes the admin key")
        raise Unauthenticated("this admin key is not valid")

    def forget(self) -> None:
        """Drops what is cached, after a key was revoked in this process."""
        self._tenants.clear()

    def _is_admin(self, key: str) -> bool:
        return self._admin_hash is not None and hmac.compare_digest(hash_key(key), self._admin_hash)

    def _find(self, key: str) -> str | None:
        if not is_well_formed(key):
            return None
        digest = hash_key(key)
        tenant_id = self._tenants.get(digest)
        if tenant_id is not None:
            return tenant_id
        with self._engine.connect() as connection:
            owner = find_owner(connection, digest)
        if owner is None:
            return None
        seconds = self._cache_seconds
        if owner.seconds_left is not None:
            seconds = min(seconds, owner.seconds_left)
        self._tenants.put(digest, owner.tenant_id, seconds)
        return owner.tenant_id


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated("send your API key as 'Authorization: Bearer …'")
    return key.strip()
