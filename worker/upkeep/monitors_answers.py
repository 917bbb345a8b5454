"""What the output of a monitor's batch says of each text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

MOST_LINE_BYTES = 4 * 2**20


def labels_of(chunks: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """The text's number and its label; lines that say nothing of the sort are left out. Raises what
    ``chunks`` raises."""
    for line in _lines(chunks):
        found = _label(line)
        if found is not None:
            yield found


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > MOST_LINE_BYTES:
            rest = b""
    if rest:
        yield rest


def _label(line: bytes) -> tuple[int, str] | None:
    """The text, and what it was judged to be."""
    try:
        row = json.loads(line)
        label = row["response"]["body"]["data"][0]["label"]
        return int(row["custom_id"]), str(label).replace("\0", "")[:200]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
