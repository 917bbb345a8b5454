"""A server with the routes that commands use, small enough to script: state is plain attributes."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "pr_live_test"
ADMIN_KEY = "admin-test"
READ_BYTES = 2**16


@dataclass
class Seen:
    """One request, as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any = None


@dataclass
class FakeServer:
    """Answers; ``batches[id]`` is a list of the states that successive GETs show."""

    batches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    streams: list[str] = field(default_factory=list)
    """What successive event streams of any job say; after the last there are none."""
    campaigns: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tunings: list[dict[str, Any]] = field(default_factory=list)
    """States of the one fine-tuning job that there is."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """Of that job, when it is a sweep."""
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    """Of the one job that has any; their bytes are in ``files``."""
    files: dict[str, bytes] = field(default_factory=dict)
    tenants: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    aliases: dict[str, dict[str, Any]] = field(default_factory=dict)
    moves: list[dict[str, Any]] = field(default_factory=list)
    """The history of any alias."""
    failures: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)
    """(path prefix, status, headers) to answer once each, in order, before anything else."""
    truncations: int = 0
    """How many downloads still break off half way."""
    downloads_at: str = ""
    """Another server's address, to redirect downloads to."""
    upload_bytes: int = 0
    upload_sha256: str = ""
    upload_sha256s: list[str] = field(default_factory=list)
    """Of every form that came, in order."""
    upload_parts: int = 0
    result_pages: list[tuple[bytes, bool]] = field(default_factory=list)
    """Lines that successive answers hold, and whether more may come."""
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def requests(self, method: str, path: str) -> list[Seen]:
        return [one for one in self.seen if (one.method, one.path) == (method, path)]


def batch(status: str, **fields: Any) -> dict[str, Any]:
    """A batch object with the members that a real one always has."""
    return {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "created_at": 1_700_000_000,
        "status": status,
        "request_counts": {"total": 2, "completed": 0, "failed": 0},
        "output_file_id": None,
        "error_file_id": None,
        **fields,
    }


def job(state: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "job_1",
        "kind": "generate",
        "state": state,
        "model": "fake",
        "created_at": 1_700_000_000,
        "error": None,
        "result": None,
        **fields,
    }


def campaign(status: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "campaign_1",
        "object": "campaign",
        "status": status,
        "product": "Stillwater Two",
        "steps": {"total": 9, "completed": 4, "failed": 0},
        "created_at": 1_700_000_000,
        "error": None,
        **fields,
    }


def alias(name: str, model: str | None, **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model_alias",
        "name": name,
        "model": model,
        "version": 0 if model is None else 1,
        "gate_job_id": None,
        "created_at": 1_700_000_000,
        "moved_at": None if model is None else 1_700_000_000,
        **fields,
    }


def move(to_model: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "model_alias.move",
        "version": 1,
        "from_model": None,
        "to_model": to_model,
        "by": "hand",
        "outcome": "moved",
        "job_id": None,
        "evaluation": None,
        "created_at": 1_700_000_000,
        **fields,
    }


def tuning(status: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "ftjob-1",
        "object": "fine_tuning.job",
        "status": status,
        "model": "writer",
        "recipe": "supervised",
        "fine_tuned_model": None,
        "created_at": 1_700_000_000,
        "finished_at": None,
        "estimated_finish": None,
        "result_files": [],
        "paused": False,
        "stopping": False,
        "step": None,
        "steps": None,
        "loss": None,
        "error": None,
        **fields,
    }


@contextmanager
def serve(state: FakeServer) -> Iterator[FakeServer]:
    """Runs the server on a free port of the loopback interface."""

    class Handler(_Handler):
        server_state = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        state, parts = self.server_state, urlsplit(self.path)
        seen = Seen(method, parts.path, parse_qs(parts.query), dict(self.headers))
        seen.body = self._read_body()
        state.seen.append(seen)
        if state.failures and parts.path.startswith(state.failures[0][0]):
            _, status, headers = state.failures.pop(0)
            return self._error(status, "scripted", headers)
        if not self._is_authorised(parts.path):
            return self._error(401, "invalid_api_key")
        for verb, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, parts.path)
            if verb == method and match:
                answer(self, state, seen, *match.groups())
                return None
        return self._error(404, "not_found")

    def _is_authorised(self, path: str) -> bool:
        if path.startswith("/v1/downloads/"):
            return True
        key = ADMIN_KEY if path.startswith("/v1/admin") else KEY
        return self.headers.get("Authorization") == f"Bearer {key}"

    def _read_body(self) -> Any:
        left = int(self.headers.get("Content-Length") or 0)
        if not (self.headers.get("Content-Type") or "").startswith("multipart/"):
            return json.loads(self.rfile.read(left)) if left else None
        digest = hashlib.sha256()
        head = b""
        self.server_state.upload_bytes = left
        while left:
            data = self.rfile.read(min(left, READ_BYTES))
            head = head or data
            digest.update(data)
            left -= len(data)
        self.server_state.upload_sha256 = digest.hexdigest()
        self.server_state.upload_sha256s.append(digest.hexdigest())
        return head

    def answer(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        error = {"message": f"it is {code}", "type": "x", "param": None, "code": code}
        self.answer({"error": error}, status, headers)


def _page(items: list[Any]) -> dict[str, Any]:
    return {"object": "list", "data": items, "has_more": False}


def _next(states: list[dict[str, Any]]) -> dict[str, Any]:
    return states.pop(0) if len(states) > 1 else states[0]


def _list(handler: _Handler, state: FakeServer, seen: Seen, kind: str) -> None:
    everything: list[dict[str, Any]] = {
        "batches": [states[-1] for states in state.batches.values()],
        "jobs": [states[-1] for states in state.jobs.values()],
        "campaigns": [states[-1] for states in state.campaigns.values()],
        "models": state.models,
        "admin/tenants": state.tenants,
    }[kind]
    after = seen.query.get("after", [None])[0]
    if after is None and len(everything) > 1:
        return handler.answer({**_page(everything[:1]), "has_more": True})
    start = [item["id"] for item in everything].index(after) + 1 if after else 0
    return handler.answer(_page(everything[start:]))


def _one(handler: _Handler, state: FakeServer, seen: Seen, kind: str, name: str) -> None:
    known = getattr(state, kind)
    if name not in known:
        return handler._error(404, "not_found")
    return handler.answer(_next(known[name]))


def _create(handler: _Handler, state: FakeServer, seen: Seen, kind: str) -> None:
    known = getattr(state, kind)
    handler.answer(_next(next(iter(known.values()))))


def _cancel(handler: _Handler, state: FakeServer, seen: Seen, kind: str, name: str) -> None:
    known = getattr(state, kind)
    handler.answer(known[name][-1])


def _stream(handler: _Handler, state: FakeServer, seen: Seen, name: str) -> None:
    if not state.streams:
        return handler._error(429, "too_many_requests")
    data = state.streams.pop(0).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
    return None


def _put(handler: _Handler, state: FakeServer, seen: Seen, name: str) -> None:
    handler.answer({**state.jobs["job_1"][0], "client_id": name})


def _artifacts(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    roles = seen.query.get("role")
    handler.answer(_page([one for one in state.artifacts if not roles or one["role"] in roles]))


def _steps(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    step = {"name": "headline en 1", "state": "succeeded", "model": "fake", "attempts": 1}
    handler.answer(_page([step]))


def _tuning(handler: _Handler, state: FakeServer, seen: Seen, *_: str) -> None:
    handler.answer(_next(state.tunings))


def _tunings(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    handler.answer(_page(state.trials if "parent" in seen.query else state.tunings[:1]))


def _tuning_events(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    told = ("Step 2", "The training has begun")
    handler.answer(
        _page([{"level": "info", "message": text, "created_at": 1_700_000_000} for text in told])
    )


def _tuning_checkpoints(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    name = "ft:writer:t::1:ckpt-step-2"
    found = {"step_number": 2, "metrics": {"valid_loss": 0.5}, "best": True}
    handler.answer(_page([{**found, "fine_tuned_model_checkpoint": name}]))


def _aliases(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    if seen.method == "GET":
        return handler.answer(_page([*state.aliases.values()]))
    made = state.aliases[seen.body["name"]] = alias(seen.body["name"], seen.body["model"])
    return handler.answer(made, 201)


def _alias(handler: _Handler, state: FakeServer, seen: Seen, name: str, verb: str | None) -> None:
    if name not in state.aliases:
        return handler._error(404, "not_found")
    if verb == "history":
        return handler.answer(_page(state.moves))
    found = state.aliases[name]
    if seen.method == "GET":
        return handler.answer(found)
    if seen.body.get("gate"):
        return handler.answer(found | {"gate_job_id": "job_1"}, 202)
    return handler.answer(found | {"model": seen.body.get("model", "before"), "version": 2})


def _upload(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    handler.answer({"id": "file-1", "bytes": state.upload_bytes})


def _begin_upload(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    handler.answer({"id": "upload_1", "status": "pending", **seen.body})


def _part(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    state.upload_parts += 1
    handler.answer({"id": f"part_{state.upload_parts}", "bytes": state.upload_bytes})


def _complete(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    handler.answer({"id": "upload_1", "status": "completed", "file": {"id": "file-1"}})


def _results(handler: _Handler, state: FakeServer, seen: Seen, name: str) -> None:
    data, incomplete = state.result_pages.pop(0)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.send_header("X-Next-After", f"a{len(state.result_pages)}.0.0")
    handler.send_header("X-Incomplete", "true" if incomplete else "false")
    handler.end_headers()
    if state.truncations:
        state.truncations -= 1
        state.result_pages.insert(0, (data, incomplete))
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True
        return
    handler.wfile.write(data)


def _retry(handler: _Handler, state: FakeServer, seen: Seen, name: str) -> None:
    handler.answer(state.batches[name][0] | {"id": "batch_2", "retry_of": name})


def _file(handler: _Handler, state: FakeServer, seen: Seen, name: str) -> None:
    handler.answer({"id": name, "bytes": len(state.files[name])})


def _content(handler: _Handler, state: FakeServer, seen: Seen, name: str) -> None:
    handler.answer({}, 302, {"Location": f"{state.downloads_at}/v1/downloads/{name}"})


def _download(handler: _Handler, state: FakeServer, seen: Seen, name: str) -> None:
    data = state.files[name]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if state.truncations:
        state.truncations -= 1
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True
        return
    handler.wfile.write(data)


def _keys(handler: _Handler, state: FakeServer, seen: Seen, tenant: str) -> None:
    if seen.method == "POST":
        return handler.answer({"id": "key_1", "key": "pr_live_new", **(seen.body or {})})
    return handler.answer(_page(state.keys))


def _revoke(handler: _Handler, state: FakeServer, seen: Seen, tenant: str, key: str) -> None:
    handler.answer({"id": key, "revoked_at": 1_700_000_001})


def _new_tenant(handler: _Handler, state: FakeServer, seen: Seen) -> None:
    handler.answer({"id": "ten_new", "name": seen.body["name"]})


_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/files", _upload),
    ("POST", "/v1/uploads", _begin_upload),
    ("POST", "/v1/uploads/upload_1/parts", _part),
    ("POST", "/v1/uploads/upload_1/complete", _complete),
    ("GET", "/v1/batches/([^/]+)/results", _results),
    ("POST", "/v1/batches/([^/]+)/retry", _retry),
    ("GET", "/v1/(?:files|artifacts)/([^/]+)", _file),
    ("GET", "/v1/(?:files|artifacts)/([^/]+)/content", _content),
    ("GET", "/v1/jobs/[^/]+/artifacts", _artifacts),
    ("GET", "/v1/jobs/([^/]+)/events", _stream),
    ("PUT", "/v1/jobs/([^/]+)", _put),
    ("GET", "/v1/campaigns/[^/]+/steps", _steps),
    ("GET", "/v1/downloads/(.+)", _download),
    ("POST", "/v1/fine_tuning/jobs", _tuning),
    ("GET", "/v1/fine_tuning/jobs", _tunings),
    ("GET", "/v1/fine_tuning/jobs/[^/]+", _tuning),
    ("POST", "/v1/fine_tuning/jobs/[^/]+/(?:cancel|pause|resume)", _tuning),
    ("GET", "/v1/fine_tuning/jobs/[^/]+/events", _tuning_events),
    ("GET", "/v1/fine_tuning/jobs/[^/]+/checkpoints", _tuning_checkpoints),
    ("POST", "/v1/model_aliases", _aliases),
    ("GET", "/v1/model_aliases", _aliases),
    ("GET", "/v1/model_aliases/([^/]+)(?:/(history))?", _alias),
    ("POST", "/v1/model_aliases/([^/]+)(?:/(rollback))?", _alias),
    ("POST", "/v1/(batches|jobs|campaigns)", _create),
    ("GET", "/v1/(batches|jobs|campaigns|models|admin/tenants)", _list),
    ("GET", "/v1/(batches|jobs|campaigns)/([^/]+)", _one),
    ("POST", "/v1/(batches|jobs|campaigns)/([^/]+)/cancel", _cancel),
    ("POST", "/v1/admin/tenants", _new_tenant),
    ("GET", "/v1/admin/tenants/([^/]+)/keys", _keys),
    ("POST", "/v1/admin/tenants/([^/]+)/keys", _keys),
    ("DELETE", "/v1/admin/tenants/([^/]+)/keys/([^/]+)", _revoke),
]
