"""A ZIP as a model's folder: which files there are, whose names alone are found good."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os.path import commonpath
from typing import IO

from shared.lifecycle import BadLine
from worker.model_paths import MOST_FILES
from worker.tuning.data.archive import Archive, is_clutter
from worker.tuning.data.example import Refused
from worker.tuning.data.limits import DataLimits
from worker.upkeep.imports.names import is_for_people, refuse_kind

LIMITS = DataLimits(
    reported=100,
    archive_bytes=64 * 2**30,
    unpacked_bytes=64 * 2**30,
    members=MOST_FILES,
    directory_bytes=2**20,
    ratio=50,
)
"""Weights hardly shrink: a file that does by fifty times is no weights."""


class Package:
    """The files of an archive by their paths in the model's folder."""

    def __init__(self, file: IO[bytes], limits: DataLimits = LIMITS) -> None:
        """Raises Refused when the archive as a whole can't be used."""
        self._archive = Archive(file, limits)
        self.problems: list[BadLine] = list(self._archive.problems)
        self.left_out: list[str] = []
        self._members: dict[str, str] = {}
        names = [name for name in self._archive.members if not name.endswith("/")]
        kept = [name for name in names if not is_clutter(name)]
        around = _folder_around(kept)
        for name in kept:
            self._judge(name, name[len(around) :])
        self._refuse_clashes()

    @property
    def paths(self) -> list[str]:
        return list(self._members)

    def __contains__(self, path: str) -> bool:
        return path in self._members

    def leave_out(self, paths: Iterable[str]) -> None:
        """Forgets those of the files that there are."""
        for path in paths:
            if self._members.pop(path, None) is not None:
                self.left_out.append(path)

    def size(self, path: str) -> int:
        return self._archive.members[self._members[path]].file_size

    def read(self, path: str, most_bytes: int) -> bytes:
        """A whole file. Raises Refused for one that is larger, or damaged."""
        return self._archive.read(self._members[path], most_bytes)

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file piece by piece. Raises Refused for one that is damaged."""
        return self._archive.chunks(self._members[path])

    def _judge(self, name: str, path: str) -> None:
        try:
            refuse_kind(path)
        except Refused as refusal:
            self.problems.append(refusal.bad_line(member=name))
            return
        if is_for_people(path):
            self.left_out.append(path)
        else:
            self._members[path] = name

    def _refuse_clashes(self) -> None:
        """Names that are one on other systems, and names that are a file and a folder."""
        taken: dict[str, str] = {}
        for path in self._members:
            folder = path.casefold()
            clash = taken.get(folder)
            if clash is not None:
                refusal = Refused("case_clash", f"only its case tells it from {clash}")
                self.problems.append(refusal.bad_line(member=path))
            taken[folder] = path
        for path in self._members:
            parent = path.casefold().rpartition("/")[0]
            while parent:
                if parent in taken:
                    refusal = Refused("unsafe_name", "a folder has the name of a file")
                    self.problems.append(refusal.bad_line(member=path))
                    break
                parent = parent.rpartition("/")[0]


def _folder_around(names: list[str]) -> str:
    """The one folder that everything lies in, with its slash, or nothing."""
    folders = {name.rpartition("/")[0] for name in names}
    if not folders or "" in folders:
        return ""
    common = commonpath(folders).split("/")[0]
    return f"{common}/" if common else ""
