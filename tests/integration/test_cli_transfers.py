"""Large files through a command in a process of its own, whose memory is measured."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli_plant import environment
from tests.unit.pressrun.fake_server import KEY, FakeServer, batch, serve

FILE_BYTES = 512 * 2**20
MEMORY_BYTES = 300 * 2**20
"""Far below the file's size, and well above what the command takes for itself."""
CHUNK = b"0123456789abcdef" * 2**16


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_a_large_upload_goes_through_little_memory(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    digest = hashlib.sha256()
    with source.open("wb") as file:
        file.write(b'{"url": "/v1/completions"}\n')
        for _ in range(FILE_BYTES // len(CHUNK)):
            file.write(CHUNK)
    with serve(FakeServer(batches={"batch_1": [batch("validating")]})) as server:
        code, peak = _submit(source, server.url)
    assert code == 0
    assert server.upload_bytes > FILE_BYTES
    form, boundary = _form_around(server, source)
    digest.update(form)
    with source.open("rb") as file:
        while data := file.read(2**20):
            digest.update(data)
    digest.update(boundary)
    assert server.upload_sha256 == digest.hexdigest()
    print(json.dumps({"upload_peak_mb": peak >> 20}))
    assert peak < MEMORY_BYTES


# A process starts with the peak of the one that forked it, and this one may be large.
_MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _submit(source: Path, url: str) -> tuple[int, int]:
    """Exit code of the command, and the most memory that it had, in bytes."""
    command = [sys.executable, "-m", "pressrun", "batch", "submit", str(source)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *command],
        env=environment(url=url, api_key=KEY),
        cwd=source.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    code, peak_kilobytes = map(int, done.stdout.split()[-2:])
    return code, peak_kilobytes * 1024


def _form_around(server: FakeServer, source: Path) -> tuple[bytes, bytes]:
    """The bytes of the multipart form before and after the file."""
    [upload] = server.requests("POST", "/v1/files")
    head, _, _ = upload.body.partition(b'{"url"')
    boundary = upload.headers["Content-Type"].split("boundary=")[1].encode()
    return head, b"\r\n--" + boundary + b"--\r\n"
