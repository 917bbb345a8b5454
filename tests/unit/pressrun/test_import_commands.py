from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pressrun import import_commands
from pressrun.exit_codes import ExitCode
from tests.unit.pressrun import fake_server
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer

IMPORT, IMPORTS = "/v1/models/import", "/v1/models/imports"


def found(status: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "import_1",
        "object": "model.import",
        "status": status,
        "model": None,
        "report": None,
        "error": None,
        "finished_at": None,
        **fields,
    }


@pytest.fixture
def states(connected: FakeServer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """States of the one import that there is, and a folder ``My model`` to bring."""
    shown = [found("queued")]

    def answer(handler: Any, state: FakeServer, seen: Any, *_: str) -> None:
        handler.answer(shown.pop(0) if len(shown) > 1 else shown[0])

    routes = [("POST", IMPORT, answer), ("GET", f"{IMPORTS}/([^/]+)", answer)]
    monkeypatch.setattr(fake_server, "_ROUTES", routes + fake_server._ROUTES)
    folder = Path("My model")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    Path("blob").write_bytes(b"weights")
    os.symlink("../blob", folder / "model.safetensors")
    return shown


def test_a_folder_is_packed_uploaded_and_watched(
    states: list[dict[str, Any]],
    connected: FakeServer,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed: dict[str, bytes] = {}
    real = import_commands.upload

    def look(client: Any, archive: Path, *rest: Any) -> Any:
        with zipfile.ZipFile(archive) as package:
            packed.update({name: package.read(name) for name in package.namelist()})
        return real(client, archive, *rest)

    monkeypatch.setattr(import_commands, "upload", look)
    report = {"architecture": "LlamaForCausalLM", "left_out_files": [], "dropped_settings_n": 2}
    states.append(found("succeeded", model="import:t:My-model:1", report=report))
    ended = run("models", "import", "My model")
    assert ended.code == ExitCode.OK, ended.err
    assert "import:t:My-model:1" in ended.out
    assert packed == {"config.json": b"{}", "model.safetensors": b"weights"}
    [sent] = connected.requests("POST", IMPORT)
    assert sent.body == {"suffix": "My-model", "file": "file-1"}
    assert sent.headers["Idempotency-Key"]


def test_a_zip_goes_as_it_is_and_refusals_are_told(
    states: list[dict[str, Any]], connected: FakeServer, run: Run
) -> None:
    Path("lora.zip").write_bytes(b"PK")
    files = [{"code": "pickle_refused", "message": f"{n}.bin: no"} for n in range(25)]
    error = {"code": "pickle_refused", "message": "0.bin: no", "files": files}
    states[:] = [found("failed", error=error)]
    ended = run("models", "import", "lora.zip", "--base-model", "writer", "--suffix", "s")
    assert ended.code == ExitCode.FAILED
    assert "3.bin: no (pickle_refused)" in ended.err
    assert "… and 5 more" in ended.err
    [sent] = connected.requests("POST", IMPORT)
    assert sent.body == {"suffix": "s", "base_model": "writer", "file": "file-1"}
    states[:] = [found("queued")]
    shown = run("models", "import", "lora.zip", "--no-watch", "--json")
    assert json.loads(shown.out)["id"] == "import_1"


def test_what_is_not_there_is_wrong_usage(
    states: list[dict[str, Any]], connected: FakeServer, run: Run
) -> None:
    Path("empty").mkdir()
    for source in ("nothing", "empty"):
        assert run("models", "import", source).code == ExitCode.USAGE
    assert not connected.requests("POST", IMPORT)
