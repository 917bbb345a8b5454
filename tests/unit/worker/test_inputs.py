"""Fetching what rows bring along: once, within bounds, and each row's trouble its own."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.db.inputs import InputSource
from shared.errors import NotFound, StorageUnavailable
from shared.specs import ENDPOINTS, parse_body
from tests.unit.worker.claims import BODY, CHAT, make_claim
from worker import inputs
from worker.inputs import TAKES_MEDIA, Gathering, Leaving, named_in
from worker.rows import RowInput
from worker.spool import Spool

EDITS = "/v1/images/edits"
COMPOSITIONS = "/v1/videos/compositions"
PIXEL = "data:image/png;base64,AAAA"


class CountingStore:
    """Objects by key; counts reads, and fails those named in ``down``."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.reads: Counter[str] = Counter()
        self.down: set[str] = set()

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.reads[key] += 1
        if key in self.down:
            raise StorageUnavailable("away")
        if key not in self.objects:
            raise NotFound(f"no object {key!r}")
        return iter([self.objects[key][start:end]])


class World:
    """The inputs of one shard, whose tenant has ``objects`` by id."""

    def __init__(self, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spool = Spool(scratch)
        self.store = CountingStore({})
        self.sizes: dict[str, int] = {}
        database: Any = None
        store: Any = self.store
        claim = make_claim(1, kind="batch")
        self.gathering = Gathering(database, store, self.spool, claim)
        monkeypatch.setattr(self.gathering, "_sources", self._sources)

    def _sources(self, ids: set[str]) -> dict[str, InputSource]:
        return {id: InputSource(id, id, self.sizes[id]) for id in ids if id in self.sizes}

    def have(self, id: str, data: bytes, *, stored: bool = True) -> str:
        self.sizes[id] = len(data)
        if stored:
            self.store.objects[id] = data
        return id

    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.spool.root / "given").iterdir()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.spool.close()


def edit(index: int, image: str, **fields: Any) -> RowInput:
    body = json.dumps({"model": "m", "prompt": "p", "image": image} | fields).encode()
    return RowInput(index, index + 1, f"row-{index}", EDITS, "m", body)


def error_of(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body)["error"])


def test_an_object_is_fetched_once_however_many_rows_name_it(world: World) -> None:
    fox = world.have("file-1", b"fox")
    mask = world.have("art_1", b"mask")
    rows = [edit(0, fox, mask=mask), edit(1, fox), edit(2, fox)]
    found = world.gathering.run(rows)
    assert world.store.reads == {fox: 1, mask: 1}
    assert sorted(world.files()) == [b"fox", b"mask"]
    first, second, _ = found.rows
    assert first.inputs is not None
    assert {name: Path(path).read_bytes() for name, path in first.inputs.items()} == {
        fox: b"fox", mask: b"mask",
    }  # fmt: skip
    assert second.inputs == {fox: first.inputs[fox]}
    assert len(found.paths) == 2


def test_rows_that_bring_nothing_along_are_not_parsed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "parse_body_json", lambda *_: pytest.fail("parsed"))
    chat = RowInput(0, 1, "a", CHAT, "m", BODY)
    assert world.gathering.run([chat]).rows == [chat]


def test_data_urls_stay_in_the_body(world: World) -> None:
    row = edit(0, PIXEL)
    found = world.gathering.run([row])
    assert found.rows == [row]
    assert world.files() == []


def test_each_rows_trouble_is_its_own_and_names_the_field(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "LARGEST_PICTURE", 10)
    good = world.have("file-1", b"fox")
    large = world.have("file-2", b"x" * 11)
    gone = world.have("file-3", b"x", stored=False)
    rows = [edit(0, good), edit(1, "file-9"), edit(2, good, mask=large), edit(3, gone)]
    found = world.gathering.run(rows)
    assert [row.index for row in found.rows] == [0]
    assert [(result.index, result.status) for result in found.refused] == [
        (1, 400), (2, 400), (3, 400),
    ]  # fmt: skip
    errors = [error_of(result.body) for result in found.refused]
    assert [(error["code"], error["param"]) for error in errors] == [
        ("not_found", "image"), ("invalid_request", "mask"), ("not_found", "image"),
    ]  # fmt: skip
    assert world.files() == [b"fox"]


def test_rows_beyond_the_room_come_later_and_none_is_refused_for_its_company(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MOST_AT_ONCE", 10)
    names = [world.have(f"file-{n}", b"x" * 4) for n in range(5)]
    rows = [edit(n, name) for n, name in enumerate(names)]
    rows.append(edit(5, names[0]))
    found = world.gathering.run(rows)
    assert [row.index for row in found.rows] == [0, 1, 5]
    assert [row.index for row in found.later] == [2, 3, 4]
    assert found.refused == []


def test_a_row_that_alone_is_too_much_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MOST_AT_ONCE", 6)
    image, mask = world.have("file-1", b"xxxx"), world.have("file-2", b"yyyy")
    found = world.gathering.run([edit(0, image, mask=mask), edit(1, image)])
    assert [result.index for result in found.refused] == [0]
    assert [row.index for row in found.rows] == [1]


def test_after_an_outage_it_goes_on_where_it_was(world: World) -> None:
    names = [world.have(f"file-{n}", b"x") for n in range(3)]
    rows = [edit(n, name) for n, name in enumerate(names)]
    world.store.down = {names[2]}
    with pytest.raises(StorageUnavailable):
        world.gathering.run(rows)
    world.store.down = set()
    assert len(world.gathering.run(rows).rows) == 3
    assert world.store.reads == {names[0]: 1, names[1]: 1, names[2]: 2}
    world.gathering.discard()
    assert world.files() == []


def test_a_disk_without_room_is_waited_for_as_a_store_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.have("file-1", b"fox")

    def full(key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        yield b"f"
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "read", full)
        with pytest.raises(StorageUnavailable):
            world.gathering.run([edit(0, name)])
    assert world.files() == []
    assert len(world.gathering.run([edit(0, name)]).rows) == 1


def test_a_worker_that_leaves_fetches_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.have("file-1", b"fox")
    monkeypatch.setattr(world.gathering, "_leaving", lambda: True)
    with pytest.raises(Leaving):
        world.gathering.run([edit(0, name)])
    assert world.files() == []


def test_a_store_that_returns_less_is_asked_again(world: World) -> None:
    name = world.have("file-1", b"whole")
    world.store.objects[name] = b"who"
    with pytest.raises(StorageUnavailable):
        world.gathering.run([edit(0, name)])
    assert world.files() == []


def test_every_use_is_found_with_its_field_and_its_limit() -> None:
    spec = parse_body(
        COMPOSITIONS,
        {
            "model": "m",
            "scenes": [
                {"picture": "file-1", "seconds": 1.0},
                {"picture": PIXEL, "narration": "art_2"},
            ],
            "music": {"file_id": "file-3"},
            "logo": "art_1",
        },
    )
    uses = {use.param: (use.id, use.limit) for use in named_in(spec)}
    assert uses == {
        "scenes[0].picture": ("file-1", inputs.LARGEST_PICTURE),
        "scenes[1].narration": ("art_2", inputs.LARGEST_SOUND),
        "logo": ("art_1", inputs.LARGEST_PICTURE),
        "music": ("file-3", inputs.LARGEST_SOUND),
    }


def test_every_endpoint_that_takes_media_is_known() -> None:
    """A spec that learns to name pictures must be parsed by workers too; campaigns never reach an
    engine, their steps do."""
    taking = {
        endpoint
        for endpoint, spec in ENDPOINTS.items()
        if "MediaReference" in json.dumps(spec.model_json_schema())
    }
    assert taking - {"/v1/campaigns"} == TAKES_MEDIA
