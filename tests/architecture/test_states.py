"""One package changes states, in guarded statements, and queries leave transactions alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ["api", "worker", "shared", "pressrun"]
LIFECYCLE = ROOT / "shared" / "lifecycle"
SETS_STATE = re.compile(
    r"\bSET\b(?:(?!\b(?:WHERE|FROM|RETURNING)\b).)*?(?<![\w.])state\s*=", re.DOTALL | re.IGNORECASE
)
MAKES_ROWS = re.compile(r"\b(?:INSERT\s+INTO|DELETE\s+FROM)\s+(jobs|shards)\b", re.IGNORECASE)
UPDATES_SHARDS = re.compile(r"\bUPDATE\s+shards\b", re.IGNORECASE)
OTHER_STATES = re.compile(r"\bUPDATE\s+(?:schedules|schedule_runs|monitors)\b", re.IGNORECASE)
"""Tables that have a state, and no table of transitions: on or off, and the end of a run."""
TRANSACTION_CALLS = {"commit", "rollback", "begin", "begin_nested"}


def product_files() -> list[Path]:
    return [path for package in PRODUCT for path in sorted((ROOT / package).rglob("*.py"))]


def strings(tree: ast.AST) -> Iterator[str]:
    """Every text in the code; what an f-string fills in is a dash."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "-" for part in node.values
            )


def state_writes(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found = [
        text for text in strings(tree)
        if SETS_STATE.search(text) or MAKES_ROWS.search(text) or UPDATES_SHARDS.search(text)
    ]  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"values", "insert"}:
            found += [f"line {node.lineno}" for word in node.keywords if word.arg == "state"]
    return found


def test_only_the_lifecycle_writes_states() -> None:
    writers = {
        str(path.relative_to(ROOT)): writes
        for path in product_files()
        if LIFECYCLE not in path.parents and (writes := state_writes(path))
    }
    assert writers == {}


def test_this_would_notice() -> None:
    found = [path.name for path in sorted(LIFECYCLE.glob("*.py")) if state_writes(path)]
    assert found == [
        "batches.py", "deletion_by_age.py", "deletion_rows.py", "dispatch.py", "fence.py",
        "finish.py", "graphs.py", "imports.py",
        "model_job_ends.py", "model_jobs.py", "monitor_readers.py", "monitors.py", "pause.py",
        "production_end.py",
        "production_rounds.py", "productions.py", "progress.py", "release.py",
        "schedule_ends.py", "schedule_runs.py", "schedules.py", "sessions.py",
        "settle.py", "stages.py",
        "steps.py", "stop.py", "submit.py", "sweeps.py", "taking.py", "training.py", "tuning.py",
        "tuning_close.py", "uploads.py",
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(LIFECYCLE.glob("*.py")), ids=lambda path: path.name)
def test_every_state_that_is_set_is_guarded(path: Path) -> None:
    """The condition is made of the table of transitions, by ``guard`` or by the fence."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if not isinstance(node, ast.JoinedStr | ast.Constant) or node in parts:
            continue
        source = ast.unparse(node)
        if OTHER_STATES.search(source.replace("\\n", "\n")):
            continue
        if "UPDATE" in source and SETS_STATE.search(source):
            assert isinstance(node, ast.JoinedStr), source
            assert "guard(" in source or "FENCE" in source, source


@pytest.mark.parametrize("folder", ["shared/db", "shared/lifecycle"])
def test_queries_leave_the_transaction_to_their_caller(folder: str) -> None:
    offenders = []
    for path in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in TRANSACTION_CALLS:
                offenders.append(f"{path.name}:{node.lineno}")
    assert offenders == []


def test_no_statement_compares_with_the_start_of_its_transaction() -> None:
    """``now()`` stands still in a transaction that waits; leases use ``clock_timestamp()``."""
    offenders = [
        f"{path.relative_to(ROOT)}: {text.strip()[:60]}"
        for path in product_files()
        for text in strings(ast.parse(path.read_text()))
        if re.search(r"(?<!\w)(?:now\(\)|current_timestamp)", text, re.IGNORECASE)
        and re.search(r"\b(?:SELECT|UPDATE|INSERT|DELETE)\b", text)
    ]
    assert offenders == []
