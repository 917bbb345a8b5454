"""RSS and Atom of strangers, read by expat event by event, within limits.

A document with a declaration of types (``<!DOCTYPE``) is refused as soon as it says so: entities,
which can grow without end or name files and hosts, are declared nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from xml.parsers import expat

from worker.upkeep.feeds_text import MOST_FIELD, plain

MOST_DEPTH = 64
MOST_ITEMS = 20_000
MOST_NODES = 1_000_000
MOST_CATEGORIES = 64
MOST_NAMESPACE = 1_000
"""Characters: expat writes it out in front of each name that it is of."""

ATOM = "http://www.w3.org/2005/Atom"
RSS_1 = "http://purl.org/rss/1.0/"
CONTENT = "http://purl.org/rss/1.0/modules/content/"
DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"

COLUMNS = ("id", "title", "link", "author", "published", "summary", "content", "categories")
"""Of a feed's rows; each is there, if only as an empty text."""

Kind = Literal["rss", "atom"]

_RSS = {
    "guid": "id",
    "title": "title",
    "link": "link",
    "author": "author",
    f"{DUBLIN_CORE} creator": "author",
    "pubDate": "published",
    f"{DUBLIN_CORE} date": "published",
    "description": "summary",
    f"{CONTENT} encoded": "content",
    "category": "categories",
    f"{DUBLIN_CORE} subject": "categories",
}
_RSS_1 = {f"{RSS_1} {name}": _RSS[name] for name in ("title", "link", "description")}
_ATOM = {
    f"{ATOM} id": "id",
    f"{ATOM} title": "title",
    f"{ATOM} published": "published",
    f"{ATOM} updated": "updated",
    f"{ATOM} summary": "summary",
    f"{ATOM} content": "content",
}
_ITEMS: dict[str, Kind] = {"item": "rss", f"{RSS_1} item": "rss", f"{ATOM} entry": "atom"}
_ROOTS = {"rss", f"{RDF} RDF", f"{ATOM} feed"}


class FeedRefused(Exception):
    """What came is no feed, or more than is read; the message is for the tenant."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class _Reader:
    parser: expat.XMLParserType
    rows: list[dict[str, str]] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    item: dict[str, str] | None = None
    item_depth: int = 0
    column: str | None = None
    column_depth: int = 0
    text: list[str] = field(default_factory=list)
    size: int = 0
    nodes: int = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES or len(self.path) >= MOST_DEPTH:
            raise FeedRefused("feed_too_large", "the feed has too many elements, or too deep ones")
        if not self.path and name not in _ROOTS:
            raise FeedRefused("feed_invalid", "this XML is neither RSS nor Atom")
        self.path.append(name)
        if self.item is None:
            self._maybe_item(name, attributes)
        elif self.column is None:
            self._maybe_column(name, attributes)

    def _maybe_item(self, name: str, attributes: dict[str, str]) -> None:
        if name not in _ITEMS:
            return
        if len(self.rows) >= MOST_ITEMS:
            raise FeedRefused("feed_too_large", f"the feed has more than {MOST_ITEMS} items")
        self.item = dict.fromkeys((*COLUMNS, "updated"), "")
        self.item["id"] = attributes.get(f"{RDF} about", "")
        self.item_depth = len(self.path)

    def _maybe_column(self, name: str, attributes: dict[str, str]) -> None:
        if self.item is None:
            return
        deep = len(self.path) - self.item_depth
        if deep == 1 and name == f"{ATOM} link":
            if attributes.get("rel", "alternate") == "alternate":
                self._keep("link", attributes.get("href", ""))
            return
        if deep == 1 and name == f"{ATOM} category":
            self._keep("categories", attributes.get("label") or attributes.get("term", ""))
            return
        columns = {**_RSS, **_RSS_1, **_ATOM} if deep == 1 else {}
        author = name == f"{ATOM} name" and self.path[-2] == f"{ATOM} author"
        self.column = "author" if author else columns.get(name)
        if self.column is not None:
            self.column_depth, self.text, self.size = len(self.path), [], 0

    def data(self, text: str) -> None:
        if self.column is not None and self.size < MOST_FIELD:
            self.text.append(text)
            self.size += len(text)

    def end(self, name: str) -> None:
        if self.column is not None and len(self.path) == self.column_depth:
            self._keep(self.column, "".join(self.text))
            self.column = None
        elif self.item is not None and len(self.path) == self.item_depth:
            self._finish(self.item)
            self.item = None
        self.path.pop()

    def _keep(self, column: str, text: str) -> None:
        """The first of a kind is kept; categories are all."""
        if self.item is None:
            return
        text = text.strip()[:MOST_FIELD]
        if column in {"title", "summary", "content"}:
            text = plain(text)
        there = self.item[column]
        if column == "categories" and there:
            if text and there.count(", ") < MOST_CATEGORIES:
                self.item[column] = f"{there}, {text[:200]}"
        elif not there:
            self.item[column] = text

    def _finish(self, item: dict[str, str]) -> None:
        item["published"] = item["published"] or item["updated"]
        item["id"] = item["id"] or item["link"]
        del item["updated"]
        self.rows.append(item)

    def namespace(self, _prefix: str | None, uri: str | None) -> None:
        if uri is not None and len(uri) > MOST_NAMESPACE:
            raise FeedRefused("feed_invalid", "the XML has a namespace that is too long")

    def doctype(self, *_: object) -> None:
        raise FeedRefused("feed_invalid", "XML with a document type declaration is not read")


def read_xml(content: bytes) -> list[dict[str, str]]:
    """Its items, each with ``COLUMNS``. Raises FeedRefused."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    reader = _Reader(parser)
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.data
    parser.StartNamespaceDeclHandler = reader.namespace
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.EntityDeclHandler = reader.doctype
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise FeedRefused("feed_invalid", f"the XML can't be read: {error}"[:300]) from None
    except (LookupError, UnicodeError, ValueError):
        raise FeedRefused("feed_invalid", "the XML's encoding is not known") from None
    return reader.rows
