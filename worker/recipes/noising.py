"""What a denoiser learns: pictures or latents with noise in them, and what is wrong with those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.recipes.shape import RecipeError


@dataclass(frozen=True, slots=True)
class Noised:
    """A step's question and its answer. ``times`` are what the network is told, (n,)."""

    noisy: Tensor
    times: Tensor
    target: Tensor


class Noising(Protocol):
    def __call__(self, clean: Tensor, noise: Tensor, parts: Tensor) -> Noised:
        """``parts`` (n,) of 0..1, evenly drawn, say how far along each example is."""


class Diffusing:
    """Discrete times, as DDPM and its kin have them."""

    def __init__(self, kept: Tensor, target: str) -> None:
        """``kept`` is the scheduler's ``alphas_cumprod``, ``target`` its ``prediction_type``."""
        self._kept, self._target = kept.float(), target

    def __call__(self, clean: Tensor, noise: Tensor, parts: Tensor) -> Noised:
        times = (parts * len(self._kept)).long().clamp(max=len(self._kept) - 1)
        kept = self._kept.to(clean.device)[times.to(clean.device)][:, None, None, None]
        signal, noisiness = kept.sqrt(), (1 - kept).sqrt()
        target = {
            "epsilon": noise,
            "v_prediction": signal * noise - noisiness * clean,
            "sample": clean,
        }[self._target]
        return Noised(signal * clean + noisiness * noise, times.to(clean.device), target)


class Flowing:
    """Straight lines from noise to picture; times in the middle are learnt more often."""

    def __init__(self, times: int, shift: float) -> None:
        self._times, self._shift = times, shift

    def __call__(self, clean: Tensor, noise: Tensor, parts: Tensor) -> Noised:
        normal = torch.special.ndtri(parts.double().clamp(1e-4, 1 - 1e-4))
        line = torch.sigmoid(normal)
        line = (self._shift * line / (1 + (self._shift - 1) * line)).float().to(clean.device)
        along = line[:, None, None, None]
        return Noised((1 - along) * clean + along * noise, line * self._times, noise - clean)


def noising_of(scheduler: Any) -> Noising:
    """As the scheduler will undo it. Raises RecipeError ``unsupported_model``."""
    config = scheduler.config
    if type(scheduler).__name__.startswith("FlowMatch"):
        return Flowing(int(config.num_train_timesteps), float(config.get("shift") or 1.0))
    kept = getattr(scheduler, "alphas_cumprod", None)
    target = config.get("prediction_type", "epsilon")
    if kept is None or target not in ("epsilon", "v_prediction", "sample"):
        raise RecipeError(
            "unsupported_model",
            f"models with a {type(scheduler).__name__} of {target} cannot be trained here",
            "request",
            "model",
        )
    return Diffusing(kept, str(target))
