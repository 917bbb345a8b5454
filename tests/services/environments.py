"""Virtual environments beside .venv: made on first use, whole or not at all."""

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
INSTALL_TIMEOUT_SECONDS = 600


class EnvironmentMissing(Exception):
    """The environment does not exist and can't be made; the message says why."""


def ensure_environment(environment: Path, requirements: Path) -> Path:
    """Returns the environment's folder of programs, installing ``requirements``, which name
    everything, if they are not there.

    Safe to call from several processes. Raises EnvironmentMissing.
    """
    if _is_complete(environment, requirements):
        return environment / "bin"
    with requirements.open() as turnstile:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        if not _is_complete(environment, requirements):
            try:
                _install(environment, requirements)
            except (OSError, subprocess.SubprocessError) as error:
                raise EnvironmentMissing(_explain(environment, error)) from error
    return environment / "bin"


def _install(environment: Path, requirements: Path) -> None:
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--only-binary", ":all:", "-r", str(requirements)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_SECONDS,
        check=True,
    )
    _stamp(environment).write_text(_fingerprint(environment, requirements))


def _is_complete(environment: Path, requirements: Path) -> bool:
    """The stamp is written last, so a broken install has none."""
    try:
        return _stamp(environment).read_text() == _fingerprint(environment, requirements)
    except OSError:
        return False


def _stamp(environment: Path) -> Path:
    return environment / "installed"


def _fingerprint(environment: Path, requirements: Path) -> str:
    """Changes with the requirements and the Python; a moved folder is no longer an environment."""
    ours = f"{sys.version_info[:2]} {environment}\n".encode()
    return hashlib.sha256(ours + requirements.read_bytes()).hexdigest()


def _explain(environment: Path, error: Exception) -> str:
    output = getattr(error, "output", None) or error
    if os.access(environment.parent, os.W_OK):
        return str(output)
    return f"{environment.parent} is read-only: {output}"
