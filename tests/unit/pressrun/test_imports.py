from __future__ import annotations

import json
import subprocess
import sys

from pressrun.up.children import ROOT

SERVERS_ONLY = ("flask", "torch", "transformers", "gunicorn", "api", "worker", "celery")
CLIENTS_NEED_NOT = ("alembic", "sqlalchemy", "psycopg")


def _loaded_by(module: str) -> set[str]:
    """The top-level modules of a process that imports ``module``."""
    source = f"import sys, json, {module}; print(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_command_line_starts_light() -> None:
    assert _loaded_by("pressrun.main").isdisjoint((*SERVERS_ONLY, *CLIENTS_NEED_NOT))


def test_up_leaves_servers_to_their_own_processes() -> None:
    assert _loaded_by("pressrun.up.plant").isdisjoint(SERVERS_ONLY)
