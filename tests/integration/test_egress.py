"""Requests to addresses that others chose: pinned, verified, bounded, and never inside."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from shared.egress import parse_allowed
from tests.integration.webhook_receiver import Authority, make_authority, receiver, reply
from tests.unit.shared.egress_urls import REFUSED_URLS
from worker import egress
from worker.egress import Answer, Egress, EgressFailed

NAME = "hooks.example.com"
PUBLIC = "93.184.216.34"
LOOPBACK_HOSTS = (
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "017700000001", "0", "0.0.0.0", "localhost", "localhost.", "LOCALHOST", "127.0.0.1.",  # noqa: S104
    "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "a@127.0.0.1", "example.com@127.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "127.0.0.1.nip.io",
    "loopback.example.com",
)  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"), NAME)


@dataclass
class Listener:
    """A port, and who has connected to it."""

    port: int
    accepted: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def listener(serve: Callable[[socket.socket], None] = lambda peer: None) -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Listener(server.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    peer, address = server.accept()
                except OSError:
                    return
                made.accepted.append(address)
                with peer, suppress(OSError):
                    serve(peer)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield made
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def allowing(port: int, **options: Any) -> Egress:
    """For a plain receiver on this machine, which an operator has named."""
    return Egress(allowed=parse_allowed(f"127.0.0.1:{port},{NAME}:{port}"), **options)


def reason(made: Egress, url: str) -> str:
    with pytest.raises(EgressFailed) as failed:
        made.post(url, b"{}", {})
    return failed.value.reason


class Recorder(socket.socket):
    """Remembers where it was to connect, and connects nowhere."""

    asked: list[Any]

    def connect(self, address: Any) -> None:
        Recorder.asked.append(address)
        raise ConnectionRefusedError


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    Recorder.asked = []
    monkeypatch.setattr(egress.socket, "socket", Recorder)
    return Recorder.asked


# --- where requests go ------------------------------------------------------------------------


def test_nothing_that_stands_for_this_machine_is_ever_connected_to() -> None:
    with listener() as server:
        made = Egress(resolve=loopback, timeout_seconds=5)
        for host in LOOPBACK_HOSTS:
            for scheme in ("https", "http"):
                failed = reason(made, f"{scheme}://{host}:{server.port}/")
                assert failed in {"url_not_allowed", "address_not_allowed"}, host
        assert server.accepted == []
        # The listener is one that would have noticed.
        socket.create_connection(("127.0.0.1", server.port)).close()
        deadline = time.monotonic() + 10
        while not server.accepted:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_refused_url_gets_as_far_as_a_socket(recorded: list[Any]) -> None:
    looked_up: list[str] = []
    made = Egress(resolve=lambda host, port: looked_up.append(host) or [PUBLIC])
    for url in REFUSED_URLS:
        assert reason(made, url) == "url_not_allowed", url
    assert recorded == []
    assert looked_up == []


def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_judged(
    recorded: list[Any],
) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    made = Egress(resolve=lambda host, port: next(answers))
    assert reason(made, f"https://{NAME}/x") == "connection_refused"
    assert recorded == [(PUBLIC, 443)]
    assert reason(made, f"https://{NAME}/x") == "address_not_allowed"
    assert recorded == [(PUBLIC, 443)]


@pytest.mark.parametrize(
    "private", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1"]
)
def test_one_private_address_among_public_ones_refuses_the_name(
    recorded: list[Any], private: str
) -> None:
    made = Egress(resolve=lambda host, port: [PUBLIC, private, "8.8.8.8"])
    assert reason(made, f"https://{NAME}/") == "address_not_allowed"
    assert recorded == []


def test_every_address_of_a_name_is_tried(recorded: list[Any]) -> None:
    made = Egress(resolve=lambda host, port: [PUBLIC, "2606:4700::1111"])
    assert reason(made, f"https://{NAME}:8443/") == "connection_refused"
    assert recorded == [(PUBLIC, 8443), ("2606:4700::1111", 8443)]


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with listener() as inside:
        target = inside.url
        with receiver(lambda handler: reply(handler, 302, Location=target)) as made:
            assert allowing(made.port).post(made.url, b"{}", {}) == Answer(302, None)
        assert inside.accepted == []


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as proxy, receiver() as made:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        assert allowing(made.port).post(made.url, b"{}", {}).status_code == 200
        assert proxy.accepted == []


def test_names_without_addresses_and_resolvers_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    assert reason(Egress(resolve=unknown), f"https://{NAME}/") == "name_not_found"
    assert reason(Egress(resolve=lambda host, port: []), f"https://{NAME}/") == "name_not_found"
    hang = threading.Event()
    monkeypatch.setattr(egress, "MAX_LOOKUPS", 1)
    made = Egress(resolve=lambda host, port: hang.wait(30) and [], timeout_seconds=0.3)
    assert reason(made, f"https://{NAME}/") == "name_timeout"
    assert reason(made, f"https://{NAME}/") == "name_timeout"  # its one place is taken
    hang.set()


# --- TLS --------------------------------------------------------------------------------------


def test_the_certificate_and_the_server_are_those_of_the_name(authority: Authority) -> None:
    asked: list[str | None] = []
    authority.server.sni_callback = lambda _socket, name, _context: asked.append(name)
    with receiver(tls=authority.server) as made:
        sender = allowing(made.port, ca_file=authority.ca_file, resolve=loopback)
        url = f"https://{NAME}:{made.port}/hook?a=b"
        answer = sender.post(url, b'{"x":1}', {"webhook-id": "evt_1"})
    assert answer == Answer(200, None)
    assert asked == [NAME]
    [request] = made.received
    assert request.path == "/hook?a=b"
    assert request.body == b'{"x":1}'
    assert request.headers["host"] == f"{NAME}:{made.port}"
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["accept-encoding"] == "identity"


def test_certificates_of_others_are_refused(authority: Authority) -> None:
    with receiver(tls=authority.server) as made:
        url = f"https://{NAME}:{made.port}/"
        stranger = allowing(made.port, resolve=loopback)
        assert reason(stranger, url) == "certificate_invalid"
        other = Egress(
            allowed=parse_allowed(f"other.example.com:{made.port}"),
            ca_file=authority.ca_file,
            resolve=loopback,
        )
        assert reason(other, f"https://other.example.com:{made.port}/") == "certificate_invalid"
        assert made.received == []


def test_a_server_without_tls_is_not_told_anything() -> None:
    with receiver() as made:
        sender = allowing(made.port, resolve=loopback)
        assert reason(sender, f"https://{NAME}:{made.port}/") == "tls_failed"
        assert made.received == []


def test_a_file_that_holds_no_authorities_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Egress(ca_file=tmp_path / "nothing.pem")
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(ssl.SSLError):
        Egress(ca_file=tmp_path / "bad.pem")


# --- how much, and how long -------------------------------------------------------------------


def drip(peer: socket.socket, first: bytes, byte: bytes) -> None:
    """Sends ``first``, then a byte every tenth of a second: no single read ever waits long."""
    peer.recv(65_536)
    peer.sendall(first)
    for _ in range(200):
        peer.sendall(byte)
        time.sleep(0.1)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return call(), time.monotonic() - began


def test_headers_that_drip_meet_the_deadline() -> None:
    with listener(lambda peer: drip(peer, b"HTTP/1.1 200 OK\r\nX: ", b"a")) as server:
        made = allowing(server.port, timeout_seconds=1.0)
        url = server.url
        failed, seconds = timed(lambda: reason(made, url))
    assert failed == "timeout"
    assert 0.9 < seconds < 10


def test_a_body_that_drips_holds_the_sender_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(egress, "BODY_SECONDS", 0.5)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    with listener(lambda peer: drip(peer, head, b"a")) as server:
        made = allowing(server.port, timeout_seconds=15.0)
        url = server.url
        answer, seconds = timed(lambda: made.post(url, b"{}", {}))
    assert answer == Answer(200, None)
    assert seconds < 10


def test_a_receiver_that_says_nothing_meets_the_deadline() -> None:
    def silent(peer: socket.socket) -> None:
        while peer.recv(65_536):
            pass

    with listener(silent) as server:
        made = allowing(server.port, timeout_seconds=0.5)
        assert reason(made, server.url) == "timeout"


def test_of_a_huge_body_little_is_read() -> None:
    sent = [0]

    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10 * 2**30))
        handler.end_headers()
        block = b"x" * 2**16
        try:
            while True:
                handler.wfile.write(block)
                sent[0] += len(block)
        except OSError:
            return

    with receiver(flood) as made:
        answer, seconds = timed(lambda: allowing(made.port).post(made.url, b"{}", {}))
    assert answer.status_code == 200
    assert seconds < 10
    # The cap, and what the system keeps between the two.
    assert sent[0] < 32 * 2**20


def test_a_compressed_body_stays_compressed() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    read: list[bytes] = []
    with receiver(lambda handler: reply(handler, 200, bomb, Content_Encoding="gzip")) as made:
        original = egress._drop

        def watch(response: Any) -> None:
            take = response.read1
            response.read1 = lambda count: read.append(take(count)) or read[-1]
            original(response)

        egress._drop = watch  # type: ignore[assignment]
        try:
            answer = allowing(made.port).post(made.url, b"{}", {})
        finally:
            egress._drop = original
    assert answer.status_code == 200
    assert b"".join(read) == bomb[: egress.MAX_BODY_BYTES]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 banana OK\r\n\r\n", b"\0" * 100, b"",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_told_as_such(nonsense: bytes) -> None:
    def serve(peer: socket.socket) -> None:
        peer.recv(65_536)
        peer.sendall(nonsense)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65_536):
            pass

    with listener(serve) as server:
        made = allowing(server.port, timeout_seconds=10)
        failed = reason(made, server.url)
    assert failed in {"answer_invalid", "connection_lost"}


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    made = allowing(port)
    assert reason(made, f"http://127.0.0.1:{port}/") == "connection_refused"


def test_a_long_retry_after_is_cut() -> None:
    with receiver(lambda handler: reply(handler, 503, Retry_After="9" * 500)) as made:
        assert allowing(made.port).post(made.url, b"{}", {}) == Answer(503, "9" * 64)
