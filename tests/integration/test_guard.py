"""No server outlives the test process that started it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pressrun.processes import is_alive
from tests.services.guard import GuardedProcess
from tests.services.ports import reserve_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30.0


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition came true; slow machines get their time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class TestGuard:
    def test_a_killed_test_process_takes_its_servers_along_even_detached_ones(
        self, tmp_path: Path
    ) -> None:
        program = (
            "import sys, time; from pathlib import Path\n"
            "from tests.services.guard import GuardedProcess\n"
            "base = Path(sys.argv[1])\n"
            "GuardedProcess(['sh', '-c', 'setsid sleep 600 & echo $! $$; wait'],\n"
            "    log_path=base / 'log', environment={'PATH': '/usr/bin:/bin'}, folder=base)\n"
            "print('started', flush=True); time.sleep(600)\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
        )
        try:
            assert eventually(lambda: (tmp_path / "log").exists() and bool(_pids(tmp_path)))
            pids = _pids(tmp_path)
            assert all(is_alive(pid) for pid in pids)
        finally:
            parent.kill()
            parent.communicate()
        assert eventually(lambda: not any(is_alive(pid) for pid in pids))

    def test_a_killed_server_of_many_threads_has_left_its_port(self, tmp_path: Path) -> None:
        program = (
            "import socket, sys, threading, time\n"
            "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
            "for _ in range(60): threading.Thread(target=time.sleep, args=(600,)).start()\n"
            # Memory to give back keeps the threads busy after the first has ended.
            "memory = bytearray(100_000_000); print('up', flush=True); time.sleep(600)\n"
        )
        port = reserve_port()
        for attempt in range(5):
            log = tmp_path / f"log-{attempt}"
            process = GuardedProcess(
                [sys.executable, "-I", "-S", "-c", program, str(port)],
                log_path=log,
                environment={},
                folder=tmp_path,
            )
            try:
                assert eventually(lambda log=log: log.read_text() == "up\n")  # type: ignore[misc]
            finally:
                process.kill()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)

    def test_stop_lets_the_command_end_by_itself(self, tmp_path: Path) -> None:
        script = "trap 'echo bye; exit 0' TERM; echo 1; while :; do sleep 0.05; done"
        process = GuardedProcess(
            ["sh", "-c", script],
            log_path=tmp_path / "log",
            environment={"PATH": "/usr/bin:/bin"},
            folder=tmp_path,
        )
        try:
            assert eventually(lambda: (tmp_path / "log").read_text() == "1\n")
            assert process.stop(timeout_seconds=PATIENCE_SECONDS)
        finally:
            process.kill()
        assert (tmp_path / "log").read_text() == "1\nbye\n"
        assert not process.running


def _pids(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "log").read_text().split()]
