"""A TCP proxy that misbehaves on command: threads, no root, no kernel modules."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from tests.services.ports import reserve_port

CHUNK_BYTES = 64 * 1024
TICK_SECONDS = 0.1
"""How soon a blocked thread notices that its connection was dropped."""
JOIN_SECONDS = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TcpProxy:
    """Passes connections to ``port`` on to ``target_port`` of 127.0.0.1.

    Every fault is undone by ``up``. The port stays the same throughout.
    """

    def __init__(self, target_port: int) -> None:
        self.port = reserve_port()
        self._target = ("127.0.0.1", target_port)
        self._change = threading.Condition()
        self._latency_seconds = 0.0
        self._stalled = False
        self._budget: int | None = None
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._live: set[_Connection] = set()
        self.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def live_connections(self) -> int:
        with self._change:
            return len(self._live)

    # --- what it does -----------------------------------------------------------------------

    def up(self) -> None:
        """Passes everything on at once; what a blackhole held back goes through now."""
        with self._change:
            self._latency_seconds = 0.0
            self._stalled = False
            self._budget = None
            for connection in self._live:
                connection.budget = None
            self._change.notify_all()
        self._listen()

    def delay(self, seconds: float) -> None:
        """Holds each piece of data, in each direction, for ``seconds``."""
        with self._change:
            self._latency_seconds = seconds

    def blackhole(self) -> None:
        """Takes connections and data, and passes nothing on: the far side seems to be asleep."""
        with self._change:
            self._stalled = True

    def cut_after(self, count: int) -> None:
        """Resets each connection, live or new, when ``count`` more bytes reached its client."""
        with self._change:
            self._budget = count
            for connection in self._live:
                connection.budget = count

    def drop(self) -> None:
        """Resets every live connection; new ones are taken. Returns when they are closed."""
        with self._change:
            dropped = list(self._live)
        for connection in dropped:
            connection.reset()
        for connection in dropped:
            connection.join()

    def refuse(self) -> None:
        """Resets every live connection, and new ones are refused by the kernel."""
        listener, acceptor = self._listener, self._acceptor
        self._listener = self._acceptor = None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            listener.close()
        if acceptor is not None:
            acceptor.join(JOIN_SECONDS)
        self.drop()

    def close(self) -> None:
        """The end: no thread and no socket is left."""
        self.refuse()

    # --- inside -----------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=JOIN_SECONDS)
            except OSError:
                _close_with_reset(client)
                continue
            with self._change:
                connection = _Connection(self, client, server, self._budget)
                self._live.add(connection)
            connection.start()

    def _hold(self, connection: _Connection) -> None:
        """Returns when data of the connection may pass, or when it was reset."""
        with self._change:
            due = time.monotonic() + self._latency_seconds
            while not connection.dead:
                left = due - time.monotonic()
                if self._stalled:
                    self._change.wait(TICK_SECONDS)
                elif left > 0:
                    self._change.wait(left)
                else:
                    return

    def _ended(self, connection: _Connection) -> None:
        with self._change:
            self._live.discard(connection)

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()


class _Connection:
    """A client, a server, and a thread for each direction."""

    def __init__(
        self, proxy: TcpProxy, client: socket.socket, server: socket.socket, budget: int | None
    ) -> None:
        self.budget = budget
        self.dead = False
        self._proxy = proxy
        self._sockets = (client, server)
        for end in self._sockets:
            end.settimeout(TICK_SECONDS)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pumps = [
            threading.Thread(target=self._pump, args=(client, server), daemon=True),
            threading.Thread(target=self._pump, args=(server, client), daemon=True),
        ]
        self._still_pumping = len(self._pumps)
        self._ending = threading.Lock()

    def start(self) -> None:
        for pump in self._pumps:
            pump.start()

    def reset(self) -> None:
        self.dead = True
        self._proxy._wake()
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes recv, and sends nothing

    def join(self) -> None:
        for pump in self._pumps:
            pump.join(JOIN_SECONDS)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := self._receive(source):
                self._proxy._hold(self)
                self._send(sink, data)
            if not self.dead:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()
        finally:
            self._finish()

    def _receive(self, source: socket.socket) -> bytes:
        while not self.dead:
            try:
                return source.recv(CHUNK_BYTES)
            except TimeoutError:
                continue
        return b""

    def _send(self, sink: socket.socket, data: bytes) -> None:
        cut = False
        if sink is self._sockets[0] and self.budget is not None:
            cut = len(data) >= self.budget
            data = data[: self.budget]
            self.budget -= len(data)
        while data and not self.dead:
            with contextlib.suppress(TimeoutError):
                data = data[sink.send(data) :]
        if cut:
            self.reset()

    def _finish(self) -> None:
        """The direction that ends last closes both ends."""
        with self._ending:
            self._still_pumping -= 1
            if self._still_pumping:
                return
        for end in self._sockets:
            if self.dead:
                _close_with_reset(end)
            else:
                end.close()
        self._proxy._ended(self)


def _close_with_reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    end.close()
