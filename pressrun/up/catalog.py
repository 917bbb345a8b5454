"""``DIR/models.toml``: written by `up`, and left alone from the operator's first edit on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pressrun.up.data_folder import write_private

_MARK = "# Written by `pressrun up`; edit it, and it is kept as it is. "

_STARTERS = """
[[models]]
id = "smollm2-135m-instruct"
engine = "text"
source = "models/SmolLM2-135M-Instruct"
settings = { default_max_tokens = 512 }

[[models]]
id = "all-minilm-l6-v2"
engine = "embedding"
source = "models/all-MiniLM-L6-v2"

# Small pictures of things that have an emoji, drawn by a model of a few million parameters.
[[models]]
id = "fluent-emoji"
engine = "image"
source = "models/fluent-emoji"

[[models]]
id = "hibari"
engine = "speech"
source = "hibari"
settings = { voices = [{ id = "heart", name = "Heart (American, female)", language = "en-US" }] }

# Puts videos together from narration, pictures and captions; it has no weights.
[[models]]
id = "composer"
engine = "composer"
"""

_FAKE = """
# Answers at once, without weights: for trying out clients.
[[models]]
id = "fake"
engine = "fake"
"""


def write_catalog(path: Path, *, starters: bool, fake: bool) -> bool:
    """Writes the catalog; False when the file is the operator's own and was kept."""
    if path.exists() and not is_ours(path.read_text(errors="replace")):
        return False
    body = (_STARTERS if starters else "") + (_FAKE if fake else "")
    write_private(path, _mark(body) + body)
    return True


def is_ours(text: str) -> bool:
    """Whether nobody changed the file since `up` wrote it."""
    head, line_feed, body = text.partition("\n")
    return head + line_feed == _mark(body)


def _mark(body: str) -> str:
    return f"{_MARK}({hashlib.sha256(body.encode()).hexdigest()[:16]})\n"
