"""Uploads for tests of fine-tuning data, and short names for judging and writing them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.lifecycle import BadLine
from shared.specs.fine_tuning import FineTuningSpec, RecipeName
from worker.tuning.data.examine import examine
from worker.tuning.data.examined import Examined
from worker.tuning.data.example import Example, Refused
from worker.tuning.data.formats import read_items
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.materialise import Materialised, materialise
from worker.tuning.data.source import Source

SMALL = DataLimits(line_bytes=4_096, rows=1_000, reported=20)


def spec_of(recipe: RecipeName, **fields: Any) -> FineTuningSpec:
    body = {"model": "m", "training_file": "file-a", "method": {"type": recipe}} | fields
    return FineTuningSpec.model_validate(body)


def jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def source(data: bytes, name: str = "data.jsonl", *, chunk: int = 700) -> Source:
    """An upload that comes in small pieces, as from a store."""

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(data), chunk):
            yield data[start : start + chunk]

    return Source(name, len(data), chunks)


def judge(
    recipe: RecipeName,
    data: bytes,
    name: str = "data.jsonl",
    *,
    validation: bytes | None = None,
    limits: DataLimits = SMALL,
    **fields: Any,
) -> Examined:
    return examine(
        recipe,
        spec_of(recipe, **fields),
        source(data, name),
        None if validation is None else source(validation, name),
        lambda: False,
        limits=limits,
    )


def found(examined: Examined) -> list[tuple[int | None, str, str | None]]:
    return [(error.line, error.code, error.param) for error in examined.errors]


def problems(
    recipe: RecipeName, data: bytes, name: str = "a.zip", limits: DataLimits = SMALL
) -> list[tuple[int | None, str, str | None]]:
    """What reading finds, pictures being looked at and not decoded."""
    errors = []
    for item in read_items(recipe, source(data, name), limits):
        if isinstance(item, BadLine):
            errors.append(item)
        elif item.picture is not None:
            try:
                item.picture()
            except Refused as refusal:
                errors.append(refusal.bad_line(item.line, item.member))
    return [(error.line, error.code, error.param) for error in errors]


def with_line(rows: list[dict[str, Any]], line: bytes) -> bytes:
    """The rows with another line as number 3."""
    lines = jsonl(rows).splitlines()
    return b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n"


def rows_of(recipe: RecipeName, data: bytes, name: str = "data.jsonl") -> list[dict[str, Any]]:
    items = list(read_items(recipe, source(data, name, chunk=9), SMALL))
    assert all(isinstance(item, Example) for item in items), items
    return [item.row for item in items if isinstance(item, Example)]


def write(
    recipe: RecipeName,
    data: bytes,
    folder: Path,
    name: str = "data.jsonl",
    *,
    validation: bytes | None = None,
    validation_name: str = "data.jsonl",
    seed: int = 7,
    **fields: Any,
) -> tuple[Materialised, list[dict[str, Any]], list[dict[str, Any]]]:
    """What was written: the counts, the rows to train on, the rows to validate on."""
    made = materialise(
        recipe,
        spec_of(recipe, **fields),
        source(data, name),
        None if validation is None else source(validation, validation_name),
        folder,
        seed,
        limits=SMALL,
    )
    train, validate = (
        [json.loads(line) for line in (folder / "data" / file).read_text().splitlines()]
        for file in ("train.jsonl", "validation.jsonl")
    )
    assert (len(train), len(validate)) == (made.examples, made.validation_examples)
    return made, train, validate


def chats(count: int = 12) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": f"question {number}"},
                {"role": "assistant", "content": f"answer {number}"},
            ]
        }
        for number in range(count)
    ]


def labelled(labels: Sequence[str] = ("good", "bad"), count: int = 12) -> list[dict[str, Any]]:
    return [
        {"text": f"text {number}", "label": labels[number % len(labels)]} for number in range(count)
    ]


def picture(number: int = 0, size: tuple[int, int] = (8, 6), format: str = "PNG") -> bytes:
    """A picture of one colour, another one for each number."""
    from PIL import Image

    encoded = io.BytesIO()
    colour = (number * 37 % 256, number * 11 % 256, number % 256)
    Image.new("RGB", size, colour).save(encoded, format=format)
    return encoded.getvalue()


def zipped(members: Mapping[str, bytes | str], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def pictures(count: int = 12, folder: str = "") -> dict[str, bytes | str]:
    return {f"{folder}{number:02}.png": picture(number) for number in range(count)}
