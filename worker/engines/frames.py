"""Frames between a supervisor and an engine child: how large, and read without waiting.

A frame is that of ``multiprocessing.connection`` (four bytes of length, big-endian, then the
message in MessagePack), so the child uses a plain ``Connection`` and only the supervisor, which
may never wait for a child, needs ``Pipe``.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from worker.engines.protocol import FromEngine, Row, RowResult, ToEngine

FRAME_TARGET_BYTES = 8 << 20
"""Messages with many rows are split under this."""
FRAME_LIMIT_BYTES = 256 << 20
"""No frame may be larger; a single row may need one of up to this size."""
FRAME_OVERHEAD_BYTES = 256
"""More than MessagePack adds to a row's body and endpoint."""
READ_LIMIT_BYTES = 32 << 20
"""About how much one ``Pipe.read`` takes, so that no child holds up the others."""

_HEADER = struct.Struct("!i")

Item = TypeVar("Item", Row, RowResult)
_encoder = msgspec.msgpack.Encoder()


def frames_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Cuts rows or results into lists whose frame stays under ``FRAME_TARGET_BYTES``.

    A single one that is larger than that comes alone.
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        item_size = frame_bytes(item)
        if batch and size + item_size > FRAME_TARGET_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item_size
    if batch:
        yield batch


def frame_bytes(item: Row | RowResult) -> int:
    """No less than the item takes in a frame."""
    size = len(item.body) + FRAME_OVERHEAD_BYTES
    if isinstance(item, RowResult):
        return size + len(_encoder.encode(item.files)) if item.files else size
    size += len(item.id)
    if item.inputs:
        size += sum(len(name) + len(path) + 16 for name, path in item.inputs.items())
    return size


class Pipe:
    """Frames of ``multiprocessing.connection`` over a socket, without waiting in either direction.

    Its ``fileno`` becomes readable when there is something to read, or when frames are left to
    write and there is room for them; so waiting on it as for any connection is enough.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)
        self._outgoing: deque[memoryview] = deque()
        self._incoming = bytearray()
        self._chunk = memoryview(bytearray(1 << 18))
        self._encoder = msgspec.msgpack.Encoder()
        self._decode = msgspec.msgpack.Decoder(FromEngine).decode
        self.ended = False
        """Nothing more will come: the other end is closed, or what came was no message."""
        self.garbled = False
        """What came was no message."""
        self.drained = False
        """The last ``read`` left nothing behind."""

    def fileno(self) -> int:
        return self._selector.fileno()

    @property
    def unsent_bytes(self) -> int:
        return sum(len(frame) for frame in self._outgoing)

    def put(self, message: ToEngine) -> None:
        frame = bytearray(_HEADER.size)
        self._encoder.encode_into(message, frame, _HEADER.size)
        _HEADER.pack_into(frame, 0, len(frame) - _HEADER.size)
        self._outgoing.append(memoryview(frame))

    def flush(self) -> None:
        """Writes what there is room for."""
        try:
            while self._outgoing:
                sent = self._socket.send(self._outgoing[0])
                rest = self._outgoing.popleft()[sent:]
                if rest:
                    self._outgoing.appendleft(rest)
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()  # closed; reading tells, after what is left to read
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
        self._selector.modify(self._socket, events)

    def read(self) -> list[FromEngine]:
        """The messages that can be read by now, up to about ``READ_LIMIT_BYTES``."""
        self._fill()
        messages: list[FromEngine] = []
        read = 0
        with memoryview(self._incoming) as view:
            try:
                while (end := _frame_end(view, read)) is not None:
                    messages.append(self._decode(view[read + _HEADER.size : end]))
                    read = end
            except ValueError:  # msgspec's errors are too
                self.ended = self.garbled = True
        del self._incoming[:read]
        return messages

    def _fill(self) -> None:
        taken = 0
        self.drained = False
        while taken < READ_LIMIT_BYTES and not self.ended:
            try:
                count = self._socket.recv_into(self._chunk)
            except BlockingIOError:
                self.drained = True
                return
            except OSError:
                count = 0  # closed with unread frames in it: the end all the same
            self.ended = count == 0
            self._incoming += self._chunk[:count]
            taken += count

    def close(self) -> None:
        self._selector.close()
        self._socket.close()
        self._outgoing.clear()


def _frame_end(view: memoryview, start: int) -> int | None:
    """Where the frame at ``start`` ends; None when it isn't all there. Raises ValueError."""
    if start + _HEADER.size > len(view):
        return None
    (size,) = _HEADER.unpack_from(view, start)
    if not 0 < size <= FRAME_LIMIT_BYTES:
        raise ValueError("not a frame")
    end: int = start + _HEADER.size + size
    return end if end <= len(view) else None
