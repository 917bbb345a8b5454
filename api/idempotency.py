"""Requests that come twice make one thing.

Whoever sends an ``Idempotency-Key`` names a request; the key is claimed before anything is done.
OpenAI's clients never send one and repeat a POST all the same, which they admit in
``x-stainless-retry-count``: such a repetition finds what the same body made a moment ago.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from flask import Flask, Response, g, request
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from api import parsing
from shared import lifecycle
from shared.db.idempotency import claim_key, find_retried, release_claim
from shared.db.security import acting_for
from shared.errors import IdempotencyMismatch, RequestUnderWay

if TYPE_CHECKING:
    from api.services import LateServices, Services

RETRY_COUNT = "x-stainless-retry-count"
PATIENCE_SECONDS = 0.8
"""How long a second request waits for the first to be accepted before it is sent away."""
LOOK_SECONDS = 0.1

_COUNT = re.compile("[0-9]{1,4}", re.ASCII)
_CHUNK_BYTES = 2**20

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Once:
    """What makes this request the same as another one; nothing, for most."""

    route: str
    key: str | None
    fingerprint: bytes = b""
    """Of the body."""
    request_hash: bytes | None = None
    """Without a key, of a client that repeats requests by itself: of route, API key and body."""
    is_retry: bool = False
    who: str = field(default_factory=lambda: secrets.token_hex(12))

    def first_use(self, services: Services, tenant_id: str) -> str | None:
        """The id of what the same request made before. None: it is this request's to make, and
        nobody else's until it is answered.

        Raises IdempotencyMismatch when the key came with another body, and RequestUnderWay.
        """
        if self.key is not None:
            return self._used(services, tenant_id, self.key)
        if self.request_hash is not None:
            return self._made(services, tenant_id, self.request_hash)
        return None

    def for_submit(self) -> lifecycle.Idempotency | None:
        """For the transaction that makes what was asked for, after ``first_use``."""
        if self.key is not None:
            return lifecycle.Idempotency(self.route, self.key, self.fingerprint, self.who)
        if self.request_hash is None:
            return None
        hashed = self.request_hash
        return lifecycle.Idempotency(self.route, None, self.fingerprint, request_hash=hashed)

    def made(self, connection: Connection, tenant_id: str, object_id: str) -> None:
        """Remembers what this request made, where that is no job: in the same transaction."""
        lifecycle.remember_object(connection, tenant_id, object_id, self.for_submit())

    def _used(self, services: Services, tenant_id: str, key: str) -> str | None:
        g.once = (tenant_id, self)
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            with services.autocommit.connect() as connection:
                claim = claim_key(
                    connection,
                    tenant_id,
                    route=self.route,
                    key=key,
                    fingerprint=self.fingerprint,
                    claim=self.who,
                )
            if claim.fingerprint != self.fingerprint:
                raise IdempotencyMismatch(
                    "this Idempotency-Key was used with another body", param="Idempotency-Key"
                )
            if claim.is_mine or claim.made is not None:
                return claim.made
            _wait(until)

    def _made(self, services: Services, tenant_id: str, hashed: bytes) -> str | None:
        g.once = (tenant_id, self)
        services.under_way.enter(hashed, self.who)
        until = time.monotonic() + PATIENCE_SECONDS
        while self.is_retry:
            # In this order: one that leaves in between has made what it could.
            is_first = services.under_way.is_first(hashed, self.who)
            with services.autocommit.connect() as connection:
                made = find_retried(connection, tenant_id, hashed)
            if made is not None or is_first:
                return made
            _wait(until)
        return None


def _wait(until: float) -> None:
    if time.monotonic() > until:
        raise RequestUnderWay("the same request is being worked on; try again")
    time.sleep(LOOK_SECONDS)


def once_for(route: str, key: str | None, document: Any) -> Once:
    """What makes requests of ``route`` with this JSON the same. Raises InvalidRequest."""
    return once_of(route, key, lambda: parsing.fingerprint(document))


def once_of(route: str, key: str | None, fingerprint: Callable[[], bytes]) -> Once:
    """As ``once_for``; ``fingerprint`` is only asked where it matters."""
    count = request.headers.get(RETRY_COUNT, "")
    if key is not None:
        return Once(route, key, fingerprint())
    if not _COUNT.fullmatch(count):
        return Once(route, None)
    body = fingerprint()
    # The path has what stands for the route's parameters.
    asked = [request.headers.get("Authorization", ""), route, request.full_path, body.hex()]
    hashed = sha256(parsing.canonical(asked)).digest()
    return Once(route, None, body, hashed, is_retry=int(count) > 0)


def sha256_of(path: Path) -> str:
    """Of an uploaded file, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def register_endings(app: Flask, services: LateServices) -> None:
    """Lets go of what a request has claimed and not used, once it is answered."""

    def release(response: Response) -> Response:
        if "once" in g and response.status_code >= HTTPStatus.BAD_REQUEST:
            _release(services(), *g.once)
        return response

    def leave(_: BaseException | None) -> None:
        if "once" in g and g.once[1].request_hash is not None:
            services().under_way.leave(g.once[1].request_hash, g.once[1].who)

    app.after_request(release)
    app.teardown_request(leave)


def _release(services: Services, tenant_id: str, once: Once) -> None:
    if once.key is None:
        return
    try:
        with acting_for(tenant_id), services.autocommit.connect() as connection:
            release_claim(connection, tenant_id, route=once.route, key=once.key, claim=once.who)
    except SQLAlchemyError as error:
        # Its lease runs out; until then the key is answered with 409.
        log.warning("claim_left_behind", error=type(error).__name__)
