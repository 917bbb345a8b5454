"""Commands run in this process, against a scripted server, from an empty folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pressrun.main import main
from tests.unit.pressrun.fake_server import ADMIN_KEY, KEY, FakeServer, serve


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PRESSRUN_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "with a space"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serve(FakeServer()) as state:
        yield state


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line, which sleeps no second; returns its exit code and streams."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def call(*arguments: str) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main(list(arguments))
        code = exit_info.value.code
        out, err = capfd.readouterr()
        return Ended(code if isinstance(code, int) else 0, out, err)

    return call


@pytest.fixture
def connected(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """The server, with the environment that points commands to it."""
    monkeypatch.setenv("PRESSRUN_URL", server.url)
    monkeypatch.setenv("PRESSRUN_API_KEY", KEY)
    monkeypatch.setenv("PRESSRUN_ADMIN_KEY", ADMIN_KEY)
    return server
