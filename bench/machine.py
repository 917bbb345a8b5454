"""Where and with what a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench.report import Result

PACKAGES = (
    "flask", "gunicorn", "celery", "kombu", "sqlalchemy", "psycopg", "torch", "transformers",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


@cache
def machine() -> dict[str, Any]:
    """Cores, memory, versions and the commit of this run."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def in_words(results: Sequence[Result]) -> str:
    """What results were measured on: a sentence for each machine and set of versions."""
    places: dict[str, list[str]] = {}
    for result in results:
        places.setdefault(_sentence(result.detail.get("machine", {})), []).append(result.name)
    if len(places) == 1:
        return next(iter(places))
    return "\n\n".join(f"{sentence} ({', '.join(names)})" for sentence, names in places.items())


def _sentence(found: dict[str, Any]) -> str:
    versions = found.get("versions", {})
    used = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    return (
        f"Measured on {found.get('cores', '?')} cores "
        f"({found.get('processor', 'unknown processor')}, {found.get('memory_gib', '?')} GiB) with "
        f"Python {found.get('python', '?')}, {used}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """With ``+`` when the tree holds changes that no commit has."""
    try:
        head, changes = (_git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
