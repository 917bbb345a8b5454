"""HTTP load: ``wrk`` where it is installed, else processes of ``bench.load_client``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import ROOT
from bench.rig import child_environment

CONNECTIONS = 16
GRACE_SECONDS = 60.0
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_REFUSED = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)")


class LoadFailed(Exception):
    """Requests failed: what was measured is no rate of anything."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to 127.0.0.1."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""

    def text(self) -> str:
        """As it goes over the wire."""
        headers = {"Host": "127.0.0.1", **self.headers}
        if self.body:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(self.body))}
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines) + "\r\n\r\n" + self.body


def generator() -> str:
    """The name of what makes the load on this machine."""
    return "wrk" if shutil.which("wrk") else "bench.load_client"


def rate(port: int, request: Request, *, seconds: float, folder: Path) -> float:
    """Requests a second over 16 connections that stay open. Raises LoadFailed if any fails."""
    if shutil.which("wrk"):
        return _wrk(port, request, seconds, folder)
    done = send(port, [request], seconds=seconds, connections=CONNECTIONS)
    return float(done["completed"] / done["seconds"])


def send(
    port: int,
    requests: Sequence[Request],
    *,
    connections: int,
    seconds: float | None = None,
    count: int | None = None,
) -> dict[str, Any]:
    """Sends ``requests`` in turn from one process; see ``bench.load_client``. Raises LoadFailed."""
    plan = {
        "port": port,
        "connections": connections,
        "requests": [request.text() for request in requests],
        "seconds": seconds,
        "count": count,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.load_client"],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=child_environment(),
        timeout=(seconds or 600.0) + GRACE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise LoadFailed(done.stderr.strip()[-500:])
    result: dict[str, Any] = json.loads(done.stdout)
    refused = {
        code: n for code, n in result["statuses"].items() if code[0] != "2" and code != "304"
    }
    if refused:
        raise LoadFailed(f"{requests[0].method} {requests[0].path} was answered {refused}")
    return result


def _wrk(port: int, request: Request, seconds: float, folder: Path) -> float:
    script = folder / "request.lua"
    headers = dict(request.headers)
    if request.body:
        headers["Content-Type"] = "application/json"
    lines = [f"wrk.method = {json.dumps(request.method)}"]
    lines += [f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in headers.items()]
    if request.body:
        lines.append(f"wrk.body = {json.dumps(request.body)}")
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", str(script),
         f"http://127.0.0.1:{port}{request.path}"],
        capture_output=True,
        text=True,
        timeout=seconds + GRACE_SECONDS,
        check=False,
    )  # fmt: skip
    found = _RATE.search(done.stdout)
    refused = _REFUSED.search(done.stdout)
    if done.returncode != 0 or found is None or refused is not None:
        raise LoadFailed((done.stdout + done.stderr).strip()[-500:])
    return float(found[1])
