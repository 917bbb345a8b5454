"""Fetching the pictures and sounds that rows name by id, before their engine sees the rows.

Data URLs stay in the body. Nothing is fetched from anywhere but the plant's own store, and only
what the job's tenant owns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import Engine

from shared.db.inputs import InputSource, find_inputs
from shared.db.session import autocommit
from shared.errors import InvalidRequest, NotFound, PressrunError, StorageUnavailable
from shared.lifecycle.working import Claim
from shared.specs import InferenceSpec, MediaReference, parse_body_json
from shared.storage.base import Store
from worker.engines.protocol import RowResult
from worker.rows import RowInput
from worker.spool import Spool, remove

TAKES_MEDIA = frozenset(
    {"/v1/images/edits", "/v1/images/variations", "/v1/videos", "/v1/videos/compositions"}
)
"""Endpoints whose bodies may name pictures or sounds; rows of others are not even parsed."""
LARGEST_PICTURE = 32 * 2**20
LARGEST_SOUND = 256 * 2**20
MOST_AT_ONCE = 512 * 2**20
"""Bytes that one shard's rows have on this machine at a time; the others come when they are done,
and a row that needs more than this alone is refused."""
SOUND_FIELDS = frozenset({"music", "narration"})


class Leaving(Exception):
    """The worker leaves: its shards are given back already."""


@dataclass(frozen=True, slots=True)
class Named:
    """One use of a medium by a body."""

    id: str
    param: str
    """The field: ``image``, ``scenes[2].narration``."""

    @property
    def limit(self) -> int:
        is_sound = self.param.rpartition(".")[2] in SOUND_FIELDS
        return LARGEST_SOUND if is_sound else LARGEST_PICTURE


@dataclass
class Gathered:
    """Rows with their inputs, those that are refused, and those that did not fit any more."""

    rows: list[RowInput] = field(default_factory=list)
    refused: list[RowResult] = field(default_factory=list)
    later: list[RowInput] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    """What was fetched; whoever takes it over removes it."""


class Gathering:
    """The inputs of one shard's rows, each fetched once however many rows name it.

    ``run`` may be called again after an outage: what it has fetched, it keeps.
    """

    def __init__(
        self,
        database: Engine,
        store: Store,
        spool: Spool,
        claim: Claim,
        *,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._leaving = leaving
        self._database = database
        self._store = store
        self._spool = spool
        self._claim = claim
        self._fetched: dict[str, Path] = {}
        self._bytes = 0

    def discard(self) -> None:
        """Removes what was fetched."""
        remove(self._fetched.values())

    def run(self, rows: Sequence[RowInput]) -> Gathered:
        """Raises StorageUnavailable, SQLAlchemyError and Leaving; what is wrong with a row is its
        own."""
        found = Gathered()
        wanted: list[tuple[RowInput, list[Named]]] = []
        for row in rows:
            if row.endpoint not in TAKES_MEDIA:
                found.rows.append(row)
                continue
            try:
                wanted.append((row, named_in(parse_body_json(row.endpoint, row.body))))
            except InvalidRequest as error:
                found.refused.append(self._refuse(row, error))
        ids = {item.id for _, named in wanted for item in named}
        sources = self._sources(ids) if ids else {}
        for row, named in wanted:
            self._provide(row, named, sources, found)
        found.paths = list(self._fetched.values())
        return found

    def _provide(
        self,
        row: RowInput,
        named: Sequence[Named],
        sources: dict[str, InputSource],
        found: Gathered,
    ) -> None:
        try:
            needed = self._needed(named, sources)
            size = sum(source.bytes for source in needed)
            if size > MOST_AT_ONCE:
                raise InvalidRequest(f"the inputs of a row have at most {MOST_AT_ONCE} bytes")
            if size and (found.later or self._bytes + size > MOST_AT_ONCE):
                found.later.append(row)
                return
            for source in needed:
                self._fetch(source, named)
        except (InvalidRequest, NotFound) as error:
            found.refused.append(self._refuse(row, error))
            return
        inputs = {item.id: str(self._fetched[item.id]) for item in named}
        found.rows.append(replace(row, inputs=inputs) if inputs else row)

    def _needed(self, named: Sequence[Named], sources: dict[str, InputSource]) -> list[InputSource]:
        """What is still to be fetched for a row. Raises NotFound and InvalidRequest."""
        needed: dict[str, InputSource] = {}
        for item in named:
            source = sources.get(item.id)
            if source is None:
                raise _not_found(item)
            if source.bytes > item.limit:
                raise InvalidRequest(
                    f"{item.id!r} has {source.bytes} bytes, the limit is {item.limit}",
                    param=item.param,
                )
            if item.id not in self._fetched:
                needed[item.id] = source
        return list(needed.values())

    def _fetch(self, source: InputSource, named: Sequence[Named]) -> None:
        path = self._spool.new_input()
        try:
            chunks = self._store.read(source.storage_key, 0, source.bytes)
            with path.open("xb") as file:
                for chunk in chunks:
                    if self._leaving():
                        raise Leaving
                    file.write(chunk)
                size = file.tell()
            if size != source.bytes:
                raise StorageUnavailable("the store returned less than was written")
        except NotFound:
            remove([path])
            raise _not_found(next(item for item in named if item.id == source.id)) from None
        except OSError as error:  # the disk of this machine, as a store that is away: it may pass
            remove([path])
            raise StorageUnavailable("there is no room for a row's inputs") from error
        except BaseException:
            remove([path])
            raise
        self._fetched[source.id] = path
        self._bytes += size

    def _sources(self, ids: set[str]) -> dict[str, InputSource]:
        with autocommit(self._database) as connection:
            claim = self._claim
            return find_inputs(connection, claim.tenant_id, ids, job_id=claim.job_id)

    def _refuse(self, row: RowInput, error: PressrunError) -> RowResult:
        return refused(self._claim, row, error)


def refused(claim: Claim, row: RowInput, error: PressrunError) -> RowResult:
    """The answer to a row that no engine needs to see."""
    said = {
        "message": error.message,
        "type": "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }
    body = json.dumps({"error": said}).encode()
    return RowResult(claim.shard_id, claim.epoch, row.index, 400, body)


def named_in(spec: InferenceSpec) -> list[Named]:
    """Every use of a file or an artifact by the body, in the order of its fields."""
    return [
        Named(reference.name, path)
        for path, reference in _references(spec, "")
        if reference.image_url is None
    ]


def _references(value: object, path: str) -> Iterator[tuple[str, MediaReference]]:
    if isinstance(value, MediaReference):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _references(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _references(item, f"{path}[{number}]")


def _not_found(item: Named) -> NotFound:
    kind = "artifact" if item.id.startswith("art_") else "file"
    return NotFound(f"no {kind} {item.id!r}", param=item.param)
