"""The denoiser and the text encoder, trained together on the icons' latents and captions."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from starter_image.captions import Captions
from starter_image.plan import DenoiserPlan
from starter_image.training import LANES, generator_of, rows_of

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class Denoiser:
    """What turns a prompt and noise into latents: everything of the pipeline but the pictures."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DPMSolverMultistepScheduler

    def modules(self) -> nn.ModuleDict:
        """What is trained, under the names of its folders."""
        return nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})


def build(plan: DenoiserPlan, tokenizer: CLIPTokenizer, latent_shape: torch.Size) -> Denoiser:
    """Untrained, for latents of ``latent_shape`` (channels, side, side)."""
    channels, side, _ = latent_shape
    return Denoiser(
        unet=_unet(plan, channels, side),
        text_encoder=_text_encoder(plan, tokenizer),
        tokenizer=tokenizer,
        scheduler=_scheduler(),
    )


def _unet(plan: DenoiserPlan, channels: int, side: int) -> UNet2DConditionModel:
    """The prompt acts in two ways: as a whole it scales and shifts every channel, and word by word
    through attention, on the one level where that is cheap and not yet too coarse.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    deeper = len(plan.channels) - 2
    unet: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", *("DownBlock2D",) * deeper),
        up_block_types=(*("UpBlock2D",) * deeper, "CrossAttnUpBlock2D", "UpBlock2D"),
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=plan.pooling_heads,
        block_out_channels=plan.channels,
        layers_per_block=plan.layers,
        cross_attention_dim=plan.text_width,
        attention_head_dim=plan.heads,  # the number of heads, whatever diffusers calls it
        norm_num_groups=plan.norm_groups,
    )
    return unet


def _text_encoder(plan: DenoiserPlan, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.text_width,
        intermediate_size=4 * plan.text_width,
        projection_dim=plan.text_width,
        num_hidden_layers=plan.text_layers,
        num_attention_heads=plan.heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _scheduler() -> DPMSolverMultistepScheduler:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    scheduler: DPMSolverMultistepScheduler = DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return scheduler


class DenoiserLoss:
    """The loss of a step: the mean squared error of the predicted velocity.

    ``latents`` are those of all icons, in the order of ``names``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        names: list[str],
        latents: torch.Tensor,
        plan: DenoiserPlan,
        *,
        seed: int,
    ) -> None:
        self._denoiser, self._names, self._latents, self._plan = denoiser, names, latents, plan
        self._captions, self._seed = Captions(names), seed
        self._kept = denoiser.scheduler.alphas_cumprod

    def __call__(self, step: int, lane: int) -> torch.Tensor:
        """Scalar, with gradients."""
        plan = self._plan
        rows = rows_of(len(self._names), plan.microbatch, self._seed, step)
        rows = rows.chunk(LANES)[lane]
        generator = generator_of(self._seed, step, lane)
        clean = self._latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        times = self._times(len(rows), generator)
        signal, noisiness = _parts(self._kept[times])
        noisy, velocity = signal * clean + noisiness * noise, signal * noise - noisiness * clean
        tokens = self._tokens(rows, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=plan.bfloat16):
            meaning = self._denoiser.text_encoder(tokens).last_hidden_state
            predicted = self._denoiser.unet(noisy, times, meaning).sample
        return functional.mse_loss(predicted.float(), velocity)

    def _times(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Steps of the noise, int64 of shape (count,): more of the noisiest than of the others."""
        shift, evenly = self._plan.noise_shift, torch.rand(count, generator=generator)
        shifted = shift * evenly / (1 + (shift - 1) * evenly)
        return (shifted * len(self._kept)).long().clamp(max=len(self._kept) - 1)

    def _tokens(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Captions of the rows as token numbers; some are empty, for guidance to compare with."""
        draw = random.Random(int(torch.randint(2**62, (1,), generator=generator)))  # noqa: S311
        prompts = [
            "" if draw.random() < self._plan.empty_prompts else self._captions.draw(name, draw)
            for name in (self._names[row] for row in rows.tolist())
        ]
        tokens = self._denoiser.tokenizer(
            prompts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return torch.as_tensor(tokens)


def _parts(kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How much of a noisy latent is the clean one, and how much is noise; broadcast over it."""
    kept = kept[:, None, None, None]
    return kept.sqrt(), (1 - kept).sqrt()
