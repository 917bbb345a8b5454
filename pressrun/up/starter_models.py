"""The models that need no hub, made by a process of the worker's: they take torch to unpack."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import structlog

from pressrun.exit_codes import CommandError
from pressrun.up.child_log import ChildLog
from pressrun.up.children import Child, ChildSpec, Guard

POLL_SECONDS = 0.05

log = structlog.get_logger()


def make_starter_models(
    models: Path, logs: Path, keeper: Guard, environment: dict[str, str]
) -> None:
    """Makes what is missing below ``models``; its progress goes to the console.

    Raises CommandError with the program's own words.
    """
    argv = [sys.executable, "-m", "worker.starter_models", str(models)]
    child_log = ChildLog(logs / "starter-models.log", _report, every_line=True)
    child = Child(ChildSpec("starter-models", argv, environment), child_log, keeper)
    child.start()
    try:
        while not child.ended():
            time.sleep(POLL_SECONDS)
    finally:
        child.kill()
    if child.exit_code != 0:
        raise CommandError(f"the starter models can't be made:\n{child_log.tail()}")


def _report(line: str) -> None:
    if "\r" not in line:  # progress bars redraw themselves
        sys.stderr.write(f"{line}\n")
