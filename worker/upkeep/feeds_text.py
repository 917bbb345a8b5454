"""The words of HTML, as feeds put it into titles and texts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

MOST_FIELD = 100_000
"""Characters of one field of a feed's item; the rest is dropped."""

_SILENT = frozenset({"script", "style", "template"})
_BREAKS = frozenset(
    {"p", "br", "div", "li", "ul", "ol", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote"}
)
_TAG = re.compile(r"<[A-Za-z/!][^<>]{0,2000}>|&[A-Za-z#][A-Za-z0-9]{1,31};")
_SPACES = re.compile(r"[ \t\r\f\v\u00a0]+")
_LINES = re.compile(r" ?\n[ \n]*")


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BREAKS:
            self.found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BREAKS:
            self.found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data)


def plain(text: str) -> str:
    """``text`` without markup; as it is where there is none."""
    if _TAG.search(text):
        words = _Words()
        words.feed(text)
        words.close()
        text = "".join(words.found)
    return _LINES.sub("\n", _SPACES.sub(" ", text)).strip()
