"""``pressrun.json``: what lies beside a sampler's weights and says how to draw with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import InvalidRequest

MANIFEST = "pressrun.json"
_NAMED_CLASSES = 50
"""Of a model with more, a refusal names only so many."""

Kind = Literal["diffusion", "gan", "vae"]


class Manifest(BaseModel):
    """One model. Its folder also holds safetensors, in the layout of its ``kind``:

    diffusion: ``unet/`` and ``scheduler/`` as diffusers saves them; gan: ``generator/``;
    vae: ``vae/`` as diffusers saves it, and ``latents.safetensors``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["pressrun-sampler"] = "pressrun-sampler"
    version: Literal[1] = 1
    kind: Kind
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=100_000)] = []
    """In the order of the model's class numbers; empty for a model that knows none."""
    image_size: Annotated[int, Field(ge=8, le=1024)]
    """Pixels a side of what it draws."""
    channels: Literal[1, 3]
    """1 for grey, 3 for RGB."""
    steps: Annotated[int, Field(ge=1, le=500)] = 1
    """Denoising steps of a call that names none."""
    guidance: Annotated[float, Field(ge=0, le=50)] = 1.0
    """How much further towards the class than the model itself would go: 1 is as far."""

    @property
    def takes_steps(self) -> bool:
        return self.kind == "diffusion"

    @property
    def takes_guidance(self) -> bool:
        return self.kind == "diffusion" and bool(self.classes)

    def class_of(self, prompt: str) -> int:
        """The number of the class that the prompt names, 0 for a model without classes.

        A prompt may be a class's name or hold exactly one, as a whole word and whatever its case.
        Raises InvalidRequest, with the names that there are.
        """
        if not self.classes:
            return 0
        if prompt.strip() in self.classes:
            return self.classes.index(prompt.strip())
        found = self._named_in(prompt.casefold())
        if len(found) == 1:
            return found[0]
        said = "names no class" if not found else f"names {len(found)} classes"
        raise InvalidRequest(f"the prompt {said} of this model: {self._offer()}", param="prompt")

    def _named_in(self, prompt: str) -> list[int]:
        """Longer names are looked for first and taken out: ``dark red`` is not also ``red``."""
        found = []
        for number in sorted(range(len(self.classes)), key=lambda n: -len(self.classes[n])):
            name = self.classes[number].casefold()
            if name not in prompt:  # an expression for each of many classes takes seconds
                continue
            word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
            prompt, times = word.subn(" ", prompt)
            if times:
                found.append(number)
        return found

    def _offer(self) -> str:
        named = ", ".join(self.classes[:_NAMED_CLASSES])
        more = len(self.classes) - _NAMED_CLASSES
        return f"{named} and {more} more" if more > 0 else named


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Raises OSError or pydantic.ValidationError."""
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
