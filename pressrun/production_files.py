"""Templates as files, and the files that they name by a path beside them, such as
``./audiences.csv``: those are uploaded, and the template that is sent has their ids."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pressrun.api_client import ApiClient
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal
from pressrun.transfers import uploaded_id
from shared.errors import InvalidRequest

if TYPE_CHECKING:
    from shared.productions.specs import TemplateHead

MOST_TEMPLATE_BYTES = 262_144
BESIDE = "./"
_FENCE = "---"


def with_uploads(client: ApiClient, text: str, folder: Path, terminal: Terminal) -> str:
    """The template with ids for paths; each file is uploaded once. Raises CommandError for a path
    that leads to no file in ``folder``."""
    if BESIDE not in text:
        return text
    from shared.productions.template import parse_template

    try:
        paths = _paths(parse_template(text).head)
    except InvalidRequest:
        return text  # who answers the call says what is wrong
    ids = {path: _uploaded(client, path, folder, terminal) for path in paths}
    start, head, body = text.split(_FENCE, 2)
    for path, file_id in ids.items():
        head = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w./-])", file_id, head)
    return _FENCE.join((start, head, body))


def _paths(head: TemplateHead) -> list[str]:
    """Each once, in order."""
    named = []
    if head.audiences is not None and not isinstance(head.audiences, list):
        named.append(head.audiences.file)
    if head.examples_from is not None:
        named.append(head.examples_from.file)
    if head.documents is not None:
        named += head.documents.files
    return list(dict.fromkeys(name for name in named if name.startswith(BESIDE)))


def _uploaded(client: ApiClient, path: str, folder: Path, terminal: Terminal) -> str:
    found = (folder / path).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise CommandError(f"{path} is not beside the template", ExitCode.USAGE)
    return uploaded_id(client, str(found), "user_data", terminal)


def read_template(template: Path) -> str:
    """The text of a template's file. Raises CommandError (USAGE)."""
    try:
        with template.open("rb") as file:
            found = file.read(MOST_TEMPLATE_BYTES + 1)
        if len(found) > MOST_TEMPLATE_BYTES:
            message = f"{template} has more than {MOST_TEMPLATE_BYTES} bytes"
            raise CommandError(message, ExitCode.USAGE)
        return found.decode()
    except OSError as error:
        raise CommandError(f"cannot read {template}: {error.strerror}", ExitCode.USAGE) from None
    except UnicodeDecodeError:
        raise CommandError(f"{template} is not UTF-8", ExitCode.USAGE) from None
