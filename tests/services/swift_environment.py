"""The virtual environment of the S3 server."""

from __future__ import annotations

from pathlib import Path

from tests.services.environments import ROOT, EnvironmentMissing, ensure_environment

REQUIREMENTS = Path(__file__).with_name("requirements-swift.txt")
ENVIRONMENT = ROOT / ".venv-swift"


class SwiftUnavailable(Exception):
    """The environment does not exist and can't be made; the message says what to do."""


def ensure_swift_venv(environment: Path = ENVIRONMENT) -> Path:
    """Returns the folder of Swift's programs, installing them if they are not there.

    Safe to call from several processes. Raises SwiftUnavailable.
    """
    try:
        return ensure_environment(environment, REQUIREMENTS)
    except EnvironmentMissing as error:
        raise SwiftUnavailable(
            "the S3 server of the tests (OpenStack Swift) is not installed: run `python -m "
            f"tests.services.swift install` with a package index in reach: {error}"
        ) from error
