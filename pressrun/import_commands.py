"""``pressrun models import``: a model's folder in, a name to ask it by out."""

from __future__ import annotations

import re
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.endings import not_succeeded, told_problems
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import WatchOption
from pressrun.terminal import Terminal, table, when
from pressrun.transfers import upload
from pressrun.watching import Snapshot, Watched, display_for, poll

IMPORT, IMPORTS = "/v1/models/import", "/v1/models/imports"
ENDED = frozenset({"succeeded", "failed", "cancelled"})
SHOWN_FILES = 20
_NAMES = re.compile(r"[A-Za-z0-9._-]", re.ASCII)


@for_tenant
def import_model(
    client: ApiClient,
    terminal: Terminal,
    source: Annotated[Path, typer.Argument(metavar="DIR|ZIP", help="The model's folder.")],
    *,
    suffix: Annotated[
        str | None, typer.Option(help="A part of the model's name; by default the folder's.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", help="What an adapter is loaded onto.")
    ] = None,
    watch: WatchOption = True,
) -> None:
    """Bring a model of your own: safetensors and their settings; no code of it is ever run."""
    body = {"suffix": suffix or _name_of(source)}
    if base_model is not None:
        body["base_model"] = base_model
    with _archive_of(source, terminal) as archive:
        body["file"] = str(upload(client, archive, "model", terminal)["id"])
    found = client.post(IMPORT, body, idempotency_key=str(uuid.uuid4()))
    if not watch:
        terminal.result(found, lambda: found["id"])
        return
    _follow(client, found["id"], terminal)


def _name_of(source: Path) -> str:
    plain = "".join(letter if _NAMES.match(letter) else "-" for letter in _stem(source))
    return plain.lstrip("._-")[:64] or "model"


def _stem(source: Path) -> str:
    named = source.absolute()
    return named.stem if named.suffix.lower() == ".zip" else named.name


@contextmanager
def _archive_of(source: Path, terminal: Terminal) -> Iterator[Path]:
    """The source as a ZIP: itself, or a temporary one of the folder's plain files. Raises
    CommandError."""
    if source.is_file():
        yield source
        return
    if not source.is_dir():
        raise CommandError(f"there is no folder or ZIP {source}", ExitCode.USAGE)
    paths = [path for path in sorted(source.rglob("*")) if _belongs(path, source)]
    if not paths:
        raise CommandError(f"there are no files in {source}", ExitCode.USAGE)
    with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
        archive = Path(folder, f"{_name_of(source)}.zip")
        terminal.note(f"packing {len(paths)} files")
        try:
            # Weights hardly shrink: packing them tightly would only take long.
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as package:
                for path in paths:
                    package.write(path, path.relative_to(source).as_posix())
        except OSError as error:
            raise CommandError(f"cannot pack {source}: {error.strerror}", ExitCode.USAGE) from None
        yield archive


def _belongs(path: Path, source: Path) -> bool:
    """A file, also one that a hub's cache links to; nothing that is hidden."""
    hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
    return path.is_file() and not hidden


def snapshot_of(found: Json) -> Snapshot:
    return Snapshot(str(found["status"]), 0, 0, 0, "files", remark="")


def describe(found: Json) -> RenderableType:
    """An import for people."""
    report = found["report"] or {}
    fields = {
        "id": found["id"],
        "status": found["status"],
        "model": found["model"],
        "architecture": report.get("architecture"),
        "parameters": report.get("parameters"),
        "left out": ", ".join(report.get("left_out_files", [])) or None,
        "settings dropped": report.get("dropped_settings_n"),
        "finished": when(found["finished_at"]),
        "error": (found["error"] or {}).get("message"),
    }
    return table("", "", rows=fields.items(), headed=False)


def _follow(client: ApiClient, import_id: str, terminal: Terminal) -> None:
    watched = Watched("import", import_id, ENDED, snapshot_of, IMPORTS)
    found = poll(client, watched, display_for(terminal))
    terminal.result(found, lambda: describe(found))
    if found["status"] == "succeeded":
        return
    terminal.notes(told_problems((found["error"] or {}).get("files"), shown=SHOWN_FILES))
    raise not_succeeded(import_id, found["status"], found["error"])
