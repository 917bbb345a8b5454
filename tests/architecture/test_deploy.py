"""The files in ``deploy/`` agree with the code, and the checks of that notice when they don't."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.image_requirements import requirements
from tests import deploy_runbook
from tests.deploy_files import DOCKERFILES, ENVIRONMENT, Check, checks, failures
from tests.deploy_images import (
    ROOT,
    copy_sources,
    importable,
    installed_groups,
    missing_modules,
    run_module,
    stages,
    unreachable,
)
from tests.deploy_rules import interpolate, read_env, refusals


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.name)
def test_deploy_files(check: Check) -> None:
    assert check.run() == []


def test_what_is_wrong_is_printed_and_returned(capsys: pytest.CaptureFixture[str]) -> None:
    def crash() -> list[str]:
        raise OSError("no such file")

    found = failures(
        [Check("bad", lambda: ["it leaks"]), Check("crash", crash), Check("good", list)]
    )

    assert found == {"bad": ["it leaks"], "crash": ["OSError: no such file"]}
    assert capsys.readouterr().out.splitlines() == [
        "FAIL bad",
        "     it leaks",
        "FAIL crash",
        "     OSError: no such file",
        "ok   good",
    ]


def test_requirements_come_in_the_order_asked_for() -> None:
    lines = requirements(ROOT / "pyproject.toml", ["core", "api"])

    assert lines[0].startswith("celery")
    assert any(line.startswith("flask>") for line in lines)
    assert not any(line.startswith("torch") for line in lines)


def test_an_image_can_import_what_its_requirements_require() -> None:
    modules = importable(["core", "api"])

    assert {"flask", "werkzeug", "psycopg_binary", "sqlalchemy"} <= modules
    assert modules.isdisjoint({"torch", "numpy", "psutil", "pytest", "pressrun"})


def test_each_worker_image_has_its_own_libraries() -> None:
    known = stages(DOCKERFILES[1])

    assert installed_groups(known["upkeep"], known) == ["core", "worker"]
    engines = ["engines", "speech", "tuning", "video"]
    assert installed_groups(known["cuda"], known) == ["core", "worker", *engines]


@pytest.mark.parametrize(
    ("absent", "command"), [("shared", ["worker", "--help"]), ("worker", ["worker"])]
)
def test_a_folder_that_is_not_copied_is_missed(
    tmp_path: Path, absent: str, command: list[str]
) -> None:
    image = stages(DOCKERFILES[1])["upkeep"]
    copy_sources(image, tmp_path)
    (tmp_path / absent).rename(tmp_path / "elsewhere")

    problem = run_module(tmp_path, command, allowed=importable(["core"]), environment=ENVIRONMENT)

    assert f"No module named '{absent}'" in problem or f"No module named {absent}" in problem


def test_a_library_that_is_not_installed_is_missed(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__main__.py").write_text("def late():\n    import torch\nimport psutil\n")

    problem = run_module(tmp_path, ["tool"], allowed=importable(["core"]), environment={})

    assert "No module named 'psutil'" in problem
    assert missing_modules(tmp_path, {"psutil"}) == ["tool/__main__.py: torch"]


def test_what_dockerignore_does_not_name_is_kept_out(tmp_path: Path) -> None:
    ignore = tmp_path / ".dockerignore"
    ignore.write_text("*\n!shared/\n!pyproject.toml\n**/__pycache__\n")

    assert unreachable(["shared/", "pyproject.toml", "tests/"], ignore) == ["tests/"]


def test_stages_inherit(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        "FROM python:3.11-slim AS base\n# a comment\nENV A=1 \\\n    B=2\nCOPY shared/ shared/\n"
        'FROM base AS last\nCOPY --from=other /x /x\nCMD ["python", "-m", "worker"]\n'
    )

    last = stages(dockerfile)["last"]

    assert last.environment == {"A": "1", "B": "2"}
    assert last.sources == ["shared/"]
    assert last.command == ["python", "-m", "worker"]


def test_interpolation_is_that_of_compose() -> None:
    assert interpolate("a${X:-d}${Y:-e}", {"X": "1", "Y": ""}) == "a1e"
    assert interpolate("${X:?set it}", {"X": "1"}) == "1"
    with pytest.raises(KeyError):
        interpolate("${X:?set it}", {})


def test_commented_lines_of_an_env_file_count_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text("# A sentence = not a line.\nA=1\n# B=2\nC=\n")

    assert read_env(path) == {"A": "1", "C": ""}
    assert read_env(path, commented=True) == {"A": "1", "B": "2", "C": ""}


def test_a_server_without_its_settings_is_refused() -> None:
    complete = ENVIRONMENT
    typing_error = {**ENVIRONMENT, "PRESSRUN_POL_SECONDS": "2"}

    problems = refusals({"good": complete, "typo": typing_error, "empty": {}})

    assert [problem.partition(" ")[0] for problem in problems] == ["typo", "empty"]
    assert "PRESSRUN_POL_SECONDS" in problems[0]
    assert "PRESSRUN_SIGNING_KEY" in problems[1]


def test_the_runbook_may_not_invent_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runbook = tmp_path / "README.md"
    text = deploy_runbook.RUNBOOK.read_text()
    runbook.write_text(text.replace("| `mass_expiry` |", "| `mass_hysteria` |"))
    monkeypatch.setattr(deploy_runbook, "RUNBOOK", runbook)

    assert deploy_runbook.runbook_events() == [
        "no server logs mass_hysteria",
        "mass_expiry is logged as an error, not explained",
    ]


def test_the_runbook_may_not_invent_routes_commands_and_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runbook = tmp_path / "README.md"
    runbook.write_text(
        "curl $API/v1/nonsense\ndocker compose stop waiter\npython -m pressrun explode\n"
    )
    monkeypatch.setattr(deploy_runbook, "RUNBOOK", runbook)

    assert deploy_runbook.runbook_references() == [
        "there is no /v1/nonsense",
        "there is no command 'explode'",
        "there is no service 'waiter'",
    ]
