"""What a source has, as rows: RSS, Atom and JSON feeds, CSV and lines of JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.lifecycle import BadLine
from shared.productions.tables import TableKind, TableRefused, TableRow, read_table, value_problem
from shared.specs.schedules import FeedFormat
from worker.upkeep.feeds_text import MOST_FIELD, plain
from worker.upkeep.feeds_xml import COLUMNS, MOST_CATEGORIES, MOST_ITEMS, FeedRefused, read_xml

MOST_ROWS = 100_000
MOST_SIGNS = 500_000
"""Commas and brackets of a JSON feed: values take many times their bytes of memory."""
MOST_CELLS = 1_000_000
FEED_KEY = ("id",)
"""What makes a feed's item the same as another, unless somebody says otherwise."""
_HASH_BYTES = 16
_BOM = b"\xef\xbb\xbf"

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row, and the hash of its key columns."""

    hash: bytes
    values: Values


@dataclass(slots=True)
class SourceRows:
    """What was read, in the order of the source, each row once."""

    rows: list[SourceRow] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    """The first of those that can't be used …"""
    bad_n: int = 0
    """… of so many."""


def rows_of(
    parts: Iterable[bytes],
    told: FeedFormat | None,
    key: Sequence[str] | None,
    *,
    most_named: int = 20,
) -> SourceRows:
    """The rows of one document or several. Raises FeedRefused for what is none."""
    found = SourceRows()
    known: set[bytes] = set()
    cells = 0
    for content in parts:
        kind = told or format_of(content)
        own_key = key or (None if kind in {"csv", "jsonl"} else FEED_KEY)
        for row in _read(content, kind):
            made = row if isinstance(row, BadLine) else _keyed(row, own_key)
            if isinstance(made, BadLine):
                found.bad_n += 1
                found.bad += [made][: max(0, most_named - len(found.bad))]
            elif made.hash not in known:
                known.add(made.hash)
                found.rows.append(made)
                cells += len(made.values)
            if len(found.rows) > MOST_ROWS or cells > MOST_CELLS:
                raise FeedRefused("feed_too_large", f"there are more than {MOST_ROWS} rows")
    return found


def format_of(content: bytes) -> FeedFormat:
    """By how it begins."""
    start = content.removeprefix(_BOM)[:4_096].lstrip()
    if start.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
        return "rss"
    if not start.startswith(b"{"):
        return "csv"
    first, _, rest = content.lstrip().partition(b"\n")
    one_line = first.rstrip().endswith(b"}") and b"jsonfeed.org" not in first[:4_096]
    return "jsonl" if one_line and (not rest or rest.lstrip()[:1] in {b"", b"{"}) else "json_feed"


def row_hash(values: Values, key: Sequence[str] | None) -> bytes:
    """Of the key columns, or of all. Raises KeyError for one that is not there."""
    kept = dict(sorted(values.items())) if key is None else [values[name] for name in key]
    canonical = json.dumps(kept, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(canonical.encode(), digest_size=_HASH_BYTES).digest()


def _keyed(values: Values, key: Sequence[str] | None) -> SourceRow | BadLine:
    try:
        if key == FEED_KEY and not values.get("id"):
            key = None  # an item without an id or link is what it says
        return SourceRow(row_hash(values, key), values)
    except KeyError as error:
        return BadLine("missing_key", f"the row has no column {error}"[:300])


def _read(content: bytes, kind: FeedFormat) -> Iterator[Values | BadLine]:
    """Raises FeedRefused."""
    if kind in {"rss", "atom"}:
        yield from read_xml(content)
    elif kind == "json_feed":
        yield from _read_json_feed(content)
    else:
        yield from _read_table(content, TableKind(kind))


def _read_table(content: bytes, kind: TableKind) -> Iterator[Values | BadLine]:
    try:
        table = read_table(iter((content,)), kind)
    except TableRefused as refused:
        if refused.bad.code == "empty_file":
            return
        raise FeedRefused("feed_invalid", refused.bad.message) from None
    for row in table.rows:
        yield row.values if isinstance(row, TableRow) else row


def _read_json_feed(content: bytes) -> Iterator[Values | BadLine]:
    if sum(map(content.count, (b",", b"[", b"{"))) > MOST_SIGNS:
        raise FeedRefused("feed_too_large", "the JSON feed has too many values")
    try:
        document = json.loads(content.removeprefix(_BOM).decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise FeedRefused("feed_invalid", "the feed is no JSON in UTF-8") from None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise FeedRefused("feed_invalid", "the JSON has no list 'items': it is no JSON feed")
    if len(items) > MOST_ITEMS:
        raise FeedRefused("feed_too_large", f"the feed has more than {MOST_ITEMS} items")
    for number, item in enumerate(items, 1):
        row = _item(item) if isinstance(item, dict) else None
        problem = None if row is None else value_problem(row)
        if row is None or problem is not None:
            yield BadLine("invalid_row", f"item {number} can't be used: {problem or 'no object'}")
        else:
            yield row


def _item(item: Values) -> Values:
    """With the columns that feeds have in XML."""
    authors = item.get("authors")
    author = authors[0] if isinstance(authors, list) and authors else item.get("author")
    tags = item.get("tags")
    content = item.get("content_text") or item.get("content_html")
    found = {
        "id": item.get("id") or item.get("url"),
        "title": plain(_text(item.get("title"))),
        "link": item.get("url") or item.get("external_url"),
        "author": author.get("name") if isinstance(author, dict) else None,
        "published": item.get("date_published") or item.get("date_modified"),
        "summary": plain(_text(item.get("summary"))),
        "content": plain(_text(content)),
        "categories": ", ".join(map(_text, tags[:MOST_CATEGORIES]))
        if isinstance(tags, list)
        else "",
    }
    return {name: _text(found[name]) for name in COLUMNS}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value[:MOST_FIELD].strip()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value)[:100] if is_number else ""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
