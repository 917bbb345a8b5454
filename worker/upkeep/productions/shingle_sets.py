"""The shingles of texts, as sorted hashes in a file; 8 bytes a text stay in memory."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from worker.upkeep.productions.runs import Grown

VERSION = 1
MOST_HEADER = 4_096
_BYTES = 8
_COPY = 2**20

Hashes = npt.NDArray[np.uint64]


class ShingleSets:
    """Sets by their number, from 0. The file has no name, and is gone with the process."""

    def __init__(self, scratch: Path) -> None:
        self._file = tempfile.TemporaryFile(prefix="shingles-", dir=scratch)  # noqa: SIM115
        self._ends = Grown()
        self._ends.extend(np.zeros(1, np.uint64))

    def __len__(self) -> int:
        return len(self._ends.filled) - 1

    def add(self, sets: Sequence[Hashes]) -> None:
        if not sets:
            return
        ends = self._ends.filled[-1] + np.cumsum([len(each) for each in sets], dtype=np.uint64)
        self._file.seek(int(self._ends.filled[-1]) * _BYTES)
        self._file.write(np.concatenate(sets).tobytes())
        self._file.flush()
        self._ends.extend(ends)

    def read(self, number: int) -> Hashes:
        start, end = self._ends.filled[number : number + 2].tolist()
        read = os.pread(self._file.fileno(), (end - start) * _BYTES, start * _BYTES)
        return np.frombuffer(read, np.uint64)

    def sizes(self, numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
        """How many shingles each has."""
        ends = self._ends.filled
        return ends[numbers.astype(np.int64) + 1] - ends[numbers]

    def save(self, file: BinaryIO, about: Mapping[str, Any]) -> None:
        """``about`` is JSON, and comes back as ``SavedSets.about``."""
        ends = self._ends.filled
        header = {"version": VERSION, "texts": len(self), "shingles": int(ends[-1]), **about}
        file.write(json.dumps(header).encode() + b"\n")
        file.write(np.diff(ends).astype("<u8").tobytes())
        self._file.seek(0)
        while chunk := self._file.read(_COPY):
            file.write(chunk)

    def close(self) -> None:
        self._file.close()


class SavedSets:
    """Reads what ``ShingleSets.save`` wrote, some sets at a time. Raises ValueError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        line = file.readline(MOST_HEADER)
        self.about: dict[str, Any] = json.loads(line)
        if not isinstance(self.about, dict) or self.about.get("version") != VERSION:
            raise ValueError("the file is of another version")
        self._sizes = np.frombuffer(self._whole(self.about["texts"] * _BYTES), "<u8")
        if int(self._sizes.sum()) != self.about["shingles"]:
            raise ValueError("the file is damaged")
        self._at = 0

    def read(self, count: int) -> list[Hashes]:
        """The next sets; empty at the end."""
        sizes = self._sizes[self._at : self._at + count]
        self._at += len(sizes)
        read = np.frombuffer(self._whole(int(sizes.sum()) * _BYTES), np.uint64)
        return np.split(read, np.cumsum(sizes)[:-1].astype(np.int64)) if len(sizes) else []

    def _whole(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise ValueError("the file ends early")
        return found
