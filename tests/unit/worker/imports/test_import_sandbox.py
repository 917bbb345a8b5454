"""What the sandbox keeps from whatever it loads, and what its end means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.upkeep.assembly import Interrupted
from worker.upkeep.imports import examination
from worker.upkeep.imports.examination import CODE_ROOT, Examined, ExaminerBroken, environment
from worker.upkeep.imports.kinds import Kind
from worker.upkeep.imports.layout import Layout, Part

LAYOUT = Layout(Kind("text", "LlamaForCausalLM"), (Part("", "transformers", "LlamaForCausalLM"),))
REAL = subprocess.Popen
ATTEMPTS = """
import json, os, pickle, socket, subprocess, sys, urllib.request
from worker.examiner.child import confine
guard = confine()
class Canary:
    def __reduce__(self): return (open, (sys.argv[1], "w"))
payload = b"cbuiltins\\nopen\\n(S'%s'\\nS'w'\\ntR." % sys.argv[1].encode()
attempts = {
    "connect": lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])), 1),
    "resolve": lambda: socket.getaddrinfo("localhost", 80),
    "url": lambda: urllib.request.urlopen("http://127.0.0.1:" + sys.argv[2]),
    "run": lambda: subprocess.run(["touch", sys.argv[1]]),
    "system": lambda: os.system("touch " + sys.argv[1]),
    "fork": os.fork,
    "pickle": lambda: pickle.loads(payload),
    "write": lambda: open(sys.argv[1], "w"),
    "read": lambda: open("/proc/self/status").read(),
}
said = {}
for name, attempt in attempts.items():
    try:
        attempt()
        said[name] = "done"
    except OSError as error:
        said[name] = "denied" if "is denied" in str(error) else repr(error)
print(json.dumps([said, sorted(set(guard.denied))]))
"""


def test_nothing_is_asked_written_started_or_unpickled(tmp_path: Path) -> None:
    import socket

    canary = tmp_path / "canary"
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        ran = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, str(canary), str(trap.getsockname()[1])],
            env=environment(tmp_path),
            cwd=CODE_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        with pytest.raises(TimeoutError):
            trap.accept()
    said, denied = json.loads(ran.stdout)
    assert said.pop("read") == "done"
    assert set(said.values()) == {"denied"}, said
    assert {"subprocess.Popen", "os.system", "pickle.find_class", "os.fork"} <= set(denied)
    assert not canary.exists()


def answered(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str, **more: Any) -> Examined:
    """The verdict on a child that runs ``program`` instead of the examiner."""
    script = folder / "child.py"
    script.write_text(program)

    def start(command: list[str], **options: Any) -> Any:
        assert command[-1] == str(folder)
        assert not {name for name in options["env"] if "KEY" in name or "URL" in name}
        return REAL([sys.executable, "-B", str(script)], **options)

    monkeypatch.setattr(examination.subprocess, "Popen", start)
    return examination.examine(folder, LAYOUT, {}, more.pop("interrupted", lambda: False), **more)


def test_a_child_that_hangs_in_a_template_convicts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hangs = 'print(\'{"doing": "chat_template"}\', flush=True)\nwhile True: pass\n'
    found = answered(monkeypatch, tmp_path, hangs, seconds=1.0)
    assert [problem.code for problem in found.problems] == ["chat_template_refused"]


def test_a_child_that_dies_of_what_it_builds_convicts_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dies = 'import os\nprint(\'{"doing": "weights"}\', flush=True)\nos.kill(os.getpid(), 9)\n'
    found = answered(monkeypatch, tmp_path, dies)
    assert [problem.code for problem in found.problems] == ["weights_mismatch"]


def test_a_child_that_never_came_to_the_model_convicts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ExaminerBroken):
        answered(monkeypatch, tmp_path, "raise SystemExit(1)")
    assert not answered(monkeypatch, tmp_path, "raise SystemExit(3)").looked


def test_what_was_denied_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = {"problems": [], "parameters": 4, "denied": ["socket.connect", "socket.connect"]}
    found = answered(monkeypatch, tmp_path, f"print({json.dumps(line)!r})")
    assert [problem.code for problem in found.problems] == ["sandbox_violation"]
    assert "socket.connect" in found.problems[0].message


def test_an_examination_can_be_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        answered(monkeypatch, tmp_path, "while True: pass", interrupted=lambda: True)
