"""What a production looks things up in: examples and passages, read from the tenant's files once,
when it is validated, and kept with its other work. So later passes number them as the first did,
whatever becomes of the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.productions.rendering import Source
from shared.productions.specs import Example
from shared.storage.base import ObjectWriter, Store
from worker.upkeep.lines import read_lines
from worker.upkeep.productions.records import Record

EXAMPLES = "examples"
"""The extra of a record that says which examples it is shown …"""
SOURCES = "sources"
"""… and which passages, with their scores."""
LONGEST_LINE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document; ``number`` counts those of its file, from 1."""

    file: str
    name: str
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class References:
    """Both are in the order of their files."""

    examples: Sequence[Example] = ()
    passages: Sequence[Passage] = ()

    def examples_of(self, record: Record) -> list[Example]:
        """Those that were chosen for it, the most alike last: next to the question."""
        chosen: list[int] = record.extras.get(EXAMPLES, [])
        return [self.examples[at] for at in reversed(chosen)]

    def sources_of(self, record: Record) -> list[Source]:
        """Those that were found for it, the nearest first."""
        found: list[tuple[int, float]] = record.extras.get(SOURCES, [])
        return [
            _source(number, self.passages[at], score)
            for number, (at, score) in enumerate(found, start=1)
        ]


NONE = References()


class _Line(msgspec.Struct, omit_defaults=True):
    """An example, or a passage."""

    input: dict[str, Any] | None = None
    output: str = ""
    file: str = ""
    name: str = ""
    number: int = 0
    text: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def _source(number: int, passage: Passage, score: float) -> Source:
    return Source(number, passage.text, passage.file, score, passage.number, passage.name)


def store_references(references: References, writer: ObjectWriter) -> None:
    for example in references.examples:
        writer.write(_encode(_Line(input=example.input, output=example.output)) + b"\n")
    for one in references.passages:
        line = _Line(file=one.file, name=one.name, number=one.number, text=one.text)
        writer.write(_encode(line) + b"\n")


def load_references(store: Store, key: str | None) -> References:
    """Raises what the store raises."""
    return NONE if key is None else _read(store.read(key))


def _read(chunks: Iterable[bytes]) -> References:
    examples: list[Example] = []
    passages: list[Passage] = []
    for line in read_lines(chunks, max_bytes=LONGEST_LINE_BYTES):
        if line.text is None:
            raise ValueError(f"line {line.number} of the references is too long")
        found = _decode(line.text)
        if found.input is not None:
            examples.append(Example.model_construct(input=found.input, output=found.output))
        else:
            passages.append(Passage(found.file, found.name, found.number, found.text))
    return References(examples, passages)
