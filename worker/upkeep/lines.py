"""Lines of a stream of any size, with their byte offsets, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline; ``text`` is None when it is longer than allowed."""

    number: int
    byte_start: int
    byte_end: int
    """Just past the newline."""
    text: bytes | None


def read_lines(chunks: Iterable[bytes], *, max_bytes: int) -> Iterator[Line]:
    """Cuts ``chunks`` at newlines. A line over ``max_bytes`` is skipped, not held."""
    number, start, offset = 1, 0, 0
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            held += len(piece)
            offset += len(piece) + 1
            parts.append(piece)
            text = b"".join(parts) if held <= max_bytes else None
            yield Line(number, start, offset, text)
            number, start, held = number + 1, offset, 0
            parts.clear()
        tail = pieces[-1]
        held += len(tail)
        offset += len(tail)
        if held <= max_bytes:
            parts.append(tail)
        else:
            parts.clear()
    if held:
        yield Line(number, start, offset, b"".join(parts) if held <= max_bytes else None)
