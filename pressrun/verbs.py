"""What is asked of a thing by a verb of its own, and told in a line."""

from __future__ import annotations

from pressrun.api_client import ApiClient
from pressrun.terminal import Terminal


def ask(client: ApiClient, terminal: Terminal, path: str) -> None:
    """Has a thing pause, go on, run or stop: ``path`` ends with that word. Tells its status."""
    found = client.post(path)
    terminal.result(found, lambda: f"{found['id']}: {found['status']}")


def delete(client: ApiClient, terminal: Terminal, path: str) -> None:
    """Deletes the thing at ``path``."""
    gone = client.delete(path)
    terminal.result(gone, lambda: f"deleted {gone['id']}")
