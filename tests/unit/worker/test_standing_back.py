"""Engines of pictures and videos compute when nobody else wants to."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from worker.engines.standing_back import NICENESS, is_patient

ASIDE = """
import os, threading
from worker.engines.standing_back import stand_back

before = threading.Event()
after = threading.Event()
seen = []

def ran_before():
    before.set()
    after.wait()
    seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

def begun_after():
    seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

one = threading.Thread(target=ran_before)
one.start()
before.wait()
stand_back()
after.set()
two = threading.Thread(target=begun_after)
two.start()
one.join()
two.join()
print(os.getpriority(os.PRIO_PROCESS, 0), *seen)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has one niceness")
def test_all_threads_stand_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASIDE],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        start_new_session=True,  # its niceness is its session's: not ours
    )
    assert done.stdout.split() == [str(NICENESS)] * 3


@pytest.mark.parametrize(
    ("name", "device", "patient"),
    [
        ("image", "cpu", True),
        ("video", "cpu", True),
        ("image", "cuda:0", False),
        ("text", "cpu", False),
        ("speech", None, False),
    ],
)
def test_only_pictures_on_a_cpu_can_wait(name: str, device: str | None, patient: bool) -> None:
    engine: Any = SimpleNamespace(detail={} if device is None else {"device": device})
    assert is_patient(name, engine) is patient
