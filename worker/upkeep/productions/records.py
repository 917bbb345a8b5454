"""What is known of each candidate in the middle of a production: lines of a file in the store, in
the order of the data, so that any number of them is gone over in the memory of a few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from shared.productions.plan import Place
from worker.upkeep.lines import read_lines

KEPT = "kept"
REJECTED = "rejected"
"""A gate said no; it may be tried again."""
FAILED = "failed"
"""It can't be asked, or was answered by an error of its own."""
STOPPED = "stopped"
"""It was not answered: its batch ended early."""
SPARE = "spare"
"""Good, and not the best."""
NOT_FOUND = "not_found"
"""Nothing was there to answer from."""

LIKELIHOOD = "mean_logprob"
"""The extra of a record that says how likely its model found its text, by token."""

LONGEST_RECORD_BYTES = 64 * 2**20
MEDIA_TYPE = "application/jsonl"


class Record(msgspec.Struct, array_like=True):
    """One candidate in one round; the first four members are its ``Place``."""

    row: int
    audience: int
    model: int
    candidate: int
    texts: dict[str, str] = {}
    """Of the steps before the last, by their names."""
    extras: dict[str, Any] = {}
    """What phases have found that are not steps; it is kept for the rounds to come."""
    text: str | None = None
    verdict: str | None = None
    """None for as long as it is being worked on."""
    reason: str | None = None
    """The gate, or the code of the error."""
    message: str | None = None

    @property
    def place(self) -> Place:
        """Files of records are in this order."""
        return Place(self.row, self.audience, self.model, self.candidate)

    @property
    def item(self) -> tuple[int, int]:
        return (self.row, self.audience)

    def end(self, verdict: str, reason: str | None = None, message: str | None = None) -> None:
        self.verdict, self.reason, self.message = verdict, reason, message

    @classmethod
    def of(cls, place: Place) -> Record:
        """A candidate that nobody has asked for."""
        return cls(place.row, place.audience, place.model, place.candidate)

    def again(self) -> Record:
        """The candidate at the beginning of the next round."""
        return Record(self.row, self.audience, self.model, self.candidate, extras=dict(self.extras))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def encoded(record: Record) -> bytes:
    """Its line."""
    return _encode(record) + b"\n"


def read_records(chunks: Iterable[bytes]) -> Iterator[Record]:
    """Raises ValueError for a file that is none of ours."""
    for line in read_lines(chunks, max_bytes=LONGEST_RECORD_BYTES):
        if line.text is None:
            raise ValueError(f"record {line.number} is too long")
        yield _decode(line.text)
