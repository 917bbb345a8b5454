"""Joining the parts of an upload: the file has what the parts had, or there is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shared.db.uploads import PartRow
from shared.errors import ChecksumMismatch
from shared.storage.local import LocalStore
from worker.upkeep.assembly import DamagedObject, Interrupted
from worker.upkeep.joining import join

PIECES = (b"abcd", b"efg")
WHOLE = b"".join(PIECES)
KEY = "t/ten_a/u/whole"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, "a signing key of some length")


def parts_in(store: LocalStore) -> list[PartRow]:
    made = []
    for number, piece in enumerate(PIECES):
        stored = store.put_bytes(f"t/ten_a/u/part-{number}", piece, media_type="x")
        made.append(PartRow(f"part_{number}", stored.bytes, stored.sha256, stored.key))
    return made


def joined(store: LocalStore, md5: str | None = None, *, interrupted: bool = False) -> bytes:
    join(store, KEY, parts_in(store), md5, lambda: interrupted)
    return b"".join(store.read(KEY))


def test_the_parts_become_one_object_in_their_order(store: LocalStore) -> None:
    assert joined(store, hashlib.md5(WHOLE, usedforsecurity=False).hexdigest()) == WHOLE
    assert joined(store) == WHOLE


@pytest.mark.parametrize(
    "damaged", [b"abc", b"abcde", b"abcx"], ids=["shorter", "longer", "of_its_length"]
)
def test_a_part_that_is_not_what_was_sent_makes_no_file(store: LocalStore, damaged: bytes) -> None:
    parts = parts_in(store)
    store.put_bytes(parts[0].storage_key, damaged, media_type="x")
    with pytest.raises(DamagedObject):
        join(store, KEY, parts, None, lambda: False)
    assert KEY not in store.keys("t/ten_a/u/", limit=9)


def test_another_checksum_and_an_interruption_leave_nothing(store: LocalStore) -> None:
    with pytest.raises(ChecksumMismatch):
        joined(store, "0" * 32)
    with pytest.raises(Interrupted):
        joined(store, interrupted=True)
    assert KEY not in store.keys("t/ten_a/u/", limit=9)
