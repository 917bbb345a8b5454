"""Data of recipes that draw: pictures with captions or labels, as JSONL or as they lie in a ZIP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from shared.lifecycle import BadLine
from worker.tuning.data.archive import Archive
from worker.tuning.data.archived_pictures import ArchivedPictures, caption_of
from worker.tuning.data.example import Example, Item, Refused, check_fields, label_of, text_of
from worker.tuning.data.limits import PICTURE_LINE_BYTES, DataLimits
from worker.tuning.data.lines import Numbered, lines_of, objects_of
from worker.tuning.data.source import Source, seekable

MOST_COMMAS = 20_000
"""Of a line that is long: the base64 of a picture has none, and a caption is short."""

_PREFIX = "data:"
_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp")


def read_captioned(source: Source, limits: DataLimits, scratch: Path | None) -> Iterator[Item]:
    """Pictures with captions: a ZIP, or lines ``{"image": data URL, "text"}``."""
    if source.suffix == ".zip":
        return _read_zip(source, limits, scratch, captioned=True)
    return _read_jsonl(source, limits, partial(_captioned, limits=limits))


def read_labelled(source: Source, limits: DataLimits, scratch: Path | None) -> Iterator[Item]:
    """Pictures with or without labels: a ZIP, or lines ``{"image": data URL, "label"}``."""
    if source.suffix == ".zip":
        return _read_zip(source, limits, scratch, captioned=False)
    return _read_jsonl(source, limits, partial(_labelled, limits=limits))


def _read_zip(
    source: Source, limits: DataLimits, scratch: Path | None, *, captioned: bool
) -> Iterator[Item]:
    try:
        with seekable(source, scratch, limits.archive_bytes) as file:
            archive = Archive(file, limits)
            yield from archive.problems
            for _ in range(archive.bad_members - len(archive.problems)):
                yield BadLine("invalid_member", "a file of the ZIP can't be used")
            yield from ArchivedPictures(archive, limits, captioned=captioned).items()
    except Refused as refusal:
        yield refusal.bad_line()


def _read_jsonl(
    source: Source, limits: DataLimits, example_of: Callable[[dict[str, Any]], Example]
) -> Iterator[Item]:
    form = None
    for found in _objects(source, limits):
        if isinstance(found, BadLine):
            yield found
            continue
        number, row = found
        try:
            example = example_of(row)
            form = form or example.form
            if example.form != form:
                raise Refused("mixed_formats", "either every picture has a label or none", "label")
        except Refused as refusal:
            yield refusal.bad_line(number)
            continue
        example.line = number
        yield example


def _objects(source: Source, limits: DataLimits) -> Iterator[Numbered | BadLine]:
    """Lines may be as long as a picture, but values take many times their bytes of memory."""
    most = max(limits.line_bytes, PICTURE_LINE_BYTES)
    for line in lines_of(source.open_chunks(), max_bytes=most):
        long = line.text is not None and len(line.text) > limits.line_bytes
        if long and (line.text or b"").count(b",") > MOST_COMMAS:
            message = f"besides its picture the line has over {MOST_COMMAS} values"
            yield BadLine("line_too_long", message, line.number)
        else:
            yield from objects_of([line], most)


def _captioned(row: dict[str, Any], *, limits: DataLimits) -> Example:
    check_fields(row, ("image", "text"))
    caption = caption_of(row["text"], "text", limits)
    picture = partial(decode_data_url, row["image"], limits)
    return Example({"caption": caption}, "jsonl", tuple(row), len(caption), picture=picture)


def _labelled(row: dict[str, Any], *, limits: DataLimits) -> Example:
    check_fields(row, ("image",), ("label",))
    picture = partial(decode_data_url, row["image"], limits)
    if row.get("label") is None:
        return Example({"label": None}, "jsonl_unlabelled", tuple(row), picture=picture)
    label = label_of(row["label"], "label", limits.label_characters)
    return Example({"label": label}, "jsonl", tuple(row), 0, (label,), picture=picture)


def decode_data_url(value: Any, limits: DataLimits) -> bytes:
    """The bytes of ``data:image/png;base64,…``. Raises Refused."""
    url = text_of(value, "image")
    head, comma, data = url.partition(",")
    media_type, _, coding = head.removeprefix(_PREFIX).partition(";")
    if not head.startswith(_PREFIX) or not comma or coding != "base64" or media_type not in _TYPES:
        message = "'image' must be a data URL with the base64 of a PNG, JPEG or WebP"
        raise Refused("invalid_image", message, "image")
    if len(data) * 3 // 4 > limits.picture_bytes:
        message = f"a picture has at most {limits.picture_bytes} bytes"
        raise Refused("file_too_large", message, "image")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("invalid_image", "'image' is not valid base64", "image") from None
