"""``docs/settings.md``, generated from ``shared.settings``."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from shared.settings import PREFIX, Settings

_HEAD = """\
# Settings

Every server process reads its settings from the environment, once, at its start. An unknown
`PRESSRUN_…` name or a bad value stops it with a message that names the variable.

This page is the output of `pressrun settings`.

## Servers

| variable | default | meaning |
|---|---|---|
"""

_CLIENT = """
## Command line

| variable | default | meaning |
|---|---|---|
| `PRESSRUN_URL` | `http://127.0.0.1:8080` | Address of the server that client commands talk to. |
| `PRESSRUN_API_KEY` | | The tenant's key that they use. |
| `PRESSRUN_ADMIN_KEY` | | The admin key that `pressrun keys` and `pressrun tenants` use. |
"""


def settings_markdown() -> str:
    """The page, with a line feed at its end."""
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    return _HEAD + "\n".join(rows) + "\n" + _CLIENT


def _row(name: str, field: FieldInfo) -> str:
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{PREFIX}{name.upper()}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default in (None, ""):
        return ""
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"
