"""What the text of a row tells the fake engine to do with it (``worker.engines.fake`` lists it)."""

from __future__ import annotations

import math
import re

from worker.engines.fake_media import media_text, serves_media
from worker.engines.fake_responses import last_text
from worker.engines.protocol import Row

_DIRECTIVE = re.compile(r"\[\[([a-z-]+)((?: [\w.-]+)*)\]\]")
_NAMES = {
    "delay", "hold", "sleep-forever", "error", "crash", "crash-once", "exit", "hang", "oom",
    "fatal", "bad-file",
}  # fmt: skip
_SECONDS = re.compile(r"\d+(?:\.\d+)?")


class RowFailed(Exception):
    """A directive asks for an error, or is wrong itself."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def directives_of(row: Row) -> list[list[str]]:
    if b"[[" not in row.body:
        return []  # most rows: not decoded here
    text = media_text if serves_media(row.endpoint) else last_text
    found = _DIRECTIVE.findall(text(row.endpoint, row.body))
    return [[name, *arguments.split()] for name, arguments in found if name in _NAMES]


def delay_seconds(directives: list[list[str]]) -> float:
    total = 0.0
    for directive in directives:
        match directive:
            case ["delay", seconds] if _SECONDS.fullmatch(seconds):
                total += float(seconds)
            case ["delay", *_]:
                raise RowFailed("bad_directive", "[[delay]] takes seconds")
            case ["sleep-forever"]:
                total = math.inf
    return total
