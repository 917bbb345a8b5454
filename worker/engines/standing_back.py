"""Engines that let others go first: a picture takes seconds anyway, a line of text need not."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from worker.engines.base import Engine

PATIENT = frozenset({"image", "video"})
"""Engines whose rows take so long that nobody notices when they take a little longer."""
NICENESS = 5
"""Of 19: beside a process that wants the same core, about a quarter of it."""


def is_patient(name: str, engine: Engine) -> bool:
    """Whether the engine called ``name`` computes where others want to, and has time."""
    return name in PATIENT and engine.detail.get("device") == "cpu"


def stand_back() -> None:
    """Has this process, all its threads and those to come, compute when nobody else wants to."""
    if sys.platform != "linux":
        os.nice(NICENESS)
        return
    for task in os.listdir("/proc/self/task"):  # on Linux each thread has a niceness of its own
        with contextlib.suppress(OSError):  # just ended
            os.setpriority(os.PRIO_PROCESS, int(task), NICENESS)
    # Where sessions are scheduled as groups, niceness counts inside a group only.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))
