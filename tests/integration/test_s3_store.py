"""What every store promises, on a real S3 server and on a directory; then S3's own troubles."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from botocore.retries.standard import ExponentialBackoff

from shared.errors import NotFound, StorageFull, StorageUnavailable
from shared.storage import s3, s3_reading
from shared.storage.base import PART_BYTES, Store
from shared.storage.downloads import disposition
from shared.storage.keys import InvalidKey
from shared.storage.local import LocalStore
from shared.storage.s3 import S3Store
from tests.services.swift import S3Bucket
from tests.services.tcp_proxy import TcpProxy

MEDIA = "application/jsonl"
LONG = bytes(itertools.islice(itertools.cycle(range(251)), 2 * PART_BYTES + 12_345))


def open_bucket(found: S3Bucket, **changes: Any) -> S3Store:
    """The test's bucket, as ``open_store`` would open it."""
    settings: dict[str, Any] = {
        "bucket": found.name,
        "endpoint": found.endpoint_url,
        "region": found.region,
        "access_key": found.access_key,
        "secret_key": found.secret_key,
    }
    return S3Store(**(settings | changes))


@pytest.fixture(params=["s3", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store", "0123456789abcdef")
    return open_bucket(request.getfixturevalue("s3_bucket"))


@pytest.fixture
def s3_store(s3_bucket: S3Bucket) -> S3Store:
    return open_bucket(s3_bucket)


# --- every store --------------------------------------------------------------------------------


def test_keys_below_a_folder_are_listed_and_removed_together(store: Store) -> None:
    keys = [f"t/1/j/{n}" for n in range(5)]
    for key in [*keys, "t/10/j/0"]:
        store.put_bytes(key, b"x", media_type=MEDIA)
    assert sorted(store.keys("t/1/", limit=100)) == keys
    some = store.keys("t/1/", limit=2)
    assert len(some) == 2
    assert set(some) < set(keys)
    assert store.keys("t/2/", limit=100) == []
    store.delete_keys([*keys, "t/1/j/none"])
    store.delete_keys([])
    assert store.keys("t/1/", limit=100) == []
    assert store.size("t/10/j/0") == 1
    with pytest.raises(InvalidKey):
        store.keys("", limit=1)


@pytest.mark.parametrize("size", [0, 1, 100_000, PART_BYTES, PART_BYTES + 1, len(LONG)])
def test_what_was_put_is_read(store: Store, size: int) -> None:
    data = LONG[:size]
    stored = store.put_bytes("t/1/a.jsonl", data, media_type=MEDIA)
    assert (stored.key, stored.bytes) == ("t/1/a.jsonl", size)
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert store.size("t/1/a.jsonl") == size
    assert b"".join(store.read("t/1/a.jsonl")) == data


def test_a_streamed_object_is_the_sum_of_its_writes(store: Store) -> None:
    with store.writer("t/1/streamed", media_type=MEDIA) as writer:
        for start in range(0, len(LONG), 700_001):
            writer.write(LONG[start : start + 700_001])
        stored = writer.finish()
    assert stored.sha256 == hashlib.sha256(LONG).hexdigest()
    assert b"".join(store.read("t/1/streamed")) == LONG


def test_a_file_is_put(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LONG)
    assert store.put_file("t/1/file", path, media_type=MEDIA).bytes == len(LONG)
    assert store.size("t/1/file") == len(LONG)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 10), (0, 0), (5, 5), (3, 4), (990, None), (990, 5_000), (1_000, None), (2_000, 3_000)],
)
def test_a_range_is_clipped_to_the_object(store: Store, start: int, end: int | None) -> None:
    data = LONG[:1_000]
    store.put_bytes("t/range", data, media_type=MEDIA)
    assert b"".join(store.read("t/range", start, end)) == data[start:end]


@pytest.mark.parametrize(("start", "end"), [(-1, None), (2, 1)])
def test_what_is_no_range_is_refused(store: Store, start: int, end: int) -> None:
    with pytest.raises(ValueError, match="range"):
        store.read("t/range", start, end)


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 0), (5, 10)])
def test_an_absent_object_is_found_out_before_the_first_chunk(
    store: Store, start: int, end: int | None
) -> None:
    with pytest.raises(NotFound):
        store.read("t/absent", start, end)
    with pytest.raises(NotFound):
        store.size("t/absent")


def test_an_object_is_replaced_as_a_whole(store: Store) -> None:
    store.put_bytes("t/1", LONG[:5_000], media_type=MEDIA)
    store.put_bytes("t/1", b"new", media_type=MEDIA)
    assert b"".join(store.read("t/1")) == b"new"


@pytest.mark.parametrize("size", [10, len(LONG)])
def test_nothing_is_visible_of_an_aborted_write(store: Store, size: int) -> None:
    with store.writer("t/1", media_type=MEDIA) as writer:
        writer.write(LONG[:size])
    with pytest.raises(NotFound):
        store.size("t/1")
    writer.abort()
    with pytest.raises(RuntimeError):
        writer.write(b"more")
    with pytest.raises(RuntimeError):
        writer.finish()


def test_a_deleted_object_is_gone_and_may_be_deleted_again(store: Store) -> None:
    store.put_bytes("t/1/a", b"a", media_type=MEDIA)
    for _ in range(2):
        store.delete("t/1/a")
        with pytest.raises(NotFound):
            store.size("t/1/a")


def test_a_prefix_is_a_whole_folder(store: Store) -> None:
    for key in ("t/1/a", "t/1/b/c", "t/10/a", "t/1.x", "u"):
        store.put_bytes(key, b"x", media_type=MEDIA)
    assert store.delete_prefix("t/1") == 2
    assert store.delete_prefix("t/1/") == 0
    for key in ("t/10/a", "t/1.x", "u"):
        assert store.size(key) == 1


@pytest.mark.parametrize(
    "key",
    ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0b", "a\nb", "é", "a\\b", "x" * 600],
)
def test_no_other_key_is_taken(store: Store, key: str) -> None:
    for use in (store.size, store.read, store.delete):
        with pytest.raises(InvalidKey):
            use(key)
    with pytest.raises(InvalidKey):
        store.put_bytes(key, b"", media_type=MEDIA)
    with pytest.raises(InvalidKey):
        store.download_url(key, filename="f", media_type=MEDIA, seconds=60)
    if key.rstrip("/") != "a":
        with pytest.raises(InvalidKey):
            store.delete_prefix(key)


def test_threads_may_share_a_store(store: Store) -> None:
    errors: list[BaseException] = []

    def use(number: int) -> None:
        try:
            data = LONG[number : number + 50_000]
            for turn in range(4):
                store.put_bytes(f"t/{number}/{turn}", data, media_type=MEDIA)
                assert b"".join(store.read(f"t/{number}/{turn}")) == data
            assert store.delete_prefix(f"t/{number}") == 4
        except BaseException as error:  # to be raised in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# --- S3: more than a page, presigned URLs -------------------------------------------------------


def test_more_objects_are_deleted_than_one_page_lists(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        s3_store.put_bytes(f"t/1/{number}", b"", media_type=MEDIA)
    whole = s3_store._client.get_paginator
    monkeypatch.setattr(s3_store._client, "get_paginator", lambda name: _SmallPages(whole(name)))
    assert s3_store.delete_prefix("t/1") == 7
    assert s3_store.delete_prefix("t/1") == 0


class _SmallPages:
    def __init__(self, paginator: Any) -> None:
        self._paginator = paginator

    def paginate(self, **options: Any) -> Any:
        return self._paginator.paginate(**options, PaginationConfig={"PageSize": 3})


def test_a_presigned_url_downloads_one_object_as_an_attachment(s3_store: S3Store) -> None:
    s3_store.put_bytes("t/1/page", b"<script>", media_type="text/html")
    s3_store.put_bytes("t/2/page", b"secret", media_type="text/html")
    url = s3_store.download_url(
        "t/1/page", filename='ré"sults.jsonl', media_type="application/json", seconds=60
    )
    answer = httpx2.get(url)
    assert answer.content == b"<script>"
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Disposition"] == disposition('ré"sults.jsonl')
    for forged in (
        url.replace("/t/1/page", "/t/2/page"),
        url.replace("application%2Fjson", "text%2Fhtml"),
        url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
    ):
        assert forged != url
        assert httpx2.get(forged).status_code == 403


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("image/png", "inline"), ("audio/mpeg", "inline"), ("video/mp4", "inline"),
     ("text/html", "attachment"), ("image/svg+xml", "attachment"), ("text/vtt", "attachment")],
)  # fmt: skip
def test_a_browser_is_shown_pictures_sounds_and_videos_alone(
    s3_store: S3Store, tmp_path: Path, media_type: str, kind: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    s3_store.put_file("t/1/medium", path, media_type=media_type)
    url = s3_store.download_url(
        "t/1/medium", filename="f", media_type=media_type, seconds=60, inline=True
    )
    answer = httpx2.get(url, headers={"Range": "bytes=2-5"})
    assert (answer.status_code, answer.content) == (206, b"2345")
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Content-Disposition"] == disposition("f", inline=kind == "inline")
    assert answer.headers["Content-Disposition"].startswith(kind)


def test_presigned_urls_name_the_public_endpoint(s3_bucket: S3Bucket) -> None:
    store = open_bucket(s3_bucket, public_endpoint="https://files.example.org")
    url = store.download_url("t/1", filename="f", media_type=MEDIA, seconds=60)
    assert url.startswith(f"https://files.example.org/{s3_bucket.name}/t/1?")


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("out.jsonl", "attachment; filename=\"out.jsonl\"; filename*=UTF-8''out.jsonl"),
        ('a"\r\nX: y/..\\b', "attachment; filename=\"aX: y..b\"; filename*=UTF-8''aX%3A%20y..b"),
        ("日.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%E6%97%A5.txt"),
        ("\ud800", "attachment; filename=\"download\"; filename*=UTF-8''download"),
        ("", "attachment; filename=\"download\"; filename*=UTF-8''download"),
    ],
)
def test_any_file_name_makes_a_safe_header(filename: str, header: str) -> None:
    assert disposition(filename) == header


# --- S3: trouble --------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"secret_key": "wrong"}, {"bucket": "no-such-bucket"}])
def test_wrong_settings_are_not_taken_for_absent_objects(
    s3_bucket: S3Bucket, change: dict[str, str]
) -> None:
    store = open_bucket(s3_bucket, **change)
    with pytest.raises(StorageUnavailable):
        store.read("t/1")
    with pytest.raises(StorageUnavailable):
        store.put_bytes("t/1", b"", media_type=MEDIA)


@pytest.fixture
def proxy(s3_bucket: S3Bucket, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(int(s3_bucket.endpoint_url.rpartition(":")[2]))


@pytest.fixture
def shaky(s3_bucket: S3Bucket, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store behind the proxy, that waits little between its tries."""
    monkeypatch.setattr(s3_reading, "delay_seconds", lambda *_, **__: 0.01)
    return open_bucket(s3_bucket, endpoint=f"http://127.0.0.1:{proxy.port}")


def test_a_body_that_breaks_off_is_read_to_its_end(
    s3_store: S3Store, shaky: S3Store, proxy: TcpProxy
) -> None:
    s3_store.put_bytes("t/1", LONG, media_type=MEDIA)
    read = b""
    breaks = 0
    for chunk in shaky.read("t/1", 1_000, len(LONG) - 500):
        read += chunk
        if len(read) > (breaks + 1) * 5_000_000:
            breaks += 1
            proxy.drop()
    assert breaks >= 2
    assert read == LONG[1_000:-500]


def test_a_store_that_is_down_is_unavailable(shaky: S3Store, proxy: TcpProxy) -> None:
    shaky.put_bytes("t/1", b"x", media_type=MEDIA)
    proxy.refuse()
    for call in (
        lambda: shaky.size("t/1"),
        lambda: shaky.read("t/1"),
        lambda: shaky.delete("t/1"),
        lambda: shaky.delete_prefix("t"),
        lambda: shaky.put_bytes("t/2", b"y", media_type=MEDIA),
    ):
        with pytest.raises(StorageUnavailable):
            call()
    proxy.up()
    assert shaky.size("t/1") == 1


# --- a server that says what the test wants -----------------------------------------------------

UPLOAD = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"


@dataclass
class Request:
    method: str
    query: str
    headers: dict[str, str]
    bytes: int


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    """Break off after this many bytes of the body."""


def failure(status: int, code: str) -> Reply:
    return Reply(status, f"<Error><Code>{code}</Code></Error>".encode())


class ScriptedServer(ThreadingHTTPServer):
    """Answers each request with ``script(request)``, and remembers the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: Callable[[Request], Reply] = lambda _: Reply()
        self.requests: list[Request] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away: often the point of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        while length > 0 and (data := self.rfile.read(min(length, 2**20))):
            length -= len(data)
        request = Request(
            self.command,
            self.path.partition("?")[2],
            {name.lower(): value for name, value in self.headers.items()},
            int(self.headers.get("Content-Length", 0)),
        )
        self.server.requests.append(request)
        reply = self.server.script(request)
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: reply.sent])
        if reply.sent is not None:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """Between tries, neither botocore nor we wait."""
    monkeypatch.setattr(s3_reading, "delay_seconds", lambda *_, **__: 0.0)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def scripted(server: ScriptedServer) -> S3Store:
    return S3Store(
        "bucket",
        endpoint=f"http://127.0.0.1:{server.server_port}",
        access_key="key",
        secret_key="secret",
    )


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (failure(507, "XMinioStorageFull"), StorageFull),
        (Reply(507), StorageFull),
        (failure(403, "QuotaExceeded"), StorageFull),
        (failure(403, "AccessDenied"), StorageUnavailable),
        (failure(404, "NoSuchBucket"), StorageUnavailable),
        (failure(400, "BadDigest"), StorageUnavailable),
        (failure(500, "InternalError"), StorageUnavailable),
        (failure(503, "SlowDown"), StorageUnavailable),
    ],
)
def test_a_refused_put_is_full_or_unavailable(
    server: ScriptedServer, scripted: S3Store, reply: Reply, error: type[Exception]
) -> None:
    server.script = lambda _: reply
    with pytest.raises(error):
        scripted.put_bytes("t/1", b"x", media_type=MEDIA)
    assert len(server.requests) <= 5


def test_a_passing_error_is_retried(server: ScriptedServer, scripted: S3Store) -> None:
    replies = iter([failure(503, "SlowDown"), failure(500, "InternalError"), Reply()])
    server.script = lambda request: (
        next(replies) if request.method == "PUT" else Reply(headers={"Content-Length": "3"})
    )
    assert scripted.put_bytes("t/1", b"abc", media_type=MEDIA).bytes == 3


def test_an_object_of_another_size_is_not_accepted(
    server: ScriptedServer, scripted: S3Store
) -> None:
    server.script = lambda _: Reply(headers={"Content-Length": "2"} if _.method == "HEAD" else {})
    with pytest.raises(StorageUnavailable):
        scripted.put_bytes("t/1", b"abc", media_type=MEDIA)
    server.script = lambda _: Reply(404 if _.method == "HEAD" else 200)
    with pytest.raises(StorageUnavailable):
        scripted.put_bytes("t/1", b"abc", media_type=MEDIA)


def test_a_body_that_always_breaks_off_is_unavailable(
    server: ScriptedServer, scripted: S3Store
) -> None:
    server.script = lambda _: Reply(206 if "range" in _.headers else 200, LONG[:1_000], sent=0)
    with pytest.raises(StorageUnavailable):
        list(scripted.read("t/1"))
    assert len(server.requests) == s3_reading.MOST_BREAKS


def test_an_object_that_changes_while_it_is_read_is_not_stitched_together(
    server: ScriptedServer, scripted: S3Store
) -> None:
    versions = itertools.count()

    def script(request: Request) -> Reply:
        start = int(request.headers.get("range", "bytes=0-").split("=")[1].split("-")[0])
        headers = {"ETag": f'"{next(versions)}"'}
        return Reply(206 if start else 200, LONG[start:1_000], headers, sent=500)

    server.script = script
    with pytest.raises(StorageUnavailable, match="replaced"):
        list(scripted.read("t/1"))


def test_a_server_that_ignores_ranges_is_found_out(
    server: ScriptedServer, scripted: S3Store
) -> None:
    server.script = lambda _: Reply(200, LONG[:1_000])
    with pytest.raises(StorageUnavailable):
        scripted.read("t/1", 10, 20)


class Multipart:
    """A server's side of an upload in parts; ``size`` is what HEAD says afterwards."""

    def __init__(self, size: int, refused: str = "") -> None:
        self._size = size
        self._refused = refused

    def __call__(self, request: Request) -> Reply:
        if self._refused and request.method + request.query.partition("=")[0] == self._refused:
            return failure(404, "NoSuchUpload")
        if request.method == "POST" and "uploads" in request.query:
            return Reply(200, UPLOAD)
        if request.method == "HEAD":
            return Reply(headers={"Content-Length": str(self._size)})
        return Reply(200 if request.method != "DELETE" else 204, headers={"ETag": '"e"'})


def test_parts_are_of_one_size_and_carry_their_md5_and_no_newer_checksum(
    server: ScriptedServer, scripted: S3Store
) -> None:
    server.script = Multipart(len(LONG))
    scripted.put_bytes("t/1", LONG, media_type=MEDIA)
    parts = [request for request in server.requests if request.method == "PUT"]
    assert [part.bytes for part in parts] == [PART_BYTES, PART_BYTES, len(LONG) - 2 * PART_BYTES]
    assert all("content-md5" in part.headers for part in parts)
    assert not any("checksum" in name for part in parts for name in part.headers)


@pytest.mark.parametrize(("found", "accepted"), [(len(LONG), True), (len(LONG) - 1, False)])
def test_a_completion_whose_reply_was_lost_counts_if_the_object_is_there(
    server: ScriptedServer, scripted: S3Store, found: int, accepted: bool
) -> None:
    server.script = Multipart(found, refused="POSTuploadId")
    with nullcontext() if accepted else pytest.raises(StorageUnavailable):
        assert scripted.put_bytes("t/1", LONG, media_type=MEDIA).bytes == len(LONG)


def test_an_upload_that_fails_is_aborted(server: ScriptedServer, scripted: S3Store) -> None:
    server.script = Multipart(0, refused="PUTuploadId")
    with pytest.raises(StorageUnavailable):
        scripted.put_bytes("t/1", LONG, media_type=MEDIA)
    last = server.requests[-1]
    assert (last.method, last.query) == ("DELETE", "uploadId=u1")


def test_no_object_has_more_parts_than_s3_takes(
    server: ScriptedServer, scripted: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MOST_PARTS", 1)
    server.script = Multipart(0)
    with pytest.raises(StorageFull):
        scripted.put_bytes("t/1", LONG, media_type=MEDIA)
    assert server.requests[-1].method == "DELETE"


def test_deletions_that_are_refused_are_reported(server: ScriptedServer, scripted: S3Store) -> None:
    listing = b"<ListBucketResult><Contents><Key>t/1</Key></Contents></ListBucketResult>"
    refusal = (
        b"<DeleteResult><Error><Key>t/1</Key><Code>InternalError</Code></Error></DeleteResult>"
    )
    server.script = lambda _: Reply(200, listing if _.method == "GET" else refusal)
    with pytest.raises(StorageUnavailable):
        scripted.delete_prefix("t")
    assert "content-md5" in server.requests[-1].headers


def test_uploads_that_nobody_ended_are_dropped_once_they_are_old(s3_store: S3Store) -> None:
    abandoned = s3_store.writer("t/1/abandoned", media_type=MEDIA)
    abandoned.write(LONG)
    other = s3_store.writer("t/2/abandoned", media_type=MEDIA)
    other.write(LONG)
    assert s3_store.abort_uploads("t/", older_than_seconds=3_600) == 0
    assert s3_store.abort_uploads("t/1/", older_than_seconds=-60) == 1  # clocks may differ
    assert s3_store.abort_uploads("t/", older_than_seconds=-60) == 1
    assert s3_store.abort_uploads("t/", older_than_seconds=-60) == 0
    with pytest.raises(StorageUnavailable):
        abandoned.finish()
    assert s3_store.keys("t/", limit=10) == []
