"""Does the suite notice a broken fence? The zombie tests run once as they are, which must pass,
and once for each part of the fence taken away, which must fail.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MUTATOR = '''
"""A pytest plugin: takes text out of the fence before any statement is built with it."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys

MODULE = "shared.lifecycle.fence"
REMOVED = os.environ["REMOVED_FROM_FENCE"]


class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        for name in ("FENCE", "FENCE_MANY"):
            whole = getattr(module, name)
            removed = REMOVED.replace(":epoch", "d.epoch") if name == "FENCE_MANY" else REMOVED
            assert removed in whole, f"{name} does not contain {removed!r}"
            setattr(module, name, whole.replace(removed, ""))


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        return importlib.util.spec_from_loader(fullname, Loader(fullname, spec.origin))


assert MODULE not in sys.modules
sys.meta_path.insert(0, Finder())
'''

EXPECTED_FAILURES = {
    "s.epoch = :epoch AND ": [
        "test_a_late_commit_of_the_same_sessions_earlier_attempt_is_refused",
        "test_a_late_step_of_the_same_sessions_earlier_attempt_is_refused",
        "test_a_zombies_release_and_progress_change_nothing",
    ],
    " AND s.state IN ('running')": [
        "test_a_late_commit_before_anybody_took_over_is_refused",
        "test_a_late_step_and_a_late_unfolding_before_anybody_took_over_are_refused",
        "test_a_zombies_slice_is_refused",
        "test_a_zombie_neither_validates_nor_assembles",
    ],
}
"""By what is removed. The session is not among them: the epoch alone tells two holders apart."""


def run_zombie_tests(folder: Path, removed: str) -> subprocess.CompletedProcess[str]:
    (folder / "fence_mutator.py").write_text(MUTATOR)
    environment = os.environ | {
        "REMOVED_FROM_FENCE": removed,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    command = [
        sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "fence_mutator",
        "-p", "no:cacheprovider", "tests/integration/test_zombies.py",
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_zombie_tests_pass_with_the_whole_fence(tmp_path: Path) -> None:
    run = run_zombie_tests(tmp_path, "")
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("removed", EXPECTED_FAILURES)
def test_the_zombie_tests_fail_without_a_part_of_the_fence(removed: str, tmp_path: Path) -> None:
    run = run_zombie_tests(tmp_path, removed)
    assert run.returncode == 1, run.stdout  # tests failed; 2 to 5 would be no run at all
    assert "ERROR" not in run.stdout, run.stdout
    for name in EXPECTED_FAILURES[removed]:
        assert f"FAILED tests/integration/test_zombies.py::{name}" in run.stdout, run.stdout
