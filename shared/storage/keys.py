"""Which keys a store takes, and which byte range a reader means: the same for every store."""

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
