"""The trained parts as one folder that diffusers' pipelines load, in fp16 safetensors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from starter_image.denoiser import Denoiser

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

PAGES = "README.md"
"""Written by the last stage; an export leaves it and the pictures beside it alone."""

_PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
_INDEX = "model_index.json"


def export(vae: AutoencoderKL, denoiser: Denoiser, target: Path) -> None:
    """Writes the pipeline to ``target``, over an earlier one. The modules given become fp16."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    parts: dict[str, Any] = {
        "vae": vae.half(),
        "text_encoder": denoiser.text_encoder.half(),
        "tokenizer": denoiser.tokenizer,
        "unet": denoiser.unet.half(),
        "scheduler": denoiser.scheduler,
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    target.mkdir(parents=True, exist_ok=True)
    for name in _PARTS:
        shutil.rmtree(target / name, ignore_errors=True)
        (partial / name).rename(target / name)
    (partial / _INDEX).replace(target / _INDEX)
    shutil.rmtree(partial)


def load(folder: Path) -> StableDiffusionPipeline:
    """The pipeline in fp32, as a machine without a GPU loads it; from disk alone."""
    from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

    pipeline: StableDiffusionPipeline = AutoPipelineForText2Image.from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
