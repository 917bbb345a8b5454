"""What the API reads: malformed input is a 400 that names the field, never a crash."""

from __future__ import annotations

import io

import pytest
from flask import Request

from api import parsing
from api.errors import InvalidFields
from api.requests import JobRequest
from shared.errors import InvalidRequest, NotFound, PayloadTooLarge


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe",
        b'\xef\xbb\xbf{"a": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"1" * 5_000,
        b'"\x00"',
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_not_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parsing.decode_json(data)


def posted(data: bytes) -> Request:
    return Request({
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    })  # fmt: skip


@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_only_data_urls_may_make_a_body_longer_than_others(slash: str) -> None:
    """What is made of ``[[],[],…`` takes thirty times its length, and long to be made."""
    url = f"data:image/png;base64,iVB{slash}" + "A" * 5_000 + "=="
    body = f'{{"image": "{url}", "mask": {{"image_url": "{url}"}}}}'.encode()
    read = parsing.json_body(posted(body), max_bytes=20_000, besides=200)
    assert len(read["image"]) == len(read["mask"]["image_url"]) > 5_000
    many = b'{"image": [' + b"[]," * 100 + b"[]]}"
    for other in (many, b'{"prompt": "' + b"A" * 300 + b'"}', body[:-1] + b', "x": ' + many + b"}"):
        with pytest.raises(PayloadTooLarge, match="beside data: URLs"):
            parsing.json_body(posted(other), max_bytes=20_000, besides=200)
    # Quotes and brackets never count as a URL's.
    hidden = b'{"x": "data:image/png;base64,AAAA", "y": [' + b'"",' * 100 + b'"data:"]}'
    with pytest.raises(PayloadTooLarge, match="beside data: URLs"):
        parsing.json_body(posted(hidden), max_bytes=20_000, besides=200)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_too_large_with_or_without_a_length(announced: bool) -> None:
    """Without one, as chunks arrive, it must not be cut at the limit and taken for the whole."""

    def body_of(data: bytes) -> Request:
        environ = {
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": "application/json",
            "wsgi.input": io.BytesIO(data),
            "wsgi.input_terminated": True,
        }
        return Request(environ | ({"CONTENT_LENGTH": str(len(data))} if announced else {}))

    assert parsing.json_body(body_of(b"{}" + b" " * 98), max_bytes=100) == {}
    for size in (99, 100, 10_000, 1_000_000):
        with pytest.raises(PayloadTooLarge):
            parsing.json_body(body_of(b"{}" + b" " * size), max_bytes=100)


def test_a_message_about_broken_json_shows_nothing_of_it() -> None:
    with pytest.raises(InvalidRequest) as raised:
        parsing.decode_json(b'{"secret word": oops}')
    assert "secret" not in raised.value.message
    assert "oops" not in raised.value.message


def test_canonical_json_ignores_how_it_was_written() -> None:
    one = parsing.decode_json(b'{"b": 1, "a": {"d": [1, 2], "c": null}}')
    other = parsing.decode_json(b'{"a":{"c":null,"d":[1,2]},"b":1}')
    assert parsing.canonical(one) == parsing.canonical(other)
    assert parsing.canonical(one) != parsing.canonical({"b": 1})


def test_every_field_at_fault_is_listed() -> None:
    with pytest.raises(InvalidFields) as raised:
        parsing.validate(JobRequest, {"endpoint": 3, "priority": 10, "colour": "purple"})
    assert {param for param, _ in raised.value.fields} == {
        "endpoint",
        "body",
        "priority",
        "colour",
    }
    assert all("purple" not in message for _, message in raised.value.fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata", {str(number): "x" for number in range(17)}),
        ("metadata", {"k" * 65: "x"}),
        ("metadata", {"k": "v" * 513}),
        ("metadata", {"k": 1}),
        ("metadata", []),
        ("metadata", {"k": "\ud800"}),
        ("priority", -1),
        ("priority", 1.5),
        ("priority", True),
        ("priority", "1"),
        ("expires_in_seconds", 0),
        ("expires_in_seconds", 30 * 86_400 + 1),
        ("expires_in_seconds", True),
        ("expires_in_seconds", "60"),
        ("endpoint", "\ud800"),
        ("body", []),
    ],
)
def test_a_bad_value_names_its_field(field: str, value: object) -> None:
    good = {"endpoint": "/v1/completions", "body": {}}
    with pytest.raises(InvalidFields) as raised:
        parsing.validate(JobRequest, good | {field: value})
    assert (raised.value.param or "").startswith(field)


@pytest.mark.parametrize("document", [None, [], "text", 3, True])
def test_a_body_has_to_be_an_object(document: object) -> None:
    with pytest.raises(InvalidRequest):
        parsing.validate(JobRequest, document)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m", 60), ("30m", 1_800), ("24h", 86_400), ("7d", 604_800), ("30d", 2_592_000)],
)
def test_completion_windows(text: str, seconds: int) -> None:
    assert parsing.window_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0h", "31d", "24", "h", "1.5h", "-1h", "24H", "24h ", "٢h", "999999d"]
)
def test_a_completion_window_out_of_reason_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parsing.window_seconds(text)
    assert raised.value.param == "completion_window"


@pytest.mark.parametrize("value", ["", "a b", "a\0b", "ü", "x" * 65, "../etc", "a/b", "a\n"])
def test_what_cannot_be_an_id_does_not_exist(value: str) -> None:
    with pytest.raises(NotFound):
        parsing.one_id(value, "job")
