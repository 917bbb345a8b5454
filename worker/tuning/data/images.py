"""Pictures looked at and converted in a child process (``decoder``), which may die of them.

This process holds the credentials of database and store, so it decodes nothing that a stranger
made, and imports no decoder.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shared.errors import PressrunError
from worker.tuning.data.example import Refused

CODE_ROOT = Path(__file__).resolve().parents[3]
DECODER = "worker.tuning.data.decoder"
NO_DECODER = 3
"""The child's exit code where Pillow is missing."""
SECONDS = 60.0
"""For one picture; the largest takes about two."""
EXIT_SECONDS = 5.0
"""For a child that closed its pipe to be gone."""
TRIES = 2
"""A child may also be killed from outside, so its death convicts a picture at the second time."""
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})

_PICKLE_PROTOCOLS = range(0x02, 0x06)


class DecoderMissing(PressrunError):
    """Pictures can't be read on this worker; another one may."""


def check_magic(data: bytes) -> None:
    """Raises Refused unless the first bytes are those of a PNG, JPEG or WebP."""
    if data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return
    if data[:1] == b"\x80" and len(data) > 1 and data[1] in _PICKLE_PROTOCOLS:
        raise Refused("pickle_refused", "it is pickled data, whatever its name says")
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")):
        raise Refused("nested_archive", "it is an archive, whatever its name says")
    raise Refused("invalid_image", "it is not a PNG, JPEG or WebP")


class Pictures:
    """A decoder that is started when the first picture comes. For one thread at a time."""

    def __init__(self, *, seconds: float = SECONDS, python: str = sys.executable) -> None:
        self._seconds = seconds
        self._python = python
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def check(self, data: bytes) -> tuple[int, int]:
        """Width and height of a picture that can be decoded. Raises Refused or DecoderMissing."""
        return self._ask(data, None)

    def convert(self, data: bytes, path: Path) -> tuple[int, int]:
        """Like ``check``, and writes it to ``path`` as a plain RGB PNG (see ``decoder``)."""
        return self._ask(data, path)

    def close(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _ask(self, data: bytes, path: Path | None) -> tuple[int, int]:
        check_magic(data)
        for _ in range(TRIES):
            answer = self._answer(data, path)
            if answer is None:
                self._bury()
                continue
            if "code" in answer:
                raise Refused(answer["code"], answer["message"])
            return answer["width"], answer["height"]
        raise Refused("invalid_image", "the picture can't be decoded")

    def _answer(self, data: bytes, path: Path | None) -> dict[str, Any] | None:
        """None when the child is gone or takes too long."""
        child = self._child or self._start()
        assert child.stdin is not None  # noqa: S101 - both are pipes
        assert child.stdout is not None  # noqa: S101
        request = {"bytes": len(data), "path": None if path is None else str(path.absolute())}
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.write(data)
            child.stdin.flush()
        except BrokenPipeError:
            return None
        if not select.select([child.stdout], [], [], self._seconds)[0]:
            child.kill()
            return None
        line = child.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def _start(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(
            [self._python, "-m", DECODER],
            env={},  # whatever is in ours may be a credential
            cwd=CODE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # an interrupt at the terminal is the supervisor's
        )
        return self._child

    def _bury(self) -> None:
        child = self._child
        if child is None:
            return
        with suppress(subprocess.TimeoutExpired):
            child.wait(EXIT_SECONDS)  # its exit code says why
        missing = child.returncode == NO_DECODER
        self.close()
        if missing:
            raise DecoderMissing("pictures can't be read here: Pillow is not installed")
