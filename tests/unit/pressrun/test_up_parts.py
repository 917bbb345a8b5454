"""The parts of `up` that need no plant around them."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pressrun.exit_codes import CommandError, ExitCode
from pressrun.processes import is_alive
from pressrun.up.catalog import write_catalog
from pressrun.up.child_log import KEPT_FILES, ChildLog, readable_warning
from pressrun.up.children import ROOT, SETTLED_SECONDS, Child, ChildSpec, Guard
from pressrun.up.data_folder import DataFolder, kept_secret, new_secret
from pressrun.up.environment import plant_settings, server_environment
from pressrun.up.listener import listen, url_of
from shared.models_catalog import read_catalog
from shared.settings import given_settings

PATIENCE_SECONDS = 60.0
FOREVER = "import time; time.sleep(600)"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data dir")
    made.make()
    return made


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


# --- the data folder ----------------------------------------------------------------------------


def test_secrets_are_private_and_stay_the_same(folder: DataFolder) -> None:
    secret = kept_secret(folder.admin_key, new_secret)
    assert len(secret) >= 32
    assert stat.S_IMODE(folder.admin_key.stat().st_mode) == 0o600
    folder.admin_key.chmod(0o644)
    assert kept_secret(folder.admin_key, new_secret) == secret
    assert stat.S_IMODE(folder.admin_key.stat().st_mode) == 0o600
    folder.admin_key.write_text("")
    assert kept_secret(folder.admin_key, new_secret) != secret


def test_others_may_not_look_into_the_folders(folder: DataFolder) -> None:
    for private in (folder.logs, folder.artifacts, folder.scratch, folder.doorbells):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.root.stat().st_mode) in (0o700, 0o711)


def test_the_lock_names_its_living_holder(folder: DataFolder) -> None:
    with (
        folder.locked(),
        pytest.raises(CommandError, match=f"process {os.getpid()}") as raised,
        folder.locked(),
    ):
        pass
    assert raised.value.exit_code is ExitCode.USAGE
    with folder.locked():
        pass


def test_the_remains_of_a_killed_holder_are_waited_for(folder: DataFolder) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with folder.locked() as lock:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{gone.pid}\n".encode(), 0)
        inherited = os.dup(lock)
    threading.Timer(0.3, os.close, (inherited,)).start()
    with folder.locked():
        pass


# --- the catalog --------------------------------------------------------------------------------


def test_the_catalog_is_ours_until_somebody_edits_it(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    assert write_catalog(path, starters=True, fake=False)
    assert [entry.id for entry in read_catalog(path)] == [
        "smollm2-135m-instruct",
        "all-minilm-l6-v2",
        "fluent-emoji",
        "hibari",
        "composer",
    ]
    assert write_catalog(path, starters=False, fake=True)
    assert [entry.id for entry in read_catalog(path)] == ["fake"]
    edited = path.read_text() + "# mine\n"
    path.write_text(edited)
    assert not write_catalog(path, starters=True, fake=True)
    assert path.read_text() == edited


# --- settings -----------------------------------------------------------------------------------


def test_operators_settings_win_and_paths_become_absolute(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRESSRUN_SCRATCH_DIR", "elsewhere")
    monkeypatch.setenv("PRESSRUN_LOG_FORMAT", "console")
    monkeypatch.setenv("PRESSRUN_S3_BUCKET", "results")
    monkeypatch.setenv("PRESSRUN_API_KEY", "a tenant's")
    settings = plant_settings(folder, given_settings(), workers=2)

    assert settings.scratch_dir == tmp_path / "elsewhere"
    assert (settings.storage_dir, settings.s3_bucket) == (None, "results")
    assert settings.broker_url == f"filesystem://{folder.root}/doorbells"
    assert settings.engine_threads == max(1, (os.cpu_count() or 1) // 2)
    environment = server_environment(settings)
    assert environment["PRESSRUN_SIGNING_KEY"] == folder.signing_key.read_text().strip()
    assert environment["PRESSRUN_LOG_FORMAT"] == "json"
    assert environment["PRESSRUN_HUB_OFFLINE"] == "false"
    assert "PRESSRUN_API_KEY" not in environment
    assert "PRESSRUN_STORAGE_DIR" not in environment
    assert environment["PATH"] == os.environ["PATH"]


def test_a_wrong_setting_is_named(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_HEARTBEAT_SECONDS", "-1")
    with pytest.raises(CommandError, match="PRESSRUN_HEARTBEAT_SECONDS"):
        plant_settings(folder, given_settings(), workers=1)


# --- the address --------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_refused() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url_of(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(CommandError, match=f"127.0.0.1:{port}"):
            listen("127.0.0.1", port, patience_seconds=0)


def test_a_wildcard_address_is_reached_on_this_machine() -> None:
    with listen("0.0.0.0", 0) as listener:  # noqa: S104
        host, port = url_of(listener).removeprefix("http://").split(":")
        socket.create_connection((host, int(port))).close()


def test_an_unknown_host_is_refused() -> None:
    with pytest.raises(CommandError, match="cannot listen on"):
        listen("no host of ours", 0)


# --- children -----------------------------------------------------------------------------------


@pytest.fixture
def keeper(folder: DataFolder) -> Iterator[Guard]:
    with folder.locked() as lock:
        made = Guard(lock)
        yield made
        made.close()


@pytest.fixture
def clock() -> list[float]:
    """The children's time, in its first element; it stands still by itself."""
    return [1_000.0]


def supervise_until(child: Child, condition: Callable[[], bool]) -> None:
    def supervised() -> bool:
        child.supervise()
        return condition()

    until(supervised)


@pytest.fixture
def start(
    folder: DataFolder, keeper: Guard, clock: list[float]
) -> Iterator[Callable[[str], Child]]:
    """Starts a child that runs Python source; it is killed after the test."""
    started: list[Child] = []

    def call(source: str) -> Child:
        spec = ChildSpec("child", [sys.executable, "-c", source], dict(os.environ))
        log = ChildLog(folder.logs / "child.log", lambda line: None)
        child = Child(spec, log, keeper, clock=lambda: clock[0])
        started.append(child)
        child.start()
        return child

    yield call
    for child in started:
        child.kill()


def test_a_dead_child_is_started_again_after_a_growing_delay(
    start: Callable[[str], Child], clock: list[float]
) -> None:
    child = start("print('last words', flush=True); raise SystemExit(3)")
    for life, (too_early, late_enough) in enumerate([(0.24, 0.5), (0.49, 1.0), (0.99, 2.0)], 1):
        supervise_until(child, lambda: child.pid is None)
        assert child.deaths == life
        assert (child.pid, child.exit_code) == (None, 3)
        assert child.log.tail() == "last words"
        clock[0] += too_early
        child.supervise()
        assert child.pid is None
        clock[0] += late_enough - too_early
        child.supervise()
        assert child.pid is not None
        clock[0] += 1.0
    clock[0] += SETTLED_SECONDS
    supervise_until(child, lambda: child.pid is None)
    assert child.deaths == 1


def test_a_child_that_can_not_be_started_counts_as_dead(
    start: Callable[[str], Child], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start("")
    supervise_until(child, lambda: child.deaths == 1)
    monkeypatch.setattr("pressrun.up.children.ROOT", Path("/no/such/folder"))
    clock[0] += 10.0
    child.supervise()
    assert (child.pid, child.deaths) == (None, 2)


def test_what_a_dead_child_left_in_its_group_goes_with_it(
    start: Callable[[str], Child], tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    source = (
        "import os, subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-c', {FOREVER!r}]); "
        f"open({str(note)!r} + '.new', 'w').write(str(p.pid)); "
        f"os.rename({str(note)!r} + '.new', {str(note)!r}); "
    )
    child = start(source)
    supervise_until(child, lambda: child.deaths == 1)
    until(lambda: not is_alive(int(note.read_text())))


def test_a_retired_child_stays_down(start: Callable[[str], Child]) -> None:
    child = start(FOREVER)
    child.retire()
    until(child.ended)
    child.supervise()
    assert (child.pid, child.deaths, child.exit_code) == (None, 0, -signal.SIGTERM)


def test_a_child_that_ignores_sigterm_is_killed(start: Callable[[str], Child]) -> None:
    child = start(
        "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); " + FOREVER
    )
    until(lambda: child.log.tail() == "deaf")
    child.retire()
    assert not child.ended()
    child.kill()
    assert child.exit_code == -signal.SIGKILL


def test_the_guard_kills_what_its_killed_master_left(folder: DataFolder) -> None:
    # Without the parent-death signal, so that the guard has to do it, and with a whole group.
    source = f"""
import os, subprocess, sys, time
from pathlib import Path
from pressrun.up import children
from pressrun.up.child_log import ChildLog
from pressrun.up.data_folder import DataFolder
children.die_with_parent = lambda name: ()
folder = DataFolder(Path(sys.argv[1]))
with folder.locked() as lock:
    guard = children.Guard(lock)
    argv = [sys.executable, "-c",
            "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {FOREVER!r}]).wait()"]
    spec = children.ChildSpec("child", argv, dict(os.environ))
    child = children.Child(spec, ChildLog(folder.logs / "c.log", print), guard)
    child.start()
    print(child.pid, flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    master = subprocess.Popen(
        [sys.executable, "-c", source, str(folder.root)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert master.stdout is not None
    group = int(master.stdout.readline())
    until(lambda: len(_group(group)) == 2)
    master.kill()
    master.wait()
    until(lambda: _group(group) == [])
    with folder.locked():
        pass  # the guard held it for as long as that took


def _group(group: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and is_alive(int(name)):
            try:
                if os.getpgid(int(name)) == group:
                    found.append(int(name))
            except ProcessLookupError:
                continue
    return found


# --- logs ---------------------------------------------------------------------------------------


def test_logs_are_capped_and_rotated(tmp_path: Path) -> None:
    read, write = os.pipe()
    folder = tmp_path / "logs"
    folder.mkdir()
    log = ChildLog(folder / "api.log", lambda line: None, limit_bytes=1_000)
    thread = log.follow(os.fdopen(read, "rb"))
    with os.fdopen(write, "wb") as stream:
        for number in range(200):
            stream.write(f"line {number:03} {'x' * 90}\n".encode())
    thread.join(PATIENCE_SECONDS)
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == ["api.log", "api.log.1", "api.log.2"]
    assert len(files) == KEPT_FILES + 1
    assert all(path.stat().st_size <= 1_000 for path in files)
    assert log.tail().splitlines()[-1].startswith("line 199")
    ChildLog(folder / "api.log", lambda line: None)
    assert not (folder / "api.log").exists()


def test_warnings_reach_the_console_in_words(tmp_path: Path) -> None:
    shown: list[str] = []
    read, write = os.pipe()
    thread = ChildLog(tmp_path / "worker.log", shown.append).follow(os.fdopen(read, "rb"))
    with os.fdopen(write, "wb") as stream:
        stream.write(b'{"event": "fine", "level": "info"}\nplain words\n{broken\n')
        stream.write(b'{"event": "engine_lost", "level": "error", "model": "m", "shards": 2}\n')
        stream.write(b"\xff\xfe not text\n" + b"y" * 200_000)
    thread.join(PATIENCE_SECONDS)
    assert shown == ["worker: error engine_lost model=m shards=2"]


@pytest.mark.parametrize("line", ["", "{}", "[1]", "{", '{"level": 5}', '{"level": "info"}'])
def test_other_lines_are_no_warnings(line: str) -> None:
    assert readable_warning(line) is None
