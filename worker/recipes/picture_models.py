"""Text-to-image models as something to train: texts, latents, and a denoiser, by family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worker.engines.base import EngineFailed
from worker.engines.images.index import check_index
from worker.engines.images.loading import fetch, quieten
from worker.recipes.noising import Noising, noising_of
from worker.recipes.shape import RecipeError

if TYPE_CHECKING:
    from worker.recipes.context import Context

Texts = tuple[Tensor, ...]
"""What the denoiser is told of the captions, one row each."""

UNET, TRANSFORMER = "unet", "transformer"
LARGE = 500_000_000
"""Parameters from which activations are computed again rather than kept."""


@dataclass(frozen=True, slots=True)
class Family:
    """How models of one kind are asked."""

    denoiser: str
    """The component that is trained."""
    encode: Callable[[Any, list[str], torch.device], Texts]
    predict: Callable[[Any, Tensor, Tensor, Texts, tuple[int, int]], Tensor]
    """(denoiser, noisy latents, times, texts, (width, height) in pixels) to its answer."""


def _encode_plain(pipeline: Any, captions: list[str], device: torch.device) -> Texts:
    embedded, _ = pipeline.encode_prompt(captions, device, 1, False)
    return (embedded,)


def _encode_pooled(pipeline: Any, captions: list[str], device: torch.device) -> Texts:
    embedded, _, pooled, _ = pipeline.encode_prompt(
        captions, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if pipeline.config.force_zeros_for_empty_prompt:
        # Without a caption such a model is told nothing at all, and so it must learn.
        said = torch.tensor([bool(caption) for caption in captions], device=embedded.device)
        embedded, pooled = embedded * said[:, None, None], pooled * said[:, None]
    return embedded, pooled


def _encode_three(pipeline: Any, captions: list[str], device: torch.device) -> Texts:
    embedded, _, pooled, _ = pipeline.encode_prompt(
        captions, None, None, device=device, do_classifier_free_guidance=False
    )
    return embedded, pooled


def _predict_plain(
    denoiser: Any, noisy: Tensor, times: Tensor, texts: Texts, size: tuple[int, int]
) -> Tensor:
    said: Tensor = denoiser(noisy, times, encoder_hidden_states=texts[0]).sample
    return said


def _predict_sized(
    denoiser: Any, noisy: Tensor, times: Tensor, texts: Texts, size: tuple[int, int]
) -> Tensor:
    """These models are told how large a picture was and how it was cut: as it is, and not."""
    width, height = size
    sizes = torch.tensor([height, width, 0, 0, height, width], device=noisy.device)
    conditions = {
        "text_embeds": texts[1],
        "time_ids": sizes.to(texts[1].dtype).repeat(len(noisy), 1),
    }
    said: Tensor = denoiser(
        noisy, times, encoder_hidden_states=texts[0], added_cond_kwargs=conditions
    ).sample
    return said


def _predict_flow(
    denoiser: Any, noisy: Tensor, times: Tensor, texts: Texts, size: tuple[int, int]
) -> Tensor:
    said: Tensor = denoiser(
        hidden_states=noisy,
        timestep=times,
        encoder_hidden_states=texts[0],
        pooled_projections=texts[1],
    ).sample
    return said


FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family(UNET, _encode_plain, _predict_plain),
    "StableDiffusionXLPipeline": Family(UNET, _encode_pooled, _predict_sized),
    "StableDiffusion3Pipeline": Family(TRANSFORMER, _encode_three, _predict_flow),
}
"""By the class that diffusers' automatic pipeline has for text to image."""


class PictureModel:
    """A pipeline whose parts are frozen, until somebody trains one."""

    def __init__(self, pipeline: Any, family: Family, device: torch.device) -> None:
        self.pipeline, self._family, self._device = pipeline, family, device
        self.noising: Noising = noising_of(pipeline.scheduler)

    @property
    def denoiser(self) -> Any:
        return getattr(self.pipeline, self._family.denoiser)

    @property
    def denoiser_name(self) -> str:
        return self._family.denoiser

    def modules(self) -> dict[str, Any]:
        """The parts that are, or could be, trained: denoiser and text encoders."""
        found: dict[str, Any] = {self.denoiser_name: self.denoiser}
        for name in ("text_encoder", "text_encoder_2"):
            if getattr(self.pipeline, name, None) is not None:
                found[name] = getattr(self.pipeline, name)
        return found

    def encode(self, captions: list[str]) -> Texts:
        return self._family.encode(self.pipeline, captions, self._device)

    def predict(self, noisy: Tensor, times: Tensor, texts: Texts, size: tuple[int, int]) -> Tensor:
        """The denoiser's answer in float32."""
        dtype = self.denoiser.dtype
        texts = tuple(text.to(dtype) for text in texts)
        return self._family.predict(self.denoiser, noisy.to(dtype), times, texts, size).float()

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (n, 3, height, width) of -1..1 to mean and deviation, scaled as the denoiser
        knows them, on the CPU."""
        vae = self.pipeline.vae
        found = vae.encode(pixels.to(self._device, vae.dtype)).latent_dist
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        scale = vae.config.scaling_factor
        mean, deviation = (found.mean - shift) * scale, found.std * scale
        return mean.float().cpu(), deviation.float().cpu()

    @torch.no_grad()
    def draw(
        self, prompts: Sequence[str], *, size: tuple[int, int], steps: int, guidance: float
    ) -> list[Any]:
        """A picture for each prompt, one after the other, each from its place as its seed."""
        return [
            self.pipeline(
                prompt,
                width=size[0],
                height=size[1],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator("cpu").manual_seed(seed),
            ).images[0]
            for seed, prompt in enumerate(prompts, start=1)
        ]


def load_picture_model(context: Context) -> PictureModel:
    """The plan's base model, frozen. Raises RecipeError that blames the request."""
    from diffusers import AutoPipelineForText2Image

    if not context.plan.base:
        raise RecipeError("model_required", "text_to_image needs a base model", "request", "model")
    quieten()
    try:
        folder = fetch(context.plan.base)
        check_index(folder)
        pipeline: Any = AutoPipelineForText2Image.from_pretrained(
            folder, dtype=context.dtype, use_safetensors=True, local_files_only=True
        )
    except (EngineFailed, OSError, ValueError) as error:
        raise RecipeError(
            "unsuitable_base",
            f"the base model cannot be loaded as one that draws texts: {type(error).__name__}",
            "request",
            "model",
        ) from error
    family = FAMILIES.get(type(pipeline).__name__)
    if family is None or pipeline.vae.config.latent_channels != _taken(pipeline, family):
        known = ", ".join(name.removesuffix("Pipeline") for name in FAMILIES)
        raise RecipeError(
            "unsupported_model",
            f"a {type(pipeline).__name__} cannot be trained here; what can: {known}",
            "request",
            "model",
        )
    return _prepared(pipeline, family, context.device)


def _taken(pipeline: Any, family: Family) -> int:
    return int(getattr(pipeline, family.denoiser).config.in_channels)


def _prepared(pipeline: Any, family: Family, device: torch.device) -> PictureModel:
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    pipeline.to(device)
    # Small differences between latents are what is learnt, and some VAEs overflow in fp16.
    pipeline.vae.to(torch.float32)
    return PictureModel(pipeline, family, device)
