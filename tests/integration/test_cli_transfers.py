"""Large files through a command in a process of its own, whose memory is measured."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pressrun.part_uploads import PART_BYTES
from tests.integration.cli_plant import environment
from tests.unit.pressrun.fake_server import KEY, FakeServer, Seen, batch, serve

FILE_BYTES = 512 * 2**20
MEMORY_BYTES = 300 * 2**20
"""Far below the file's size, and well above what the command takes for itself."""
CHUNK = b"0123456789abcdef" * 2**16


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_a_large_upload_goes_in_parts_through_little_memory(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    with source.open("wb") as file:
        file.write(b'{"url": "/v1/completions"}\n')
        for _ in range(FILE_BYTES // len(CHUNK)):
            file.write(CHUNK)
    lost = ("/v1/uploads/upload_1/parts", 503, {"Retry-After": "0"})
    answers = FakeServer(batches={"batch_1": [batch("validating")]}, failures=[lost])
    with serve(answers) as server:
        code, peak = _submit(source, server.url)
    assert code == 0
    [begin] = server.requests("POST", "/v1/uploads")
    assert begin.body["bytes"] == source.stat().st_size
    forms = server.requests("POST", "/v1/uploads/upload_1/parts")
    parts, md5 = _digests(source, forms[1:])
    assert server.upload_sha256s[1:] == parts, "all of them, the lost one again"
    [complete] = server.requests("POST", "/v1/uploads/upload_1/complete")
    ids = [f"part_{number + 1}" for number in range(len(parts))]
    assert complete.body == {"part_ids": ids, "md5": md5}
    print(json.dumps({"upload_peak_mb": peak >> 20}))
    assert peak < MEMORY_BYTES


def _digests(source: Path, forms: list[Seen]) -> tuple[list[str], str]:
    """The SHA-256 of each form, around its part of the file; and the MD5 of the file."""
    found, whole = [], hashlib.md5(usedforsecurity=False)
    with source.open("rb") as file:
        for form in forms:
            boundary = form.headers["Content-Type"].split("boundary=")[1].encode()
            head, gap, _ = form.body.partition(b"\r\n\r\n")
            digest = hashlib.sha256(head + gap)
            left = PART_BYTES
            while data := file.read(min(left, 2**20)):
                left -= len(data)
                digest.update(data)
                whole.update(data)
            digest.update(b"\r\n--" + boundary + b"--\r\n")
            found.append(digest.hexdigest())
        assert file.read() == b""
    return found, whole.hexdigest()


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
