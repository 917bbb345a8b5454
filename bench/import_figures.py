"""How long the API takes to import, over the libraries that such an API can't do without."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from bench.machine import ROOT
from bench.report import Measurement, interleave
from bench.rig import Rig, child_environment

_TIMED = """
import time
began = time.perf_counter()
{statements}
print(time.perf_counter() - began)
"""
API = "import api.wsgi"
READY = f"{API}\napi.wsgi.app.extensions['pressrun']()"
"""And what waits until a worker boots: the services, with the database's driver."""
LIBRARIES = "import flask, sqlalchemy, celery"
CLASSES = "from flask import Flask\nfrom sqlalchemy import create_engine\nfrom celery import Celery"


def api_import_time(rig: Rig) -> Measurement:
    """Seconds to import ``api.wsgi``, which builds the application, over those of flask,
    sqlalchemy and celery alone: the least of several fresh interpreters."""
    folder = rig.folder("import")
    settings = {
        "PRESSRUN_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:9/none",
        "PRESSRUN_BROKER_URL": "amqp://guest:guest@127.0.0.1:9//",
        "PRESSRUN_STORAGE_DIR": str(folder / "store"),
        "PRESSRUN_SCRATCH_DIR": str(folder / "scratch"),
        "PRESSRUN_SIGNING_KEY": "a key of the benchmarks only",
    }
    statements = {
        "api": API,
        "api_ready": READY,
        "libraries": LIBRARIES,
        "libraries_with_classes": CLASSES,
    }
    for each in statements.values():
        _seconds(each, settings)  # compiles and reads what is not in memory yet
    samples = interleave(
        3 if rig.quick else 11,
        {name: partial(_seconds, each, settings) for name, each in statements.items()},
    )
    sides = {name: min(times) for name, times in samples.items()}
    return Measurement(
        sides["api"] / sides["libraries"], {"unit": "s", "sides": sides, "samples": samples}
    )


def _seconds(statements: str, settings: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _TIMED.format(statements=statements)],
        cwd=ROOT,
        env=child_environment() | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return float(done.stdout)
