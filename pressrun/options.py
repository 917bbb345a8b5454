"""Options that several commands take, and how their values are read."""

from __future__ import annotations

from typing import Annotated

import typer

from pressrun.exit_codes import CommandError, ExitCode

NewestOption = Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")]
MetadataOption = Annotated[
    list[str] | None, typer.Option(help="key=value; may be repeated, up to 16 times.")
]
WaitOption = Annotated[bool, typer.Option("--watch", help="Wait for its end.")]
WatchOption = Annotated[bool, typer.Option("--watch/--no-watch", help="Wait for its end.")]


def parse_metadata(pairs: list[str] | None) -> dict[str, str] | None:
    """``["k=v"]`` as a dict; None when empty. Raises CommandError (USAGE)."""
    given = pairs or []
    wrong = [pair for pair in given if "=" not in pair]
    if wrong:
        raise CommandError(f"--metadata takes key=value, not {wrong[0]!r}", ExitCode.USAGE)
    return dict(pair.split("=", 1) for pair in given) or None
