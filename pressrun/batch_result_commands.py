"""``pressrun batch results`` and ``batch retry``: lines as they are done, and what failed again."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, NamedTuple
from urllib.parse import urlencode

import typer

from pressrun.api_client import ApiClient
from pressrun.batch_commands import BATCHES, BatchId, OutputOption, follow
from pressrun.connection import ApiKeyOption, UrlOption, for_tenant, tenant_client
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import WaitOption
from pressrun.terminal import Terminal
from pressrun.watching import PATIENCE_SECONDS

PAUSE_SECONDS = 1.0
_HELD_BYTES = 2**20
_CHUNK_BYTES = 256 * 1024


class Page(NamedTuple):
    """Lines of one answer, on disk if they are many; gone when the next one is asked for."""

    lines: IO[bytes]
    bytes: int
    after: str
    """Where to go on."""
    incomplete: bool


def results(
    batch_id: BatchId,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the batch has ended.")
    ] = False,
    status: Annotated[
        str | None, typer.Option(help="Only rows that `succeeded`, or that `failed`.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Go on after this place, which an earlier run told.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Append to this file rather than print.")
    ] = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Print a batch's lines that are done, each once; the batch may still be running."""
    terminal = Terminal(json_only=False)
    place = after
    with tenant_client(url, api_key) as client, _target(output) as target:
        try:
            while True:
                with _asked(client, batch_id, status, place, patient=follow) as page:
                    while data := page.lines.read(_CHUNK_BYTES):
                        target.write(data)
                target.flush()
                place = page.after
                if not page.incomplete or not (page.bytes or follow):
                    break
                if not page.bytes:
                    time.sleep(PAUSE_SECONDS)
        except KeyboardInterrupt:
            raise CommandError(_go_on(batch_id, place), ExitCode.INTERRUPTED) from None
    if page.incomplete:
        terminal.note(_go_on(batch_id, place))


@for_tenant
def retry(
    client: ApiClient,
    terminal: Terminal,
    batch_id: BatchId,
    *,
    only: Annotated[
        str, typer.Option(help="Which rows: `failed`, `expired`, `cancelled` or `all` of them.")
    ] = "failed",
    window: Annotated[
        str | None, typer.Option(help="When it must be done; default: as the first batch.")
    ] = None,
    watch: WaitOption = False,
    output: OutputOption = None,
) -> None:
    """Start a batch of those rows of an ended one that have no answer."""
    body = {"only": only} | ({} if window is None else {"completion_window": window})
    batch = client.post(f"{BATCHES}/{batch_id}/retry", body)
    if not watch and output is None:
        terminal.result(batch, lambda: batch["id"])
        return
    if not terminal.json_only:
        terminal.note(f"submitted {batch['id']}")
    follow(client, batch["id"], output, terminal)


def _go_on(batch_id: str, place: str | None) -> str:
    command = f"pressrun batch results {batch_id} --follow"
    return f"more may come: {command}" + (f" --after {place}" if place else "")


@contextmanager
def _target(output: Path | None) -> Iterator[IO[bytes]]:
    if output is None:
        yield sys.stdout.buffer
        return
    try:
        with output.open("ab") as file:
            yield file
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror}", ExitCode.USAGE) from None


@contextmanager
def _asked(
    client: ApiClient, batch_id: str, status: str | None, after: str | None, *, patient: bool
) -> Iterator[Page]:
    """One answer, whole: nothing of one that breaks off is shown, so that no line comes twice."""
    query = {"limit": "10000", "status": status, "after": after}
    known = urlencode({name: value for name, value in query.items() if value is not None})
    until = time.monotonic() + (PATIENCE_SECONDS if patient else 0.0)
    while True:
        with contextlib.ExitStack() as stack:
            lines = stack.enter_context(tempfile.SpooledTemporaryFile(_HELD_BYTES))
            try:
                page = _fetched(client, f"{BATCHES}/{batch_id}/results?{known}", lines)
            except CommandError as error:
                away = error.exit_code is ExitCode.UNREACHABLE
                if not away or time.monotonic() > until:
                    raise
                time.sleep(PAUSE_SECONDS)
                continue
            yield page
            return


def _fetched(client: ApiClient, path: str, lines: IO[bytes]) -> Page:
    size = 0
    with client.stream(path) as response:
        for chunk in response.iter_bytes():
            lines.write(chunk)
            size += len(chunk)
        headers = response.headers
    lines.seek(0)
    return Page(lines, size, headers["X-Next-After"], headers["X-Incomplete"] == "true")
