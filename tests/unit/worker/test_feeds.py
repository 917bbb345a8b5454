"""Feeds of strangers: their rows, and the ways in which they are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from worker.upkeep.feeds import format_of, row_hash, rows_of
from worker.upkeep.feeds_folders import read_folder
from worker.upkeep.feeds_text import MOST_FIELD, plain
from worker.upkeep.feeds_xml import COLUMNS, MOST_DEPTH, FeedRefused, read_xml

RSS = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<rss version="2.0" xmlns:dc="http://purl.org/dc/elements/1.1/"
     xmlns:content="http://purl.org/rss/1.0/modules/content/">
 <channel><title>The channel</title><link>https://example.com/</link>
  <item>
   <title>Caf\xe9 &amp; bar</title><link> https://example.com/1 </link>
   <guid isPermaLink="false">g1</guid><dc:creator>Ada</dc:creator>
   <pubDate>Mon, 02 Mar 2026 10:00:00 GMT</pubDate>
   <category>food</category><category>drink</category>
   <description>&lt;p&gt;Good &lt;b&gt;coffee&lt;/b&gt;&lt;/p&gt;
    &lt;script&gt;x()&lt;/script&gt;</description>
   <content:encoded><![CDATA[<p>All of it.</p><p>More.</p>]]></content:encoded>
  </item>
  <item><link>https://example.com/2</link></item>
 </channel></rss>"""
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><title>F</title>
 <entry><id>urn:1</id><title type="html">A &amp;lt; B</title><updated>2026-03-02T10:00:00Z</updated>
  <link rel="self" href="https://example.com/self"/><link href="https://example.com/1"/>
  <author><name>Ada</name><uri>https://example.com/ada</uri></author><category term="x" label="X"/>
  <summary>Short</summary><content type="xhtml"><div><p>in parts</p></div></content>
 </entry></feed>"""
BOMB = b"""<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">%s]>
<rss version="2.0"><channel><item><title>&z;</title></item></channel></rss>""" % b"".join(
    b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10)
    for letter in range(ord("b"), ord("z") + 1)
)
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<rss version="2.0"><channel><item><title>&x;</title></item></channel></rss>"""
PARAMETER = b"""<!DOCTYPE r SYSTEM "http://127.0.0.1:9/x.dtd"><rss version="2.0"></rss>"""


def values(content: bytes, **more: Any) -> list[dict[str, Any]]:
    return [row.values for row in rows_of([content], more.pop("told", None), more.pop("key", None))
            .rows]  # fmt: skip


def test_rss() -> None:
    first, second = read_xml(RSS)
    assert first == {
        "id": "g1", "title": "Caf\xe9 & bar", "link": "https://example.com/1", "author": "Ada",
        "published": "Mon, 02 Mar 2026 10:00:00 GMT", "summary": "Good coffee",
        "content": "All of it.\nMore.", "categories": "food, drink",
    }  # fmt: skip
    assert tuple(first) == COLUMNS
    assert (second["id"], second["title"]) == ("https://example.com/2", "")


def test_atom() -> None:
    (entry,) = read_xml(ATOM)
    assert entry == {
        "id": "urn:1", "title": "A < B", "link": "https://example.com/1", "author": "Ada",
        "published": "2026-03-02T10:00:00Z", "summary": "Short", "content": "in parts",
        "categories": "X",
    }  # fmt: skip


def test_json_feed() -> None:
    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "items": [
            {"id": 7, "title": "T", "content_html": "<p>x</p>", "tags": ["a", "b"],
             "authors": [{"name": "Ada"}], "url": "https://example.com/7"},
            {"id": "8", "title": "bad \ud800"},
            "no object",
        ],
    }  # fmt: skip
    found = rows_of([json.dumps(feed).encode()], None, None)
    assert [row.values["id"] for row in found.rows] == ["7"]
    assert found.rows[0].values["content"] == "x"
    assert found.rows[0].values["categories"] == "a, b"
    assert (found.bad_n, [bad.code for bad in found.bad]) == (2, ["invalid_row"] * 2)


@pytest.mark.parametrize("content", [BOMB, OUTSIDE, PARAMETER])
def test_declarations_of_types_are_refused(content: bytes) -> None:
    with pytest.raises(FeedRefused, match="document type"):
        read_xml(content)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<html></html>", "feed_invalid"),
        (b"<rss><channel>", "feed_invalid"),
        (b"", "feed_invalid"),
        (b'<?xml version="1.0" encoding="ebcdic-x"?><rss/>', "feed_invalid"),
        (b"<rss>" + b"<a>" * (MOST_DEPTH + 1), "feed_too_large"),
        (b"<rss><item><title>&nbsp;</title></item></rss>", "feed_invalid"),
    ],
)
def test_xml_that_is_no_feed(content: bytes, code: str) -> None:
    with pytest.raises(FeedRefused) as refused:
        read_xml(content)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("content", "told", "code"),
    [
        (b"[" * 100_000, "json_feed", "feed_invalid"),
        (b'{"items":[' + b"[]," * 500_000 + b"[]]}", "json_feed", "feed_too_large"),
        (b'{"items": 7}', "json_feed", "feed_invalid"),
        (b'{"items": [NaN]}', "json_feed", "feed_invalid"),
        (b"\xff\xfe", "json_feed", "feed_invalid"),
        (b"a,a\n1,2\n", "csv", "feed_invalid"),
    ],
)
def test_what_is_none_of_it(content: bytes, told: Any, code: str) -> None:
    with pytest.raises(FeedRefused) as refused:
        rows_of([content], told, None)
    assert refused.value.code == code


def test_formats_tell_themselves() -> None:
    assert format_of(RSS) == format_of(b"\xef\xbb\xbf\n" + ATOM) == "rss"
    assert format_of(b'{"version":"https://jsonfeed.org/version/1.1","items":[]}') == "json_feed"
    assert format_of(b'{\n "items": []}') == "json_feed"
    assert format_of(b'{"a":1}\n{"a":2}\n') == format_of(b'{"a":1}') == "jsonl"
    assert format_of(b"a,b\n1,2\n") == "csv"
    assert values(b"") == []


def test_a_row_is_known_by_its_key() -> None:
    table = b"sku,price\n1,2\n1,3\n2,2\n1,2\n"
    assert [row["price"] for row in values(table)] == ["2", "3", "2"]
    assert [row["price"] for row in values(table, key=["sku"])] == ["2", "2"]
    assert row_hash({"a": 1, "b": 2}, None) == row_hash({"b": 2, "a": 1}, None)
    assert row_hash({"a": "1"}, ["a"]) != row_hash({"a": 1}, ["a"])
    missing = rows_of([table], None, ["ean"])
    assert (missing.rows, missing.bad_n, missing.bad[0].code) == ([], 4, "missing_key")


def test_the_words_of_html() -> None:
    assert plain("a < b and c > d") == "a < b and c > d"
    assert plain("<style>p{}</style>x &amp; y<br/>z") == "x & y\nz"
    assert len(read_xml(b"<rss><item><title>%s</title></item></rss>" % (b"x" * 300_000))[0][
        "title"]) <= MOST_FIELD  # fmt: skip


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture(name="roots")
def roots_fixture(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "drop" / "mine" / "a").mkdir(parents=True)
    (tmp_path / "drop" / "theirs").mkdir()
    (tmp_path / "drop" / "theirs" / "secret.csv").write_bytes(b"secret")
    (tmp_path / "outside.csv").write_bytes(b"outside")
    return {"drop": tmp_path / "drop"}


def read(roots: dict[str, Path], folder: str, most: int = 1000) -> list[bytes]:
    return list(read_folder(roots, folder, "mine", max_bytes=most))


def test_files_come_by_name_and_nothing_else_does(roots: dict[str, Path]) -> None:
    folder = roots["drop"] / "mine" / "a"
    for name in ("2.csv", "1.jsonl", ".hidden.csv", "picture.png", "3.part"):
        (folder / name).write_bytes(name.encode())
    (folder / "4.csv").mkdir()
    os.mkfifo(folder / "5.csv")
    (folder / "6.csv").symlink_to(roots["drop"] / "theirs" / "secret.csv")
    (folder / "7.csv").symlink_to("/etc/passwd")
    assert [content for content in read(roots, "drop/a") if content] == [b"1.jsonl", b"2.csv"]


@pytest.mark.parametrize(
    "folder", ["drop/link", "drop/nothing", "other/a", "drop/../theirs", "drop//a"]
)
def test_no_way_leads_out(roots: dict[str, Path], folder: str) -> None:
    (roots["drop"] / "mine" / "link").symlink_to(roots["drop"] / "theirs")
    with pytest.raises(FeedRefused) as refused:
        read(roots, folder)
    assert refused.value.code == "folder_not_found"


def test_a_folder_of_a_tenant_that_is_a_link_is_refused(roots: dict[str, Path]) -> None:
    (roots["drop"] / "mine").rename(roots["drop"] / "was")
    (roots["drop"] / "mine").symlink_to(roots["drop"] / "theirs")
    with pytest.raises(FeedRefused):
        read(roots, "drop")


def test_all_files_together_are_bounded(roots: dict[str, Path]) -> None:
    for name in ("1.csv", "2.csv"):
        (roots["drop"] / "mine" / "a" / name).write_bytes(b"x" * 600)
    with pytest.raises(FeedRefused) as refused:
        read(roots, "drop/a")
    assert refused.value.code == "feed_too_large"
