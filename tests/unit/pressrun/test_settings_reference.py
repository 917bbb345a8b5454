from __future__ import annotations

from pathlib import Path

from pressrun.settings_reference import settings_markdown
from shared.settings import CLIENT_VARIABLES, PREFIX, Settings
from tests.unit.pressrun.conftest import Run

PAGE = Path(__file__).resolve().parents[3] / "docs" / "settings.md"


def test_the_page_is_the_commands_output(run: Run) -> None:
    ended = run("settings")
    assert ended.out == settings_markdown()
    assert PAGE.read_text() == ended.out, "run: python -m pressrun settings > docs/settings.md"


def test_every_setting_is_explained() -> None:
    page = settings_markdown()
    for name, field in Settings.model_fields.items():
        assert f"| `{PREFIX}{name.upper()}` |" in page
        assert field.description
    for variable in CLIENT_VARIABLES:
        assert f"| `{variable}` |" in page
