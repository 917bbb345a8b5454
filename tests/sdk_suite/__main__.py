"""Runs OpenAI's own tests of its Python package against a plant, and prints what came of each file.

``python -m tests.sdk_suite [-k EXPRESSION]``. The package's source, which has the tests, comes from
the package index by pip, in the version that is installed; nothing of it is kept. The asynchronous
half of the tests asks the server for the same and is left out.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from pressrun.embedded_postgres_server import EmbeddedPostgres
from shared.db.migrate import upgrade
from shared.models_catalog import ModelEntry
from tests.plant import ROOT, Plant
from tests.sdk_suite.literals import KEY, MODEL
from tests.services.ports import reserve_port

MODELS = (
    MODEL, "gpt-3.5-turbo-instruct", "gpt-4o-mini", "gpt-4o-transcribe", "gpt-image-1.5",
    "gpt-image-2.5-flare", "model", "omni-moderation-2024-09-26", "sora-2",
    "text-embedding-3-small", "tts-1", "whisper-1",
)  # fmt: skip
"""Those that the tests name; all of them are the engine of tests."""
FILES = (
    "audio/test_speech.py", "audio/test_transcriptions.py", "audio/test_translations.py",
    "chat/test_completions.py", "fine_tuning/test_jobs.py",
    "fine_tuning/jobs/test_checkpoints.py", "responses/test_input_items.py", "test_batches.py",
    "test_completions.py", "test_embeddings.py", "test_files.py", "test_images.py",
    "test_models.py", "test_moderations.py", "test_responses.py", "test_uploads.py",
    "test_videos.py", "uploads/test_parts.py", "webhooks/test_event_types.py",
)  # fmt: skip
SECONDS_A_TEST = 60
_PLUGINS = ("pytest-asyncio",)
"""What the tests import and this project has no use for."""


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="pressrun-sdk-") as name:
        folder = Path(name)
        source, plugins = _fetch(folder)
        with (
            EmbeddedPostgres(folder / "pg", port=reserve_port(), fsync=False) as server,
        ):
            with server.connect() as connection:
                connection.execute("CREATE DATABASE suite")
            upgrade(server.url_of("suite"))
            models = [ModelEntry(id=model, engine="fake") for model in MODELS]
            settings = {"MODERATION_MODEL": "omni-moderation-2024-09-26"}
            url = server.url_of("suite")
            with Plant(folder / "plant", url, models=models, settings=settings) as plant:
                plant.start(pools="text,image,speech,video")
                report = _run(plant, source, plugins, folder / "report.xml", arguments)
    return _print(report)


def _fetch(folder: Path) -> tuple[Path, Path]:
    """The package's source, and a folder with what else its tests import."""
    pip = [sys.executable, "-m", "pip", "-q"]
    wanted = f"openai=={version('openai')}"
    subprocess.run(
        [*pip, "download", "--no-deps", "--no-binary", ":all:", "-d", str(folder), wanted],
        check=True,
    )
    plugins = folder / "plugins"
    subprocess.run([*pip, "install", "--no-deps", "-t", str(plugins), *_PLUGINS], check=True)
    (archive,) = folder.glob("openai-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz"), plugins


def _run(
    plant: Plant, source: Path, plugins: Path, report: Path, arguments: list[str]
) -> ElementTree.Element:
    files = [f"tests/api_resources/{name}" for name in FILES]
    subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p",
            "tests_of_pressrun", "-o", "addopts=", "-o", "filterwarnings=",
            f"--timeout={SECONDS_A_TEST}", "--tb=line", f"--junitxml={report}",
            *(arguments or ["-k", "not Async"]), *files,
        ],
        cwd=source,
        env=plant.environment()
        | {
            "PYTHONPATH": f"{_plugin_folder(report.parent)}:{plugins}",
            "TEST_API_BASE_URL": f"{plant.url}/v1",
            KEY: plant.api_key,
        },
        check=False,
    )  # fmt: skip
    return ElementTree.parse(report).getroot()  # noqa: S314 (pytest has written it)


def _plugin_folder(folder: Path) -> Path:
    """Both trees have a package ``tests``: ours can't be imported beside theirs by its name."""
    made = folder / "plugin"
    made.mkdir()
    plugin = (ROOT / "tests" / "sdk_suite" / "literals.py").read_text()
    (made / "tests_of_pressrun.py").write_text(plugin)
    return made


def _print(report: ElementTree.Element) -> int:
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[tuple[str, str]] = Counter()
    for case in report.iter("testcase"):
        name = case.attrib["classname"].removeprefix("tests.api_resources.").rpartition(".")[0]
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        outcome = "passed" if bad is None and case.find("skipped") is None else "other"
        outcome = "failed" if bad is not None else outcome
        counts.setdefault(name, Counter())[outcome] += 1
        if bad is not None:
            reasons[name, bad.attrib["message"].splitlines()[0][:160]] += 1
    print(f"{'file':32} passed failed skipped")
    for name, found in sorted(counts.items()):
        print(f"{name:32} {found['passed']:6} {found['failed']:6} {found['other']:7}")
    for (name, why), times in sorted(reasons.items()):
        print(f"{times:3} × {name}: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
