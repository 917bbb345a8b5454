"""Events of jobs as Server-Sent Events: live, taken up again, in order whoever commits first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from api.event_stream import DONE, HEARTBEAT, Pace
from api.routes import job_progress
from shared.db import events
from shared.lifecycle import working
from shared.lifecycle.working import Held, RowStep
from tests.integration.api_case import ApiCase, api_fixture
from tests.integration.test_api_jobs import claim, succeed

__all__ = ["api_fixture"]

ACCEPT = {"Accept": "text/event-stream"}


class Stream:
    """One open stream; ``next`` blocks until it says something but a heartbeat."""

    def __init__(self, api: ApiCase, job_id: str, headers: dict[str, str] | None = None) -> None:
        self.reply = api.app.test_client().get(
            f"/v1/jobs/{job_id}/events", headers=api.key | ACCEPT | (headers or {})
        )
        assert self.reply.status_code == 200
        assert self.reply.content_type.startswith("text/event-stream")
        self._said: Iterator[bytes] = iter(self.reply.iter_encoded())
        assert next(self._said).startswith(b"retry:")

    def next(self) -> tuple[str, Any]:
        """(``job``, its state), (an event's id, its type) or (``done``, None)."""
        for said in self._said:
            message = said.decode()
            if message == HEARTBEAT:
                continue
            if message == DONE:
                return "done", None
            fields = dict(line.split(": ", 1) for line in message.strip().split("\n"))
            data = json.loads(fields["data"])
            if fields.get("event") == "job":
                assert "id" not in fields
                return "job", data["state"]
            assert fields["id"] == data["id"]
            return data["id"], data["type"]
        raise AssertionError("the stream ended without [DONE]")

    def rest(self) -> list[tuple[str, Any]]:
        found = [self.next()]
        while found[-1] != ("done", None):
            found.append(self.next())
        return found

    def close(self) -> None:
        self.reply.close()


def running_job(api: ApiCase) -> tuple[str, str, Held]:
    job_id = api.submit()
    with api.begin() as connection:
        session = api.open_session(connection)
        held = claim(connection, session).held
    return job_id, session, held


def tell(api: ApiCase, session: str, held: Held, step: int) -> None:
    with api.begin() as connection:
        report = RowStep(held, step / 10, step, 10, "denoise", announce=True)
        working.report_steps(connection, session, [report])


def test_a_stream_tells_the_job_and_its_events_as_they_happen(api: ApiCase) -> None:
    job_id = api.submit()
    stream = Stream(api, job_id)
    assert stream.next() == ("job", "queued")
    with api.begin() as connection:
        session = api.open_session(connection)
        held = claim(connection, session).held
    assert stream.next() == ("job", "running")
    tell(api, session, held, 1)
    assert [stream.next()[1], stream.next()[1]] == ["running", "job.progress"]
    with api.begin() as connection:
        succeed(connection, session, held)
    assert [what for _, what in stream.rest()] == ["succeeded", "job.succeeded", None]
    stream.close()
    assert api.services.waiter.waiting == 0


def test_a_stream_that_is_taken_up_tells_each_event_once_and_in_order(api: ApiCase) -> None:
    job_id, session, held = running_job(api)
    for step in range(5):
        tell(api, session, held, step)
    seen: list[str] = []
    headers: dict[str, str] = {}
    for take in (1, 2):
        stream = Stream(api, job_id, headers)
        assert stream.next()[0] == "job"
        seen += [stream.next()[0] for _ in range(take)]
        stream.close()
        headers = {"Last-Event-ID": seen[-1]}
    stream = Stream(api, job_id, headers)
    assert stream.next()[0] == "job"
    with api.begin() as connection:
        succeed(connection, session, held)
    seen += [said for said, _ in stream.rest() if said not in {"job", "done"}]
    pages = [event["id"] for event in api.get(f"/v1/jobs/{job_id}/events?limit=1000").json["data"]]
    assert seen == pages
    assert len(set(seen)) == 6
    assert seen == sorted(seen, key=int)
    assert [said for said, _ in Stream(api, job_id, {"Last-Event-ID": seen[-1]}).rest()] == [
        "job", "done",
    ]  # fmt: skip


def test_an_event_that_is_committed_late_is_told_in_its_place(
    api: ApiCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "UNSETTLED_SECONDS", 600.0)
    job_id, session, held = running_job(api)
    with api.engine.connect() as late:
        report = RowStep(held, 0.1, 1, 10, "late", announce=True)
        working.report_steps(late, session, [report])
        with api.begin() as connection:  # as another step's worker would, beside it
            connection.execute(
                text("INSERT INTO events (tenant_id, job_id, type)"
                     " SELECT tenant_id, id, 'job.beside' FROM jobs WHERE id = :id"),
                {"id": job_id},
            )  # fmt: skip
        with ThreadPoolExecutor(2) as threads:
            page = threads.submit(api.get, f"/v1/jobs/{job_id}/events")
            stream = Stream(api, job_id)
            assert stream.next()[0] == "job"
            told = threads.submit(lambda: [stream.next()[1] for _ in range(3)])
            time.sleep(0.2)
            assert not told.done()
            late.commit()
            assert sorted(told.result()) == ["job.beside", "job.progress", "running"]
            kinds = [event["type"] for event in page.result().json["data"]]
    assert kinds == ["job.progress", "job.beside"]
    stream.close()
    later = Stream(api, job_id)
    assert [later.next()[1] for _ in range(3)] == ["running", "job.progress", "job.beside"]
    later.close()


def test_silence_is_filled(api: ApiCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_progress, "PACE", Pace(heartbeat=0.02, longest=600.0))
    reply = api.app.test_client().get(
        f"/v1/jobs/{api.submit()}/events?stream=true", headers=api.key
    )
    said = iter(reply.iter_encoded())
    assert [next(said).decode() for _ in range(4)][2:] == [HEARTBEAT, HEARTBEAT]
    reply.close()


def test_a_stream_ends_when_the_process_is_to_stop(api: ApiCase) -> None:
    stream = Stream(api, api.submit())
    assert stream.next() == ("job", "queued")
    api.services.waiter.serve_while(lambda: False)
    assert list(stream.reply.iter_encoded()) == []
    stream.close()


def test_what_is_no_stream_is_a_page(api: ApiCase) -> None:
    path = f"/v1/jobs/{api.submit()}/events"
    for headers, query in [({}, ""), (ACCEPT, "?stream=false"), ({"Accept": "*/*"}, "")]:
        assert api.get(path + query, headers).json["data"] == []


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 40, "²", "0" * 20 + "9" * 40])
def test_a_last_event_that_is_none_is_refused(api: ApiCase, last: str) -> None:
    reply = api.get(f"/v1/jobs/{api.submit()}/events", ACCEPT | {"Last-Event-ID": last})
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "Last-Event-ID")


def test_streams_have_places_and_are_the_tenants(api: ApiCase) -> None:
    job_id = api.submit()
    streams = [Stream(api, job_id) for _ in range(9)]
    refused = api.get(f"/v1/jobs/{job_id}/events", ACCEPT)
    assert (refused.status_code, refused.json["error"]["code"]) == (429, "too_many_requests")
    assert "Retry-After" in refused.headers
    for stream in streams:
        stream.close()
    other = api.client.get(f"/v1/jobs/{job_id}/events", headers=api.new_tenant() | ACCEPT)
    assert other.status_code == 404
