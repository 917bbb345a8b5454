"""Big batches of the fake engine: rows a second, and memory that must not grow with them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from bench.batches import Batch, BatchFailed, result_lines, run_batch, write_rows
from bench.machine import ROOT
from bench.report import Measurement, median
from bench.rig import Rig, api_workers, child_environment
from tests.plant import Plant

BATCH_SECONDS = 900.0


def fake_rows(rig: Rig) -> Measurement:
    """Rows a second of one batch, upload to assembled file, over a single script's."""
    count = 10_000 if rig.quick else 100_000
    source = write_rows(rig.folder("input") / "input.jsonl", count)
    samples: dict[str, list[float]] = {"plant": [], "script": []}
    with rig.plant() as plant:
        plant.start()
        run_batch(plant, write_rows(rig.folder("input") / "warm.jsonl", 100), BATCH_SECONDS)
        for _ in range(rig.rounds):
            batch = run_batch(plant, source, BATCH_SECONDS)
            target = rig.folder("script") / "output.jsonl"
            seconds = _run_script(source, target, batch.id)
            _check_same(result_lines(plant, batch), target)
            samples["plant"].append(batch.rows / batch.seconds)
            samples["script"].append(count / seconds)
    sides = {name: median(rates) for name, rates in samples.items()}
    return Measurement(
        sides["plant"] / sides["script"],
        {
            "unit": "rows/s",
            "sides": sides,
            "samples": samples,
            "rows": count,
            "phases_s": batch.phases,
            "lines": "compared: the same set, byte for byte",
        },
    )


def _run_script(source: Path, target: Path, job_id: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "bench.fake_script", str(source), str(target), job_id],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=BATCH_SECONDS,
        check=True,
    )
    return float(done.stdout)


def _check_same(lines: Iterable[bytes], target: Path) -> None:
    """Raises BatchFailed unless the plant wrote the script's lines, in any order."""
    with target.open("rb") as file:
        expected = _digest(line.rstrip(b"\n") for line in file)
    if _digest(lines) != expected:
        raise BatchFailed("the plant and the script wrote different lines")


def _digest(lines: Iterable[bytes]) -> tuple[int, int]:
    """How many lines, and the sum of their hashes: the order does not count."""
    count = total = 0
    for line in lines:
        count += 1
        total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return count, total


# --- memory -------------------------------------------------------------------------------------


def peak_memory(rig: Rig) -> Measurement:
    """The worst growth of API, supervisor and upkeep from 10⁴ to 10⁶ rows; a plant for each."""
    few, many = (2_000, 40_000) if rig.quick else (10_000, 1_000_000)
    (small, _), (large, batch) = _peaks(rig, few), _peaks(rig, many)
    growth = {name: large[name] / small[name] for name in small}
    return Measurement(
        max(growth.values()),
        {
            "unit": "",
            "sides": growth,
            "peak_mb": {str(few): small, str(many): large},
            "rows": {"few": few, "many": many},
            "phases_of_many_s": batch.phases,
        },
    )


def _peaks(rig: Rig, count: int) -> tuple[dict[str, float], Batch]:
    """Peak megabytes by process after one batch, whose output was downloaded as well."""
    source = write_rows(rig.folder("input") / "input.jsonl", count)
    with rig.plant() as plant:
        plant.start()
        batch = run_batch(plant, source, BATCH_SECONDS)
        source.unlink()
        downloaded = sum(1 for _ in result_lines(plant, batch))
        if downloaded != count:
            raise BatchFailed(f"{downloaded} of {count} rows in the output file")
        peaks = {
            "api": max(_peak_mb(worker) for worker in api_workers(plant)),
            "supervisor": _peak_mb(_process(plant, "worker-0")),
            "upkeep": _peak_mb(_process(plant, "upkeep")),
        }
    # A gigabyte of artifacts need not wait for the end of the run.
    shutil.rmtree(plant.folder, ignore_errors=True)
    return peaks, batch


def _process(plant: Plant, name: str) -> psutil.Process:
    return psutil.Process(plant.processes[name].pid)


def _peak_mb(process: psutil.Process) -> float:
    """``VmHWM``: the most that was resident at any time."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(f"process {process.pid} has no VmHWM")
