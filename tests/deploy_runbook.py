"""Rules of the runbook: what it explains exists, and what must be explained is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from tests.deploy_images import ROOT
from tests.deploy_rules import DEPLOY, services

RUNBOOK = DEPLOY / "README.md"
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
SEVERE = {"error", "exception", "critical"}


def runbook_events() -> list[str]:
    """README.md explains events that exist, and every one that servers log as an error."""
    explained = {
        event
        for line in RUNBOOK.read_text().splitlines()
        if line.startswith("| `")
        for event in re.findall(r"`([a-z_]+)`", line.split(" | ")[0])
    }
    logged: dict[str, set[str]] = {}
    for folder in ("api", "worker", "shared"):
        for path in (ROOT / folder).rglob("*.py"):
            for method, event in _events(path):
                logged.setdefault(event, set()).add(method)
    severe = {event for event, methods in logged.items() if methods & SEVERE}
    invented = {event for event in explained if "_" in event} - set(logged)
    return [
        *(f"no server logs {event}" for event in sorted(invented)),
        *(f"{event} is logged as an error, not explained" for event in sorted(severe - explained)),
    ]


def runbook_references() -> list[str]:
    """README.md links files, routes, commands and services that exist."""
    text = RUNBOOK.read_text()
    problems = [
        f"there is no {link}"
        for link in re.findall(r"\]\(([^)#:]+)\)", text)
        if not (DEPLOY / link).exists()
    ]
    problems += [f"there is no {route}" for route in sorted(_routes_named(text) - _routes())]
    for words in re.findall(r"python -m pressrun ([a-z]+(?: [a-z]+)?)", text):
        problems += _command_problems(words.split())
    problems += [
        f"there is no service {name!r}" for name in _services_named(text) if name not in services()
    ]
    return problems


RULES = (runbook_events, runbook_references)


def _events(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        first = node.args[0] if node.args else None
        on_log = isinstance(node.func.value, ast.Name) and node.func.value.id == "log"
        if on_log and node.func.attr in LOG_METHODS and isinstance(first, ast.Constant):
            yield node.func.attr, str(first.value)


def _services_named(text: str) -> Iterator[str]:
    """Each that is stopped, or the one in which something is run."""
    stopped = r"docker compose (?:stop|up -d --no-deps) ([a-z -]+)"
    for line in re.findall(stopped, text):
        yield from line.split()
    ran = r"docker compose (?:run --rm(?: --no-deps)?|exec -T|exec) ([a-z]+)"
    yield from re.findall(ran, text)


def _routes_named(text: str) -> set[str]:
    found = re.findall(r"(/v1/[\w/$-]+|/(?:healthz|readyz)\b)", text)
    return {re.sub(r"\$\w+", "*", route).rstrip("/") for route in found}


def _routes() -> set[str]:
    sources = "".join(path.read_text() for path in (ROOT / "api" / "routes").glob("*.py"))
    routes = {re.sub(r"<[^>]+>", "*", route) for route in re.findall(r'"(/[\w/<>:-]+)"', sources)}
    prefixes = {route.rpartition("/")[0] for route in routes}  # as in "the /v1/admin routes"
    return routes | prefixes


def _command_problems(words: list[str]) -> list[str]:
    from pressrun.main import app  # here: it takes all commands' imports

    command: Any = typer.main.get_command(app)
    for word in words:
        known = getattr(command, "commands", None)
        if known is None:
            return []
        if word not in known:
            return [f"there is no command {' '.join(words)!r}"]
        command = known[word]
    return []
