"""Signatures of webhooks, as https://www.standardwebhooks.com has them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


def new_secret() -> str:
    """``whsec_`` and 32 random bytes in base64: what libraries for receivers take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def hint_of(secret: str) -> str:
    """Enough of a secret to tell it from others, and no more."""
    return f"{PREFIX}…{secret.rstrip('=')[-4:]}"


def signed_headers(
    message_id: str, unix_seconds: int, body: bytes, keys: Sequence[str]
) -> dict[str, str]:
    """The three headers; a signature for each of ``keys``, of which a receiver needs to know
    one. ``message_id`` is the same on every attempt, ``unix_seconds`` is that of the attempt."""
    return {
        ID: message_id,
        TIMESTAMP: str(unix_seconds),
        SIGNATURE: " ".join(_signature(message_id, unix_seconds, body, key) for key in keys),
    }


def _signature(message_id: str, unix_seconds: int, body: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{unix_seconds}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
