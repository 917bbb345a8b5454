"""Reading rows: the lines of a batch slice, or the one body of a single generation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from shared.lifecycle.working import Claim
from shared.storage.base import Store
from worker.engines.protocol import RowResult


class InputLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a batch input file; ``body`` stays as it is."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Named(msgspec.Struct, frozen=True):
    model: str | None = None


_lines = msgspec.json.Decoder(InputLine)
_named = msgspec.json.Decoder(_Named)


@dataclass(frozen=True, slots=True)
class RowInput:
    """A row as it will be submitted."""

    index: int
    line: int
    """1-based line of the input file; 0 for a single generation."""
    custom_id: str | None
    endpoint: str
    model: str
    body: bytes
    id: str = ""
    """Within the plant; empty: made of the job and the line (``row_id``)."""
    inputs: dict[str, str] | None = None
    """Paths of the pictures and sounds that the body names, by ``MediaReference.name``."""
    engine_endpoint: str = ""
    """What an engine is asked, of a row that was translated: ``body`` is of this endpoint then."""
    translate_back: Callable[[RowResult], RowResult] | None = None
    """Makes the answer of ``endpoint`` of the engine's."""

    def answered(self, result: RowResult) -> RowResult:
        """An engine's answer to the row, as the caller of ``endpoint`` expects it."""
        return result if self.translate_back is None else self.translate_back(result)


def row_id(claim: Claim, row: RowInput) -> str:
    """The same on every attempt; the ids of the row's artifacts are made of it."""
    return row.id or f"{claim.job_id}-{row.line}"


def decode_line(line: bytes) -> InputLine:
    """Raises msgspec.ValidationError or msgspec.DecodeError (both ValueErrors)."""
    return _lines.decode(line)


def model_of(body: bytes | msgspec.Raw) -> str:
    """The model that a validated body names; empty where it need not name one."""
    return _named.decode(body).model or ""


def single_row(claim: Claim) -> list[RowInput]:
    """The one row of a single generation."""
    body = claim.spec.encode()
    return [RowInput(0, 0, None, claim.endpoint, claim.model or model_of(body), body)]


def read_slice(store: Store, claim: Claim) -> list[RowInput]:
    """The rows of a batch slice. Raises StorageUnavailable, NotFound or ValueError."""
    chunks = store.read(str(claim.input_key), claim.byte_start or 0, claim.byte_end)
    rows = slice_rows(chunks, claim.first_line or 1, claim.lines, claim.models())
    if len(rows) != claim.row_count:
        raise ValueError(f"{len(rows)} rows where validation counted {claim.row_count}")
    return rows


def slice_rows(
    chunks: Iterable[bytes],
    first_line: int,
    lines: Collection[int] | None = None,
    models: Mapping[str, str] = MappingProxyType({}),
) -> list[RowInput]:
    """The rows of a validated slice; blank lines count as lines and not as rows. With ``lines``,
    only those: the others belong to other pools' slices. ``models`` are what aliases stand for."""
    wanted = None if lines is None else frozenset(lines)
    rows: list[RowInput] = []
    for offset, text in enumerate(b"".join(chunks).split(b"\n")):
        if not text.strip() or (wanted is not None and first_line + offset not in wanted):
            continue
        line = decode_line(text)
        body = bytes(line.body)
        named = model_of(body)
        model = models.get(named, named)
        rows.append(RowInput(len(rows), first_line + offset, line.custom_id, line.url, model, body))
    return rows
