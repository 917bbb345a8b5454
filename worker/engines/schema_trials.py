"""Schemas are tried in a process that may be ended: nobody can stop a thread that compiles, nor
keep it from taking the engine's memory."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from worker.engines.matchers import UnusableSchema

CODE_ROOT = Path(__file__).resolve().parents[2]
CHILD = "worker.engines.schema_trial_child"
PATIENCE_SECONDS = 120.0
"""For an answer, on a machine however busy: what counts is the child's own limit of CPU time."""
EXIT_SECONDS = 10.0
ATTEMPTS = 2
"""A child that somebody else ended is no schema's doing."""
_TOO_LONG = "compiling it takes too long"
_TOO_MUCH = "compiling it takes too much memory"
_WHY = {
    -signal.SIGXCPU: _TOO_LONG,
    -signal.SIGABRT: _TOO_MUCH,
    -signal.SIGSEGV: _TOO_MUCH,
}
"""By the exit code: what a library does that gets no memory, or no more stack, is to abort."""


class SchemaTrials:
    """For one tokenizer. Used by one thread."""

    def __init__(self, tokenizer: str, ends: Sequence[int]) -> None:
        """``tokenizer`` is its JSON; ``ends`` are the tokens that end a text."""
        self._begin = json.dumps([tokenizer, list(ends)]).encode() + b"\n"
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, schema: str) -> None:
        """Returns if ``schema`` may be compiled anywhere. Raises UnusableSchema."""
        for _ in range(ATTEMPTS):
            try:
                why = self._ask(schema)
            except (EOFError, OSError):
                why = _WHY.get(self._end())
                if why is None:
                    continue
            except TimeoutError:
                self._end()
                why = _TOO_LONG
            if why is not None:
                raise UnusableSchema(why)
            return
        raise UnusableSchema("it could not be compiled here")

    def rest(self) -> None:
        """Ends the process, until it is needed again."""
        self._end()

    def _ask(self, schema: str) -> str | None:
        """Raises EOFError or OSError when the child has ended, TimeoutError when it is silent."""
        child = self._child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None  # noqa: PT018, S101 - pipes
        child.stdin.write(json.dumps(schema).encode() + b"\n")
        child.stdin.flush()
        ends = time.monotonic() + PATIENCE_SECONDS
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, ends - time.monotonic()))
            if not ready:
                raise TimeoutError
            found = child.stdout.read1(65_536)  # type: ignore[attr-defined]
            if not found:
                raise EOFError
            answer += found
        why: str | None = json.loads(answer)
        return why

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-B", "-m", CHILD],
            env={},
            cwd=CODE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may quote the schema
        )
        assert child.stdin is not None  # noqa: S101 - it is a pipe
        self._child = child
        child.stdin.write(self._begin)
        return child

    def _end(self) -> int:
        """Its exit code; 0 when there is none."""
        child, self._child = self._child, None
        if child is None:
            return 0
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            return child.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()
