"""``python -m worker.tuning.launcher FOLDER PROCESSES``: the root of a training's process tree.

It starts a process of ``worker.recipes`` for each rank, with the variables from which torch and
accelerate learn their place among the others, and sees that none of them outlives the rest, nor
all of them their supervisor, whose only tie is the pipe on standard input:

- at its end of file, which no ``kill -9`` can prevent, everything below here is killed;
- the kernel kills the ranks when this process dies;
- what ranks start and leave behind becomes a child of this process (a *subreaper*).

``accelerate launch`` is not used: on CPUs it starts one process however many it is asked for, and
on GPUs it goes through ``torchrun``, whose ranks are sessions of their own that nothing kills when
``torchrun`` itself is killed.

Exit code: that of the first rank to fail, 128 + N if signal N ended it; 0 when all ended well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_SECONDS = 0.05
RECIPES = "worker.recipes"


def main(arguments: Sequence[str]) -> int:
    folder, processes = Path(arguments[0]), int(arguments[1])
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Before any thread is started: what runs between fork and exec must find no lock held.
    ranks = [_start(folder, place) for place in _places(processes)]
    threading.Thread(target=_end_with_input, daemon=True).start()
    code = _outcome(ranks)
    _kill_descendants()
    return code


def _places(processes: int) -> list[dict[str, str]]:
    """What each rank is told of itself; nothing when it is the only one."""
    if processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for rank in range(processes)
    ]


def _start(folder: Path, place: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", RECIPES, str(folder)],
        env={**os.environ, **place},
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - no thread runs yet
    )


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _outcome(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Waits for all, or for the first that fails. One that ends well may end long before the
    first rank, which writes the report; one that hangs is the supervisor's to notice."""
    while True:
        codes = [rank.poll() for rank in ranks]
        for code in codes:
            if code:
                return code if code > 0 else 128 - code
        if None not in codes:
            return 0
        time.sleep(POLL_SECONDS)


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    _kill_descendants()
    os._exit(128 + signal.SIGKILL)


def _kill_descendants() -> None:
    """Until none is left: one that is just being started is found the next time."""
    me = psutil.Process()
    while alive := [child for child in me.children(recursive=True) if _lives(child)]:
        for child in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        time.sleep(0.005)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
