"""Data of text classifiers: JSONL or a table of texts and labels."""

from __future__ import annotations

from collections.abc import Iterator

from shared.lifecycle import BadLine
from worker.tuning.data.example import (
    METADATA,
    Example,
    Item,
    Refused,
    check_fields,
    label_of,
    text_of,
)
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.lines import lines_of, objects_of, records_of
from worker.tuning.data.source import Source

FIELDS = ("text", "label")
TABLES = frozenset({".csv", ".tsv"})


def read_labelled_texts(source: Source, limits: DataLimits) -> Iterator[Item]:
    """Lines ``{"text", "label"}``, or the columns ``text`` and ``label`` of a CSV."""
    lines = lines_of(source.open_chunks(), max_bytes=limits.line_bytes)
    is_table = source.suffix in TABLES
    rows = (
        records_of(lines, limits.line_bytes, FIELDS)
        if is_table
        else objects_of(lines, limits.line_bytes)
    )
    for found in rows:
        if isinstance(found, BadLine):
            yield found
            continue
        number, row = found
        try:
            check_fields(row, FIELDS, () if is_table else (METADATA,))
            text = text_of(row["text"], "text")
            label = label_of(row["label"], "label", limits.label_characters)
        except Refused as refusal:
            yield refusal.bad_line(number)
            continue
        yield Example(
            {"text": text, "label": label},
            "csv" if is_table else "jsonl",
            tuple(row),
            len(text),
            (label,),
            line=number,
        )
