"""How much of an upload is looked at, and how large its parts may be."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
PICTURE_LINE_BYTES = 44 * MIB
"""A line with the largest picture as base64, and its caption."""


@dataclass(frozen=True, slots=True)
class DataLimits:
    """Bounds of one upload; bytes unless a name says otherwise."""

    line_bytes: int = 4 * MIB
    """Of a line, of a paragraph, and of a record of a table."""
    rows: int = 1_000_000
    """Examples of one file."""
    reported: int = 1_000
    """Bad lines that are kept; all are counted."""
    labels: int = 1_000
    """Different ones: a classifier is judged by a table of all of them by all of them."""
    label_characters: int = 256
    caption_characters: int = 10_000
    sentence_tokens: int = 10_000
    messages: int = 2_048
    picture_bytes: int = 32 * MIB
    metadata_bytes: int = 64 * MIB
    """Of a ZIP's list of captions or labels, which is held in memory."""
    archive_bytes: int = 5 * 2**30
    """Of a ZIP as it was uploaded: it is read from a temporary file."""
    unpacked_bytes: int = 20 * 2**30
    """Of all files in a ZIP together."""
    members: int = 100_000
    directory_bytes: int = 16 * MIB
    """Of a ZIP's list of its files, which is held in memory."""
    ratio: int = 200
    """How many times a file in a ZIP may grow; small files may grow as they like."""
