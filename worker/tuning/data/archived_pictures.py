"""Pictures of a ZIP, and where their captions or labels come from.

Captions: ``metadata.jsonl`` or ``metadata.csv`` (``file_name``, ``text``), else ``NAME.txt`` beside
``NAME.png``. Labels: the same metadata (``file_name``, ``label``), else the names of the folders;
without folders the pictures have none.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from shared.lifecycle import BadLine
from worker.tuning.data.archive import Archive
from worker.tuning.data.example import (
    Example,
    Item,
    Refused,
    check_fields,
    label_of,
    shown,
    text_of,
)
from worker.tuning.data.images import PICTURES, check_magic
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.lines import lines_of, objects_of, records_of

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_BYTES = 64 * 1024


def caption_of(value: object, param: str, limits: DataLimits) -> str:
    """A caption without the blanks around it. Raises Refused."""
    caption = text_of(value, param).strip()
    if len(caption) > limits.caption_characters:
        message = f"'{param}' has at most {limits.caption_characters} characters"
        raise Refused("example_too_long", message, param)
    return caption


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the metadata say of a picture."""

    line: int
    value: str


class ArchivedPictures:
    """Yields the pictures of an archive, in its order."""

    def __init__(self, archive: Archive, limits: DataLimits, *, captioned: bool) -> None:
        self._archive = archive
        self._limits = limits
        self._captioned = captioned
        self._field = "text" if captioned else "label"
        names = archive.members
        self._pictures = [name for name in names if _suffix(name) in PICTURES]
        self._metadata = [name for name in names if PurePosixPath(name).name in METADATA]

    def items(self) -> Iterator[Item]:
        yield from self._strangers()
        if len(self._metadata) > 1:
            message = "there is more than one metadata.jsonl or metadata.csv"
            yield BadLine("duplicate_member", message, None, shown(self._metadata[1]))
        elif self._metadata:
            yield from self._listed(self._metadata[0])
        elif self._captioned:
            for name in self._pictures:
                yield self._item(name, f"{name.rpartition('.')[0]}.txt")
        else:
            yield from self._in_folders()

    def _strangers(self) -> Iterator[BadLine]:
        """Files that are neither picture, caption nor metadata."""
        stems = {name.rpartition(".")[0] for name in self._pictures}
        for name in self._archive.members:
            if _suffix(name) in PICTURES or name in self._metadata:
                continue
            if self._captioned and _suffix(name) == ".txt" and not self._metadata:
                if name.rpartition(".")[0] not in stems:
                    yield Refused("missing_image", "no picture has this name").bad_line(member=name)
                continue
            message = "the file is neither a picture (PNG, JPEG, WebP) nor known metadata"
            yield Refused("unsupported_member", message).bad_line(member=name)

    def _item(self, name: str, caption_name: str) -> Item:
        try:
            if caption_name not in self._archive.members:
                message = f"the picture has no caption: '{shown(caption_name)}' is missing"
                raise Refused("missing_caption", message)
            try:
                text = self._archive.read(caption_name, CAPTION_BYTES).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise Refused("invalid_encoding", "its caption is not UTF-8") from None
            return self._example(name, caption_of(text, "caption", self._limits), "caption_files")
        except Refused as refusal:
            return refusal.bad_line(member=name)

    def _example(self, name: str, value: str | None, form: str) -> Example:
        key = "caption" if self._captioned else "label"
        return Example(
            {key: value},
            form,
            ("image", self._field) if value is not None else ("image",),
            len(value or "") if self._captioned else 0,
            () if self._captioned or value is None else (value,),
            member=name,
            picture=partial(self._bytes, name),
        )

    def _bytes(self, name: str) -> bytes:
        data = self._archive.read(name, self._limits.picture_bytes)
        check_magic(data)
        return data

    # --- metadata -------------------------------------------------------------------------------

    def _listed(self, metadata: str) -> Iterator[Item]:
        listed: dict[str, _Listed] = {}
        try:
            if self._archive.members[metadata].file_size > self._limits.metadata_bytes:
                message = f"it has at most {self._limits.metadata_bytes} bytes"
                raise Refused("file_too_large", message)
            yield from self._read_metadata(metadata, listed)
        except Refused as refusal:
            yield refusal.bad_line(member=metadata)
            return
        form = PurePosixPath(metadata).name
        for name in self._pictures:
            found = listed.pop(name, None)
            if found is None:
                what = "caption" if self._captioned else "label"
                message = f"{form} has no line for this picture"
                yield Refused(f"missing_{what}", message).bad_line(member=name)
            else:
                yield self._example(name, found.value, form)
        for name, left in listed.items():
            message = f"{form}: the ZIP has no picture '{shown(name)}'"
            yield BadLine("missing_image", message, left.line, "file_name")

    def _read_metadata(self, metadata: str, listed: dict[str, _Listed]) -> Iterator[BadLine]:
        """Fills ``listed`` by the names that pictures have in the archive."""
        folder = metadata[: -len(PurePosixPath(metadata).name)]
        form = PurePosixPath(metadata).name
        required = ("file_name", self._field)
        most = self._limits.line_bytes
        lines = lines_of(self._archive.chunks(metadata), max_bytes=most)
        rows = (
            records_of(lines, most, required)
            if metadata.endswith(".csv")
            else objects_of(lines, most)
        )
        for found in rows:
            if isinstance(found, BadLine):
                yield BadLine(found.code, f"{form}: {found.message}", found.line, found.param)
                continue
            number, row = found
            if len(listed) >= self._limits.members:
                message = f"it lists over {self._limits.members} pictures"
                raise Refused("too_many_members", message)
            try:
                check_fields(row, required)
                name = folder + text_of(row["file_name"], "file_name").removeprefix("./")
                if name in listed:
                    message = f"'file_name' was used on line {listed[name].line} already"
                    raise Refused("duplicate_file_name", message, "file_name")
                listed[name] = _Listed(number, self._value(row[self._field]))
            except Refused as refusal:
                yield BadLine(refusal.code, f"{form}: {refusal.message}", number, refusal.param)

    def _value(self, value: object) -> str:
        if self._captioned:
            return caption_of(value, self._field, self._limits)
        return label_of(value, self._field, self._limits.label_characters)

    # --- folders --------------------------------------------------------------------------------

    def _in_folders(self) -> Iterator[Item]:
        folders = {PurePosixPath(name).parent for name in self._pictures}
        if len(folders) <= 1:  # one folder around everything is no label
            for name in self._pictures:
                yield self._example(name, None, "unlabelled")
            return
        # Names never leave their folder, so this one and nothing above it holds all the others.
        above = PurePosixPath(os.path.commonpath(folders))
        for name in self._pictures:
            folder = PurePosixPath(name).parent
            try:
                if folder == above:
                    message = "other pictures lie in folders that are named for their labels"
                    raise Refused("missing_label", message)
                label = label_of(folder.name, "label", self._limits.label_characters)
                yield self._example(name, label, "folders")
            except Refused as refusal:
                yield refusal.bad_line(member=name)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
