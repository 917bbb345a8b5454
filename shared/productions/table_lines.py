"""Lines of a table's file as text, in bounded memory, and what of a line can't be used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from shared.lifecycle import BadLine

MOST_ROW_BYTES = 2**20
MOST_DEPTH = 64
"""Of lists and objects in a row."""
BOM = b"\xef\xbb\xbf"
_HALF = re.compile("[\ud800-\udfff]")
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")


class BadRow(Exception):
    """A row that can't be used; the message is for the tenant."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def at(self, line: int | None) -> BadLine:
        return BadLine(self.code, self.message, line, self.param)


class Lines:
    """Lines as text. Unlike a generator it goes on after it has raised."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._pieces = _pieces(chunks)
        self.number = 0
        """Of the line that was given last."""
        self.taken = 0
        """Lines since ``begin``."""
        self._bytes = 0

    def begin(self) -> None:
        """A row begins with the next line."""
        self.taken = self._bytes = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        """Raises BadRow for a line that is too long, or no text."""
        line = next(self._pieces)
        self.number += 1
        self.taken += 1
        if self.number == 1 and line is not None:
            if line.startswith(_OTHER_ENCODINGS):
                raise BadRow("invalid_encoding", "the file is UTF-16; save it as UTF-8")
            line = line.removeprefix(BOM)
        self._bytes += MOST_ROW_BYTES if line is None else len(line)
        if line is None or self._bytes > MOST_ROW_BYTES:
            message = f"the row is longer than {MOST_ROW_BYTES} bytes"
            if self.taken > 1:
                message += ": is a quotation mark missing? nothing behind it was read"
            raise BadRow("line_too_long", message)
        return _text(line)


def _text(line: bytes) -> str:
    if b"\0" in line:
        raise BadRow("invalid_encoding", "there is a NUL in the line")
    try:
        return line.decode() + "\n"
    except UnicodeDecodeError as error:
        message = f"the line is not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})"
        raise BadRow("invalid_encoding", message) from None


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Lines without their end; None for one that is too long to be held."""
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        *ended, tail = chunk.split(b"\n")
        for piece in ended:
            held += len(piece)
            parts.append(piece)
            yield b"".join(parts).removesuffix(b"\r") if held <= MOST_ROW_BYTES else None
            parts.clear()
            held = 0
        held += len(tail)
        if held <= MOST_ROW_BYTES:
            parts.append(tail)
        else:
            parts.clear()
    if held:
        yield b"".join(parts) if held <= MOST_ROW_BYTES else None


def value_problem(value: Any) -> str | None:
    """What is wrong with a value that was JSON: too deep, or what no file can hold."""
    todo: list[tuple[Any, int]] = [(value, 0)]
    while todo:
        each, depth = todo.pop()
        if depth > MOST_DEPTH:
            return f"it is nested more than {MOST_DEPTH} deep"
        if isinstance(each, dict):
            todo += [(inner, depth + 1) for pair in each.items() for inner in pair]
        elif isinstance(each, list):
            todo += [(inner, depth + 1) for inner in each]
        elif isinstance(each, str) and _HALF.search(each):
            return "it has half of a UTF-16 pair in it"
        elif isinstance(each, str) and "\0" in each:
            return "it has a NUL in it"
        elif isinstance(each, float) and not math.isfinite(each):
            return "it has a number that is too large"
    return None
