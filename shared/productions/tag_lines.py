"""Lines that have nothing but tags leave no line behind, and all others keep their end.

Jinja's own ``trim_blocks`` also takes the line break after a tag that ends a line of text.
"""

from __future__ import annotations

import re

_OPENING = re.compile(r"\{[{%#]")
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}
_RAW = re.compile(r"\{%[-+]?\s{0,20}raw\s{0,20}-?%\}")
_END_RAW = re.compile(r"\{%[-+]?\s{0,20}endraw\s{0,20}[-+]?%\}")
_REST = re.compile(r"[ \t]*\n")
_SWALLOWED = "{#\n#}"
"""A comment: the line breaks stay in the source, so that errors have the right line."""


def without_tag_lines(source: str) -> str:
    """The same text, with the ends of such lines in comments. Takes linear time."""
    made: list[str] = []
    at, bare = 0, True  # bare: so far the line has tags and space alone
    while opening := _OPENING.search(source, at):
        between = source[at : opening.start()]
        before, newline, on_line = between.rpartition("\n")
        bare = not on_line.strip(" \t") and (bool(newline) or bare)
        end = _end(source, opening)
        if end is None:
            break  # Jinja says what is wrong with it
        rest = _REST.match(source, end)
        bare = bare and opening[0] != "{{"
        if bare and rest is not None and source[end - 3] != "-":  # -%} takes all that follows
            made += [before, newline, source[opening.start() : end], _SWALLOWED]
            at = rest.end()
        else:
            made += [between, source[opening.start() : end]]
            at = end
    return "".join(made) + source[at:]


def _end(source: str, opening: re.Match[str]) -> int | None:
    """Just behind the tag; of ``raw``, behind all that it makes plain text."""
    raw = _RAW.match(source, opening.start())
    if raw is not None:
        end_raw = _END_RAW.search(source, raw.end())
        return None if end_raw is None else end_raw.end()
    closing = source.find(_CLOSING[opening[0]], opening.end())
    return None if closing < 0 else closing + 2
