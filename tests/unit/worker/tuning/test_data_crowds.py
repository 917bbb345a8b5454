"""Uploads of pictures that are small and would take long, or much memory, to be read."""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace

from shared.lifecycle import BadLine
from tests.unit.worker.tuning.data_case import SMALL, pictures, problems, source, zipped
from worker.tuning.data.archive import Archive
from worker.tuning.data.archived_pictures import ArchivedPictures
from worker.tuning.data.example import Example
from worker.tuning.data.formats import read_items


def test_folders_in_folders_are_labels_as_long_as_none_is_around_all() -> None:
    members = pictures(2, "set/a/") | pictures(2, "set/a/b/") | pictures(2, "set/c/")
    items = list(read_items("gan", source(zipped(members), "a.zip"), SMALL))
    said = [item.row["label"] for item in items if isinstance(item, Example)]
    assert said == ["a", "a", "b", "b", "c", "c"]
    around = pictures(1, "set/") | members
    assert problems("gan", zipped(around)) == [(None, "missing_label", "set/00.png")]


def test_many_pictures_around_many_folders_take_no_time() -> None:
    """Each by each would be ten million comparisons of paths, minutes of them."""
    members = {f"{n}.png": b"" for n in range(3_000)} | {f"d{n}/a.png": b"" for n in range(3_000)}
    archive = Archive(io.BytesIO(zipped(members)), replace(SMALL, members=10_000))
    began = time.process_time()
    items = list(ArchivedPictures(archive, SMALL, captioned=False).items())
    assert sum(isinstance(item, BadLine) for item in items) == 3_000
    assert time.process_time() - began < 5


def test_a_list_of_captions_has_an_end() -> None:
    lines = "".join(f'{{"file_name": "{n}.png", "text": "a"}}\n' for n in range(40))
    members = pictures(2) | {"metadata.jsonl": lines}
    found = problems("text_to_image", zipped(members), limits=replace(SMALL, members=30))
    assert found == [(None, "too_many_members", "metadata.jsonl")]


def test_a_long_line_is_long_for_its_picture_only() -> None:
    url = "data:image/png;base64," + "A" * 8_000
    crowded = json.dumps({"image": url, "text": "a", "more": [{}] * 30_000})
    good = json.dumps({"image": url, "text": "a, " * 500})
    data = f"{crowded}\n{good}\n".encode()
    items = list(read_items("text_to_image", source(data, chunk=2**16), SMALL))
    assert isinstance(items[0], BadLine)
    assert (items[0].line, items[0].code) == (1, "line_too_long")
    assert isinstance(items[1], Example)
    assert items[1].line == 2
