"""Signed tokens for download URLs of a store that can't sign any itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from urllib.parse import quote

from shared.errors import Forbidden, NotFound
from shared.storage.keys import check_key

LONGEST_TOKEN = 8_192
# Keeps these signatures apart from all others that are made with the same secret.
_PURPOSE = b"pressrun download 2\0"


@dataclass(frozen=True, slots=True)
class Download:
    """What a token allows: to fetch this key, under this name and media type."""

    key: str
    filename: str
    media_type: str
    inline: bool = False
    """A browser may show it rather than save it."""


INLINE_TYPES = frozenset(
    {
        "image/png", "image/jpeg", "image/webp",
        "audio/mpeg", "audio/ogg", "audio/opus", "audio/flac", "audio/wav",
        "video/mp4", "video/webm",
    }
)  # fmt: skip
"""What a browser may show: nothing that it would run (HTML, SVG, …)."""


def may_be_inline(media_type: str) -> bool:
    return media_type in INLINE_TYPES


def disposition(filename: str, *, inline: bool = False) -> str:
    """A Content-Disposition that saves under ``filename``, whatever characters it has."""
    name = "".join(c for c in filename if c.isprintable() and c not in '"\\/') or "download"
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    exact = quote(name.encode("utf-8", "replace"), safe="")
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{exact}"


class DownloadSigner:
    """Makes and verifies tokens; everything that a token says is signed (HMAC-SHA256)."""

    def __init__(self, signing_key: str) -> None:
        self._secret = signing_key.encode()

    def sign(self, download: Download, expires: float) -> str:
        """A URL-safe token that is good until ``expires``, in seconds since 1970."""
        said = [
            download.key,
            download.filename,
            download.media_type,
            math.ceil(expires),
            download.inline,
        ]
        text = _encode(json.dumps(said, separators=(",", ":")).encode())
        return f"{text}.{self._signature(text)}"

    def verify(self, token: str, now: float) -> Download:
        """What the token allows at ``now``, in seconds since 1970.

        Raises NotFound when we did not sign it, and Forbidden when it has expired.
        """
        text, _, signature = token.partition(".")
        if (
            len(token) > LONGEST_TOKEN
            or not token.isascii()
            or not hmac.compare_digest(signature, self._signature(text))
        ):
            raise NotFound("No such download.")
        key, filename, media_type, expires, inline = json.loads(_decode(text))
        if now >= expires:
            raise Forbidden("This download URL has expired; ask for a new one.")
        return Download(check_key(key), filename, media_type, inline)

    def _signature(self, text: str) -> str:
        # Over the text as it stands in the URL: no second spelling of it is valid.
        return _encode(hmac.digest(self._secret, _PURPOSE + text.encode(), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
