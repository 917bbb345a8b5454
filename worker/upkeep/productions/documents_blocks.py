"""Documents as headings and paragraphs: plain text, Markdown, and the text of HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import NamedTuple

PARAGRAPH = 0


class Block(NamedTuple):
    """``level`` is a heading's, 1 to 6, or PARAGRAPH."""

    level: int
    text: str


_HEADING = re.compile(r"(#{1,6})[ \t]+(.+)")
_FENCE = re.compile(r"[ ]{0,3}(```|~~~)")
_UNDERLINES = {"=": 1, "-": 2}
_MARKER = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)")
_HEADING_TAG = re.compile(r"h([1-6])")
_UNSEEN = frozenset({"script", "style", "template", "noscript", "svg", "iframe", "object", "head"})
_IN_A_LINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i"}
    | {"img", "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong"}
    | {"sub", "sup", "time", "tt", "u", "var", "wbr"}
)
_CELLS = frozenset({"td", "th"})


def text_blocks(text: str) -> Iterator[Block]:
    """Paragraphs, which blank lines part."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip():
            lines.append(line.rstrip())
        elif lines:
            yield Block(PARAGRAPH, "\n".join(lines))
            lines = []
    if lines:
        yield Block(PARAGRAPH, "\n".join(lines))


def markdown_blocks(text: str) -> Iterator[Block]:
    """Paragraphs, and headings of either kind; what stands in fences is no heading."""
    lines: list[str] = []
    fence: str | None = None
    for line in [*text.splitlines(), ""]:
        level = PARAGRAPH if fence else _underlined(lines, line)
        if level:
            yield from _paragraph(lines[:-1])
            yield Block(level, lines[-1].strip())
            lines = []
            continue
        found = _FENCE.match(line)
        if found and fence in (None, found[1]):
            fence = found[1] if fence is None else None
        heading = None if fence else _HEADING.fullmatch(line.rstrip())
        if heading:
            yield from _paragraph(lines)
            yield Block(len(heading[1]), heading[2].rstrip("# \t"))
            lines = []
        elif line.strip() or fence:
            lines.append(line.rstrip())
        else:
            yield from _paragraph(lines)
            lines = []
    yield from _paragraph(lines)


def _paragraph(lines: list[str]) -> Iterator[Block]:
    if any(line.strip() for line in lines):
        yield Block(PARAGRAPH, "\n".join(lines))


def _underlined(lines: list[str], line: str) -> int:
    """The level of a heading that ``line`` underlines."""
    marks = line.strip()
    if len(lines) != 1 or len(marks) < 3 or marks.strip(marks[0]):  # noqa: PLR2004
        return PARAGRAPH
    return _UNDERLINES.get(marks[0], PARAGRAPH)


def html_blocks(text: str) -> Iterator[Block]:
    """What a reader would see, in one pass over any text, however broken."""
    level, words = PARAGRAPH, list[str]()
    for tag, data in _pieces(text):
        words.append(unescape(data))
        name = (tag or "").lstrip("/")
        if tag is None or name in _IN_A_LINE:
            continue
        if name in _CELLS:
            words.append(" ")
            continue
        yield from _block(level, words)
        heading = _HEADING_TAG.fullmatch(tag)
        level, words = int(heading[1]) if heading else PARAGRAPH, []
        if tag == "li":
            words.append("- ")
    yield from _block(level, words)


def _block(level: int, words: list[str]) -> Iterator[Block]:
    said = " ".join("".join(words).split())
    if said.strip("- "):
        yield Block(level, said)


def _pieces(text: str) -> Iterator[tuple[str | None, str]]:
    """Texts, and the tag behind each: ``p``, ``/p``; None at the end, and behind a comment."""
    at = 0
    while (start := text.find("<", at)) >= 0:
        if text.startswith("<!--", start):
            tag, data, at = None, text[at:start], _behind(text, "-->", start)
        elif found := _MARKER.match(text, start):
            name = found[1].lower()
            tag = f"/{name}" if text[start + 1] == "/" else name
            data, at = text[at:start], _behind(text, ">", start)
            if tag in _UNSEEN:
                closing = re.compile(rf"</{name}\b", re.IGNORECASE).search(text, at)
                at = closing.start() if closing else len(text)
        elif text[start + 1 : start + 2] in ("!", "?"):
            tag, data, at = None, text[at:start], _behind(text, ">", start)
        else:
            tag, data, at = None, text[at : start + 1], start + 1
        yield tag, data
    yield None, text[at:]


def _behind(text: str, mark: str, start: int) -> int:
    found = text.find(mark, start)
    return len(text) if found < 0 else found + len(mark)


READERS: dict[str, Callable[[str], Iterator[Block]]] = {
    ".txt": text_blocks,
    ".text": text_blocks,
    ".md": markdown_blocks,
    ".markdown": markdown_blocks,
    ".html": html_blocks,
    ".htm": html_blocks,
}
"""By the end of a file's name."""
