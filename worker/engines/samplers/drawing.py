"""Pictures from a sampler's weights: by denoising, by a generator, or by decoding latents.

Every picture has a random generator of its own, on the CPU: its seed alone decides it, whatever
else is drawn beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worker.engines.samplers.generator import Generator
from worker.engines.samplers.manifest import Manifest

OnStep = Callable[[int, int], None]
"""Told (steps done, of so many)."""


class Sampler(Protocol):
    """One loaded model."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def modules(self) -> dict[str, nn.Module]: ...

    def draw(
        self,
        classes: Sequence[int],
        generators: Sequence[torch.Generator],
        *,
        steps: int,
        guidance: float,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """One picture for each class number: (n, channels, side, side) of -1..1."""


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def _noise(
    shape: Sequence[int], generators: Sequence[torch.Generator], like: torch.Tensor
) -> torch.Tensor:
    drawn = torch.stack([torch.randn(*shape, generator=generator) for generator in generators])
    return drawn.to(like.device, like.dtype)


class DiffusionSampler:
    """A ``Sampler`` that denoises pixels; guided by the class where the model knows classes."""

    def __init__(self, manifest: Manifest, unet: Any, scheduler: Any) -> None:
        """``unet`` is diffusers' UNet2DModel with one class more than the manifest names: none."""
        self.manifest, self._unet, self._scheduler = manifest, unet, scheduler
        self.modules: dict[str, nn.Module] = {"unet": unet}

    @torch.no_grad()
    def draw(
        self,
        classes: Sequence[int],
        generators: Sequence[torch.Generator],
        *,
        steps: int,
        guidance: float,
        on_step: OnStep | None = None,
    ) -> Tensor:
        side, channels = self.manifest.image_size, self.manifest.channels
        weight = next(self._unet.parameters())
        # Schedulers keep what earlier steps said, so no two drawings may share one.
        scheduler = type(self._scheduler).from_config(self._scheduler.config)
        scheduler.set_timesteps(steps, device=weight.device)
        picture = _noise((channels, side, side), generators, weight)
        picture = picture * scheduler.init_noise_sigma
        numbers = torch.tensor(list(classes), device=weight.device)
        for done, time in enumerate(scheduler.timesteps, start=1):
            scaled = scheduler.scale_model_input(picture, time)
            said = self._predict(scaled, time, numbers, guidance)
            picture = scheduler.step(said, time, picture).prev_sample
            if on_step is not None:
                on_step(done, len(scheduler.timesteps))
        drawn: Tensor = picture.float().clamp(-1, 1)
        return drawn

    def _predict(self, picture: Tensor, time: Tensor, classes: Tensor, guidance: float) -> Tensor:
        if not self.manifest.classes:
            plain: Tensor = self._unet(picture, time).sample
            return plain
        if guidance == 1:
            own: Tensor = self._unet(picture, time, class_labels=classes).sample
            return own
        nothing = torch.full_like(classes, len(self.manifest.classes))
        both = self._unet(
            torch.cat([picture, picture]), time, class_labels=torch.cat([classes, nothing])
        ).sample
        towards, away = both.chunk(2)
        guided: Tensor = away + guidance * (towards - away)
        return guided


class GanSampler:
    """A ``Sampler`` of one forward pass."""

    def __init__(self, manifest: Manifest, generator: Generator) -> None:
        self.manifest, self._generator = manifest, generator
        self.modules: dict[str, nn.Module] = {"generator": generator}

    @torch.no_grad()
    def draw(
        self,
        classes: Sequence[int],
        generators: Sequence[torch.Generator],
        *,
        steps: int = 1,
        guidance: float = 1.0,
        on_step: OnStep | None = None,
    ) -> Tensor:
        weight = next(self._generator.parameters())
        noise = _noise((self._generator.shape.latent,), generators, weight)
        drawn: Tensor = self._generator(noise, torch.tensor(list(classes), device=weight.device))
        if on_step is not None:
            on_step(1, 1)
        return drawn.float()


class VaeSampler:
    """A ``Sampler`` that decodes latents drawn after the statistics of a class."""

    def __init__(self, manifest: Manifest, vae: Any, mean: Tensor, spread: Tensor) -> None:
        """``vae`` is diffusers' AutoencoderKL. ``mean`` is (classes or 1, channels, side, side)
        of its latents; ``spread`` has the same shape (deviations), or is
        (classes or 1, numbers, numbers): the lower Cholesky factor of their covariance."""
        self.manifest, self._vae, self._mean, self._spread = manifest, vae, mean, spread
        self.modules: dict[str, nn.Module] = {"vae": vae}

    @torch.no_grad()
    def draw(
        self,
        classes: Sequence[int],
        generators: Sequence[torch.Generator],
        *,
        steps: int = 1,
        guidance: float = 1.0,
        on_step: OnStep | None = None,
    ) -> Tensor:
        weight = next(self._vae.parameters())
        numbers = torch.tensor(list(classes))
        mean, spread = self._mean[numbers], self._spread[numbers]
        noise = _noise(mean.shape[1:], generators, mean)
        if spread.shape == mean.shape:
            latents = mean + spread * noise
        else:
            latents = mean + (spread @ noise.flatten(1)[:, :, None]).view_as(mean)
        latents = latents.to(weight.device, weight.dtype)
        decoded: Tensor = self._vae.decode(latents).sample
        if on_step is not None:
            on_step(1, 1)
        return decoded.float().clamp(-1, 1)
