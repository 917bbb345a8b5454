"""Which files a model may consist of: named plainly, and of kinds that nobody executes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared.db.models import ModelFile

SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md")
"""Weights, configurations, vocabularies, chat templates and what a human reads."""
MOST_FILES = 2_000
MOST_FOLDERS = 4
"""Below one another; a diffusers model needs one."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}\Z", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class ModelDamaged(Exception):
    """The files of a model are not what the catalog says, or must not be read."""

    code = "model_damaged"


def check_files(files: Sequence[ModelFile]) -> None:
    """Raises ModelDamaged unless every path stays inside the model's folder, no two are the same,
    and every file is of a kind that engines read."""
    if not 0 < len(files) <= MOST_FILES:
        raise ModelDamaged(f"it has {len(files)} files")
    taken: set[str] = set()
    for file in files:
        *folders, name = file.path.split("/")
        if len(folders) > MOST_FOLDERS or not all(map(_NAME.match, [*folders, name])):
            raise ModelDamaged(f"{file.path!r} is not the name of a model's file")
        if not name.endswith(SUFFIXES):
            raise ModelDamaged(f"{file.path!r} is of a kind that is not read")
        if file.bytes < 0 or not _SHA256.match(file.sha256):
            raise ModelDamaged(f"{file.path!r} has no size or hash")
        if file.path in taken:
            raise ModelDamaged(f"{file.path!r} is named twice")
        taken.add(file.path)
    _check_folders(taken)


def _check_folders(paths: set[str]) -> None:
    for path in paths:
        parent, _, _ = path.rpartition("/")
        while parent:
            if parent in paths:
                raise ModelDamaged(f"{parent!r} is a file and a folder")
            parent, _, _ = parent.rpartition("/")
