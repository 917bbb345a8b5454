"""The last ``openai`` client of generation 1, in a virtual environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.services.environments import ROOT, EnvironmentMissing, ensure_environment

REQUIREMENTS = Path(__file__).with_name("requirements-openai1.txt")
ENVIRONMENT = ROOT / ".venv-openai1"


class Openai1Unavailable(Exception):
    """The environment does not exist and can't be made; the message says what to do."""


def ensure_openai1() -> Path:
    """The Python that has the client, installed first if it is not there. Raises
    Openai1Unavailable."""
    try:
        return ensure_environment(ENVIRONMENT, REQUIREMENTS) / "python"
    except EnvironmentMissing as error:
        raise Openai1Unavailable(
            "the old openai client of the tests is not installed: run `python -m "
            f"tests.services.openai1 install` with a package index in reach: {error}"
        ) from error


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: python -m tests.services.openai1 install")
    sys.stdout.write(f"{ensure_openai1()}\n")
