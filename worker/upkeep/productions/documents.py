"""Documents that items are answered from: cut into passages, and searched by embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from shared.errors import InvalidRequest
from shared.productions.plan import Phase
from shared.productions.rendering import RowRefused
from shared.specs.productions import ReferencedFile
from worker.upkeep.productions.documents_blocks import READERS
from worker.upkeep.productions.documents_cutting import passages_of
from worker.upkeep.productions.embedding import Found, Lookup
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.phases import Work
from worker.upkeep.productions.records import FAILED, NOT_FOUND, Record
from worker.upkeep.productions.references import SOURCES, Passage

MOST_FILE_BYTES = 16 * 2**20
MOST_PASSAGES = 16_384
"""Of all files: their vectors are held in memory."""


def read_document(file: ReferencedFile, chunks: Iterable[bytes], at: int) -> Iterator[Passage]:
    """The passages of the template's file number ``at``, from 0. Raises InvalidRequest, and what
    ``chunks`` raises."""
    reader = READERS.get(PurePath(file.filename).suffix.lower())
    if reader is None:
        raise _wrong(at, f"its name ends with none of {', '.join(READERS)}")
    text = _text(chunks, at)
    number = 0
    for number, passage in enumerate(passages_of(reader(text)), start=1):
        yield Passage(file.id, file.filename, number, passage)
    if not number:
        raise _wrong(at, "it has no text")


def too_many(at: int) -> InvalidRequest:
    return _wrong(at, f"with it the documents have more than {MOST_PASSAGES} passages")


def _text(chunks: Iterable[bytes], at: int) -> str:
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) > MOST_FILE_BYTES:
            raise _wrong(at, f"it has more than {MOST_FILE_BYTES} bytes")
    try:
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _wrong(at, "it is not UTF-8") from None
    if "\x00" in text:
        raise _wrong(at, "it is no text")
    return text


def _wrong(at: int, message: str) -> InvalidRequest:
    place = f"documents.files[{at}]"
    return InvalidRequest(f"{place}: {message}", param=f"template.{place}")


class Finding(Lookup):
    """Items get the passages that are nearest to their query; one without any is answered by the
    template's ``not_found``."""

    extra = SOURCES

    def __init__(self, work: Work, phase: Phase) -> None:
        wanted = work.template.head.documents
        if wanted is None:
            raise AssertionError("a phase of documents without any")
        super().__init__(phase, [one.text for one in work.references.passages], wanted.n)
        self._renderer = work.renderer
        self._least = wanted.min_score

    def text(self, item: Item) -> str:
        return self._renderer.query(item.columns, item.about)

    def take(self, item: Item, records: Sequence[Record], found: Sequence[Found]) -> None:
        near = [[one.at, one.score] for one in found if one.score >= self._least]
        if not near:
            self._tell_nothing(item, records)
        for record in records:
            record.extras = {**record.extras, SOURCES: near}

    def _tell_nothing(self, item: Item, records: Sequence[Record]) -> None:
        try:
            text = self._renderer.not_found(item.columns, item.about)
        except RowRefused as refused:
            for record in records:
                record.end(FAILED, refused.code, refused.message)
            return
        for record in records:
            record.text = text
            record.end(NOT_FOUND)
