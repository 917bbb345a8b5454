"""A batch's lines as they are finished: each once for who follows the cursor, whatever happens to
the workers, while the batch runs and after it.

Lines are told in the order of the slices, each slice's successes before its failures. A slice is
told once it is committed, and it is never committed again; the final files hold the same bytes in
the same order, so a cursor that was given while the batch ran is good after its end too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import IO, NamedTuple

from shared.db.batch_results import BatchLook, SliceLook
from shared.errors import InvalidRequest, NotFound

MAX_LINES = 10_000
MAX_BYTES = 64 * 2**20
"""Of an answer, unless its first line alone is longer."""
STATUSES = ("succeeded", "failed")

_LETTERS = {None: "a", "succeeded": "s", "failed": "f"}
_CURSOR = re.compile(r"([asf])([0-9]{1,9})\.([0-9]{1,15})\.([0-9]{1,12})", re.ASCII)
_GONE = "the files of this batch's results were deleted, or have expired"

ReadRange = Callable[[str, int, int], Iterator[bytes]]
"""Bytes ``[start, end)`` of the object with a key."""


class Cursor(NamedTuple):
    """How far somebody has read."""

    ordinal: int = 0
    """Of the slice that comes next, or that was begun."""
    offset: int = 0
    """Bytes of its lines that were told."""
    lines: int = 0
    """That were told in all."""

    def token(self, status: str | None) -> str:
        return f"{_LETTERS[status]}{self.ordinal}.{self.offset}.{self.lines}"


class Piece(NamedTuple):
    """A run of whole lines in one object."""

    ordinal: int
    at: int
    """Where it begins among the slice's lines, in bytes."""
    key: str
    start: int
    end: int
    begun: bool = False
    """An earlier answer told what comes before it in the object."""


@dataclass(slots=True)
class Told:
    """What was written for one answer."""

    lines: int = 0
    bytes: int = 0
    cut: bool = False
    """More lines are there than the answer may have."""


def read_cursor(token: str | None, status: str | None) -> Cursor:
    """Raises InvalidRequest for what is no cursor of ours, or one of another ``status``."""
    if token is None:
        return Cursor()
    match = _CURSOR.fullmatch(token)
    if match is None or match[1] != _LETTERS[status]:
        raise InvalidRequest(
            "'after' must be the X-Next-After of an answer with the same 'status'", param="after"
        )
    return Cursor(*(int(part) for part in match.groups()[1:]))


class Walk:
    """The pieces that come after a cursor, as far as they are there. Pure but for its arguments."""

    def __init__(
        self,
        look: BatchLook,
        slices: Iterable[SliceLook],
        before: tuple[int, int],
        cursor: Cursor,
        status: str | None,
    ) -> None:
        """``slices`` begin with the cursor's; ``before`` are the bytes of the final files that
        come before it."""
        self._look = look
        self._slices = slices
        self._output_at, self._errors_at = before
        self._cursor = cursor
        self._status = status
        self.seen: list[Piece] = []
        self.next_ordinal = cursor.ordinal
        """The slice to go on with, once all pieces were taken."""

    def __iter__(self) -> Iterator[Piece]:
        """Raises NotFound when a final file is gone, InvalidRequest for a cursor beyond a slice."""
        for part in self._slices:
            if self._must_wait(part):
                return
            for piece in self._left(self._pieces(part), part.ordinal):
                self.seen.append(piece)
                yield piece
            self.next_ordinal = part.ordinal + 1

    def cursor_after(self, told: Told) -> Cursor:
        """Where to go on after so much of the pieces."""
        lines = self._cursor.lines + told.lines
        if not told.cut:
            return Cursor(self.next_ordinal, 0, lines)
        left = told.bytes
        for piece in self.seen:
            length = piece.end - piece.start
            if left < length:
                return Cursor(piece.ordinal, piece.at + left, lines)
            left -= length
        raise AssertionError("more was told than there was")

    def _must_wait(self, part: SliceLook) -> bool:
        """A slice that never ran has its lines in the final error file alone."""
        if self._look.ended:
            return False
        return part.open or (not part.has_results and self._status != "succeeded")

    def _pieces(self, part: SliceLook) -> Iterator[Piece]:
        """Of the whole slice."""
        look, output_at, errors_at = self._look, self._output_at, self._errors_at
        self._output_at += part.output_bytes
        self._errors_at += part.errors_bytes
        at = 0
        if self._status != "failed" and part.output_bytes:
            found = (look.output_key, output_at) if look.assembled else (part.output_key, 0)
            yield _piece(part.ordinal, at, found, part.output_bytes)
            at = part.output_bytes
        if self._status != "succeeded" and part.errors_bytes:
            found = (look.errors_key, errors_at) if look.assembled else (part.errors_key, 0)
            yield _piece(part.ordinal, at, found, part.errors_bytes)

    def _left(self, pieces: Iterator[Piece], ordinal: int) -> Iterator[Piece]:
        """Without what the cursor has behind it."""
        skip = self._cursor.offset if ordinal == self._cursor.ordinal else 0
        size = 0
        for piece in pieces:
            size = piece.at + piece.end - piece.start
            told = min(max(0, skip - piece.at), piece.end - piece.start)
            if told < piece.end - piece.start:
                yield piece._replace(at=piece.at + told, start=piece.start + told, begun=told > 0)
        if skip > size:
            raise InvalidRequest("'after' lies beyond its slice", param="after")


def _piece(ordinal: int, at: int, found: tuple[str | None, int], size: int) -> Piece:
    key, start = found
    if key is None:
        raise NotFound(_GONE)
    return Piece(ordinal, at, key, start, start + size)


def write_lines(
    pieces: Iterable[Piece], read: ReadRange, target: IO[bytes], *, most_lines: int, most_bytes: int
) -> Told:
    """Copies whole lines to ``target`` until there are enough, which it is then cut to.

    Raises NotFound when an object is gone, OSError from ``target``, or what ``read`` does.
    """
    told = Told()
    written = 0
    for chunk in _chunks(pieces, read):
        if not _count(chunk, written, told, most_lines, most_bytes):
            told.cut = True
            break
        target.write(chunk)
        written += len(chunk)
    else:
        return told
    target.write(chunk)
    target.seek(told.bytes)
    target.truncate()
    return told


def _count(chunk: bytes, written: int, told: Told, most_lines: int, most_bytes: int) -> bool:
    """Counts the chunk's lines; False once one is too many."""
    place = 0
    while (end := chunk.find(b"\n", place) + 1) > 0:
        if told.lines == most_lines or (told.lines and written + end > most_bytes):
            return False
        told.lines += 1
        told.bytes = written + end
        place = end
    rest = written + len(chunk)
    return not (told.lines and rest > max(most_bytes, told.bytes))


def _chunks(pieces: Iterable[Piece], read: ReadRange) -> Iterator[bytes]:
    """Pieces that follow on each other in one object are read in one go."""
    for run in _runs(pieces):
        start = run.start - 1 if run.begun else run.start
        try:
            chunks = read(run.key, start, run.end)
            if run.begun:
                chunks = _after_newline(chunks)
            yield from chunks
        except NotFound:
            raise NotFound(_GONE) from None


def _after_newline(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Without the first byte, which ends the line before. Raises InvalidRequest if it does not:
    nobody was given such a cursor."""
    first = next(chunks, b"")
    if not first.startswith(b"\n"):
        raise InvalidRequest("'after' lies within a line", param="after")
    yield first[1:]
    yield from chunks


def _runs(pieces: Iterable[Piece]) -> Iterator[Piece]:
    run: Piece | None = None
    for piece in chain(pieces, (None,)):
        follows = run and piece and (piece.key, piece.start) == (run.key, run.end)
        if run and piece and follows and run.end - run.start < MAX_BYTES:
            run = run._replace(end=piece.end)
            continue
        if run:
            yield run
        run = piece
