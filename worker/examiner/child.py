"""The child process that looks at a model as an engine would: no credentials, no network, no
writing, little time and memory.

Run as ``python -m worker.examiner.child FOLDER``. The folder holds the model's
configurations and vocabularies, as they were written anew, and ``examination.json``: what each part
is, and the names, types and shapes of its tensors. The weights themselves are not here. It answers
with lines of JSON: ``{"doing": "…"}`` before each thing that may take it down, then
``{"problems": […], "denied": […], "parameters": n}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.upkeep.imports import NO_LIBRARIES, REQUEST

MEMORY_BYTES = 12 * 2**30
"""Of addresses: torch and transformers alone take about half."""
CPU_SECONDS = 120
OPEN_FILES = 256

_DENIED = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
    "pickle.find_class", "urllib.", "http.client", "ftplib.", "smtplib.", "webbrowser.",
)  # fmt: skip
_LIBRARIES_DO = frozenset({"socket.__new__", "socket.bind", "socket.gethostname", "open"})
"""Denied like the rest, and no sign of anything: libraries try them when they are imported."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Guard:
    """Denies what no reading of a model needs, by Python's audit events, which can't be unhooked;
    remembers what only a model can have had tried."""

    def __init__(self) -> None:
        self.denied: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_DENIED) or (event == "open" and _is_writing(arguments)):
            if event not in _LIBRARIES_DO:
                self.denied.append(event)
            raise PermissionError(f"{event} is denied")


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = (*arguments, None, None, None)[:3]
    return isinstance(flags, int) and bool(flags & _WRITING) and path != os.devnull


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0])
    request = json.loads((folder / REQUEST).read_text())
    try:
        examine = _load(request["engine"])
    except ImportError:
        return NO_LIBRARIES
    tempfile.tempdir = str(folder)  # nobody can find out any more where one could write
    guard = confine()
    answer = {"problems": [], "parameters": 0}
    with contextlib.redirect_stdout(sys.stderr):
        answer |= examine(folder, request, say)
    _write(answer | {"denied": guard.denied})
    return 0


def confine() -> Guard:
    """From here on this process is confined; the libraries are loaded by now."""
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in limits.items():
        _, hard = resource.getrlimit(limit)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))
    guard = Guard()
    sys.addaudithook(guard)
    return guard


def say(what: str) -> None:
    """Should this process end now, that was what it was doing."""
    _write({"doing": what})


def _write(line: dict[str, Any]) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


def _load(engine: str) -> Callable[[Path, dict[str, Any], Callable[[str], None]], dict[str, Any]]:
    """Imports what the model's kind needs, before nothing can be written or asked any more."""
    from worker.examiner.examining import examine

    if engine == "image":
        import worker.examiner.pipelines  # noqa: F401
    return examine


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
