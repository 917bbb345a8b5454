"""The input of a batch that runs rows of another one again: which lines, and their copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from shared.errors import PressrunError
from shared.storage.base import ObjectWriter
from worker.outputs import CANCELLED, EXPIRED
from worker.upkeep.lines import read_lines

LONGEST_ERROR_BYTES = 64 * 2**20
"""Of a line of an error file: an engine's answer, which is short."""
_NEVER_RUN = {"expired": EXPIRED[0], "cancelled": CANCELLED[0]}


class UnreadableErrors(PressrunError):
    """The file is not the error file that this plant wrote."""


class _Error(msgspec.Struct):
    code: str | None = None


class _Line(msgspec.Struct):
    """As ``worker.outputs`` writes it."""

    id: str
    error: _Error | None = None

    @property
    def number(self) -> int:
        """Of the row, in the input file."""
        return int(self.id.rpartition("-")[2])

    def is_one_of(self, only: str) -> bool:
        code = self.error.code if self.error else None
        if only == "all":
            return True
        if only in _NEVER_RUN:
            return code == _NEVER_RUN[only]
        return code not in _NEVER_RUN.values()


class LineSet:
    """Numbers of lines, a bit for each line of the file."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return place < len(self._bits) and bool(self._bits[place] & (1 << bit))

    def add(self, number: int) -> None:
        place, bit = divmod(number, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        self._count += number not in self
        self._bits[place] |= 1 << bit


def wanted_lines(errors: Iterable[bytes], only: str) -> LineSet:
    """Which lines of the input the error file names, of those that ``failed``, ``expired``, were
    ``cancelled``, or ``all``. Raises UnreadableErrors."""
    decoder = msgspec.json.Decoder(_Line)
    found = LineSet()
    for line in read_lines(errors, max_bytes=LONGEST_ERROR_BYTES):
        try:
            row = decoder.decode(line.text or b"")
            if row.is_one_of(only):
                found.add(row.number)
        except (ValueError, RecursionError):
            raise UnreadableErrors(
                f"line {line.number} of the error file is none of ours"
            ) from None
    return found


def copy_lines(
    source: Iterable[bytes], wanted: LineSet, writer: ObjectWriter, *, max_bytes: int
) -> None:
    """Writes the wanted lines of ``source``, in its order. Raises UnreadableErrors when it has not
    all of them."""
    copied = 0
    for line in read_lines(source, max_bytes=max_bytes):
        if line.number not in wanted:
            continue
        if line.text is None:
            raise UnreadableErrors(f"line {line.number} of the input is longer than it was")
        writer.write(line.text + b"\n")
        copied += 1
    if copied < len(wanted):
        raise UnreadableErrors("the error file names lines that the input has not")


def interruptible(
    chunks: Iterable[bytes], interrupted: Callable[[], bool], stop: type[Exception]
) -> Iterator[bytes]:
    """``chunks``, until ``interrupted`` says so: then it raises ``stop``."""
    for chunk in chunks:
        if interrupted():
            raise stop
        yield chunk
