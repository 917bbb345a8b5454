"""A process beside the plant that is asked in lines of JSON, so that torch stays out of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.machine import ROOT
from bench.rig import Rig, child_environment


class Beside:
    """A module of the benchmarks in its own process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: Any) -> Any:
        """Raises RuntimeError when the process has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the bare side ended with {self._process.wait()}")
        return json.loads(line)


@contextmanager
def beside(rig: Rig, module: str, *arguments: str) -> Iterator[Beside]:
    """It ends when its standard input does: also when we are killed."""
    log = (rig.folder(module) / "log").open("wb")
    with (
        log,
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=child_environment() | {"HF_HUB_OFFLINE": "1"},
        ) as process,
    ):
        try:
            yield Beside(process)
        finally:
            process.kill()


def serve(answer: Callable[[dict[str, Any]], Any]) -> None:
    """The other side: a line of JSON out for each line in, until there are no more.

    Standard output is for that alone: what libraries print there goes to standard error.
    """
    kept = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(kept, "w") as replies:
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=replies, flush=True)
