"""Every setting is on the page that describes them, and the page describes nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from shared.settings import CLIENT_VARIABLES, PREFIX, Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
NAMES = {PREFIX + name.upper() for name in Settings.model_fields}


def test_every_setting_is_documented() -> None:
    rows = PAGE.read_text().splitlines()
    for name, field in Settings.model_fields.items():
        (row,) = [row for row in rows if row.startswith(f"| `{PREFIX}{name.upper()}` |")][:1] or [
            ""
        ]
        assert (field.description or "").replace("|", "\\|") in row, name
        assert row, name


def test_nothing_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(rf"`({PREFIX}[A-Z0-9_]+)`", PAGE.read_text()))
    assert documented - NAMES - CLIENT_VARIABLES == set()
    assert documented >= CLIENT_VARIABLES


def test_the_page_is_what_the_command_prints() -> None:
    from pressrun.settings_reference import settings_markdown

    assert PAGE.read_text() == settings_markdown()
