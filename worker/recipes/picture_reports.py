"""What is shown of drawn pictures: sheets, how many are recognised, how near copies they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from worker.engines.samplers.drawing import Sampler, seeded
from worker.engines.samplers.pipelines import images_of
from worker.engines.samplers.pipelines import scaled as resized
from worker.recipes.picture_judge import Judge, nearest
from worker.recipes.pictures import PictureData, scaled

if TYPE_CHECKING:
    from PIL.Image import Image

    from worker.recipes.context import Context

Which = Literal["before", "after"]

MICROBATCH = 64
FIRST_SEED = 1
"""Picture ``i`` of a report has the seed ``FIRST_SEED + i``, so that before and after compare."""
_COLUMNS = 10
_SHEET_ROWS = 12
_TILE = 64
_MARGIN = 96
_GAP = 4


def draw_all(
    sampler: Sampler, classes: Sequence[int], *, steps: int, guidance: float, seed: int = FIRST_SEED
) -> Tensor:
    """One picture for each class number, (n, channels, side, side) of -1..1, on the CPU."""
    parts = []
    for start in range(0, len(classes), MICROBATCH):
        part = classes[start : start + MICROBATCH]
        seeds = range(seed + start, seed + start + len(part))
        drawn = sampler.draw(part, seeded(seeds), steps=steps, guidance=guidance)
        parts.append(drawn.cpu())
    return torch.cat(parts)


class DrawingReport:
    """The larger evaluation of recipes whose models draw classes."""

    def __init__(self, context: Context, data: PictureData) -> None:
        self._context, self._data = context, data
        self.judge = Judge(data, context.plan.seed)

    def make(self, sampler: Sampler, which: Which) -> dict[str, Any]:
        """Draws as many pictures as ``evaluation.generate`` says, classes taking turns."""
        number = self._context.plan.generate
        if number == 0:
            return {}
        classes = [place % max(1, len(self._data.classes)) for place in range(number)]
        manifest = sampler.manifest
        drawn = draw_all(sampler, classes, steps=manifest.steps, guidance=manifest.guidance)
        return self.of(drawn, classes, which)

    def of(self, drawn: Tensor, classes: Sequence[int], which: Which) -> dict[str, Any]:
        """Numbers, and files of ``drawn``."""
        titles = self._data.classes
        sheet(drawn, classes, titles).save(self._context.files / f"samples-{which}.png")
        found: dict[str, Any] = {"pictures": len(drawn)}
        if titles:
            said = self.judge.names(drawn)
            found["recognised"] = float((said == torch.tensor(list(classes))).float().mean())
            found["recognised_of_real"] = self.judge.accuracy()
        found |= self._copies(drawn, which)
        if which == "after":
            self._context.sections["Pictures"] = _in_words(found)
        return found

    def _copies(self, drawn: Tensor, which: Which) -> dict[str, Any]:
        """Distances to the nearest training picture, beside those of pictures held out."""
        known = self._data.train.pixels
        distances, places = nearest(drawn, known)
        usual, _ = nearest(scaled(self._data.validation.pixels), known)
        if which == "after":
            twins = torch.stack([drawn, scaled(known[places])], dim=1)
            pairs(twins).save(self._context.files / "nearest.png")
        return {
            "nearest_distance": float(distances.median()),
            "nearest_distance_of_real": float(usual.median()),
            "copies": int((distances < 0.5 * usual.median()).sum()),
        }


def sheet(
    drawn: Tensor, classes: Sequence[int], titles: Sequence[str], columns: int = _COLUMNS
) -> Image:
    """A row for each class, its name before it; without titles simply rows."""
    from PIL import Image, ImageDraw

    rows = _by_class(classes, titles, columns) if titles else _in_order(len(drawn), columns)
    left = _MARGIN if titles else 0
    step = _TILE + _GAP
    width = left + max(len(row) for _, row in rows) * step
    whole = Image.new("RGB", (width, len(rows) * step), "white")
    pen = ImageDraw.Draw(whole)
    images = images_of(drawn)
    for down, (title, row) in enumerate(rows):
        pen.text((4, down * step + _TILE // 2 - 8), title[:14], fill="black", font=_font())
        for across, place in enumerate(row):
            tile = resized(images[place], _TILE, _TILE)
            whole.paste(tile, (left + across * step, down * step))
    return whole


def pairs(twins: Tensor) -> Image:
    """(n, 2, channels, side, side): each drawn picture over its nearest training picture."""
    from PIL import Image

    shown = twins[:_COLUMNS]
    step = _TILE + _GAP
    whole = Image.new("RGB", (len(shown) * step, 2 * step), "white")
    for across, twin in enumerate(shown):
        for down, image in enumerate(images_of(twin)):
            whole.paste(resized(image, _TILE, _TILE), (across * step, down * step))
    return whole


def _by_class(
    classes: Sequence[int], titles: Sequence[str], columns: int
) -> list[tuple[str, list[int]]]:
    """(title, numbers of pictures) of each row, within the sheet's bounds."""
    found = []
    for kind in sorted(set(classes))[:_SHEET_ROWS]:
        of_kind = [place for place, other in enumerate(classes) if other == kind]
        found.append((titles[kind], of_kind[:columns]))
    return found


def _in_order(number: int, columns: int) -> list[tuple[str, list[int]]]:
    places = list(range(min(number, columns * _SHEET_ROWS)))
    return [("", places[start : start + columns]) for start in range(0, len(places), columns)]


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(14)


def _in_words(found: dict[str, Any]) -> str:
    """For report.md."""
    lines = [f"{found['pictures']} pictures were drawn; `samples-after.png` shows some of them."]
    if "recognised" in found:
        lines.append(
            f"A small classifier, trained on the real pictures, names {found['recognised']:.1%} of "
            f"them as what they should be; of real pictures that it has not seen it names "
            f"{found['recognised_of_real']:.1%} right."
        )
    lines.append(
        "The nearest training picture of a drawn one is, in the median, "
        f"{found['nearest_distance']:.3f} away; that of a real picture which was held out "
        f"{found['nearest_distance_of_real']:.3f} (root mean square over pixels of 0 to 1). "
        f"{found['copies']} of the drawn ones are less than half as far from one as is usual for "
        "real ones, and may be copies. `nearest.png` shows some beside their nearest."
    )
    return "\n\n".join(lines)
