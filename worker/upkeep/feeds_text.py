"""The words of HTML, as feeds put it into titles and texts."""

from __future__ import annotations

import re

from worker.upkeep.productions.documents_blocks import html_blocks

MOST_FIELD = 100_000
"""Characters of one field of a feed's item; the rest is dropped."""

_TAG = re.compile(r"<[A-Za-z/!][^<>]{0,2000}>|&[A-Za-z#][A-Za-z0-9]{1,31};")
_SPACES = re.compile(r"[ \t\r\f\v\u00a0]+")
_LINES = re.compile(r" ?\n[ \n]*")


def plain(text: str) -> str:
    """``text`` without markup; as it is where there is none. Takes linear time."""
    if _TAG.search(text):
        text = "\n".join(block.text for block in html_blocks(text))
    return _LINES.sub("\n", _SPACES.sub(" ", text)).strip()
