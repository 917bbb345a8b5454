"""The files of ``pressrun augment``: examples in, a template made of options, training rows out."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from pressrun.exit_codes import CommandError, ExitCode

CLASSIFICATION = "classification"
METADATA = "metadata"
LONGEST_LINE = 4 * 2**20


def form_of(examples: Path) -> str:
    """The form of a task ``augment``, by the first example. Raises CommandError (USAGE)."""
    if examples.suffix.lower() == ".csv":
        return CLASSIFICATION
    first = next((row for _, row in _objects(examples)), None)
    if first is None:
        raise CommandError(f"{examples} has no examples", ExitCode.USAGE)
    if "label" in first:
        return CLASSIFICATION
    if "messages" in first or "prompt" in first:
        return "chat"
    if "text" in first:
        return "text"
    message = "an example has 'text' and 'label', 'messages', 'prompt' and 'completion', or 'text'"
    raise CommandError(f"{examples}: {message}", ExitCode.USAGE)


def template_of(
    task: dict[str, Any],
    labels: str | None,
    *,
    similar: float | None,
    retries: int | None,
    sampling: dict[str, Any],
) -> str:
    """The template of a production. Raises CommandError (USAGE) for labels that can't be read, or
    unless they or ``task`` say how many rows."""
    asked = _labels(labels)
    if (task.get("rows") is None) != isinstance(asked.get("labels"), dict):
        message = "say how many rows: --rows, or --labels with a number for each (sport=50,food=9)"
        raise CommandError(message, ExitCode.USAGE)
    head: dict[str, Any] = {"task": {"name": "augment", **_given(task), **asked}}
    if similar is not None:
        head["gates"] = {"near_duplicates": similar}
    if retries is not None:
        head["retries"] = retries
    if _given(sampling):
        head["sampling"] = _given(sampling)
    # JSON on one line is YAML, and quotes whatever needs it.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    return "\n".join(["---", *lines, "---", ""])


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _labels(asked: str | None) -> dict[str, Any]:
    if asked is None:
        return {}
    parts = [part.strip() for part in next(csv.reader([asked])) if part.strip()]
    if not any("=" in part for part in parts):
        return {"labels": parts}
    counts: dict[str, int] = {}
    for part in parts:
        label, _, count = part.rpartition("=")
        if not label.strip() or not count.strip().isdecimal():
            message = f"--labels: '{part}' is no label=number; give each label its number, or none"
            raise CommandError(message, ExitCode.USAGE)
        counts[label.strip()] = int(count)
    return {"labels": counts}


@dataclass(frozen=True, slots=True)
class Shares:
    """``held_out`` is the share of each label that goes to a second file."""

    held_out: float = 0.0
    with_examples: bool = False
    sidecar: bool = False


class Parts:
    """The files that are written, beside ``output``. Raises CommandError (USAGE) for a place where
    they can't be."""

    def __init__(self, output: Path, shares: Shares) -> None:
        if output.suffix.lower() != ".jsonl":
            raise CommandError("--output ends with .jsonl", ExitCode.USAGE)
        if not output.parent.is_dir():
            raise CommandError(f"there is no folder {output.parent}", ExitCode.USAGE)
        self._shares = shares
        self.train = output
        self.held_out = output.with_suffix(".held-out.jsonl")
        self.provenance = output.with_suffix(".provenance.jsonl")

    def spare(self, examples: Path) -> None:
        """Raises CommandError (USAGE) if the examples would be written over."""
        if examples.resolve() in {
            each.resolve() for each in (self.train, self.held_out, self.provenance)
        }:
            raise CommandError(
                f"{examples} would be written over: it has the examples", ExitCode.USAGE
            )

    def write(self, rows: Path, examples: Path) -> dict[Path, int]:
        """Parts the rows of a production; returns how many each file has. Raises OSError."""
        share = self._shares.held_out
        paths = [self.train, *([self.held_out] if share else [])]
        paths += [self.provenance] if self._shares.sidecar else []
        written = dict.fromkeys(paths, 0)
        with ExitStack() as stack:
            files: dict[Path, IO[bytes]] = {
                path: stack.enter_context(path.open("wb")) for path in paths
            }
            for path, row in self._parted(rows, examples):
                written[path] += 1
                self._put(files, path, row, written)
        return written

    def _parted(self, rows: Path, examples: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Examples are never held out: what was made of them would know them."""
        seen: Counter[Any] = Counter()
        if self._shares.with_examples:
            for line, row in _examples(examples):
                about = {"synthetic": False, "example_line": line}
                yield self.train, row | {METADATA: about}
        for _, row in _objects(rows):
            label, share = row.get("label"), self._shares.held_out
            before = _whole(seen[label] * share)
            seen[label] += 1
            is_held_out = _whole(seen[label] * share) > before
            yield (self.held_out if is_held_out else self.train), row

    def _put(
        self,
        files: dict[Path, IO[bytes]],
        path: Path,
        row: dict[str, Any],
        written: dict[Path, int],
    ) -> None:
        about = row.get(METADATA)
        if self._shares.sidecar:
            row = {name: value for name, value in row.items() if name != METADATA}
            place = {"file": path.name, "line": written[path]}
            files[self.provenance].write(_line(place | (about or {})))
            written[self.provenance] += 1
        files[path].write(_line(row))


def _whole(value: float) -> int:
    """29 of 100 × 0.29, which is a little less in floating point."""
    return int(value + 1e-9)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _examples(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As lines of JSON; a table's columns are ``text`` and ``label``."""
    if path.suffix.lower() != ".csv":
        yield from _objects(path)
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        dialect = max(",;\t", key=head.count)
        rows = csv.DictReader(chain(io.StringIO(head, newline=""), file), delimiter=dialect)
        before = 1  # the header
        for row in rows:
            yield before + 1, {name: row[name] for name in ("text", "label")}
            before = rows.line_num


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL with their lines, from 1. Raises CommandError (USAGE)."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                if line.strip():
                    yield number, _object(path, number, line)
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.USAGE) from None


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandError(f"{path}: line {number} is no JSON object", ExitCode.USAGE)
    return found
