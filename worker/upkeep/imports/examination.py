"""The supervisor's side of the sandbox: a child (``worker.examiner``) that may hang, flood or die
of what it looks at. This process holds the credentials of database and store, without torch."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from shared.lifecycle import BadLine
from worker.tuning.data.example import Refused
from worker.upkeep.assembly import Interrupted
from worker.upkeep.imports import NO_LIBRARIES, REQUEST
from worker.upkeep.imports.layout import Layout, Part
from worker.upkeep.imports.safetensors_files import Tensor

log = structlog.get_logger()

CODE_ROOT = Path(__file__).resolve().parents[3]
EXAMINER = "worker.examiner.child"
SECONDS = 300.0
"""For a whole model; most of it is the import of torch, which a busy machine draws out."""
TEMPLATE_SECONDS = 60.0
"""From when it renders a template on: the child gives up itself before, unless it is stuck."""
POLL_SECONDS = 0.1
EXIT_SECONDS = 10.0
"""For a child that closed its pipe to be gone."""
MOST_ANSWER_BYTES = 2**20
_TOO_MUCH = "takes too much time or memory"
_BLAMED = {
    "chat_template": ("chat_template_refused", f"the chat template {_TOO_MUCH}"),
    "tokenizer": ("tokenizer_refused", f"to read its tokenizer {_TOO_MUCH}"),
    "weights": ("weights_mismatch", f"to build its classes {_TOO_MUCH}"),
    "settings": ("invalid_setting", f"to read its settings {_TOO_MUCH}"),
}
"""By what the child was doing when it ended, the code and the sentence for it."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What the sandbox found."""

    problems: Sequence[BadLine] = ()
    parameters: int = 0
    looked: bool = True
    """False where torch is not installed: an engine is the first to compare."""


class ExaminerBroken(Exception):
    """The child ended for reasons of its own: the machine's fault, not the model's."""


def environment(folder: Path) -> dict[str, str]:
    """All that the child sees: whatever else is in ours may be a credential."""
    return {
        "HOME": str(folder),
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def examine(
    folder: Path,
    layout: Layout,
    tensors: Mapping[str, Mapping[str, Tensor]],
    interrupted: Callable[[], bool],
    *,
    seconds: float = SECONDS,
) -> Examined:
    """Has the child judge the model in ``folder``; ``tensors`` are those of each part, by its
    folder. Raises Interrupted, and ExaminerBroken."""
    parts = [_described(part, tensors.get(part.folder, {})) for part in layout.parts]
    request = {"engine": layout.kind.engine, "parts": parts}
    (folder / REQUEST).write_text(json.dumps(request))
    code, said = _run(folder, interrupted, seconds)
    if code == NO_LIBRARIES:
        return Examined(looked=False)
    answer = said[-1] if said else {}
    if "problems" not in answer:
        doing = answer.get("doing")
        log.info("examiner_died", doing=doing, code=code)
        if doing not in _BLAMED or code >= 0:  # only a signal is the model's doing
            raise ExaminerBroken
        return Examined([Refused(*_BLAMED[doing]).bad_line()])
    problems = [_problem(found) for found in answer["problems"]]
    if answer["denied"]:
        message = f"it tried what no model needs: {', '.join(sorted(set(answer['denied'])))}"
        problems.append(Refused("sandbox_violation", message).bad_line())
    return Examined(problems, answer["parameters"])


def _described(part: Part, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "folder": part.folder,
        "library": part.library,
        "name": part.name,
        "tensors": {name: [tensor.dtype, tensor.shape] for name, tensor in tensors.items()},
    }


def _problem(found: Mapping[str, str]) -> BadLine:
    refusal = Refused(found["code"], found["message"])
    return refusal.bad_line(member=found["folder"].rstrip("/") or None)


def _run(
    folder: Path, interrupted: Callable[[], bool], seconds: float
) -> tuple[int, list[dict[str, Any]]]:
    """The child's exit code, and the lines that it said; it is gone when this returns."""
    child = subprocess.Popen(
        [sys.executable, "-B", "-m", EXAMINER, str(folder)],
        env=environment(folder),
        cwd=CODE_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # it may quote what it reads
        start_new_session=True,  # an interrupt at the terminal is the supervisor's
    )
    heard = bytearray()
    try:
        ended = _listen(child, heard, interrupted, time.monotonic() + seconds)
        code = child.wait(EXIT_SECONDS) if ended else -signal.SIGKILL
    except subprocess.TimeoutExpired:
        code = -signal.SIGKILL
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    return code, [json.loads(line) for line in bytes(heard).split(b"\n")[:-1]]


def _listen(
    child: subprocess.Popen[bytes],
    heard: bytearray,
    interrupted: Callable[[], bool],
    until: float,
) -> bool:
    """True once the child has closed its end; False when it says too much, or has had its time."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    while len(heard) <= MOST_ANSWER_BYTES and time.monotonic() < until:
        if interrupted():
            raise Interrupted
        if select.select([child.stdout], [], [], POLL_SECONDS)[0]:
            data = os.read(child.stdout.fileno(), 2**16)
            if not data:
                return True
            if b"chat_template" in data:  # it gives up itself by then, unless it is stuck
                until = min(until, time.monotonic() + TEMPLATE_SECONDS)
            heard += data
    return False
