"""What the images will hold, found out without Docker: read from the Dockerfiles, then imitated.

An image is imitated by a folder with copies of exactly what its Dockerfile copies, and a Python
that refuses to import anything but that, the standard library, and the libraries that the image
installs (their closure, by the metadata of this environment).
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from deploy.image_requirements import requirements

ROOT = Path(__file__).resolve().parents[1]
RUN_SECONDS = 60

_GUARD = """
import importlib.abc, importlib.metadata, json, os, runpy, sys
allowed = set(json.loads(sys.argv[1]))
folders = {name for name in os.listdir(".") if os.path.isdir(name)}

class Guard(importlib.abc.MetaPathFinder):
    def __init__(self, finders):
        # Not that of an editable install, which knows folders that the image lacks.
        self.finders = [f for f in finders if "editable" not in f"{f} {type(f)}"]

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in allowed or top in folders or top in sys.stdlib_module_names or top[0] == "_":
            specs = (finder.find_spec(name, path, target) for finder in self.finders)
            return next((spec for spec in specs if spec is not None), None)
        return None

    find_distributions = staticmethod(importlib.metadata.MetadataPathFinder.find_distributions)

sys.meta_path[:] = [Guard(sys.meta_path)]
sys.path = [os.getcwd(), *(p for p in sys.path[1:] if p)]
sys.path_importer_cache.clear()
for name in json.loads(sys.argv[2]):
    __import__(name)
sys.argv = sys.argv[3:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str


@dataclass(frozen=True)
class Stage:
    """A stage of a Dockerfile, its ancestors' instructions first."""

    name: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[str]:
        return [item.rest for item in self.instructions if item.word == word]

    @property
    def command(self) -> list[str]:
        return [str(part) for part in json.loads(self.all("CMD")[-1])]

    @property
    def sources(self) -> list[str]:
        """What it copies from the repository."""
        copies = [rest.split() for rest in self.all("COPY") if not rest.startswith("--from=")]
        return [source for words in copies for source in words[:-1]]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in rest.split())


def stages(dockerfile: Path) -> dict[str, Stage]:
    """The named stages of a Dockerfile."""
    found: dict[str, Stage] = {}
    name, body = "", list[Instruction]()
    for instruction in _instructions(dockerfile.read_text()):
        if instruction.word == "FROM":
            parent, _, name = instruction.rest.partition(" AS ")
            body = list(found[parent].instructions) if parent in found else []
        else:
            body.append(instruction)
        found[name] = Stage(name, tuple(body))
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield Instruction(word, " ".join(rest.split()))


def installed_groups(image: Stage, known: Mapping[str, Stage]) -> list[str]:
    """The groups of requirements in the venv that ``image`` copies."""
    [copied] = [rest for rest in image.all("COPY") if rest.endswith("/opt/venv /opt/venv")]
    library = known[copied.split()[0].removeprefix("--from=")]
    defaults = dict(
        found.groups()
        for rest in library.all("ARG")
        if (found := re.match(r'([A-Z_]+)="([^"]*)"', rest))
    )
    runs = [re.sub(r"\$([A-Z]+)\b", lambda m: defaults[m[1]], rest) for rest in library.all("RUN")]
    calls = (re.search(r"image_requirements\.py ([a-z ]+) >", rest) for rest in runs)
    return [group for call in calls if call for group in call[1].split()]


def importable(groups: Sequence[str]) -> set[str]:
    """Top-level modules of the groups' requirements and of all that those require."""
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(line) for line in requirements(ROOT / "pyproject.toml", groups)]
    while todo:
        requirement = todo.pop()
        name = _normal(requirement.name)
        for extra in ["", *sorted(requirement.extras)]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            todo += [
                needed
                for needed in map(Requirement, metadata.requires(name) or ())
                if needed.marker is None or needed.marker.evaluate({"extra": extra})
            ]
    names = {name for name, _ in seen}
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if names & {_normal(owner) for owner in owners}
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def unreachable(sources: Iterable[str], dockerignore: Path) -> list[str]:
    """The sources that ``.dockerignore``, a list of exceptions from ``*``, keeps from builds."""
    lines = dockerignore.read_text().splitlines()
    let_in = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    return sorted({source for source in sources if source.rstrip("/") not in let_in})


def copy_sources(image: Stage, target: Path) -> None:
    """Makes ``target`` the image's working directory."""
    for source in image.sources:
        if source.endswith("/"):
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(ROOT / source, target / source, ignore=ignored)
        else:
            shutil.copy(ROOT / source, target / Path(source).name)


def run_module(
    folder: Path,
    command: Sequence[str],
    *,
    allowed: Iterable[str],
    first: Sequence[str] = (),
    environment: Mapping[str, str],
) -> str:
    """Runs ``python -m command…`` in an imitated image, after importing ``first``.

    Returns what went wrong; empty when it ended with 0.
    """
    inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    guard = [sys.executable, "-c", _GUARD, json.dumps(sorted(allowed)), json.dumps(list(first))]
    try:
        done = subprocess.run(
            [*guard, *command],
            cwd=folder,
            env={**inherited, **environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"still running after {RUN_SECONDS} s"
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")


def missing_modules(folder: Path, allowed: Iterable[str]) -> list[str]:
    """Imports anywhere below ``folder`` that the image could not serve: ``file: module``."""
    known = {*allowed, *sys.stdlib_module_names}
    found = set()
    for path in folder.rglob("*.py"):
        for module in _imported(ast.parse(path.read_text())):
            top = module.partition(".")[0]
            if (folder / top).is_dir():
                file = folder.joinpath(*module.split("."))
                if file.is_dir() or file.with_suffix(".py").is_file():
                    continue
            elif top in known:
                continue
            found.add(f"{path.relative_to(folder)}: {module}")
    return sorted(found)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)
