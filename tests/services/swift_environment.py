"""The virtual environment of the S3 server: made on first use, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements-swift.txt")
ENVIRONMENT = ROOT / ".venv-swift"
INSTALL_TIMEOUT_SECONDS = 600


class SwiftUnavailable(Exception):
    """The environment does not exist and can't be made; the message says what to do."""


def ensure_swift_venv(environment: Path = ENVIRONMENT) -> Path:
    """Returns the folder of Swift's programs, installing them if they are not there.

    Safe to call from several processes. Raises SwiftUnavailable.
    """
    if _is_complete(environment):
        return environment / "bin"
    with REQUIREMENTS.open() as turnstile:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        if not _is_complete(environment):
            try:
                _install(environment)
            except (OSError, subprocess.SubprocessError) as error:
                raise SwiftUnavailable(_explain(environment, error)) from error
    return environment / "bin"


def _install(environment: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--only-binary", ":all:", "-r", str(REQUIREMENTS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_SECONDS,
        check=True,
    )
    _stamp(environment).write_text(_fingerprint())


def _is_complete(environment: Path) -> bool:
    """The stamp is written last, so a broken install has none."""
    try:
        return _stamp(environment).read_text() == _fingerprint()
    except OSError:
        return False


def _stamp(environment: Path) -> Path:
    return environment / "installed"


def _fingerprint() -> str:
    """Changes with the requirements and the Python; a moved folder is no longer an environment."""
    ours = f"{sys.version_info[:2]} {ENVIRONMENT}\n".encode()
    return hashlib.sha256(ours + REQUIREMENTS.read_bytes()).hexdigest()


def _explain(environment: Path, error: Exception) -> str:
    output = getattr(error, "output", None) or error
    who = "" if os.access(environment.parent, os.W_OK) else f"; {environment.parent} is read-only"
    return (
        "the S3 server of the tests (OpenStack Swift) is not installed: run "
        f"`python -m tests.services.swift install` with a package index in reach{who}: {output}"
    )
