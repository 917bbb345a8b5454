"""Which keys a store takes, what a range of bytes is, and where trainings keep what they make."""

from __future__ import annotations

import re

LONGEST_KEY = 512
LONGEST_SEGMENT = 200
"""Leaves room, in a file name of 255 bytes, for what a store adds to it."""

# No leading dot: ".", ".." and a store's own folders can't be named.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=@+,-]*\Z")


class InvalidKey(ValueError):
    """A key that no store takes. Keys are made by this program, so this is a bug in it."""


def check_key(key: str) -> str:
    """Returns ``key``: segments of plain ASCII parted by single slashes. Raises InvalidKey.

    A key must not be a folder of another key: ``a`` and ``a/b`` can't both be stored.
    """
    if len(key) > LONGEST_KEY:
        raise InvalidKey(f"a key of {len(key)} characters; {LONGEST_KEY} is the most")
    for segment in key.split("/"):
        if len(segment) > LONGEST_SEGMENT or not _SEGMENT.match(segment):
            raise InvalidKey(f"not a key: {key!r}")
    return key


def folder_of(prefix: str) -> str:
    """The prefix as a whole folder with one slash at its end: ``t/1`` never means ``t/10``.

    Raises InvalidKey, also for the empty prefix, which would mean everything.
    """
    return check_key(prefix.removesuffix("/")) + "/"


def check_range(start: int, end: int | None) -> None:
    """Raises ValueError unless ``[start, end)`` is a range of bytes."""
    if start < 0 or (end is not None and end < start):
        raise ValueError(f"not a range of bytes: [{start}, {end})")


# --- files in parts -------------------------------------------------------------------------


def upload_prefix(tenant_id: str, upload_id: str) -> str:
    """The folder of everything that an upload has stored, its file included."""
    return f"t/{tenant_id}/u/{upload_id}/"


def parts_prefix(tenant_id: str, upload_id: str) -> str:
    """The folder of an upload's parts."""
    return f"{upload_prefix(tenant_id, upload_id)}p/"


def joined_key(tenant_id: str, upload_id: str, job_id: str, epoch: int) -> str:
    """The file that one attempt made of an upload's parts."""
    return f"{upload_prefix(tenant_id, upload_id)}{job_id}-e{epoch}"


# --- what trainings make --------------------------------------------------------------------
# Under the attempt that stored it, like everything else: no two attempts ever write one key.


def checkpoints_prefix(tenant_id: str, job_id: str) -> str:
    """The folder of every checkpoint that any attempt of the job stored."""
    return f"t/{tenant_id}/j/{job_id}/c/"


def checkpoint_prefix(tenant_id: str, job_id: str, epoch: int, step: int) -> str:
    """The folder of one checkpoint."""
    return f"{checkpoints_prefix(tenant_id, job_id)}{epoch}-{step}/"


def training_files_prefix(tenant_id: str, job_id: str, epoch: int) -> str:
    """The folder of the report, metrics and curves that one attempt stored."""
    return f"t/{tenant_id}/j/{job_id}/r/e{epoch}/"


def models_prefix(tenant_id: str, job_id: str) -> str:
    """The folder of every model that any attempt of a training stored. It is not in the job's
    own: the model outlives it."""
    return f"t/{tenant_id}/m/{job_id}/"


def model_prefix(tenant_id: str, job_id: str, epoch: int) -> str:
    """The folder of the model that one attempt stored."""
    return f"{models_prefix(tenant_id, job_id)}e{epoch}/"
