"""How a server that refuses to run as root is run anyway, and how it dies with its parent."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOBODY = "nobody"


class NoIdentityError(Exception):
    """Root, and neither a user namespace nor the account ``nobody`` can be used."""


@dataclass(frozen=True)
class Identity:
    """Who a child process is. Build it with ``choose_identity``."""

    prefix: tuple[str, ...]
    """Goes before the program in argv."""
    owner: tuple[int, int]
    """The uid and gid, seen from here, that must own the child's files."""
    drop: bool
    """Whether the child really becomes ``owner`` (or only believes it is somebody else)."""

    @property
    def name(self) -> str:
        """The account, for messages."""
        try:
            return pwd.getpwuid(self.owner[0]).pw_name
        except KeyError:
            return f"uid {self.owner[0]}"

    def popen_arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``subprocess.Popen`` and ``subprocess.run``."""
        if not self.drop:
            return {}
        return {"user": self.owner[0], "group": self.owner[1], "extra_groups": []}

    def own(self, tree: Path) -> None:
        """Gives ``tree`` to the identity; only root ever has something to change."""
        if os.geteuid() != 0 or _owner(tree) == self.owner:
            return
        for folder, folders, files in os.walk(tree):
            for name in (*folders, *files):
                os.chown(Path(folder, name), *self.owner, follow_symlinks=False)
        # The root goes last: it is what tells that the tree was done.
        os.chown(tree, *self.owner, follow_symlinks=False)

    def barrier(self, paths: Iterable[Path]) -> Path | None:
        """The first folder above ``paths`` that the identity can't pass, or None."""
        if not self.drop:
            return None
        for path in paths:
            for folder in reversed(path.resolve().parents):
                status = folder.stat()
                mine = (status.st_uid, status.st_gid) == self.owner
                if not mine and not status.st_mode & stat.S_IXOTH:
                    return folder
        return None


def choose_identity() -> Identity:
    """The current user when it is not root; otherwise somebody else, preferably in name only.

    As root, a user namespace in which the child believes itself to be ``nobody`` keeps every file
    root's own and works below folders that only root can pass. Most containers forbid it; there
    the child drops to ``nobody`` for real, and its files are given to that account.
    """
    if os.geteuid() != 0:
        return Identity(prefix=(), owner=(os.geteuid(), os.getegid()), drop=False)
    try:
        account = pwd.getpwnam(NOBODY)
    except KeyError:
        raise NoIdentityError(
            f"Postgres refuses to run as root and there is no account {NOBODY!r} to run it as; "
            "start Pressrun as an ordinary user"
        ) from None
    namespace = _namespace_prefix(account.pw_uid, account.pw_gid)
    if namespace:
        return Identity(prefix=namespace, owner=(0, 0), drop=False)
    return Identity(prefix=(), owner=(account.pw_uid, account.pw_gid), drop=True)


@functools.cache
def _namespace_prefix(uid: int, gid: int) -> tuple[str, ...]:
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    prefix = (unshare, "-U", f"--map-user={uid}", f"--map-group={gid}")
    return prefix if _works(prefix) else ()


@functools.cache
def die_with_parent(signal_name: str) -> tuple[str, ...]:
    """A prefix after which the kernel signals the program when the thread that started it ends.

    Goes after ``Identity.prefix``: a change of credentials clears the setting. Empty where
    util-linux's ``setpriv`` is missing, and there the program outlives a killed parent.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", signal_name)
    return prefix if _works(prefix) else ()


def _works(prefix: tuple[str, ...]) -> bool:
    """Whether a program can be run behind ``prefix``."""
    program = shutil.which("true") or "/bin/true"
    try:
        done = subprocess.run([*prefix, program], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid
