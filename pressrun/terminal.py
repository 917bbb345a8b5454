"""What commands write: results on stdout, everything else on stderr.

With ``--json``, stdout carries one JSON document and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 120
"""Columns of a table that no terminal limits."""
_COMMANDS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}
_DIRECTIONS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_SHOWN = dict.fromkeys(_COMMANDS | _DIRECTIONS, "\N{REPLACEMENT CHARACTER}")


class Terminal:
    """Both streams of one command."""

    def __init__(self, *, json_only: bool = False) -> None:
        self.json_only = json_only
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    @property
    def shows_pictures(self) -> bool:
        """Whether somebody looks at the result, on a terminal that has colours and blocks."""
        return self.out.is_terminal and not self.out.options.ascii_only

    def result(self, data: Any, render: Callable[[], RenderableType]) -> None:
        """``data`` as JSON for scripts; for people, what ``render`` makes of it."""
        if self.json_only:
            sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        else:
            made = render()
            self.out.print(made, markup=False, soft_wrap=isinstance(made, str))

    def note(self, message: str) -> None:
        """A remark beside the result, on stderr."""
        self.err.print(message, markup=False, soft_wrap=True)

    def notes(self, messages: Iterable[str]) -> None:
        """Several of them, a line each."""
        for message in messages:
            self.note(message)


def visible(text: str) -> str:
    """``text`` without anything that a terminal would obey: what is shown comes from strangers'
    files and from models."""
    return text.translate(_SHOWN)


class _Console(Console):
    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return _Console(stderr=stderr, width=width, highlight=False, emoji=False)


def table(*titles: str, rows: Iterable[Iterable[object]], headed: bool = True) -> Table:
    """A plain table; cells are text, never markup."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_header=headed)
    for name in titles:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*(Text("-" if value is None else visible(str(value))) for value in row))
    return made


def when(unix_seconds: int | None) -> str:
    """Local time of a timestamp in an answer, for people."""
    if unix_seconds is None:
        return "-"
    return f"{datetime.fromtimestamp(unix_seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
