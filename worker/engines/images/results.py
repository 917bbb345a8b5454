"""From finished pictures to files in the spool and a result in OpenAI's shape."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from shared.ids import artifact_id
from worker.engines.images.rows import ImageRow, MadeImage, WantedImage, provenance_of
from worker.engines.pictures import (
    EXTENSIONS,
    THUMBNAIL_SIDE,
    encode_picture,
    thumbnail,
    write_encoded,
    write_picture,
)
from worker.engines.protocol import Load, OutputFile, RowResult

if TYPE_CHECKING:
    from PIL.Image import Image

    from worker.engines.images.loading import LoadedPipelines

MAX_INLINE_BYTES = 32 * 2**20
"""Of a row's encoded images as ``b64_json``: a result travels, and is kept, as one JSON text."""


def file_name(image: WantedImage) -> str:
    """``0.png``: what the image is called among its row's files."""
    return f"{image.place}{EXTENSIONS[image.row.spec.output_format]}"


@dataclass(frozen=True, slots=True)
class Studio:
    """Who makes the images and where they are left."""

    model: str
    spool: str
    public_url: str
    origin: dict[str, Any]
    """What the provenance of every image begins with: model, fingerprint, scheduler."""
    adapter_digests: dict[str, str | None]

    @classmethod
    def of(cls, load: Load, loaded: LoadedPipelines, digests: dict[str, str | None]) -> Studio:
        """For a model that was loaded; ``digests`` are those of the catalog's adapters."""
        origin = {
            "model": load.model,
            "fingerprint": loaded.fingerprint,
            "scheduler": type(loaded.base.scheduler).__name__,
        }
        return cls(load.model, load.spool, load.public_url, origin, digests)

    def finish(self, image: WantedImage, picture: Image, withheld: bool) -> None:
        """Writes the picture, and a thumbnail unless it is that small itself. Threads may do this
        for several images at a time."""
        row, name = image.row, file_name(image)
        if row.mask is not None and row.source is not None:
            picture = _only_where(row.mask, picture, row.source)
        spec = row.spec
        encoded = encode_picture(picture, spec.output_format, spec.output_compression)
        main = write_encoded(
            encoded,
            size=picture.size,
            spool=self.spool,
            row=row.id,
            name=name,
            format=spec.output_format,
            provenance=self._provenance(image),
        )
        files = [main]
        if max(picture.size) > THUMBNAIL_SIDE:
            files.append(thumbnail(picture, spool=self.spool, row=row.id, of=name))
        kept = encoded if spec.response_format == "b64_json" else None
        image.made = MadeImage(kept, files, withheld)

    def preview(self, image: WantedImage, picture: Image) -> None:
        """Writes a picture of an image that is still being made."""
        row = image.row
        row.preview_n += 1
        row.previews.append(
            write_picture(
                picture,
                spool=self.spool,
                row=row.id,
                name=f"preview-{row.preview_n}.png",
                role="preview",
                parent=artifact_id(row.id, file_name(image)),
            )
        )

    def result(self, row: ImageRow) -> RowResult:
        """The row's response, once every image is made."""
        made = [(image, image.made) for image in row.images if image.made is not None]
        inline_bytes = sum(len(made_image.encoded or b"") for _, made_image in made)
        inline = 0 < inline_bytes <= MAX_INLINE_BYTES
        body: dict[str, Any] = {
            "created": int(time.time()),
            "model": row.adapter_name or self.model,
            "data": [self._entry(image, made_image, inline) for image, made_image in made],
            "size": f"{row.group.width}x{row.group.height}",
            "output_format": row.spec.output_format,
            "steps": row.group.steps,
            "usage": {
                "input_tokens": row.input_tokens,
                "output_tokens": 0,
                "total_tokens": row.input_tokens,
            },
        }
        warnings = row.warnings + [
            f"image {image.place} was painted over by the model's safety checker"
            for image, made_image in made
            if made_image.withheld
        ]
        if inline_bytes > MAX_INLINE_BYTES:
            warnings.append(
                f"{inline_bytes} bytes of images are too many for b64_json, of which "
                f"{MAX_INLINE_BYTES} are the most: each has a url instead"
            )
        if warnings:
            body["warnings"] = warnings
        files: list[OutputFile] = [file for _, made_image in made for file in made_image.files]
        return RowResult(
            row.shard,
            row.epoch,
            row.index,
            200,
            msgspec.json.encode(body),
            row.input_tokens,
            files=files,
        )

    def _entry(self, image: WantedImage, made: MadeImage, inline: bool) -> dict[str, Any]:
        id = made.files[0].id
        shown = (
            {"b64_json": base64.b64encode(made.encoded).decode()}
            if inline and made.encoded is not None
            else {"url": f"{self.public_url}/v1/artifacts/{id}/content"}
        )
        return {"artifact_id": id, **shown, "seed": image.seed}

    def _provenance(self, image: WantedImage) -> dict[str, Any]:
        return {
            **self.origin,
            **self._tuning(image.row),
            **provenance_of(image.row, image.seed),
            "adapter": self._adapter(image.row),
        }

    def _tuning(self, row: ImageRow) -> dict[str, Any]:
        if not row.adapter_name:
            return {}
        return {
            "model": row.adapter_name,
            "base_model": self.model,
            "model_adapter_sha256": row.adapter_sha256,
        }

    def _adapter(self, row: ImageRow) -> dict[str, Any] | None:
        if row.group.adapter is None:
            return None
        name, weight = row.group.adapter
        return {"name": name, "weight": weight, "sha256": self.adapter_digests[name]}


def _only_where(mask: Image, made: Image, given: Image) -> Image:
    """Diffusion redraws the whole picture a little; outside the mask it stays as it was."""
    from PIL import Image

    return Image.composite(made.convert("RGB"), given, mask)


def failure(row: ImageRow, code: str, message: str) -> RowResult:
    """A row that this model could not run: status 500."""
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return RowResult(row.shard, row.epoch, row.index, 500, msgspec.json.encode({"error": error}))
