"""Data of token classifiers: sentences of tokens and tags, as CoNLL columns or JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared.lifecycle import BadLine
from worker.tuning.data.example import Example, Item, Refused, check_fields, label_of
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.lines import decoded, lines_of, objects_of
from worker.tuning.data.source import Source

COLUMNS = frozenset({".conll", ".txt", ".tsv", ".bio", ".iob"})
DOCUMENT_START = "-DOCSTART-"


def read_tagged(source: Source, limits: DataLimits) -> Iterator[Item]:
    """Sentences of a ``.conll``, ``.txt`` or ``.tsv``, else lines ``{"tokens", "tags"}``."""
    if source.suffix in COLUMNS:
        return read_columns(source, limits)
    return read_jsonl(source, limits)


def read_jsonl(source: Source, limits: DataLimits) -> Iterator[Item]:
    lines = lines_of(source.open_chunks(), max_bytes=limits.line_bytes)
    for found in objects_of(lines, limits.line_bytes):
        if isinstance(found, BadLine):
            yield found
            continue
        number, row = found
        try:
            check_fields(row, ("tokens", "tags"))
            tokens = _strings(row["tokens"], "tokens", limits)
            tags = _strings(row["tags"], "tags", limits)
            if len(tokens) != len(tags):
                message = f"there are {len(tokens)} tokens and {len(tags)} tags"
                raise Refused("length_mismatch", message, "tags")
            tags = [label_of(tag, "tags", limits.label_characters) for tag in tags]
        except Refused as refusal:
            yield refusal.bad_line(number)
            continue
        yield _sentence(tokens, tags, "jsonl", tuple(row), number)


def _strings(value: Any, param: str, limits: DataLimits) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Refused("invalid_request", f"'{param}' must be a list of strings", param)
    if not value:
        raise Refused("empty_content", f"'{param}' is empty", param)
    if len(value) > limits.sentence_tokens:
        message = f"'{param}' has over {limits.sentence_tokens} entries"
        raise Refused("example_too_long", message, param)
    if any(not each.strip() for each in value):
        raise Refused("empty_content", f"'{param}' has an empty entry", param)
    return value


def read_columns(source: Source, limits: DataLimits) -> Iterator[Item]:
    """Columns parted by tabs or blanks, token first, tag last; a blank line ends a sentence. A
    sentence with a bad line is left out; each of its bad lines is named."""
    sentence = _Open(limits)
    for line in lines_of(source.open_chunks(), max_bytes=limits.line_bytes):
        if line.text is not None and not line.text.strip():
            yield from sentence.close()
            continue
        try:
            sentence.add(line.number, decoded(line, limits.line_bytes))
        except Refused as refusal:
            sentence.spoiled = True
            yield refusal.bad_line(line.number)
    yield from sentence.close()


class _Open:
    """The sentence that is being read."""

    def __init__(self, limits: DataLimits) -> None:
        self._limits = limits
        self._clear()

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._tags: list[str] = []
        self._start = 0
        self._full = False
        self.spoiled = False

    def add(self, number: int, text: str) -> None:
        """Raises Refused, once for a sentence that goes on for too long."""
        columns = [column.strip() for column in text.split("\t")] if "\t" in text else text.split()
        if not columns:  # blanks of other kinds than those that end a sentence
            raise Refused("empty_content", "the line has nothing but blanks", "tag")
        if columns[0] == DOCUMENT_START or self._full:
            return
        self._start = self._start or number
        if len(columns) == 1:
            raise Refused("missing_tag", "the line has a token and no tag", "tag")
        if not columns[0] or not columns[-1]:
            raise Refused("empty_content", "the line's token or its tag is empty", "tag")
        if len(self._tokens) == self._limits.sentence_tokens:
            self._full = True
            message = f"the sentence has over {self._limits.sentence_tokens} tokens"
            raise Refused("example_too_long", message)
        self._tags.append(label_of(columns[-1], "tag", self._limits.label_characters))
        self._tokens.append(columns[0])

    def close(self) -> Iterator[Example]:
        if self._tokens and not self.spoiled:
            yield _sentence(self._tokens, self._tags, "conll", ("token", "tag"), self._start)
        self._clear()


def _sentence(
    tokens: list[str], tags: list[str], form: str, fields: tuple[str, ...], line: int
) -> Example:
    return Example(
        {"tokens": tokens, "tags": tags},
        form,
        fields,
        sum(map(len, tokens)) + len(tokens) - 1,
        tuple(tags),
        line=line,
        loose_tags=_loose(tags),
    )


def _loose(tags: list[str]) -> int:
    """How many tags continue (``I-X``) what no tag before them began or continued."""
    found = 0
    for before, tag in zip(["O", *tags], tags, strict=False):
        if tag.startswith("I-") and before[2:] != tag[2:]:
            found += 1
    return found
