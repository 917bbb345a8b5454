"""Reading what a training says, line by line, while it says it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from worker.tuning.messages import MESSAGES, FromTraining, decode

READ_BYTES = 2**20
LONGEST_LINE = 8 * 2**20


class Garbled(Exception):
    """The training wrote something that is no message."""


class MessageReader:
    """The messages of one training, each once and in order. The file is the buffer: what is not
    read stays there, so a reader that can't keep up (or whose database is away) loses nothing."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MESSAGES
        self._offset = 0
        self._begun = b""

    def read(self) -> list[FromTraining]:
        """What was completed since the last call, about ``READ_BYTES`` of it; a line that is still
        being written is left for later. Nothing means that there is no whole line. Raises
        Garbled."""
        lines: list[bytes] = []
        while not lines and (data := self._more()):
            *lines, self._begun = (self._begun + data).split(b"\n")
            if len(self._begun) > LONGEST_LINE:
                raise Garbled(f"a line of more than {LONGEST_LINE} bytes")
        try:
            return [decode(line) for line in lines if line]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Garbled(str(error)) from None

    def _more(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(READ_BYTES)
        except FileNotFoundError:
            return b""
        self._offset += len(data)
        return data
