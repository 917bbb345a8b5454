"""Identifiers: a visible prefix, 48 bits of milliseconds, 80 random bits.

Time first, so that primary-key pages stay local and ``ORDER BY id`` is creation order for lists.
Nothing relies on the clock being right.
"""

from __future__ import annotations

import secrets
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
LENGTH = 26


def new_id(prefix: str) -> str:
    """``prefix`` and 26 characters, such as ``job_01k9…``. The prefix brings its separator."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return prefix + "".join(
        ALPHABET[(number >> shift) & 31] for shift in range(5 * (LENGTH - 1), -1, -5)
    )


def new_job_id() -> str:
    return new_id("job_")


def new_batch_id() -> str:
    return new_id("batch_")


def new_file_id() -> str:
    return new_id("file-")


def new_tenant_id() -> str:
    return new_id("ten_")


def new_key_id() -> str:
    return new_id("key_")


def new_session_id() -> str:
    return new_id("ses_")


def new_artifact_id() -> str:
    return new_id("art_")
