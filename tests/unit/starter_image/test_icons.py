"""From the package's JSON to names and pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from starter_image.dataset import read, store
from starter_image.icons import DataError, Icon, fetch, rasterise, read_icons

LEFT_HALF = '<path fill="#ff0000" d="M0 0h16v32H0z"/>'
CIRCLE = '<circle cx="16" cy="16" r="8" fill="#0000ff"/>'


def package(folder: Path, **more: object) -> Path:
    content = {
        "icons": {
            "red-half": {"body": LEFT_HALF},
            "waving-hand": {"body": CIRCLE},
            "waving-hand-dark": {"body": CIRCLE},
            "waving-hand-medium-light": {"body": CIRCLE},
            "traffic-light": {"body": '<path d="M0 0h4v4H0z"/>'},
            "old-name": {"body": '<path d="M0 0h5v5H0z"/>', "hidden": True},
        },
        "aliases": {
            "right-half": {"parent": "red-half", "hFlip": True},
            "same-half": {"parent": "red-half"},
        },
        "width": 32,
        "height": 32,
        **more,
    }
    path = folder / "icons.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_names_are_words_without_tones_hidden_icons_and_second_names(tmp_path: Path) -> None:
    names = [icon.name for icon in read_icons(package(tmp_path))]

    assert names == ["red half", "right half", "traffic light", "waving hand"]


def test_a_mirrored_alias_is_drawn_mirrored(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    icons = {icon.name: icon for icon in read_icons(package(tmp_path))}

    left, right = rasterise([icons["red half"], icons["right half"]], 16)

    assert np.array_equal(left[:, ::-1], right)
    assert not np.array_equal(left, right)


def test_icons_are_drawn_on_white_at_the_asked_size() -> None:
    pytest.importorskip("resvg_py")
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" width="32" height="32">'
    icons = [Icon("red half", f"{head}{LEFT_HALF}</svg>"), Icon("dot", f"{head}{CIRCLE}</svg>")]

    half, dot = rasterise(icons, 64)

    assert half.shape == (64, 64, 3)
    assert half.dtype == np.uint8
    assert half[10, 10].tolist() == [255, 0, 0]
    assert half[10, 50].tolist() == [255, 255, 255]
    assert dot[32, 32].tolist() == [0, 0, 255]
    assert dot[0, 0].tolist() == [255, 255, 255]


def test_a_tall_icon_is_centred_in_a_square(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    tall = {"tall": {"body": '<path d="M0 0h32v64H0z"/>', "height": 64}}
    (icon,) = read_icons(package(tmp_path, icons=tall, aliases={}))

    (drawn,) = rasterise([icon], 32)

    assert drawn[16, :8].min() == 255
    assert drawn[16, 8:24].max() == 0
    assert drawn[16, 24:].min() == 255


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    icons = read_icons(package(tmp_path))

    store(tmp_path / "a folder", icons, 16)
    dataset = read(tmp_path / "a folder")

    assert dataset.names == [icon.name for icon in icons]
    expected = rasterise(icons, 16)
    assert np.array_equal(dataset.pictures.permute(0, 2, 3, 1).numpy(), expected)


def test_broken_data_are_named(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    path = tmp_path / "icons.json"
    path.write_text("{}", encoding="utf-8")

    with pytest.raises(DataError, match=r"icons\.json"):
        read_icons(path)
    with pytest.raises(DataError, match="broken one"):
        rasterise([Icon("broken one", "<svg")], 16)


def fake_npm(folder: Path, script: str) -> None:
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\necho called >> '{folder}/calls'\n{script}\n", encoding="utf-8")
    npm.chmod(0o755)


def test_the_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source" / "package").mkdir(parents=True)
    package(tmp_path / "source" / "package")
    fake_npm(tmp_path, f"tar -czf icons.tgz -C '{tmp_path}/source' package && echo icons.tgz")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    first, second = fetch(tmp_path / "data"), fetch(tmp_path / "data")

    assert first == second
    assert len(read_icons(first)) == 4
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "called\n"


def test_a_failed_download_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path, "echo 'no such host' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with pytest.raises(DataError, match="no such host"):
        fetch(tmp_path / "data")
