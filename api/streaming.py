"""Calls with ``stream: true``: an ordinary job, read along while it generates.

Deltas are a look at the text on its way; the job's result is the truth. So a stream ends with the
rest of the result, whatever was seen of it before, and a job that has ended already is told whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, Protocol

from flask import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from api.chunks import Diverged, Narrator
from api.delta_reader import Reading
from api.direct import JOB_HEADER, error_of, without_result
from api.errors import StillRunning, error_object
from api.event_stream import CONTENT_TYPE, HEARTBEAT
from api.idempotency import Once
from api.routes.replies import cancel_job
from api.services import Services
from api.submitting import Submission, submit_once
from shared.db.jobs import JobRow, get_job
from shared.db.streams import Piece, Read
from shared.errors import Conflict, DatabaseUnavailable, InvalidRequest, NotFound
from shared.specs import ChatCompletionSpec, CompletionSpec, GenerationSpec
from shared.states import JobState

CANCEL_HEADER = "x-pressrun-cancel-on-disconnect"
INTERRUPTED = "stream_interrupted"
"""The code of a stream that ends before its job; the job goes on."""
SETTLE_SECONDS = 1.0
"""How long the first word is waited for before the answer begins: what fails at once is an ordinary
HTTP error."""
HEARTBEAT_SECONDS = 10.0
WATCHFUL_HEARTBEAT_SECONDS = 1.0
"""Where a caller who is gone wants the job cancelled: only writing shows that somebody is gone."""
UNAVAILABLE = 503
TIMED_OUT = 504


class Teller(Protocol):
    """How a job's text is said to those who read it along. ``say`` and ``close`` raise Diverged."""

    def opening(self) -> str:
        """What is known before anything is generated."""

    def say(self, pieces: Sequence[Piece]) -> str:
        """What is new in these pieces."""

    def close(self, result: Mapping[str, Any], /) -> str:
        """All that is left to say of the job's result."""

    def fail(self, row: JobRow, error: dict[str, Any], /) -> str:
        """The job has ended without one."""

    def broken(self, error: dict[str, Any], /) -> str:
        """The stream can't go on."""


class Terms(NamedTuple):
    """What the caller asked of the stream."""

    teller: Callable[[str, str | None], Teller]
    """By the job's id, and its model where that is known already."""
    cancels: bool
    """Whether the job is cancelled when the caller goes away."""
    settles: bool = True
    """Whether what fails at once is an ordinary HTTP error."""


def cancels_of(request: Request) -> bool:
    """Whether the caller wants the job cancelled when they go away. Raises InvalidRequest."""
    asked = request.headers.get(CANCEL_HEADER, "false").lower()
    if asked not in {"true", "false"}:
        raise InvalidRequest(f"'{CANCEL_HEADER}' must be true or false", param=CANCEL_HEADER)
    return asked == "true"


def terms_of(request: Request, spec: GenerationSpec) -> Terms:
    """Of a call that is answered in chunks. Raises InvalidRequest."""
    return Terms(
        lambda job_id, model: _narrator(spec, job_id, model or spec.model), cancels_of(request)
    )


def stream_call(
    services: Services,
    tenant_id: str,
    once: Once,
    make: Callable[[], Submission],
    terms: Terms,
) -> Response:
    """Submits what ``make`` prepares and tells its text as it comes. What fails within about a
    second, before the first word, is answered as any failed call.

    Raises TooManyRequests before anything is accepted, and what ``submit_once`` raises.
    """
    with ExitStack() as place:
        place.enter_context(services.waiter.place(tenant_id))
        job_id, submission = submit_once(services, tenant_id, once, make)
        reading = place.enter_context(services.deltas.follow(tenant_id, job_id))
        call = _Call(services, tenant_id, job_id, reading)
        first: Read | None = None
        row: JobRow | None = None
        if terms.settles:
            first = reading.next(min(SETTLE_SECONDS, services.settings.direct_seconds))
            if submission is None or (first is not None and first.ended):
                row, _ = call.job()
                if row.state not in {JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED}:
                    return without_result(row)
        model = row.model if row is not None else submission.model if submission else None
        lines = call.lines(terms.teller(job_id, model), first, cancels=terms.cancels)
        return _response(call, lines, place.pop_all(), cancels=terms.cancels)


def follow_job(services: Services, tenant_id: str, job_id: str, teller: Teller) -> Response:
    """Tells the text of a job that is the tenant's, from its beginning. Raises TooManyRequests."""
    with ExitStack() as place:
        place.enter_context(services.waiter.place(tenant_id))
        reading = place.enter_context(services.deltas.follow(tenant_id, job_id))
        call = _Call(services, tenant_id, job_id, reading)
        lines = call.lines(teller, None, cancels=False)
        return _response(call, lines, place.pop_all(), cancels=False)


def _response(call: _Call, lines: Iterator[str], place: ExitStack, *, cancels: bool) -> Response:
    response = Response(
        lines,
        headers={JOB_HEADER: call.job_id, "X-Accel-Buffering": "no", "Cache-Control": "no-store"},
        content_type=CONTENT_TYPE,
    )
    if cancels:
        response.call_on_close(call.cancel_unless_over)
    response.call_on_close(place.close)
    return response


def _narrator(spec: GenerationSpec, job_id: str, model: str) -> Narrator:
    leads = [""] * spec.result_count
    if isinstance(spec, CompletionSpec) and spec.echo:
        leads = [prompt for prompt in spec.prompts for _ in range(spec.n)]
    return Narrator(
        chat=isinstance(spec, ChatCompletionSpec),
        name=job_id,
        model=model,
        created=int(time.time()),
        leads=leads,
        with_usage=spec.stream_options is not None and spec.stream_options.include_usage,
    )


class _Call:
    """One job and whoever reads it along."""

    def __init__(self, services: Services, tenant_id: str, job_id: str, reading: Reading) -> None:
        self.job_id = job_id
        self._services = services
        self._tenant_id = tenant_id
        self._reading = reading
        self._over = False
        """All was said that there is to say."""

    def job(self) -> tuple[JobRow, str | None]:
        """The job and its result. Raises NotFound when it was deleted."""
        with self._services.autocommit.connect() as connection:
            found = get_job(connection, self._tenant_id, self.job_id)
        if found is None:
            raise NotFound("the job of this call was deleted")
        return found

    def cancel_unless_over(self) -> None:
        """The caller is gone: asks the job to stop, if it was not told to its end."""
        if not self._over:
            with suppress(Conflict, NotFound, SQLAlchemyError):  # it ended, or its deadline comes
                cancel_job(self._services, self._tenant_id, self.job_id)

    def lines(self, teller: Teller, first: Read | None, *, cancels: bool) -> Iterator[str]:
        """The whole stream. ``first`` is what was read of the job already."""
        yield teller.opening()
        try:
            yield from self._text(teller, first, cancels=cancels)
        except Diverged:
            yield self._broken(teller, "another attempt at this job says something else")
        self._over = True

    def _text(self, teller: Teller, first: Read | None, *, cancels: bool) -> Iterator[str]:
        services, news = self._services, first
        heartbeat = WATCHFUL_HEARTBEAT_SECONDS if cancels else HEARTBEAT_SECONDS
        quiet_until = time.monotonic() + services.settings.direct_seconds
        while True:
            if news is not None and news.ended:
                yield self._ending(teller)
                return
            if services.waiter.stopping:
                yield self._broken(teller, "this server is being stopped")
                return
            if news is not None:
                if said := "".join(teller.say(delta.pieces) for delta in news.deltas):
                    quiet_until = time.monotonic() + services.settings.direct_seconds
                    yield said
            elif time.monotonic() >= quiet_until:
                message = f"nothing more was said: GET /v1/jobs/{self.job_id} has the result later"
                yield teller.broken(error_object(StillRunning.code, message, status=TIMED_OUT))
                return
            else:
                yield HEARTBEAT
            news = self._reading.next(min(heartbeat, quiet_until - time.monotonic()))

    def _ending(self, teller: Teller) -> str:
        try:
            row, result = self.job()
        except NotFound as error:
            return teller.broken(error_object(error.code, error.message, status=404))
        except SQLAlchemyError:
            message = f"the database does not answer: GET /v1/jobs/{self.job_id} has the result"
            code = DatabaseUnavailable.code
            return teller.broken(error_object(code, message, status=UNAVAILABLE))
        if row.state == JobState.SUCCEEDED and result is not None:
            body: dict[str, Any] = json.loads(result)
            return teller.close(body)
        return teller.fail(row, error_of(row))

    def _broken(self, teller: Teller, why: str) -> str:
        message = f"{why}; the job goes on: GET /v1/jobs/{self.job_id} has its result"
        return teller.broken(error_object(INTERRUPTED, message, status=UNAVAILABLE))
