"""File names inside a bundle: readable, safe on every system, unique without regard to case."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

LONGEST_NAME = 60
"""Characters of what a tenant has named; at most 240 bytes with what is added to it."""

_EXTENSION = re.compile(r"\.[a-z0-9]{1,5}\Z")


def readable(words: str) -> str:
    """Letters, digits, spaces, ``-`` and ``_`` of any script, and nothing else; maybe empty."""
    kept = (
        c if c.isalnum() or c in "-_" else " "
        for c in unicodedata.normalize("NFC", words)
        if unicodedata.category(c)[0] != "C"
    )  # fmt: skip
    name = " ".join("".join(kept).split())[:LONGEST_NAME].strip()
    while len(name.encode()) > 2 * LONGEST_NAME:
        name = name[:-1].rstrip()
    return name


def extension(name: str) -> str:
    """Of an engine's file name, with the dot; ``.bin`` for what is none."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if _EXTENSION.match(suffix) else ".bin"


class Names:
    """Gives every file a name of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, folder: str, stem: str, ending: str) -> str:
        """``folder/stem.ending``, with a number if another file is called so."""
        number = 1
        while True:
            again = f" ({number})" if number > 1 else ""
            path = f"{folder}/{stem}{again}{ending}".removeprefix("/")
            if path.casefold() not in self._taken:
                self._taken.add(path.casefold())
                return path
            number += 1
