"""The child process that decodes tenants' pictures: no credentials, little memory, one at a time.

Run as ``python -m worker.tuning.data.decoder``. It reads a line of JSON
``{"bytes": n, "path": "…" or null}`` and n bytes of a picture from its standard input, and answers
with a line ``{"width", "height"}`` or ``{"code", "message"}``. With a path it also writes the
picture there: a PNG, RGB, upright, transparency on white, its shorter side at most
``SHORT_SIDE`` pixels, without metadata.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SHORT_SIDE = 1_024
"""No recipe draws larger (``Hyperparameters.image_size``)."""
MEMORY_BYTES = 2 * 2**30
"""Of addresses; the largest picture that is taken needs about 600 MB while it is converted."""
NO_DECODER = 3
"""Exit code where Pillow is not installed."""


def main() -> None:
    try:
        import PIL.Image  # noqa: F401 - before the first picture asks for it
    except ImportError:
        sys.exit(NO_DECODER)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        answer = _answer(sys.stdin.buffer.read(request["bytes"]), request["path"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _answer(data: bytes, path: str | None) -> dict[str, Any]:
    from shared.errors import InvalidRequest
    from worker.engines.pictures import decode_picture

    try:
        picture = decode_picture(data)
        size = {"width": picture.width, "height": picture.height}
        if path is not None:
            _plain(picture).save(Path(path), format="PNG", compress_level=3)
    except InvalidRequest as error:
        return {"code": "invalid_image", "message": error.message}
    except MemoryError:
        return {"code": "invalid_image", "message": "the picture takes too much memory to decode"}
    return size


def _plain(picture: Image) -> Image:
    from PIL import Image

    scale = SHORT_SIDE / min(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if picture.mode == "RGBA":
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture)
    return picture.convert("RGB")


if __name__ == "__main__":
    main()
