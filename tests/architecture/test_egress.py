"""One module makes requests to addresses that others chose; no other has the means."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = {"http.client", "urllib.request", "requests", "httpx", "httpx2", "aiohttp", "urllib3"}
EGRESS = "worker/egress.py"


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_servers_have_one_way_out() -> None:
    """``pressrun``, the client, talks to the server that its user names."""
    found = {
        str(path.relative_to(ROOT))
        for package in ("api", "shared", "worker")
        for path in (ROOT / package).rglob("*.py")
        if CLIENTS & set(imported(ast.parse(path.read_text())))
    }
    assert found == {EGRESS}


def test_it_never_resolves_and_connects_in_one_call() -> None:
    """``create_connection`` would resolve the name again, behind the judgement."""
    tree = ast.parse((ROOT / EGRESS).read_text())
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "socket.getaddrinfo" in calls
    assert not calls & {"socket.create_connection", "connection.connect", "connection.request"}
