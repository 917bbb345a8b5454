"""The YAML between the ``---`` lines of a template: a small, plain part of YAML.

No anchors, no tags, no keys given twice; numbers, ``true``, ``false`` and ``null`` as in JSON, so
that ``no``, ``on``, ``12:30`` and ``2026-01-01`` are the words that they look like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shared.errors import InvalidRequest

MOST_DEPTH = 32
MOST_VALUES = 20_000

Path = tuple[str | int, ...]

_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True, slots=True)
class Head:
    """``lines`` has the line of the file for the path of every value."""

    values: dict[str, Any]
    lines: dict[Path, int]
    body: str
    body_line: int
    """Of the file, the body's first."""

    def line_of(self, path: Path) -> int:
        """Of the value at ``path``, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_head(text: str) -> Head:
    """Takes a template apart. Raises InvalidRequest with the line."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != "---":
        return Head({}, {}, "\n".join(lines), 1)
    for at in range(1, len(lines)):
        if lines[at].rstrip() == "---":
            reader = _Reader()
            values = reader.read("\n".join(lines[1:at]) + "\n")
            return Head(values, reader.lines, "\n".join(lines[at + 1 :]), at + 2)
    raise refused(1, "the head begins with '---' and has no second '---' line that ends it")


def refused(line: int, message: str, param: str = "template") -> InvalidRequest:
    """The error for a line of the template's file."""
    return InvalidRequest(f"line {line}: {message}", param=param)


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


@dataclass(slots=True)
class _Reader:
    """Builds values of YAML's events, so that nothing is ever built that was not looked at."""

    lines: dict[Path, int] = field(default_factory=dict)
    _open: list[_Open] = field(default_factory=list)
    _root: Any = None

    def read(self, text: str) -> dict[str, Any]:
        import yaml

        try:
            for event in _events(text):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 2 if error.problem_mark else 2
            raise refused(line, f"the head is not valid YAML: {error.problem}") from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            what = getattr(error, "reason", "it is nested too deeply")
            raise refused(2, f"the head is not valid YAML: {what}") from None
        if self._root is None:
            return {}
        if not isinstance(self._root, dict):
            raise refused(2, "the head must be keys with values, such as 'n: 3'")
        return self._root

    def _take(self, event: Any) -> None:
        import yaml

        line = event.start_mark.line + 2
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise refused(line, "anchors and aliases (& and *) are not taken; quote the text")
        if isinstance(event, yaml.DocumentStartEvent) and self.lines:
            raise refused(line, "the head is one document")
        if getattr(event, "tag", None) is not None:
            raise refused(line, "tags (!) are not taken; quote the text")
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin({}, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin([], line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()

    def _scalar(self, event: Any, line: int) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            if event.value in top.value:
                raise refused(line, f"the key '{event.value[:80]}' is there twice")
            top.key = event.value
            self.lines[(*top.path, event.value)] = line
            return
        plain = event.style is None or event.style == ""
        self._put(_resolved(event.value) if plain else event.value, line)

    def _begin(self, value: dict[str, Any] | list[Any], line: int) -> None:
        if len(self._open) >= MOST_DEPTH:
            raise refused(line, f"the head is nested more than {MOST_DEPTH} deep")
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise refused(line, "a key must be a word")
        path = self._put(value, line)
        self._open.append(_Open(value, path))

    def _put(self, value: Any, line: int) -> Path:
        if len(self.lines) >= MOST_VALUES:
            raise refused(line, f"the head has more than {MOST_VALUES} values")
        if not self._open:
            self._root = value
            self.lines[()] = line
            return ()
        top = self._open[-1]
        path: Path
        if isinstance(top.value, dict):
            path = (*top.path, top.key or "")
            top.value[top.key or ""] = value
            top.key = None
        else:
            path = (*top.path, len(top.value))
            top.value.append(value)
            self.lines[path] = line
        return path


def _events(text: str) -> Iterator[Any]:
    """libyaml where PyYAML was built with it: it is faster, and nests without recursion."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from yaml.parse(text, Loader=loader)


def _resolved(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    if _NUMBER.fullmatch(word):
        return int(word)
    if _FLOAT.fullmatch(word):
        return float(word)
    return word
