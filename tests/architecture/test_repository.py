"""What the files of the repository may not contain."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ["api", "worker", "shared", "pressrun", "migrations", "deploy", "bench"]
SKIPPED = {"__pycache__", "build", "node_modules", "demo-output"}
NOTHING_OF_OURS = re.compile(r"^\.(?!ci$|github$|gitignore$|dockerignore$|editorconfig$)")
FORBIDDEN = ["../" + "shared", "/wo" + "rk/"]
"""Paths of somebody's machine; put together here so that this file passes."""
REGISTRIES = [
    "py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "gol" + "ang.org", "crates" + ".io",
    "index" + "-url = http",
]  # fmt: skip


def files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name for name in folders
            if name not in SKIPPED
            and not NOTHING_OF_OURS.match(name)
            and not name.endswith(".egg-info")
        ]  # fmt: skip
        for name in names:
            if not NOTHING_OF_OURS.match(name):
                yield Path(folder, name)


def texts() -> Iterator[tuple[str, str]]:
    for path in files():
        try:
            yield str(path.relative_to(ROOT)), path.read_text()
        except UnicodeDecodeError:
            continue


def product_code() -> Iterator[tuple[str, ast.AST]]:
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def test_the_walk_sees_the_repository() -> None:
    names = {name for name, _ in texts()}
    assert {"pyproject.toml", "README.md", "shared/states.py", "tests/conftest.py"} <= names
    assert not [name for name in names if ".venv" in name]


@pytest.mark.parametrize("words", [FORBIDDEN, REGISTRIES], ids=["paths", "registries"])
def test_no_file_refers_to_somebodys_machine_or_index(words: list[str]) -> None:
    found = [(name, word) for name, text in texts() for word in words if word in text]
    assert found == []


def test_nothing_is_ever_unpickled() -> None:
    found = []
    for name, tree in product_code():
        for node in ast.walk(tree):
            modules = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )  # fmt: skip
            unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
            found += [f"{name}: {module}" for module in modules if module.split(".")[0] in unsafe]
    assert found == []


def test_no_code_from_a_model_is_ever_trusted() -> None:
    found = []
    for name, tree in product_code():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func) in {
                "torch.load",
                "eval",
                "exec",
                "pickle.loads",
                "yaml.load",
            }:
                found.append(f"{name}:{node.lineno}: {ast.unparse(node.func)}")
            for word in node.keywords:
                trusts = word.arg in {"trust_remote_code", "allow_pickle"}
                if trusts and ast.unparse(word.value) != "False":
                    found.append(f"{name}:{node.lineno}: {word.arg}")
    assert found == []


NOT_WEIGHTS = ("AutoConfig.", "AutoTokenizer.", "kind.config_class.", "tokenizer_class.")


def test_models_are_loaded_from_safetensors_alone() -> None:
    loads = [
        (name, node)
        for name, tree in product_code()
        if not name.startswith("bench/")  # measures a model that it made itself
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "from_pretrained"
        and not ast.unparse(node.func).startswith(NOT_WEIGHTS)
    ]
    assert loads
    for name, node in loads:
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert words.get("use_safetensors") == "True", f"{name}:{node.lineno}"


def test_pressrun_is_not_published() -> None:
    assert "Private :: Do Not Upload" in (ROOT / "pyproject.toml").read_text()
