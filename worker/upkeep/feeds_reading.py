"""Reading a source: a URL through ``worker.egress``, or a folder of the operators'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin

from shared.specs.schedules import FeedSource
from worker.egress import Egress, EgressFailed, Page
from worker.upkeep.feeds import SourceRows, rows_of
from worker.upkeep.feeds_folders import read_folder
from worker.upkeep.feeds_xml import FeedRefused

MOST_REDIRECTS = 3
LONGEST_MARK = 512
"""Of an ETag or a date, to be kept."""
ACCEPT = (
    "application/rss+xml, application/atom+xml, application/feed+json, text/csv, "
    "application/jsonl, application/json;q=0.9, application/xml;q=0.9, */*;q=0.5"
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Marks:
    """What the server said of the state of its document; sent back, it may answer `unchanged`."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRead:
    """What a source has; ``found`` None: the same as when ``marks`` were given."""

    found: SourceRows | None
    marks: Marks


class SourceReader:
    """Reads sources of tenants, within bounds of bytes and time. Threads share it."""

    def __init__(self, egress: Egress, roots: Mapping[str, Path], *, max_bytes: int) -> None:
        self._egress = egress
        self._roots = roots
        self._max_bytes = max_bytes

    def read(
        self, source: FeedSource, tenant_id: str, key: Sequence[str] | None, marks: Marks
    ) -> SourceRead:
        """Raises FeedRefused."""
        if source.folder is not None:
            parts = read_folder(self._roots, source.folder, tenant_id, max_bytes=self._max_bytes)
            return SourceRead(rows_of(parts, source.format, key), Marks())
        page = self._fetch(source.url or "", marks)
        if page.status_code == HTTPStatus.NOT_MODIFIED:
            return SourceRead(None, marks)
        found = rows_of([page.body], source.format, key)
        return SourceRead(found, Marks(_mark(page, "etag"), _mark(page, "last-modified")))

    def _fetch(self, url: str, marks: Marks) -> Page:
        """Redirects are followed some times, each judged like a URL of the tenant's."""
        asked = {"If-None-Match": marks.etag, "If-Modified-Since": marks.last_modified}
        headers = {"Accept": ACCEPT} | {name: value for name, value in asked.items() if value}
        for _ in range(MOST_REDIRECTS + 1):
            try:
                page = self._egress.get(url, headers, max_bytes=self._max_bytes)
            except EgressFailed as failed:
                raise _refused(failed) from None
            location = page.headers.get("location")
            if page.status_code not in _REDIRECTS or not location:
                break
            try:
                url = urljoin(url, location)
            except ValueError:  # half of an address
                break
        if page.status_code in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED}:
            return page
        raise FeedRefused(f"http_{page.status_code}", f"the source answered {page.status_code}")


def _refused(failed: EgressFailed) -> FeedRefused:
    if failed.reason == "too_large":
        return FeedRefused("feed_too_large", "the source has more bytes than are read")
    return FeedRefused(failed.reason, f"the source could not be read: {failed.reason}")


def _mark(page: Page, name: str) -> str | None:
    """Nothing that could not be sent back as a header."""
    value = page.headers.get(name, "")
    usable = 0 < len(value) <= LONGEST_MARK and value.isascii() and value.isprintable()
    return value if usable else None
