"""A generator and a discriminator, trained against one another from nothing.

The loss is the non-saturating one with a penalty on the discriminator's slope at real pictures
(R1), which keeps the two in step. Delivered is the moving average of the generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engines.samplers.drawing import GanSampler
from worker.engines.samplers.generator import Generator, GeneratorShape, save_generator
from worker.engines.samplers.loading import GENERATOR
from worker.engines.samplers.manifest import Manifest, write_manifest
from worker.recipes.averages import Average, decay_for
from worker.recipes.discriminator import Discriminator, widths_for
from worker.recipes.picture_judge import kernel_distance
from worker.recipes.picture_reports import DrawingReport, draw_all
from worker.recipes.pictures import load_pictures, scaled
from worker.recipes.sampler_base import load_base
from worker.recipes.shape import Adam, Trained

if TYPE_CHECKING:
    from worker.recipes.context import Context
    from worker.recipes.loop import Loop

LATENT = 64
SLOPE_PENALTY, SLOPE_STEPS = 0.5, 4
"""The penalty is as dear as the rest of a step, so it comes in every fourth, four times as high."""
_MEASURED = 512
"""Drawn pictures that are compared with held-out ones, at least; classes as those have them."""
_MEASURE_SEED = 1_000_003


class Gan:
    """A ``Recipe`` with two optimizers: ``discriminator`` first, then ``generator``."""

    engine = "sampler"
    adapter = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}

    def setup(self) -> None:
        context = self._context
        base = load_base(context, "gan")
        self._data = data = load_pictures(context, base=None if base is None else base.manifest)
        number = len(data.classes)
        self._generator: Any = self._new_generator() if base is None else base.modules[GENERATOR]
        self._discriminator = Discriminator(data.side, data.channels, number)
        for module in (self._generator, self._discriminator):
            module.to(context.device)
        decay = decay_for(context.hyperparameters.steps)
        self._average = Average(self._generator, decay)
        self._report = DrawingReport(context, data)
        sizes = [
            sum(parameter.numel() for parameter in module.parameters())
            for module in (self._generator, self._discriminator)
        ]
        self.detail = {
            "parameters": sizes[0],
            "trainable": sum(sizes),
            "classes": number,
            "image_size": data.side,
            "channels": data.channels,
        }

    def trained(self) -> Trained:
        adam = Adam(betas=(0.0, 0.99))
        return Trained(
            modules={"generator": self._generator, "discriminator": self._discriminator},
            optimizers={
                "discriminator": list(self._discriminator.parameters()),
                "generator": list(self._generator.parameters()),
            },
            examples=len(self._data.train),
            kept={"average": self._average.module},
            adam={"discriminator": adam, "generator": adam},
        )

    def train(self, loop: Loop) -> None:
        for batch in loop.batches():
            for rows in batch.microbatches:
                self._teach_discriminator(loop, rows, batch.step % SLOPE_STEPS == 0)
            loop.update("discriminator")
            for rows in batch.microbatches:
                self._teach_generator(loop, rows)
            loop.update("generator")
            self._average.follow(self._generator, batch.step)

    def evaluate(self) -> dict[str, float]:
        """``valid_loss`` is the distance between drawn and held-out pictures in the features of
        the judge (``picture_judge.kernel_distance``): adversarial losses say nothing of it."""
        held_out = self._data.validation
        known = held_out.classes.tolist()
        classes = [known[place % len(known)] for place in range(max(_MEASURED, len(known)))]
        drawn = draw_all(self.sampler(), classes, steps=1, guidance=1.0, seed=_MEASURE_SEED)
        judge = self._report.judge
        real = judge.features(scaled(held_out.pixels))
        return {"valid_loss": kernel_distance(judge.features(drawn), real)}

    def save_checkpoint(self, folder: Path) -> None:
        save_generator(self._average.module, folder / GENERATOR)
        write_manifest(folder, self._manifest())

    def export(self, folder: Path) -> None:
        self.save_checkpoint(folder)

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        return self._report.make(self.sampler(), which)

    def sampler(self) -> GanSampler:
        """What would be delivered now."""
        return GanSampler(self._manifest(), self._average.module)

    def _manifest(self) -> Manifest:
        data = self._data
        return Manifest(
            kind="gan",
            classes=data.classes,
            image_size=data.side,
            channels=1 if data.channels == 1 else 3,
        )

    def _new_generator(self) -> Generator:
        data = self._data
        shape = GeneratorShape(
            image_size=data.side,
            channels=data.channels,
            classes=len(data.classes),
            latent=LATENT,
            widths=widths_for(data.side),
        )
        return Generator(shape)

    def _teach_discriminator(self, loop: Loop, rows: Sequence[int], penalised: bool) -> None:
        real, classes = self._data.train.batch(rows, self._context.device)
        with torch.no_grad():
            drawn = self._draw(classes)
        real.requires_grad_(penalised)
        said_real = self._discriminator(real, classes)
        said_drawn = self._discriminator(drawn, classes)
        loss = functional.softplus(-said_real).mean() + functional.softplus(said_drawn).mean()
        penalty = SLOPE_STEPS * SLOPE_PENALTY / 2 * _steepness(said_real, real) if penalised else 0
        loop.backward(loss + penalty)
        loop.report(
            discriminator_loss=loss, real_logit=said_real.mean(), drawn_logit=said_drawn.mean()
        )

    def _teach_generator(self, loop: Loop, rows: Sequence[int]) -> None:
        _, classes = self._data.train.batch(rows, self._context.device)
        with _held(self._discriminator):
            loss = functional.softplus(-self._discriminator(self._draw(classes), classes)).mean()
            loop.backward(loss)
        loop.report(generator_loss=loss)

    def _draw(self, classes: Tensor) -> Tensor:
        noise = torch.randn(len(classes), self._generator.shape.latent).to(classes.device)
        drawn: Tensor = self._generator(noise, classes)
        return drawn


def _steepness(logits: Tensor, pictures: Tensor) -> Tensor:
    """The mean squared slope of the logits over the pixels; differentiable itself."""
    (slope,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()


@contextmanager
def _held(module: nn.Module) -> Iterator[None]:
    """Gradients pass through the module without being made for it."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
