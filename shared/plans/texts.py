"""What makes a model's raw answer presentable: a closed set of filters from text to text.

Small models answer with labels ("Headline: …"), quotation marks, markdown, a friendly preamble and
the same sentence three times. Filters only take away: nothing is reworded or added, so a text that
is empty afterwards was empty in substance.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Models answer with anything, ten thousand brackets too: no pattern here looks again and again for
# an end that isn't there.
_FENCE = re.compile(r"^[^\S\n]*(```|~~~).*$", re.MULTILINE)
_SPECIAL_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:pad|unk|bos|eos)>")
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\n]*\)")
_LINE_MARK = re.compile(r"^[^\S\n]*(?:#{1,6}\s+|>\s+|[-*•–]\s+|\(?\d{1,2}[.)]\s+)+", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*\*\*|\*\*|\*|___|__|_|`)(?=\S)(.{1,600}?)(?<=\S)\1(?!\w)")
_LEFT_OVER = re.compile(r"\*\*+|`+|^[^\S\n]*[*_=-]{3,}[^\S\n]*$", re.MULTILINE)
_LABEL = re.compile(
    r"^\s*(?:(?:ad(?:vertisement)?|social|short|catchy|the|your|my|image|picture|product)\s+)*"
    r"(?:headline|title|tagline|slogan|body(?: text| copy)?|text|copy|caption|description|answer|"
    r"response|output|prompt|scene|call[ -]to[ -]action|cta|button|"
    r"überschrift|schlagzeile|titel|titre|accroche|título|titulo|titolo|titular)"
    r"\s*(?:\d{1,2}\s*)?[:：]\s*",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"^\s*(?:sure|certainly|of course|okay|ok|absolutely|great|here(?:'s|’s| is| are))\b[^\n]*"
    r"[:：!.]\s*$",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "„": "“”", "«": "»", "»": "«", "「": "」"}
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*(?=\s)|(?<=[。！？])[」』]?")
_ENDS = ".!?…。！？"
_NO_END = re.compile(
    r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof|St|No|vs|etc|e\.g|i\.e|Inc|Ltd|Co|approx|bzw|z\.B|ca|Nr|[A-Z]))\.$"
)

_LONGEST_NO_END = 16
"""Characters; more than any of them, and the one before it."""


def plain(text: str) -> str:
    """Without markdown, labels, quotation marks around the whole, preambles and control
    characters; lines stay lines."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _SPECIAL_TOKEN.sub("", text)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _UNSEEN)
    text = _LINK.sub(r"\1", _FENCE.sub("", text))
    text = _LINE_MARK.sub("", text)
    text = _LEFT_OVER.sub("", _EMPHASIS.sub(r"\2", text))
    lines = [line for line in text.split("\n") if not _PREAMBLE.match(line)]
    return _bare("\n".join(lines))


_UNSEEN = {"Cc", "Cs", "Co", "Cn"}
"""Unicode categories of what nobody can read; formatting marks (Cf) join emoji and turn text."""


def _bare(text: str) -> str:
    """Without labels and quotation marks, whichever is inside the other."""
    while True:
        inside = _unquoted(_LABEL.sub("", text))
        if inside == text:
            return text
        text = inside


def _unquoted(text: str) -> str:
    """Without the quotation marks around the whole, or one that nothing closes."""
    text = text.strip()
    while len(text) > 1 and text[0] in _QUOTES:
        inside = text[1:-1]
        closes = _QUOTES[text[0]]
        if text[-1] in closes and text[0] not in inside and text[-1] not in inside:
            text = inside.strip()
        elif not any(mark in text[1:] for mark in closes):
            text = text[1:].strip()
        else:
            break
    return text


def first_line(text: str) -> str:
    """The first line with something on it, without its own label and quotation marks."""
    lines = (line.strip() for line in text.split("\n"))
    first = next((line for line in lines if any(map(str.isalnum, line))), "")
    return _bare(first)


def one_line(text: str) -> str:
    """All white space turned to single spaces."""
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """The sentences of a text, each without the white space around it. Joined by spaces they are
    the text again, but for its white space."""
    found: list[str] = []
    start = 0
    for end in (match.end() for match in _SENTENCE_END.finditer(text)):
        if _NO_END.search(text[max(start, end - _LONGEST_NO_END) : end]):
            continue
        found.append(one_line(text[start:end]))
        start = end
    found.append(one_line(text[start:]))
    return [sentence for sentence in found if sentence]


def first_sentence(text: str) -> str:
    return next(iter(sentences(text)), "")


def whole_sentences(text: str) -> str:
    """Without repeated sentences, and without the last one when it was cut off in the middle,
    unless it is the only one."""
    seen: set[str] = set()
    kept: list[str] = []
    for sentence in sentences(text):
        words = "".join(c for c in sentence.casefold() if c.isalnum())
        if words and words not in seen:
            seen.add(words)
            kept.append(sentence)
    if len(kept) > 1 and not kept[-1].rstrip("\"'”’»)]」』").endswith(tuple(_ENDS)):
        kept.pop()
    return " ".join(kept)


def no_full_stop(text: str) -> str:
    """Without a full stop at the end: for headlines and buttons."""
    stripped = text.rstrip()
    if stripped.endswith((".", "。")) and not stripped.endswith(("..", "。。")):
        return stripped[:-1].rstrip()
    return stripped


def at_most(text: str, characters: int) -> str:
    """Up to so many characters, cut between words and marked by an ellipsis."""
    if len(text) <= characters:
        return text
    room = text[: characters - 1]
    if not text[characters - 1].isspace() and " " in room[characters // 2 :]:
        room = room.rpartition(" ")[0]
    return room.rstrip(" ,;:–—-.") + "…"


FILTERS: dict[str, Callable[[str], str]] = {
    "plain": plain,
    "first_line": first_line,
    "one_line": one_line,
    "first_sentence": first_sentence,
    "whole_sentences": whole_sentences,
    "no_full_stop": no_full_stop,
}
