from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plant import ROOT


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter models, unpacked once a run of the tests."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run(
        [sys.executable, "-m", "worker.starter_models", str(folder)], check=True, cwd=ROOT
    )
    return folder
