"""Fonts that have the letters of a text: the operator's, ours, or one that the system has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

OWN_FONT = Path(__file__).parent / "fonts" / "NotoSans-SemiBold.ttf"
"""Latin, Greek, Cyrillic and Devanagari; under the SIL Open Font License beside it."""
SYSTEM_FOLDERS = (
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
    Path("/Library/Fonts"),
    Path("/System/Library/Fonts"),
)
_NOBODY_HAS = "\U0010fffd"
"""A private character, drawn as every missing one is."""
_PROBE_SIZE = 24
_MOST_TRIED = 400

Font = ImageFont.FreeTypeFont


class Fonts:
    """Chooses fonts by the letters that are to be written, and notes those that none has."""

    def __init__(
        self, paths: Iterable[str] = (), *, system: Sequence[Path] = SYSTEM_FOLDERS
    ) -> None:
        """``paths`` are tried first. Raises OSError for one that is no font."""
        self._first = [*map(str, paths), str(OWN_FONT)]
        for path in self._first:
            _opened(path, _PROBE_SIZE)
        self._system = system
        self._chosen: dict[frozenset[str], str] = {}
        self.unwritable: set[str] = set()
        """Characters that no font has; they are left out."""

    def writable(self, text: str) -> str:
        """``text`` without what no single font at hand can write, in one line."""
        text = " ".join(unicodedata.normalize("NFC", text).split())
        font = self._path_for(text)
        missing = {letter for letter in set(text) if not _has(font, letter)}
        self.unwritable |= missing
        return " ".join("".join(letter for letter in text if letter not in missing).split())

    def font(self, text: str, size: int) -> Font:
        """The font for ``text`` in pixels of height."""
        return _opened(self._path_for(text), size)

    def _path_for(self, text: str) -> str:
        letters = frozenset(text)
        if letters not in self._chosen:
            self._chosen[letters] = self._best(letters)
        return self._chosen[letters]

    def _best(self, letters: frozenset[str]) -> str:
        best, least = self._first[-1], len(letters) + 1
        for path in [*self._first, *_system_fonts(tuple(self._system))]:
            missing = sum(not _has(path, letter) for letter in letters)
            if missing < least:
                best, least = path, missing
            if least == 0:
                break
        return best


@lru_cache(maxsize=64)
def _opened(path: str, size: int) -> Font:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=65_536)
def _has(path: str, letter: str) -> bool:
    """Whether the font has a glyph for the character; invisible ones need none."""
    if unicodedata.category(letter) in ("Cf", "Zs", "Mn", "Me"):
        return True
    try:
        font = _opened(path, _PROBE_SIZE)
        return _drawn(font, letter) != _drawn(font, _NOBODY_HAS)
    except (OSError, ValueError):
        return False


def _drawn(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter, mode="1")
    return mask.size, bytes(mask)


@lru_cache(maxsize=4)
def _system_fonts(folders: tuple[Path, ...]) -> tuple[str, ...]:
    """Upright fonts of even strokes, those made for many scripts first."""
    found = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".ttf", ".otf", ".ttc") and _serviceable(path.stem.lower())
    ]
    return tuple(str(path) for path in sorted(found, key=_rank)[:_MOST_TRIED])


def _serviceable(name: str) -> bool:
    return not any(word in name for word in ("italic", "oblique", "mono", "math", "emoji", "icon"))


def _rank(path: Path) -> tuple[bool, bool, bool, str]:
    name = path.stem.lower()
    return "noto" not in name, "bold" not in name, "condensed" in name, name
