"""Teaches a text-to-image model new pictures: an adapter on its attention, or all its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engines.images.pipelines import abilities, own_size, size_multiple
from worker.engines.pictures import sheet
from worker.recipes.answers import quoted
from worker.recipes.auto import takes_adapter
from worker.recipes.picture_adapters import add_adapter, load_adapter, save_adapter
from worker.recipes.picture_models import LARGE, PictureModel, Texts, load_picture_model
from worker.recipes.pictures import read_picture, scaled, to_tensor
from worker.recipes.shape import RecipeError, Trained

if TYPE_CHECKING:
    from worker.recipes.context import Context
    from worker.recipes.loop import Loop

DROPPED = 0.1
"""The share of examples that learn without their caption: guidance compares with that."""
DRAWN = 8
"""Pictures of a report, at most."""
DRAWING_STEPS = 20
KEPT_BYTES = 2**30
"""Of latents, which are computed once as far as they fit."""
_LOOKS = 4
"""Times at which every held-out picture is measured."""


class Examples:
    """Captions and latents of one split. Each picture is encoded alone, so that its latents do
    not depend on what it is asked for with."""

    def __init__(
        self, model: PictureModel, folder: Path, rows: list[dict[str, Any]], size: tuple[int, int]
    ) -> None:
        self.captions = [str(row["caption"]) for row in rows]
        self._paths = [folder / row["image"] for row in rows]
        self._model, self._size = model, size
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.captions)

    def latents(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Means and deviations, on the CPU."""
        found = [self._of(row) for row in rows]
        return torch.cat([mean for mean, _ in found]), torch.cat([spread for _, spread in found])

    def _of(self, row: int) -> tuple[Tensor, Tensor]:
        if row in self._kept:
            return self._kept[row]
        pixels = to_tensor(read_picture(self._paths[row], *self._size))
        made = self._model.latents(scaled(pixels)[None])
        size = sum(tensor.nbytes for tensor in made)
        if self._kept_bytes + size <= KEPT_BYTES:
            self._kept[row] = made
            self._kept_bytes += size
        return made


class TextToImage:
    """A ``Recipe``. The loss is the mean squared error of what the model's scheduler goes by."""

    engine = "image"

    def __init__(self, context: Context) -> None:
        self._context = context
        self.adapter = True
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}

    def setup(self) -> None:
        context, plan = self._context, self._context.plan
        self._model = load_picture_model(context)
        self._size = self._chosen_size()
        self._train, self._held_out = (
            Examples(self._model, context.data, rows, self._size)
            for rows in (context.train_rows(), context.validation_rows())
        )
        self.adapter = bool(plan.base_adapter) or takes_adapter(
            plan.recipe, plan.adapter, _count(self._model.denoiser)
        )
        self._trained = self._made_trainable()
        if _count(self._model.denoiser) > LARGE:
            self._model.denoiser.enable_gradient_checkpointing()
        trainable = sum(p.numel() for p in self._parameters())
        self.detail = {
            "parameters": sum(_count(module) for module in self._model.modules().values()),
            "trainable": trainable,
            "pipeline": type(self._model.pipeline).__name__,
            "trained": sorted(self._trained),
            "image_size": f"{self._size[0]}x{self._size[1]}",
        }

    def trained(self) -> Trained:
        return Trained(
            modules=self._trained,
            optimizers={"model": self._parameters()},
            examples=len(self._train),
        )

    def train(self, loop: Loop) -> None:
        for batch in loop.batches():
            for rows in batch.microbatches:
                loop.backward(self._loss(rows))
            loop.update()

    def evaluate(self) -> dict[str, float]:
        """The same noise at the same times, whenever it is asked; captions are never left out."""
        context = self._context
        error, number = 0.0, 0
        for row in range(context.rank, len(self._held_out), context.processes):
            error += sum(self._measured(row, look) for look in range(_LOOKS))
            number += _LOOKS
        summed = context.total({"error": error, "number": number})
        return {"valid_loss": summed["error"] / max(1.0, summed["number"])}

    def save_checkpoint(self, folder: Path) -> None:
        if self.adapter:
            save_adapter(self._model, self._trained, folder)
        else:
            self._model.pipeline.save_pretrained(folder, safe_serialization=True)

    def export(self, folder: Path) -> None:
        self.save_checkpoint(folder)

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """Draws captions of held-out pictures, each from the same noise before and after."""
        context = self._context
        captions = list(dict.fromkeys([*self._held_out.captions, *self._train.captions]))
        prompts = captions[: min(DRAWN, context.plan.generate)]
        if not prompts:
            return {}
        guidance = abilities(self._model.pipeline).default_guidance
        with context.autocast():
            drawn = self._model.draw(
                prompts, size=self._size, steps=DRAWING_STEPS, guidance=guidance or 1.0
            )
        sheet(drawn, 4, gap=4).save(context.files / f"samples-{which}.png")
        if which == "after":
            listed = "\n".join(f"{place}. {quoted(text)}" for place, text in enumerate(prompts, 1))
            context.sections["Pictures"] = (
                "`samples-before.png` and `samples-after.png` show these captions, from left to "
                f"right and from the top, each time from the same noise:\n\n{listed}"
            )
        return {"pictures": len(drawn)}

    def _chosen_size(self) -> tuple[int, int]:
        """(width, height): the model's own, unless another was asked for."""
        asked = self._context.hyperparameters.image_size
        pipeline = self._model.pipeline
        size = own_size(pipeline) if asked is None else (asked, asked)
        multiple = size_multiple(pipeline)
        if any(side % multiple for side in size):
            raise RecipeError(
                "invalid_image_size",
                f"image_size must be a multiple of {multiple} for this model",
                "request",
                "hyperparameters.image_size",
            )
        numbers = self._context.hyperparameters
        self._context.hyperparameters = numbers.deciding(image_size=size[0])
        return size

    def _made_trainable(self) -> dict[str, nn.Module]:
        plan, model = self._context.plan, self._model
        if plan.base_adapter:
            return load_adapter(model, Path(plan.base_adapter))
        if self.adapter:
            return add_adapter(model, plan.lora)
        denoiser = model.denoiser.to(torch.float32)
        return {model.denoiser_name: denoiser.requires_grad_(True)}

    def _parameters(self) -> list[nn.Parameter]:
        parts = self._trained.values()
        return [p for part in parts for p in part.parameters() if p.requires_grad]

    def _loss(self, rows: Sequence[int]) -> Tensor:
        mean, deviation = self._train.latents(rows)
        clean = mean + deviation * torch.randn(mean.shape)
        noise, parts = torch.randn(mean.shape), torch.rand(len(mean))
        dropped = (torch.rand(len(mean)) < DROPPED).tolist()
        captions = [
            "" if drop else self._train.captions[row]
            for row, drop in zip(rows, dropped, strict=True)
        ]
        return self._error(clean, noise, parts, captions)

    def _measured(self, row: int, look: int) -> float:
        mean, _ = self._held_out.latents([row])
        seed = (self._context.plan.seed * len(self._held_out) + row) * _LOOKS + look
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(mean.shape, generator=generator)
        parts = (look + torch.rand(1, generator=generator)) / _LOOKS
        return float(self._error(mean, noise, parts, [self._held_out.captions[row]]))

    def _error(self, clean: Tensor, noise: Tensor, parts: Tensor, captions: list[str]) -> Tensor:
        device = self._context.device
        asked = self._model.noising(clean.to(device), noise.to(device), parts)
        with self._context.autocast():
            texts = self._texts(captions)
            said = self._model.predict(asked.noisy, asked.times, texts, self._size)
        return functional.mse_loss(said, asked.target)

    def _texts(self, captions: list[str]) -> Texts:
        """With gradients only where a text encoder is trained."""
        learns = any(name.startswith("text_encoder") for name in self._trained)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            return self._model.encode(captions)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
