"""What an image installs: ``python image_requirements.py core api`` prints the requirements.

Images hold pressrun's folders as they are, and the libraries in a venv beside them; pressrun itself
is never installed, because ``shared`` and ``api`` are names that another distribution may bring
into site-packages too. ``core`` stands for ``[project] dependencies``, any other name for an extra.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path


def requirements(pyproject: Path, names: Sequence[str]) -> list[str]:
    """The requirements of the named groups, in order. Raises KeyError for an unknown name."""
    project = tomllib.loads(pyproject.read_text())["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    return [line for name in names for line in groups[name]]


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1:])))
