"""What each process loads, and who may import whom, as real interpreters see it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ["torch", "transformers", "diffusers", "safetensors"]
WEB = ["flask", "flask_openapi", "gunicorn", "werkzeug"]
PACKAGES = ["api", "worker", "shared", "pressrun", "migrations"]

SHOW = """
import importlib, json, sys
for name in {modules!r}:
    importlib.import_module(name)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "PRESSRUN_"))
    } | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def loaded_by(*modules: str) -> set[str]:
    run = python("-c", SHOW.format(modules=modules))
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def modules_of(package: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """Every module of a package, from the files."""
    names = []
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith(without) and not name.endswith("__main__"):
            names.append(name)
    return names


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (["api.app"], [*HEAVY, "worker", "pressrun"]),
        (["worker.app", "worker.__main__"], [*HEAVY, *WEB, "api", "pressrun"]),
        (["worker.engines.child", "worker.engines.registry"], [*HEAVY, *WEB, "api"]),
        (["pressrun.main"], [*HEAVY, *WEB, "api", "worker"]),
    ],
    ids=lambda value: value[0],
)
def test_a_process_loads_only_what_is_its_own(modules: list[str], forbidden: list[str]) -> None:
    loaded = loaded_by(*modules)
    assert modules[0].partition(".")[0] in loaded
    assert loaded & set(forbidden) == set()


def test_no_module_of_shared_loads_either_side() -> None:
    assert loaded_by(*modules_of("shared")) & {*HEAVY, *WEB, "api", "worker", "pressrun"} == set()


def test_the_engine_child_can_load_torch_which_makes_these_tests_mean_something() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    assert {"torch", "transformers"} <= loaded_by("worker.engines.loading", "worker.engines.text")


def test_the_import_contracts_hold() -> None:
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = python("-c", code + " or sys.exit(0)")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_our_packages_are_ours(package: str, tmp_path: Path) -> None:
    """Another distribution's ``shared`` would shadow ours without a word."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parent == ROOT / package
    run = python("-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
    assert Path(run.stdout.strip()).parent == ROOT / package


def test_every_test_folder_is_a_package() -> None:
    """Without them ``tests/unit/api`` would be imported as ``api``."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [
        str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()
    ] == []


def test_no_module_hides_one_of_the_standard_library_or_of_celery() -> None:
    names = {path.stem for package in PACKAGES for path in (ROOT / package).glob("*.py")}
    assert names & {"celery", "queue", "logging", "types", "json", "select"} == set()
