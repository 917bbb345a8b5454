"""An autoencoder of small pictures, and what its latents are like for each class.

It is made to draw: latents are few, and each class's mean and covariance are delivered with the
weights, so that decoding a draw from them gives a picture of that class.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from worker.engines.samplers.drawing import VaeSampler
from worker.engines.samplers.loading import VAE, write_latents
from worker.engines.samplers.manifest import Manifest, write_manifest
from worker.recipes.averages import Average, decay_for
from worker.recipes.picture_reports import DrawingReport, sheet
from worker.recipes.pictures import PictureData, load_pictures, scaled
from worker.recipes.sampler_base import load_base
from worker.recipes.shape import Adam, Trained

if TYPE_CHECKING:
    from worker.recipes.context import Context
    from worker.recipes.loop import Loop

LATENT_CHANNELS = 4
KL_WEIGHT = 0.002
"""Of the divergence from a standard normal distribution, per number of the picture."""
EDGE_WEIGHT = 0.5
"""Of the error of differences between neighbours: without it, what is thin gets lost."""
FULL_COVARIANCE = 1024
"""Latents of up to so many numbers have a whole covariance matrix, larger ones deviations only."""
_MOST_ENCODED = 20_000
"""Training pictures that the statistics are taken from, at most."""
_CHUNK = 128
_SHOWN = 10


def widths_for(side: int) -> tuple[int, ...]:
    """Channels of each level; latents have a quarter of the side, of large pictures an eighth."""
    halvings = 2 if side <= 16 or side % 8 else 3  # noqa: PLR2004 - the rule
    return (32, 64, 128, 128)[: halvings + 1]


def make_vae(data: PictureData) -> Any:
    from diffusers import AutoencoderKL

    widths = widths_for(data.side)
    return AutoencoderKL(
        in_channels=data.channels,
        out_channels=data.channels,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=data.side,
        scaling_factor=1.0,
    )


def edges(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Differences between neighbours, across and down."""
    return pictures[..., :, 1:] - pictures[..., :, :-1], pictures[..., 1:, :] - pictures[
        ..., :-1, :
    ]


def edge_error(made: Tensor, given: Tensor) -> Tensor:
    """The mean absolute error of ``edges``; a scalar."""
    pairs = zip(edges(made), edges(given), strict=True)
    return torch.stack([functional.l1_loss(one, other) for one, other in pairs]).mean()


class Vae:
    """A ``Recipe``: squared error, edges, and a little divergence."""

    engine = "sampler"
    adapter = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}

    def setup(self) -> None:
        context = self._context
        base = load_base(context, "vae")
        self._data = data = load_pictures(context, base=None if base is None else base.manifest)
        self._vae: Any = make_vae(data) if base is None else base.modules[VAE]
        self._vae.to(context.device)
        self._average = Average(self._vae, decay_for(context.hyperparameters.steps))
        self._report = DrawingReport(context, data)
        count = sum(parameter.numel() for parameter in self._vae.parameters())
        self.detail = {
            "parameters": count,
            "trainable": count,
            "classes": len(data.classes),
            "image_size": data.side,
            "channels": data.channels,
            "latents": self._latents_per_picture(),
        }

    def trained(self) -> Trained:
        return Trained(
            modules={"vae": self._vae},
            optimizers={"model": list(self._vae.parameters())},
            examples=len(self._data.train),
            kept={"average": self._average.module},
            adam={"model": Adam(betas=(0.9, 0.99))},
        )

    def train(self, loop: Loop) -> None:
        for batch in loop.batches():
            for rows in batch.microbatches:
                given, _ = self._data.train.batch(rows, self._context.device)
                losses = self._losses(self._vae, given, sampled=True)
                loop.backward(_whole(losses))
                loop.report(**losses)
            loop.update()
            self._average.follow(self._vae, batch.step)

    def evaluate(self) -> dict[str, float]:
        """``reconstruction_error`` is the mean absolute error of pixels of 0..1, ``psnr`` in dB;
        both, and the loss, of latents as they are expected, without noise."""
        held_out, context = self._data.validation, self._context
        rows = range(context.rank, len(held_out), context.processes)
        sums = {"number": 0.0, "loss": 0.0, "absolute": 0.0, "squared": 0.0, "kl": 0.0}
        for start in range(0, len(rows), _CHUNK):
            given, _ = held_out.batch(rows[start : start + _CHUNK], context.device)
            losses = self._losses(self._average.module, given, sampled=False)
            made = {"loss": _whole(losses), **losses, **self._errors(given)}
            sums["number"] += len(given)
            for name in ("loss", "absolute", "squared", "kl"):
                sums[name] += float(made[name]) * len(given)
        summed = context.total(sums)
        mean = {name: value / max(1.0, summed["number"]) for name, value in summed.items()}
        return {
            "valid_loss": mean["loss"],
            "reconstruction_error": mean["absolute"],
            "psnr": -10 * math.log10(max(1e-10, mean["squared"])),
            "valid_kl": mean["kl"],
        }

    def save_checkpoint(self, folder: Path) -> None:
        self._average.module.save_pretrained(folder / VAE)
        write_latents(folder, *self._statistics())
        write_manifest(folder, self._manifest())

    def export(self, folder: Path) -> None:
        self.save_checkpoint(folder)

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """Draws, and shows held-out pictures (first row) over their reconstructions."""
        given, _ = self._data.validation.batch(
            range(len(self._data.validation))[:_SHOWN], self._context.device
        )
        made = self._average.module(given).sample.clamp(-1, 1)
        shown = sheet(torch.cat([given, made]).cpu(), [], [], columns=len(given))
        shown.save(self._context.files / f"reconstructions-{which}.png")
        return self._report.make(self.sampler(), which)

    def sampler(self) -> VaeSampler:
        """What would be delivered now."""
        return VaeSampler(self._manifest(), self._average.module, *self._statistics())

    def _manifest(self) -> Manifest:
        data = self._data
        return Manifest(
            kind="vae",
            classes=data.classes,
            image_size=data.side,
            channels=1 if data.channels == 1 else 3,
        )

    def _losses(self, vae: Any, given: Tensor, *, sampled: bool) -> dict[str, Tensor]:
        """``reconstruction``, ``edge`` and ``kl``, each a mean per number of the picture."""
        with self._context.autocast():
            latents = vae.encode(given).latent_dist
            # diffusers' own ``sample`` draws on the device, and so differs from one to the other.
            noise = torch.randn(latents.mean.shape).to(given.device) if sampled else 0.0
            made = vae.decode(latents.mean + latents.std * noise).sample.float()
        return {
            "reconstruction": functional.mse_loss(made, given),
            "edge": edge_error(made, given),
            "kl": latents.kl().float().mean() / given[0].numel(),
        }

    def _errors(self, given: Tensor) -> dict[str, Tensor]:
        made = self._average.module(given).sample.float().clamp(-1, 1)
        apart = (made - given) / 2
        return {"absolute": apart.abs().mean(), "squared": apart.square().mean()}

    def _latents_per_picture(self) -> int:
        config = self._vae.config
        side: int = self._data.side // 2 ** (len(config.block_out_channels) - 1)
        return int(config.latent_channels) * side * side

    @torch.no_grad()
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """What ``VaeSampler`` draws after, from the training pictures."""
        train = self._data.train
        parts = []
        for start in range(0, min(len(train), _MOST_ENCODED), _CHUNK):
            given = scaled(train.pixels[start : start + _CHUNK]).to(self._context.device)
            parts.append(self._average.module.encode(given).latent_dist.mean.float().cpu())
        encoded = torch.cat(parts)
        return latent_statistics(encoded, train.classes[: len(encoded)], len(self._data.classes))


def latent_statistics(encoded: Tensor, classes: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Means (classes, channels, side, side) and spreads, as ``VaeSampler`` takes them.

    A class of few pictures borrows from the covariance of all: its own counts by the share that
    its pictures have over the latents' numbers.
    """
    flat = encoded.flatten(1).double()
    width = flat.shape[1]
    everything = _covariance(flat, width)
    means, spreads = [], []
    for place in range(max(1, number)):
        mine = flat[classes == place] if number else flat
        share = len(mine) / (len(mine) + width)
        means.append(mine.mean(0) if len(mine) else flat.mean(0))
        own = _covariance(mine, width) if len(mine) > 1 else everything
        spreads.append(share * own + (1 - share) * everything)
    mean = torch.stack(means).float().view(-1, *encoded.shape[1:])
    if width > FULL_COVARIANCE:
        return mean, torch.stack(spreads).sqrt().float().view_as(mean)
    even = torch.eye(width, dtype=torch.float64) * 1e-6
    return mean, torch.linalg.cholesky(torch.stack(spreads) + even).float()


def _covariance(flat: Tensor, width: int) -> Tensor:
    """(width, width), or the variances alone (width,) where that would be too large."""
    centred = flat - flat.mean(0)
    if width > FULL_COVARIANCE:
        return centred.square().mean(0)
    return centred.T @ centred / len(flat)


def _whole(losses: dict[str, Tensor]) -> Tensor:
    return losses["reconstruction"] + EDGE_WEIGHT * losses["edge"] + KL_WEIGHT * losses["kl"]
