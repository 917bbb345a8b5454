"""Pictures in a style that the starter image model does not know, and who has learnt it.

    python -m bench.tuning_styles IMAGE_MODEL_DIRECTORY

The pictures are the model's own, printed in two inks: violet where they are dark, pink where they
are light, paper elsewhere. Answers ``{"make": DATA_FOLDER}``, which writes captioned pictures as a
training finds them, with how many there are; and ``{"judge": ADAPTER_FOLDER}``, ``""`` for the bare
model, with the shares of pictures of unseen names that are ``styled`` and ``named``: whose nearest
of all unseen names' pictures, both as the model draws them and in two inks, is in two inks, or has
the right name.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.beside import serve
from worker.recipes.picture_adapters import WEIGHTS
from worker.tuning.messages import TRAIN_DATA, VALIDATION_DATA

LEARNT, HELD_OUT, UNSEEN = 320, 16, 32
"""Names: trained on, for the validation loss, and for the judgement."""
STEPS, GUIDANCE, SEED = 20, 4.0, 11
VIOLET, PINK, PAPER = (60, 40, 120), (240, 90, 150), 255
_INK_FROM, _INK_RANGE = 25, 40
_LIGHT_FROM, _LIGHT_RANGE = 110, 30

Pixels = NDArray[np.float32]


def two_inks(picture: Image.Image) -> Image.Image:
    """The picture as it comes from such a press; pixels of 0..255."""
    given = np.asarray(picture.convert("RGB"), np.float32)
    ink = np.clip(((PAPER - given).max(-1, keepdims=True) - _INK_FROM) / _INK_RANGE, 0, 1)
    light = np.clip((given.mean(-1, keepdims=True) - _LIGHT_FROM) / _LIGHT_RANGE, 0, 1)
    colour = np.array(VIOLET) * (1 - light) + np.array(PINK) * light
    return Image.fromarray((PAPER * (1 - ink) + colour * ink).round().astype(np.uint8))


def nearest(picture: Pixels, known: Pixels) -> int:
    """The place of the known picture (n, height, width, 3) with the least squared error."""
    return int(np.square(known - picture).mean(axis=(1, 2, 3)).argmin())


class Studio:
    """The starter image model, bare or with an adapter."""

    def __init__(self, model: str) -> None:
        import torch
        from diffusers import AutoPipelineForText2Image

        self._torch = torch
        self._pipeline = AutoPipelineForText2Image.from_pretrained(
            model, dtype=torch.float32, use_safetensors=True
        )
        self._pipeline.set_progress_bar_config(disable=True)
        names = (Path(model) / "names.txt").read_text(encoding="utf-8").split("\n")
        wanted = LEARNT + HELD_OUT + UNSEEN
        chosen = random.Random(SEED).sample([name for name in names if name], wanted)
        self._learnt = chosen[:LEARNT]
        self._held_out = chosen[LEARNT : LEARNT + HELD_OUT]
        self._unseen = chosen[-UNSEEN:]

    def make(self, folder: Path) -> dict[str, Any]:
        (folder / "images").mkdir(parents=True)
        for name, captions in ((TRAIN_DATA, self._learnt), (VALIDATION_DATA, self._held_out)):
            rows = []
            for place, picture in enumerate(self._draw(captions, SEED)):
                path = f"images/{Path(name).stem}-{place}.png"
                two_inks(picture).save(folder / path)
                rows.append({"image": path, "caption": captions[place]})
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name).write_text(text, encoding="utf-8")
        return {"pictures": LEARNT, "unseen_names": UNSEEN}

    def judge(self, adapter: str) -> dict[str, float]:
        plain = self._draw(self._unseen, SEED)
        known = _pixels([*plain, *map(two_inks, plain)])
        if adapter:
            self._pipeline.load_lora_weights(adapter, weight_name=WEIGHTS, adapter_name="style")
        drawn = _pixels(self._draw(self._unseen, SEED + 1))
        if adapter:
            self._pipeline.unload_lora_weights()
        places = [nearest(picture, known) for picture in drawn]
        styled = sum(place >= UNSEEN for place in places)
        named = sum(place % UNSEEN == number for number, place in enumerate(places))
        return {"styled": styled / UNSEEN, "named": named / UNSEEN}

    def _draw(self, names: list[str], seed: int) -> list[Image.Image]:
        chances = [self._torch.Generator().manual_seed(seed * 1000 + n) for n in range(len(names))]
        drawn = self._pipeline(
            list(names), num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=chances
        )
        return list(drawn.images)


def _pixels(pictures: list[Image.Image]) -> Pixels:
    return np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in pictures])


def answer(studio: Studio, asked: dict[str, str]) -> dict[str, Any]:
    """What one line asks for."""
    if "make" in asked:
        return studio.make(Path(asked["make"]))
    return studio.judge(asked["judge"])


if __name__ == "__main__":
    serve(partial(answer, Studio(sys.argv[1])))
