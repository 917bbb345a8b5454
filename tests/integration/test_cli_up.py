"""``pressrun up`` with the fake model: real processes, killed in every way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pressrun.demo.rows import demo_rows
from tests.integration.cli_plant import (
    PlantProcess,
    environment,
    plant,
    processes_of,
    run_cli,
    wait_until_gone,
)

if TYPE_CHECKING:
    from tests.services.swift import S3Bucket

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for remains in /proc"),
]

GONE_SECONDS = 30.0
BODY = '{"model": "fake", "messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder, with spaces" / "data dir"
    folder.parent.mkdir()
    return folder


def run_job(process: PlantProcess) -> str:
    """Submits one job, waits for it and returns its id."""
    done = process.cli(
        *("job", "submit", "--endpoint", "/v1/chat/completions", "--body", BODY),
        *("--watch", "--json"),
    )
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["state"] == "succeeded"
    return str(job["id"])


def wait_for_other(process: PlantProcess, name: str, pid: int) -> int:
    """The process id of the successor of a child that was killed."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        successor = process.children().get(name, pid)
        if successor != pid:
            return successor
        time.sleep(0.1)
    raise AssertionError(f"{name} was not started again:\n{process.stderr}")


def test_up_runs_jobs_keeps_its_folder_to_itself_and_stops_without_remains(data: Path) -> None:
    with plant(data) as process:
        process.wait_ready()
        for name in ("signing-key", "admin-key", "api-key"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
            assert not (data / name).read_text().endswith("\n")  # for open(…).read()
        assert (data / "url").read_text().strip() == process.url
        run_job(process)

        second = run_cli(
            *("up", "--data", str(data), "--port", "0", "--with-fake", "--no-starter-models"),
            cwd=data.parent,
        )
        assert second.returncode == 2
        assert f"in use by another `pressrun up` (process {process.pid})" in second.stderr
        port = process.url.rpartition(":")[2]
        other = run_cli(
            *("up", "--data", str(data.parent / "other"), "--port", port),
            *("--with-fake", "--no-starter-models"),
            cwd=data.parent,
        )
        assert other.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port}" in other.stderr
        run_job(process)

        assert process.stop() == 0
        assert wait_until_gone(data, 1.0) == []
        assert not (data / "url").exists()


def test_a_restart_keeps_jobs_and_keys_even_over_a_new_database(data: Path) -> None:
    with plant(data) as process:
        process.wait_ready()
        job, key = run_job(process), process.api_key
        assert process.stop() == 0
    catalog = data / "models.toml"
    catalog.write_text(catalog.read_text().replace('id = "fake"', 'id = "renamed"'))
    with plant(data) as process:
        process.wait_ready()
        assert process.cli("job", "watch", job).returncode == 0
        assert process.api_key == key
        models = json.loads(process.cli("models", "list", "--json").stdout)
        assert [model["id"] for model in models] == ["renamed"]
        assert process.stop() == 0
    catalog.unlink()
    shutil.rmtree(data / "postgres")
    with plant(data) as process:
        process.wait_ready()
        assert process.api_key == key
        run_job(process)


def test_every_child_that_is_killed_comes_back(data: Path) -> None:
    with plant(data) as process:
        process.wait_ready()
        before = process.children()
        assert set(before) == {"api", "worker", "trainer", "upkeep", "postgres"}
        for name, pid in before.items():
            os.kill(pid, signal.SIGKILL)
            wait_for_other(process, name, pid)
        # The API's socket was ours all the time: requests wait for it rather than fail.
        run_job(process)
        assert process.stop() == 0
        assert wait_until_gone(data, 1.0) == []
    assert process.stderr.count("child_died") >= 4
    assert "postgres_died" in process.stderr


def test_nothing_survives_kill_9_of_up_and_the_next_one_starts_at_once(data: Path) -> None:
    with plant(data) as first:
        first.wait_ready()
        job = run_job(first)
        assert len(processes_of(data)) > 4
        first.kill()
        with plant(data) as second:
            second.wait_ready()
            assert second.cli("job", "watch", job).returncode == 0
            run_job(second)
            second.kill()
            assert wait_until_gone(data, GONE_SECONDS) == []


def test_a_signal_before_ready_stops_as_cleanly(data: Path) -> None:
    with plant(data) as process:
        deadline = time.monotonic() + 60
        while "postgres_started" not in process.stderr and time.monotonic() < deadline:
            time.sleep(0.02)
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        assert wait_until_gone(data, 1.0) == []


def test_a_second_signal_does_not_wait_for_the_drain(data: Path) -> None:
    with plant(data, drain_seconds="600") as process:
        process.wait_ready()
        body = BODY.replace("hello", "[[sleep-forever]]")
        submitted = process.cli(
            *("job", "submit", "--endpoint", "/v1/chat/completions", "--body", body)
        )
        job = submitted.stdout.strip()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            states = json.loads(process.cli("job", "list", "--json", "--state", "running").stdout)
            if [one["id"] for one in states] == [job]:
                break
        process.signal(signal.SIGTERM)
        while "stopping" not in process.stderr and time.monotonic() < deadline:
            time.sleep(0.02)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert "killed" in process.stderr
        assert wait_until_gone(data, 5.0) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"no_such_thing": "1"}, "unknown setting: PRESSRUN_NO_SUCH_THING"),
        ({"poll_seconds": "soon"}, "PRESSRUN_POLL_SECONDS"),
        ({"database_url": "sqlite://"}, "PRESSRUN_DATABASE_URL"),
    ],
)
def test_a_wrong_setting_is_named(data: Path, settings: dict[str, str], words: str) -> None:
    done = run_cli(
        *("up", "--data", str(data), "--port", "0", "--with-fake", "--no-starter-models"),
        cwd=data.parent,
        **settings,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert wait_until_gone(data, 1.0) == []


def test_given_services_are_used_instead_of_embedded_ones(
    data: Path, empty_database_url: str, broker_url: str, s3_bucket: S3Bucket
) -> None:
    services = {
        "database_url": empty_database_url,
        "broker_url": broker_url,
        "s3_bucket": s3_bucket.name,
        "s3_endpoint": s3_bucket.endpoint_url,
        "s3_access_key": s3_bucket.access_key,
        "s3_secret_key": s3_bucket.secret_key,
        "s3_region": s3_bucket.region,
    }
    with plant(data, **services) as process:
        process.wait_ready()
        assert "postgres" not in process.children()
        done = process.cli("demo", "--model", "fake", "--output", "out")
        assert done.returncode == 0, done.stderr
        assert process.stop() == 0
    assert len((data.parent / "out" / "output.jsonl").read_text().splitlines()) == len(
        demo_rows(24)
    )
    assert not (data / "postgres").exists()
    assert [path for path in (data / "doorbells").rglob("*") if path.is_file()] == []
    assert [path for path in (data / "artifacts").rglob("*") if path.is_file()] == []


def test_nothing_survives_kill_9_of_the_demo(data: Path) -> None:
    folder = data.parent
    demo = subprocess.Popen(
        [sys.executable, "-m", "pressrun", "demo", "--model", "fake"],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None
    assert any("postgres_started" in line for line in demo.stderr)
    demo.kill()
    demo.wait()
    assert wait_until_gone(folder, GONE_SECONDS * 2) == []


def test_a_port_that_is_taken_is_a_clear_error(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_cli(
            *("up", "--data", str(data), "--port", port, "--with-fake", "--no-starter-models"),
            cwd=data.parent,
        )
    assert done.returncode == 2
    assert "Address already in use; choose another --port" in done.stderr
