"""A denoiser of pixels, trained from nothing: small pictures of named classes, or of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from worker.engines.samplers.drawing import DiffusionSampler
from worker.engines.samplers.loading import SCHEDULER, UNET
from worker.engines.samplers.manifest import Manifest, write_manifest
from worker.recipes.averages import Average, decay_for
from worker.recipes.noising import noising_of
from worker.recipes.picture_reports import DrawingReport
from worker.recipes.pictures import PictureData, Pictures, load_pictures
from worker.recipes.sampler_base import load_base
from worker.recipes.shape import Adam, Trained

if TYPE_CHECKING:
    from worker.recipes.context import Context
    from worker.recipes.loop import Loop

DROPPED = 0.1
"""The share of examples that learn without their class: guidance compares with that."""
SAMPLING_STEPS = 25
GUIDANCE = 1.5
MANY_EXAMPLES = 10_000
SMALLEST_LEVEL, MOST_LEVELS = 4, 5
ATTENTION_SIDE = 8
"""Attention is only where so few pixels a side are left: above, it costs more than it gives."""
SMALL_SIDE = 16
"""Up to this, one layer a level is enough."""
_HEAD = 16
_LOOKS = 4
"""Times at which every held-out picture is measured."""
_CHUNK = 128


def widths_for(side: int, examples: int) -> tuple[int, ...]:
    """Channels of each level: halved until 4 to 7 pixels are left, wider for more to learn."""
    base = 32 if examples < MANY_EXAMPLES else 64
    widths, left = [base], side
    while left % 2 == 0 and left > SMALLEST_LEVEL and len(widths) < MOST_LEVELS:
        left //= 2
        widths.append(min(base * 2 ** len(widths), 4 * base))
    return tuple(widths)


def make_unet(data: PictureData) -> Any:
    """Untrained, of sizes that follow from the data alone."""
    from diffusers import UNet2DModel

    widths = widths_for(data.side, len(data.train))
    sides = [data.side // 2**level for level in range(len(widths))]
    attends = [level > 0 and side <= ATTENTION_SIDE for level, side in enumerate(sides)]
    return UNet2DModel(
        sample_size=data.side,
        in_channels=data.channels,
        out_channels=data.channels,
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        block_out_channels=widths,
        layers_per_block=1 if data.side <= SMALL_SIDE else 2,
        norm_num_groups=8,
        attention_head_dim=_HEAD,
        num_class_embeds=len(data.classes) + 1 if data.classes else None,
    )


def make_scheduler() -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )


class Diffusion:
    """A ``Recipe``. The loss is the mean squared error of the predicted velocity."""

    engine = "sampler"
    adapter = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}

    def setup(self) -> None:
        context = self._context
        base = load_base(context, "diffusion")
        self._data = load_pictures(context, base=None if base is None else base.manifest)
        self._unet: Any = make_unet(self._data) if base is None else base.modules[UNET]
        self._unet.to(context.device)
        self._scheduler = make_scheduler()
        self._noising = noising_of(self._scheduler)
        self._average = Average(self._unet, decay_for(context.hyperparameters.steps))
        self._report = DrawingReport(context, self._data)
        count = sum(parameter.numel() for parameter in self._unet.parameters())
        self.detail = {
            "parameters": count,
            "trainable": count,
            "classes": len(self._data.classes),
            "image_size": self._data.side,
            "channels": self._data.channels,
        }

    def trained(self) -> Trained:
        return Trained(
            modules={"unet": self._unet},
            optimizers={"model": list(self._unet.parameters())},
            examples=len(self._data.train),
            kept={"average": self._average.module},
            adam={"model": Adam(betas=(0.9, 0.99))},
        )

    def train(self, loop: Loop) -> None:
        for batch in loop.batches():
            for rows in batch.microbatches:
                loop.backward(self._loss(rows))
            loop.update()
            self._average.follow(self._unet, batch.step)

    def evaluate(self) -> dict[str, float]:
        """The same noise at the same times, whenever it is asked."""
        held_out, context = self._data.validation, self._context
        rows = range(context.rank, len(held_out), context.processes)
        error, number = 0.0, 0
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            for look in range(_LOOKS):
                error += self._measured(held_out, part, look) * len(part)
                number += len(part)
        summed = context.total({"error": error, "number": number})
        return {"valid_loss": summed["error"] / max(1.0, summed["number"])}

    def save_checkpoint(self, folder: Path) -> None:
        self._average.module.save_pretrained(folder / UNET)
        self._scheduler.save_pretrained(folder / SCHEDULER)
        write_manifest(folder, self._manifest())

    def export(self, folder: Path) -> None:
        self.save_checkpoint(folder)

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        return self._report.make(self.sampler(), which)

    def sampler(self) -> DiffusionSampler:
        """What would be delivered now."""
        return DiffusionSampler(self._manifest(), self._average.module, self._scheduler)

    def _manifest(self) -> Manifest:
        data = self._data
        return Manifest(
            kind="diffusion",
            classes=data.classes,
            image_size=data.side,
            channels=1 if data.channels == 1 else 3,
            steps=SAMPLING_STEPS,
            guidance=GUIDANCE if data.classes else 1.0,
        )

    def _loss(self, rows: Sequence[int]) -> Tensor:
        clean, classes = self._data.train.batch(rows, self._context.device)
        parts, noise = torch.rand(len(clean)), torch.randn(clean.shape)
        if self._data.classes:
            dropped = (torch.rand(len(clean)) < DROPPED).to(clean.device)
            classes = torch.where(dropped, len(self._data.classes), classes)
        return self._error(self._unet, clean, noise, parts, classes)

    def _measured(self, pictures: Pictures, rows: Sequence[int], look: int) -> float:
        generator = torch.Generator().manual_seed(self._context.plan.seed * _LOOKS + look)
        clean, classes = pictures.batch(rows, self._context.device)
        parts = (look + torch.rand(len(rows), generator=generator)) / _LOOKS
        noise = torch.randn(clean.shape, generator=generator)
        return float(self._error(self._average.module, clean, noise, parts, classes))

    def _error(
        self, network: Any, clean: Tensor, noise: Tensor, parts: Tensor, classes: Tensor
    ) -> Tensor:
        asked = self._noising(clean, noise.to(clean.device), parts)
        labels = {"class_labels": classes} if self._data.classes else {}
        with self._context.autocast():
            said = network(asked.noisy, asked.times, **labels).sample
        return functional.mse_loss(said.float(), asked.target)
