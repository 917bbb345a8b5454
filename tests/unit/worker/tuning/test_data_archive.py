"""ZIPs that were made to do harm: refused by name, size, kind and content, never unpacked."""

from __future__ import annotations

import io
import pickle
import stat
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.tuning.data_case import (
    SMALL,
    picture,
    pictures,
    problems,
    zipped,
)
from worker.tuning.data.archive import Archive
from worker.tuning.data.example import Refused

GOOD = pictures(12)


def with_entry(name: str, data: bytes = b"x", **fields: object) -> bytes:
    """Twelve good pictures and one entry whose header says ``fields``."""
    packed = io.BytesIO(zipped(GOOD))
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo("placeholder")
        info.compress_type = zipfile.ZIP_DEFLATED
        info.filename = name
        for field, value in fields.items():
            setattr(info, field, value)
        archive.writestr(info, data)
    return packed.getvalue()


def codes(data: bytes) -> list[str]:
    return [code for _, code, _ in problems("vae", data)]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "/etc/evil.png",
        "a//b.png",
        "./a.png",
        "C:/evil.png",
        "..\\evil.png",
        "a\\b.png",
        "a/\0.png",
        "n" * 600 + ".png",
    ],
)
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    assert codes(with_entry(name, picture())) == ["unsafe_name"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_only_plain_files_are_taken(kind: int) -> None:
    data = with_entry("link.png", b"/etc/passwd", external_attr=(kind | 0o777) << 16)
    assert problems("vae", data) == [(None, "unsafe_member", "link.png")]


def test_encrypted_members_are_refused() -> None:
    data = bytearray(with_entry("secret.png", picture()))
    place = data.rindex(b"PK\x01\x02")
    data[place + 8] |= 1  # the flag in the list of files, as an archiver sets it
    assert codes(bytes(data)) == ["encrypted_member"]


@pytest.mark.parametrize("name", ["model.pkl", "a/model.pt", "x.PTH", "x.bin", "x.ckpt", "x.npy"])
def test_files_that_may_be_pickles_are_refused_by_name(name: str) -> None:
    assert problems("vae", zipped(GOOD | {name: b"data"})) == [(None, "pickle_refused", name)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (pickle.dumps({"a": 1}), "pickle_refused"),
        (zipped({"a": "b"}), "nested_archive"),
        (b"\x1f\x8b\x08" + b"\0" * 20, "nested_archive"),
        (b"GIF89a" + b"\0" * 20, "invalid_image"),
        (b"", "invalid_image"),
    ],
)
def test_pictures_are_known_by_their_first_bytes(data: bytes, code: str) -> None:
    assert problems("vae", zipped(GOOD | {"odd.png": data})) == [(None, code, "odd.png")]


@pytest.mark.parametrize("name", ["more.zip", "a.tar.gz", "b.7z"])
def test_archives_in_archives_are_refused(name: str) -> None:
    assert codes(zipped(GOOD | {name: b"data"})) == ["nested_archive"]


def test_a_member_that_grows_too_much_is_a_bomb() -> None:
    assert problems("vae", zipped(GOOD | {"bomb.png": b"\0" * 3_000_000})) == [
        (None, "archive_bomb", "bomb.png")
    ]


def test_a_member_unpacks_to_no_more_than_it_declares(tmp_path: Path) -> None:
    data = bytearray(zipped({"liar.png": b"\0" * 500_000}))
    for mark, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(mark) + place, 100)
    archive = Archive(io.BytesIO(bytes(data)), SMALL)
    with pytest.raises(Refused) as refused:
        archive.read("liar.png", 1_000)
    assert refused.value.code == "invalid_member"


def test_all_files_together_have_a_limit() -> None:
    limits = replace(SMALL, unpacked_bytes=sum(len(data) for data in GOOD.values()) - 1)
    assert problems("vae", zipped(GOOD), limits=limits) == [(None, "archive_too_large", None)]


def test_files_are_counted_before_they_are_listed() -> None:
    limits = replace(SMALL, members=11)
    assert problems("vae", zipped(GOOD), limits=limits) == [(None, "too_many_members", None)]
    limits = replace(SMALL, directory_bytes=500)
    assert problems("vae", zipped(GOOD), limits=limits) == [(None, "too_many_members", None)]


@pytest.mark.parametrize("points_at_it", [True, False])
def test_a_list_of_files_can_not_hide_its_size_in_the_64_bit_record(points_at_it: bool) -> None:
    """zipfile reads the record that lies before the locator, or the one that it points at."""
    data = zipped(GOOD)
    end = data.rindex(b"PK\x05\x06")
    honest = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 12, 12, 600, 0)
    huge = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 12, 12, 2**40, 0)
    first, second = (huge, honest) if points_at_it else (honest, huge)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    crafted = data[:end] + first + second + locator + data[end:]
    with pytest.raises(Refused) as refused:
        Archive(io.BytesIO(crafted), SMALL)
    assert refused.value.code == "too_many_members"


def test_two_files_of_one_name_are_refused() -> None:
    packed = io.BytesIO(zipped(GOOD))
    with (
        zipfile.ZipFile(packed, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("00.png", picture(99))
    assert codes(packed.getvalue()) == ["duplicate_member"]


def test_only_common_compression_is_taken() -> None:
    assert codes(zipped(GOOD, method=zipfile.ZIP_LZMA)) == ["unsupported_compression"] * 12


def test_an_upload_that_is_too_large_is_not_copied() -> None:
    limits = replace(SMALL, archive_bytes=1_000)
    assert problems("vae", zipped(GOOD), limits=limits) == [(None, "file_too_large", None)]


def test_what_file_managers_leave_behind_is_passed_over() -> None:
    clutter: dict[str, bytes | str] = {
        "__MACOSX/._00.png": b"x",
        ".DS_Store": b"x",
        "Thumbs.db": b"x",
        "empty/": b"",
    }
    assert problems("vae", zipped(GOOD | clutter)) == []


def test_other_files_are_named() -> None:
    assert problems("vae", zipped(GOOD | {"evil.svg": b"<svg/>"})) == [
        (None, "unsupported_member", "evil.svg")
    ]


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"not a zip" * 100, zipped(GOOD)[:-30], b"PK\x05\x06"]
)
def test_what_is_no_zip_is_one_error(data: bytes) -> None:
    assert problems("vae", data) == [(None, "invalid_archive", None)]


def test_bytes_that_changed_are_found_by_their_checksum() -> None:
    data = bytearray(zipped(GOOD, method=zipfile.ZIP_STORED))
    data[data.index(b"IDAT") + 6] ^= 0xFF
    assert problems("vae", bytes(data)) == [(None, "invalid_member", "00.png")]


TINY = zipped({"a/1.png": picture(1), "b/2.png": picture(2), "metadata.csv": "file_name,label\n"})


@given(
    st.lists(st.tuples(st.integers(0, len(TINY) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 40),
)
def test_a_damaged_zip_never_raises(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(TINY)
    for place, value in changes:
        data[place] = value
    for _, code, _ in problems("gan", bytes(data[: len(data) - cut])):
        assert code
