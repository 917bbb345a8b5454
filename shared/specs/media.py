"""Pictures and sounds that a request brings along: by file id, artifact id or data URL.

Nothing is ever fetched from the network: any other URL is refused here, by name.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_DATA_URL_CHARACTERS = 28 * 2**20
"""About 20 MiB of bytes; larger inputs come as files."""

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,", re.ASCII)


class MediaReference(BaseModel):
    """One input medium: exactly one of its members is set.

    A bare string is read as what it looks like: ``file-…``, ``art_…`` or ``data:…``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    file_id: Annotated[str, Field(pattern="^file-[0-9a-z]{1,64}$")] | None = None
    artifact_id: Annotated[str, Field(pattern="^art_[0-9a-z]{1,64}$")] | None = None
    image_url: Annotated[str, Field(max_length=MAX_DATA_URL_CHARACTERS)] | None = None
    """A ``data:`` URL in base64; the name is OpenAI's."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        if data.startswith("file-"):
            return {"file_id": data}
        if data.startswith("art_"):
            return {"artifact_id": data}
        return {"image_url": data}

    @model_validator(mode="after")
    def _names_one(self) -> MediaReference:
        given = [self.file_id, self.artifact_id, self.image_url]
        if sum(item is not None for item in given) != 1:
            raise ValueError("give exactly one of file_id, artifact_id and image_url")
        if self.image_url is not None and _DATA_URL.match(self.image_url) is None:
            raise ValueError(
                "only data: URLs in base64 are read, nothing is fetched from a network"
            )
        return self

    @property
    def name(self) -> str:
        """What the medium is called among a row's inputs: its id, or ``data`` for a data URL."""
        return self.file_id or self.artifact_id or "data"

    def data(self) -> tuple[str, bytes] | None:
        """(media type, bytes) of a data URL; None for an id. Raises ValueError for bad base64."""
        if self.image_url is None:
            return None
        head = _DATA_URL.match(self.image_url)
        assert head is not None  # noqa: S101 - checked when it was made
        try:
            return head[1], base64.b64decode(self.image_url[head.end() :], validate=True)
        except binascii.Error:
            raise ValueError("the data URL is not valid base64") from None
