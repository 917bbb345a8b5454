"""What the pages say about the tree is true of it."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "deploy" / "README.md")
)
PACKAGES = ["api", "worker", "shared", "pressrun", "bench", "starter_image"]


def listed_folders(page: str) -> set[str]:
    """The folders of the tree: an indent of two is a step down; what a line tells of one may name
    folders in it."""
    section = page.split("\n## The tree\n", 1)[1].split("\n## ", 1)[0]
    found: set[str] = set()
    above: dict[int, str] = {}
    for line in re.findall(r"^    ( *)(\S.*)$", section, re.MULTILINE):
        depth = len(line[0]) // 2
        names, _, told = line[1].partition("  ")
        if len(line[0]) > 12:  # the line before goes on
            names, told = "", line[1]
        parent = above.get(depth - 1, "")
        for name in re.findall(r"([a-z0-9_]+)/", names):
            above[depth] = f"{parent}{name}/"
            found.add(above[depth])
        within = above[depth] if names else above[0]
        found |= {f"{within}{name}/" for name in re.findall(r"([a-z0-9_]+)/", told)}
    return found


def real_folders() -> set[str]:
    """Those with Python in them, of the packages that are told of to the last folder."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.parent.relative_to(ROOT).as_posix() + "/" for path in files}


@pytest.mark.parametrize(("page", "least"), [("docs/architecture.md", 40), ("README.md", 15)])
def test_every_folder_of_the_tree_exists(page: str, least: int) -> None:
    listed = listed_folders((ROOT / page).read_text())
    assert len(listed) >= least
    assert [folder for folder in sorted(listed) if not (ROOT / folder).is_dir()] == []


def test_every_folder_of_ours_is_in_the_tree() -> None:
    assert sorted(real_folders() - listed_folders(PAGE.read_text())) == []


def test_every_file_that_the_page_names_exists() -> None:
    packages = (*PACKAGES, "tests", "migrations", "docs", "deploy")
    files = [
        path.relative_to(ROOT).as_posix()
        for name in packages
        for path in (ROOT / name).rglob("*.*")
    ]
    named = set(re.findall(r"`([\w./*-]+\.(?:py|md|toml|json))`", PAGE.read_text()))
    assert len(named) > 40
    missing = [
        name for name in sorted(named)
        if not any(fnmatch(file, name) or fnmatch(file, f"*/{name}") for file in files)
    ]  # fmt: skip
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (folder / link).exists()] == []
