"""Runs a recipe in a folder of its own and reads what it said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from worker.recipes import registry, run
from worker.tuning.messages import DATA, MESSAGES, FromTraining, Plan, decode, write_plan

ROOT = Path(__file__).resolve().parents[4]
_Kind = TypeVar("_Kind")


class TrainingCase:
    """A folder with data and a plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / DATA).mkdir(parents=True)

    @property
    def data(self) -> Path:
        return self.folder / DATA

    def plan(self, recipe: str, **more: Any) -> Plan:
        plan = Plan(recipe=recipe, model="ft:tiny:t:x:12345678", base_model="tiny", **more)
        write_plan(self.folder, plan)
        return plan

    def run_here(self, plan: Plan) -> list[FromTraining]:
        """In this process, where accelerate remembers what an earlier training was like."""
        AcceleratorState._reset_state(reset_partial_state=True)
        run.run(self.folder, plan)
        return self.messages()

    def run_apart(
        self, module: str = "worker.recipes", *, processes: int = 1, **environment: str
    ) -> list[int]:
        """In processes of their own; their exit codes. When one fails, the others are killed."""
        places = _places(processes)
        started = [self._start(module, place | environment) for place in places]
        codes = [0] * processes
        try:
            while any(process.poll() is None for process in started):
                for process in started:
                    try:
                        process.wait(0.1)
                    except subprocess.TimeoutExpired:
                        continue
                    if process.returncode:
                        return [each.returncode or 0 for each in started]
            codes = [process.returncode for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        return codes

    def messages(self) -> list[FromTraining]:
        path = self.folder / MESSAGES
        return [decode(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def said(self, kind: type[_Kind]) -> list[_Kind]:
        return [message for message in self.messages() if isinstance(message, kind)]

    def log(self) -> str:
        return (self.folder / "training.log").read_text()[-4000:]

    def delivered(self) -> dict[str, Any]:
        """Tensors of the delivered model."""
        (file,) = (self.folder / "result" / "model").glob("*.safetensors")
        return load_file(file)

    def _start(self, module: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "training.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, str(self.folder)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdout=log,
                stderr=log,
            )


def register(name: str, path: str) -> None:
    registry.RECIPES[name] = path


def _places(processes: int) -> list[dict[str, str]]:
    if processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    size = str(processes)
    whole = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
    return [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": port, **whole}
        for rank in range(processes)
    ]
