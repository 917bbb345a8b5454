"""Documents in passages: what fits an embedding model's window, with the headings above it, and
with the end of the passage before it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from worker.upkeep.productions.documents_blocks import PARAGRAPH, Block

MOST_WEIGHT = 800
"""Of a passage without its headings: of English about 170 tokens, and these models read 256."""
OVERLAP_WEIGHT = 160
"""Sentences that a passage repeats from the one before it, at most."""
MOST_HEADING = 80
"""Characters of each heading that are kept."""
DENSE = 3
"""A sign that is a word by itself weighs as much as so many letters."""

_SENTENCE = re.compile(r"[^.!?。！？\n]*(?:[.!?。！？]+[\"'”’)\]]*(?:\s+|$)|[.!?。！？]+|\n+|$)")
_DENSE = re.compile(r"[\u2e80-\ud7ff\uf900-\ufaff\uff66-\uff9f\U0001f000-\U0003ffff]")


def weight_of(text: str) -> int:
    """About as many letters of English as would be as many tokens."""
    return len(text) + (DENSE - 1) * len(_DENSE.findall(text))


def passages_of(blocks: Iterable[Block]) -> Iterator[str]:
    """The passages of a document, in its order. The same blocks make the same passages."""
    headings: list[tuple[int, str]] = []
    paragraphs: list[str] = []
    for block in blocks:
        if block.level == PARAGRAPH:
            paragraphs.append(block.text)
            continue
        yield from _cut(headings, paragraphs)
        paragraphs = []
        headings = [one for one in headings if one[0] < block.level]
        headings.append((block.level, " ".join(block.text.split())[:MOST_HEADING]))
    yield from _cut(headings, paragraphs)


def _cut(headings: list[tuple[int, str]], paragraphs: list[str]) -> Iterator[str]:
    above = " > ".join(text for _, text in headings)
    for body in _bodies(paragraphs):
        if body:  # a long row of spaces leaves nothing
            yield f"{above}\n{body}" if above else body


def _bodies(paragraphs: list[str]) -> Iterator[str]:
    held: list[str] = []
    weight = fresh = 0
    for piece in _pieces(paragraphs):
        weighs = weight_of(piece)
        if fresh and weight + weighs > MOST_WEIGHT:
            yield "".join(held).strip()
            held = _tail(held, min(OVERLAP_WEIGHT, MOST_WEIGHT - weighs))
            weight, fresh = sum(map(weight_of, held)), 0
        held.append(piece)
        weight, fresh = weight + weighs, fresh + 1
    if fresh:
        yield "".join(held).strip()


def _tail(pieces: list[str], most: int) -> list[str]:
    """The last sentences that weigh no more."""
    at, weight = len(pieces), 0
    while at and weight + weight_of(pieces[at - 1]) <= most:
        at -= 1
        weight += weight_of(pieces[at])
    return pieces[at:]


def _pieces(paragraphs: list[str]) -> Iterator[str]:
    """Sentences, with the space behind them."""
    for paragraph in paragraphs:
        sentences = [found[0] for found in _SENTENCE.finditer(paragraph) if found[0]]
        for sentence in [*sentences[:-1], sentences[-1].rstrip() + "\n"]:
            yield from _short(sentence)


def _short(sentence: str) -> Iterator[str]:
    """A sentence that is too long by itself goes in parts, between words where there are any."""
    at = 0
    while at < len(sentence):
        part = sentence[at : at + MOST_WEIGHT]
        if at + len(part) < len(sentence) or weight_of(part) > MOST_WEIGHT:
            room = len(part) if weight_of(part) <= MOST_WEIGHT else MOST_WEIGHT // DENSE
            space = part.rfind(" ", room // 2, room)
            part = part[: room if space < 0 else space + 1]
        yield part
        at += len(part)
