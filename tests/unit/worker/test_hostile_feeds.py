"""Feeds that are written to keep a reader busy, or to make it fall over, are refused or read."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from shared.specs.schedules import FeedSource
from worker.egress import Egress, Page
from worker.upkeep.feeds_reading import Marks, SourceReader
from worker.upkeep.feeds_text import MOST_FIELD, plain
from worker.upkeep.feeds_xml import FeedRefused, read_xml

CPU_SECONDS = 20.0
"""Each of these takes a fraction of one, or minutes where the time grows with the square."""


@pytest.mark.parametrize(
    "piece", ["<a ", "<!--", "<a<a", "<", "</a ", "<?", "<![", "&#", "<script>"]
)
def test_the_words_of_broken_html_take_linear_time(piece: str) -> None:
    began = time.thread_time()
    plain("<b>" + piece * (MOST_FIELD // len(piece)))
    assert time.thread_time() - began < CPU_SECONDS


def test_a_namespace_is_not_written_out_a_thousand_times() -> None:
    uri = b"u" * 1_000_000
    for document in (
        b'<rss><channel xmlns="%s">%s</channel></rss>' % (uri, b"<a/>" * 20_000),
        b'<rss xmlns:a="%s"><channel>%s</channel></rss>' % (uri, b'<b a:x=""/>' * 20_000),
    ):
        with pytest.raises(FeedRefused) as refused:
            read_xml(document)
        assert refused.value.code == "feed_invalid"


class Redirecting(Egress):
    """A server that sends everybody elsewhere."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self._location = location

    def get(self, url: str, headers: Mapping[str, str], *, max_bytes: int) -> Page:
        return Page(302, {"location": self._location}, b"")


@pytest.mark.parametrize("location", ["http://[", "//[x]", "http://[::1", "/\x00", "https://a b"])
def test_a_redirect_to_half_an_address_is_the_end_of_it(location: str) -> None:
    source = FeedSource(url="https://example.com/feed")
    reader = SourceReader(Redirecting(location), {}, max_bytes=1_000)
    with pytest.raises(FeedRefused) as refused:
        reader.read(source, "ten_a", None, Marks())
    assert refused.value.code == "http_302"
