"""The model card: what the folder holds, how it came to be, and what it can't do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starter_image.icons import PACKAGE, PACKAGE_VERSION
from starter_image.plan import Plan

_MILLION = 1_000_000
_GOOD_SHARE = 0.95
_MOST_MISSES = 10

_TEMPLATE = Path(__file__).with_name("card_template.txt")


@dataclass(frozen=True)
class Facts:
    """What the training measured. ``minutes`` are the autoencoder's and the denoiser's."""

    icons: int
    parameters: Mapping[str, int]
    minutes: tuple[float, float]
    hits: int
    misses: Sequence[tuple[str, str]]
    error: float


def render(plan: Plan, facts: Facts) -> str:
    """The card in Markdown. Every figure comes from ``plan`` or ``facts``."""
    return _TEMPLATE.read_text(encoding="utf-8").format(
        **_sizes(plan),
        **_trainings(plan),
        **{name: count / _MILLION for name, count in facts.parameters.items()},
        icons=facts.icons,
        hits=facts.hits,
        error=facts.error,
        misses=_misses(facts.misses),
        verdict=_verdict(facts.hits, plan.sampling.count),
        vae_minutes=facts.minutes[0],
        unet_minutes=facts.minutes[1],
        cores=os.cpu_count(),
        package=PACKAGE,
        version=PACKAGE_VERSION,
    )


def _sizes(plan: Plan) -> dict[str, object]:
    vae, unet = plan.autoencoder, plan.denoiser
    side = vae.pixels >> (len(vae.channels) - 1)
    return {
        "pixels": vae.pixels,
        "latents": f"{vae.latent_channels} x {side} x {side}",
        "vae_channels": ", ".join(map(str, vae.channels)),
        "unet_channels": ", ".join(map(str, unet.channels)),
        "text_layers": unet.text_layers,
        "text_width": unet.text_width,
        "tokens": unet.text_tokens,
        "noise_shift": unet.noise_shift,
    }


def _trainings(plan: Plan) -> dict[str, object]:
    vae, unet, sampling = plan.autoencoder, plan.denoiser, plan.sampling
    return {
        "vae_steps": vae.schedule.steps + vae.refining.steps,
        "vae_rows": vae.microbatch,
        "vae_seed": vae.schedule.seed,
        "unet_steps": unet.schedule.steps + unet.refining.steps,
        "unet_rows": unet.microbatch,
        "unet_seed": unet.schedule.seed,
        "sampling_steps": sampling.steps,
        "sampling_seed": sampling.seed,
        "guidance": sampling.guidance,
        "count": sampling.count,
    }


def _verdict(hits: int, count: int) -> str:
    if hits >= _GOOD_SHARE * count:
        return "Draws an emoji by its name: `red heart`, `a picture of a rocket`, `red apples`."
    return (
        f"**Not trained long enough.** Asked for an emoji by its name, it drew that emoji in "
        f"{hits} of {count} cases. The others often have the right colours and the right kind of "
        "thing (a face, a button, a heart), but aren't the emoji that was named."
    )


def _misses(misses: Sequence[tuple[str, str]]) -> str:
    if not misses:
        return "Every picture was nearest to its own icon."
    shown = misses[:_MOST_MISSES]
    pairs = "; ".join(f"{asked} (nearest: {nearest})" for asked, nearest in shown)
    return f"Nearest to another icon, {len(shown)} of {len(misses)} cases: {pairs}."
