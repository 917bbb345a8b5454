"""What crosses the pipe between a supervisor and an engine child: a closed set of messages.

Frames are MessagePack, decoded into these types and no others; nothing is ever unpickled. Bodies
travel as undecoded JSON bytes, so the supervisor forwards a row and splices its result into an
output line without parsing either.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

import msgspec

TAKES_ADAPTERS = frozenset({"text", "image"})
"""Engines that run rows with an adapter of their own on the model that is loaded."""


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages."""


# --- supervisor -> engine child -------------------------------------------------------------


class Load(Message, frozen=True):
    """The first message: which model to load and how."""

    model: str
    """The public name, echoed in responses."""
    engine: str
    """A name in ``worker.engines.registry``: ``text``, ``embedding``, ``fake``, …"""
    source: str
    """A local directory or a hub id; safetensors only. Engines without weights ignore it."""
    settings: dict[str, Any] = {}
    """The engine's own options from the model catalog (dtype, slots, default_max_tokens, …)."""
    spool: str = ""
    """A directory, the engine's to write into, where rows' files (pictures, sounds) are left for
    the supervisor to store. Empty for a supervisor that takes none."""
    public_url: str = ""
    """Where partners reach the API, without a slash at the end; may be empty."""


class Row(msgspec.Struct, frozen=True):
    """One item of a shard."""

    index: int
    """Its place in the shard, from 0."""
    endpoint: str
    body: bytes
    """The endpoint's request body as JSON, already validated by ``shared.specs``."""
    id: str = ""
    """The row within the plant, the same on every attempt; makes the ids of its artifacts."""
    inputs: dict[str, str] = {}
    """Paths of the pictures and sounds that the body names, by ``MediaReference.name``. They are
    a tenant's bytes: bounded in size, otherwise unchecked."""
    adapter: str = ""
    """A folder with the adapter that the row runs with; engines load it when it is first used. Its
    content never changes. Empty: the model as it is."""
    adapter_name: str = ""
    """The public name of what model and adapter make, echoed instead of the model's."""


class Submit(Message, frozen=True):
    """Rows to run. Results come back in any order."""

    shard: int
    epoch: int
    rows: list[Row]


class Cancel(Message, frozen=True):
    """Drop every unfinished row of a shard, within one step; answered by ``Cancelled``."""

    shard: int
    epoch: int


class Unload(Message, frozen=True):
    """Free the model and exit 0."""


# --- engine child -> supervisor -------------------------------------------------------------


class Loading(Message, frozen=True):
    """Progress of the load. ``fraction`` is 0..1."""

    fraction: float
    detail: str


class Ready(Message, frozen=True):
    """The model is loaded."""

    capacity: int
    """How many rows the engine wants to hold at once, running and waiting."""
    resident_bytes: int
    detail: dict[str, Any] = {}
    """What was chosen: device, dtype, scheduler, slots."""


class OutputFile(msgspec.Struct, frozen=True):
    """A file that a row made, complete in the spool. The supervisor stores and removes it."""

    id: str
    """``shared.ids.artifact_id(row.id, name)``."""
    name: str
    """Unique in its row, with an extension: ``0.png``, ``speech.mp3``, ``0.thumbnail.webp``."""
    path: str
    """Absolute, below ``Load.spool``; unique in the spool."""
    role: str
    """``image``, ``audio``, ``video``; or, beside one of them (``parent``): ``thumbnail``,
    ``waveform``, ``spritesheet``, ``captions``, ``preview``."""
    media_type: str
    bytes: int
    sha256: str
    """Lower-case hex of the whole content."""
    parent: str | None = None
    """The id of the file that this one illustrates."""
    width: int | None = None
    """Pixels."""
    height: int | None = None
    seconds: float | None = None
    """Duration of sound and video."""
    provenance: dict[str, Any] = {}
    """How it was made: model, fingerprint, prompt, seed, steps, … whatever repeats it."""


class RowResult(msgspec.Struct, frozen=True):
    """One finished row. ``status`` >= 400 means ``body`` is ``{"error": {…}}``."""

    shard: int
    epoch: int
    index: int
    status: int
    body: bytes
    input_tokens: int = 0
    output_tokens: int = 0
    files: list[OutputFile] = []
    """What the row made besides its body; the body names them by id."""
    compute_seconds: float | None = None
    """Its share of the time that the engine worked; the host measures it."""


class RowProgress(msgspec.Struct, frozen=True):
    """How far a running row is: after its first step, then as it goes."""

    shard: int
    epoch: int
    index: int
    step: int
    """Steps finished, of ``steps``."""
    steps: int
    stage: str = ""
    """What it is doing, in a word or two, where it does several things: ``encoding``, ``audio``."""
    preview: OutputFile | None = None


class Progressing(Message, frozen=True):
    """Rows that advanced in the last step."""

    rows: list[RowProgress]


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of one choice's text."""

    choice: int
    at: int
    """How many characters of the choice's text come before it."""
    text: str
    first: int = 0
    """How many of the choice's tokens come before those of ``logprobs``."""
    logprobs: dict[str, Any] | None = None
    """As the body will have them, of tokens that end in this stretch. Only where they are asked
    for."""


class RowDelta(msgspec.Struct, frozen=True):
    """What a row that is read along said lately: a beginning of its result, never more."""

    shard: int
    epoch: int
    index: int
    pieces: list[Piece]


class Speaking(Message, frozen=True):
    """Rows that went on saying something. Only of rows whose body has ``stream: true``; what a row
    said last may come with its result alone."""

    rows: list[RowDelta]


class RowsDone(Message, frozen=True):
    """Rows that finished in the last step, of any shards."""

    results: list[RowResult]


class Cancelled(Message, frozen=True):
    """The shard's unfinished rows are gone; nothing more will come for it."""

    shard: int
    epoch: int


class Beat(Message, frozen=True):
    """The engine finished a step; sent at most once a second while it works."""

    active_rows: int
    waiting_rows: int
    tokens_per_second: float = 0.0


DISK_FULL = "disk_full"
"""The code of a ``Fatal`` that is no row's fault: the spool has no room."""


class Fatal(Message, frozen=True):
    """The child cannot go on (load failed, sticky device error) and exits after this."""

    code: str
    message: str


ToEngine = Load | Submit | Cancel | Unload
FromEngine = Loading | Ready | RowsDone | Progressing | Speaking | Cancelled | Beat | Fatal

_encoder = msgspec.msgpack.Encoder()


def send(pipe: Connection, message: ToEngine | FromEngine) -> None:
    """Writes one frame. Raises OSError or BrokenPipeError when the other side is gone."""
    pipe.send_bytes(_encoder.encode(message))
