"""The autoencoder: pictures of 3 x 64 x 64 to latents of 16 x 8 x 8, and back.

Many channels on few places: the denoiser then learns in a fraction of the time. The decoder is
trained on latents with a little noise, so that it forgives a denoiser's small errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from starter_image.dataset import Dataset
from starter_image.plan import AutoencoderPlan
from starter_image.training import LANES, generator_of, rows_of

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

_CERTAIN = -20.0
"""The log variance written into the encoder: pipelines sample a latent, and get the mean."""

_CHUNK = 32


def build(plan: AutoencoderPlan) -> AutoencoderKL:
    """An untrained autoencoder whose scaling factor is 1: ``normalise`` makes that right."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(plan.channels)
    vae: AutoencoderKL = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=plan.channels,
        layers_per_block=plan.layers,
        latent_channels=plan.latent_channels,
        norm_num_groups=plan.norm_groups,
        mid_block_add_attention=False,
        sample_size=plan.pixels,
        scaling_factor=1.0,
        force_upcast=False,
    )
    return vae


class AutoencoderLoss:
    """The loss of a step: colours, edges, large shapes; and latents near mean 0, deviation 1."""

    def __init__(
        self,
        vae: AutoencoderKL,
        dataset: Dataset,
        plan: AutoencoderPlan,
        *,
        seed: int,
        colour_weight: float = 0.0,
    ) -> None:
        self._vae, self._dataset, self._plan = vae, dataset, plan
        self._seed, self._colour_weight = seed, colour_weight

    def __call__(self, step: int, lane: int) -> torch.Tensor:
        """Scalar, with gradients."""
        plan = self._plan
        rows = rows_of(len(self._dataset.names), plan.microbatch, self._seed, step)
        images = self._dataset.images(rows.chunk(LANES)[lane])
        random = generator_of(self._seed, step, lane)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=plan.bfloat16):
            latents = self._vae.encode(images).latent_dist.mean.float()
            noise = torch.randn(latents.shape, generator=random)
            drawn = self._vae.decode(latents + plan.latent_noise * noise).sample.float()
        return (
            functional.l1_loss(drawn, images)
            + plan.edge_weight * _edge_loss(drawn, images)
            + plan.shape_weight * _shape_loss(drawn, images)
            + plan.latent_weight * _latent_loss(latents)
            + self._colour_weight * _colour_loss(drawn, images)
        )


def _edge_loss(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """How far the differences of neighbours are off: blur costs more here than in colours."""
    down = functional.l1_loss(drawn.diff(dim=2), images.diff(dim=2))
    return down + functional.l1_loss(drawn.diff(dim=3), images.diff(dim=3))


def _shape_loss(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    small = functional.avg_pool2d(drawn, 8), functional.avg_pool2d(images, 8)
    return functional.l1_loss(*small)


def _colour_loss(drawn: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """How far red from blue, and green from both, are off in small areas, whatever their light."""
    red, green, blue = functional.avg_pool2d(drawn - images, 4).unbind(1)
    return (red - blue).abs().mean() + (green - (red + blue) / 2).abs().mean()


def _latent_loss(latents: torch.Tensor) -> torch.Tensor:
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return mean.square().mean() + (deviation - 1).square().mean()


@torch.no_grad()
def latents_of(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Encodes images in [-1, 1] to the latents the denoiser sees, a chunk at a time."""
    chunks = [vae.encode(chunk).latent_dist.mean for chunk in images.split(_CHUNK)]
    return torch.cat(chunks)


@torch.no_grad()
def all_latents(vae: AutoencoderKL, dataset: Dataset) -> torch.Tensor:
    """The latents of every icon, float32 of shape (icons, channels, side, side)."""
    rows = torch.arange(len(dataset.names))
    return torch.cat([latents_of(vae, dataset.images(part)) for part in rows.split(_CHUNK)])


@torch.no_grad()
def normalise(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Makes each channel of ``latents`` (of all icons) have mean 0 and deviation 1, exactly.

    It goes into the 1 x 1 convolutions on both sides of the latents, so pictures stay as they are.
    """
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    into, out = _convolution(vae.quant_conv), _convolution(vae.post_quant_conv)
    out_bias, into_bias = _bias(out), _bias(into)
    out_bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation[None, :, None, None]
    into_bias[:channels] = (into_bias[:channels] - mean) / deviation
    into.weight[:channels] /= deviation[:, None, None, None]
    into.weight[channels:] = 0
    into_bias[channels:] = _CERTAIN


def _convolution(module: nn.Module | None) -> nn.Conv2d:
    if not isinstance(module, nn.Conv2d):
        raise TypeError("the autoencoder has no convolution beside its latents")
    return module


def _bias(convolution: nn.Conv2d) -> torch.Tensor:
    if convolution.bias is None:
        raise TypeError("the convolutions beside the latents have no bias")
    return convolution.bias


@torch.no_grad()
def mean_absolute_error(vae: AutoencoderKL, dataset: Dataset) -> float:
    """Over every pixel of every icon, on the scale [0, 1]."""
    total = 0.0
    for rows in torch.arange(len(dataset.names)).split(_CHUNK):
        images = dataset.images(rows)
        drawn = vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)
        total += (drawn - images).abs().mean().item() / 2 * len(rows)
    return total / len(dataset.names)
