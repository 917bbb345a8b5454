"""Every size and number of the training, in one place: these defaults made the committed model."""

from __future__ import annotations

from dataclasses import dataclass, field

from starter_image.training import Schedule

SEED = 20_261

_AUTOENCODER_SCHEDULE = Schedule(steps=2000, seed=SEED, peak_rate=2e-3, average_decay=0.998)
_REFINING_SCHEDULE = Schedule(steps=800, seed=SEED + 2, peak_rate=1e-3, average_decay=0.998)
_DENOISER_SCHEDULE = Schedule(
    steps=6400, seed=SEED + 1, peak_rate=1e-3, average_decay=0.998, falling=0.4
)
_MORE_SCHEDULE = Schedule(steps=0, seed=SEED + 3, peak_rate=1e-3, average_decay=0.998, falling=0.4)


@dataclass(frozen=True)
class AutoencoderPlan:
    """Sizes of the autoencoder, and how it is trained."""

    pixels: int = 64
    channels: tuple[int, ...] = (32, 64, 96, 128)
    layers: int = 1
    latent_channels: int = 16
    norm_groups: int = 8
    microbatch: int = 32
    bfloat16: bool = True
    latent_noise: float = 0.05
    edge_weight: float = 0.5
    shape_weight: float = 0.5
    latent_weight: float = 0.01
    schedule: Schedule = _AUTOENCODER_SCHEDULE
    refining: Schedule = _REFINING_SCHEDULE
    """A second training, in which colours count more: the first one finds them last of all."""
    refining_colour_weight: float = 2.0


@dataclass(frozen=True)
class DenoiserPlan:
    """Sizes of the UNet and the text encoder, and how they are trained."""

    channels: tuple[int, ...] = (96, 112, 128)
    layers: int = 1
    heads: int = 4
    pooling_heads: int = 8
    norm_groups: int = 16
    text_width: int = 160
    text_layers: int = 2
    text_tokens: int = 48
    """The longest prompt, with the tokens for start and end; the rest is cut off."""
    microbatch: int = 64
    bfloat16: bool = True
    empty_prompts: float = 0.1
    noise_shift: float = 8.0
    """How much more the noisiest steps are practised than the others (1: evenly): there a picture
    comes from its name alone, and that is learned last of all."""
    schedule: Schedule = _DENOISER_SCHEDULE
    refining: Schedule = _MORE_SCHEDULE
    """A second training on top of the first; left out when it has no steps."""


@dataclass(frozen=True)
class SamplingPlan:
    """How pictures are drawn for the score and the sheet, and what the card recommends."""

    steps: int = 20
    guidance: float = 4.0
    count: int = 100
    seed: int = 7


@dataclass(frozen=True)
class Plan:
    """The whole training."""

    autoencoder: AutoencoderPlan = field(default_factory=AutoencoderPlan)
    denoiser: DenoiserPlan = field(default_factory=DenoiserPlan)
    sampling: SamplingPlan = field(default_factory=SamplingPlan)
