"""What the misbehaving proxy promises."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.services.ports import reserve_port
from tests.services.tcp_proxy import TcpProxy

PATIENCE_SECONDS = 30.0

ProxyFactory = Callable[[int], TcpProxy]


class TestTcpProxy:
    @pytest.fixture
    def echo_port(self) -> Iterator[int]:
        """A server that sends back what it is sent."""
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_serve_echo, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.close()

    @pytest.fixture
    def proxy(self, echo_port: int, tcp_proxy: ProxyFactory) -> TcpProxy:
        return tcp_proxy(echo_port)

    def test_it_passes_bytes_and_the_end_of_them(self, proxy: TcpProxy) -> None:
        data = os.urandom(300_000)
        with _client(proxy) as client:
            sender = threading.Thread(target=_send_all, args=(client, data))
            sender.start()
            with client.makefile("rb") as answer:
                assert answer.read() == data
            sender.join()
        proxy.close()
        assert proxy.live_connections == 0

    def test_delay_holds_each_direction(self, proxy: TcpProxy) -> None:
        proxy.delay(0.2)
        with _client(proxy) as client:
            began = time.monotonic()
            assert _echo(client) == b"ping"
            assert time.monotonic() - began >= 0.4

    def test_drop_resets_live_connections_and_takes_new_ones(self, proxy: TcpProxy) -> None:
        with _client(proxy) as client:
            assert _echo(client) == b"ping"
            proxy.drop()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with _client(proxy) as client:
            assert _echo(client) == b"ping"

    def test_refuse_until_up_on_the_same_port(self, proxy: TcpProxy) -> None:
        port = proxy.port
        with _client(proxy) as client:
            assert _echo(client) == b"ping"
            proxy.refuse()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            _client(proxy)
        proxy.up()
        assert proxy.port == port
        with _client(proxy) as client:
            assert _echo(client) == b"ping"

    def test_blackhole_answers_nothing_until_up(self, proxy: TcpProxy) -> None:
        proxy.blackhole()
        with _client(proxy) as client:
            client.sendall(b"ping")
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(4)
            client.settimeout(PATIENCE_SECONDS)
            proxy.up()
            assert client.recv(4) == b"ping"

    def test_cut_after_passes_so_many_bytes_and_no_more(self, proxy: TcpProxy) -> None:
        proxy.cut_after(6)
        with _client(proxy) as client:
            assert _echo(client) == b"ping"
            client.sendall(b"pong")
            assert _drain(client) == b"po"
        proxy.up()
        with _client(proxy) as client:
            assert _echo(client) + _echo(client) == b"pingping"

    def test_a_server_that_is_down_resets_the_client(self, tcp_proxy: ProxyFactory) -> None:
        proxy = tcp_proxy(reserve_port())
        # The reset may come while the client still connects.
        with pytest.raises(ConnectionResetError), _client(proxy) as client:
            client.recv(1)


def _send_all(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def _serve_echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo_back, args=(connection,), daemon=True).start()


def _echo_back(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(65_536):
                connection.sendall(data)
        except OSError:
            return


def _client(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_SECONDS)


def _echo(client: socket.socket) -> bytes:
    client.sendall(b"ping")
    return client.recv(4, socket.MSG_WAITALL)


def _drain(client: socket.socket) -> bytes:
    """All that still comes before the reset, which may overtake nothing that was delivered."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(100):
            received += data
    return received
