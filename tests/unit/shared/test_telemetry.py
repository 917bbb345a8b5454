"""Logs: one JSON object a line, each naming its process, whichever thread wrote it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import threading, structlog
from shared.telemetry import configure_logging
configure_logging("info", "json", process="worker")
log = structlog.get_logger()
log.info("from_main")
thread = threading.Thread(target=lambda: log.info("from_thread"))
thread.start()
thread.join()
"""


def test_lines_of_every_thread_name_their_process() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["event"], line["process"]) for line in lines] == [
        ("from_main", "worker"),
        ("from_thread", "worker"),
    ]


QUOTING = """
import structlog
from shared.telemetry import configure_logging
configure_logging("info", "{log_format}", process="worker")
told = "a tenant's " + "words"
try:
    int(told)
except ValueError as error:
    structlog.get_logger().error("broke", exc_info=error)
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_is_logged_without_what_it_says(log_format: str) -> None:
    program = QUOTING.format(log_format=log_format)
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "ValueError" in ran.stderr
    assert "line 7" in ran.stderr
    assert "a tenant's words" not in ran.stderr
