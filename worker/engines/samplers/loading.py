"""A sampler from its folder: ``pressrun.json`` and safetensors, judged before they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.engines.loading import fingerprint
from worker.engines.samplers.drawing import DiffusionSampler, GanSampler, Sampler, VaeSampler
from worker.engines.samplers.generator import load_generator
from worker.engines.samplers.manifest import Kind, Manifest, read_manifest

UNET, SCHEDULER, GENERATOR, VAE, LATENTS = (
    "unet",
    "scheduler",
    "generator",
    "vae",
    "latents.safetensors",
)


def load_sampler(folder: Path, device: torch.device, dtype: torch.dtype) -> Sampler:
    """Raises OSError, ValueError (pydantic's and safetensors' too) or RuntimeError for a folder
    that holds no whole model."""
    manifest = read_manifest(folder)
    load: dict[Kind, Callable[[Path, Manifest], Sampler]] = {
        "diffusion": _diffusion,
        "gan": _gan,
        "vae": _vae,
    }
    sampler = load[manifest.kind](folder, manifest)
    for module in sampler.modules.values():
        module.to(device, dtype).eval()
    return sampler


def sampler_fingerprint(sampler: Sampler, dtype: torch.dtype) -> str:
    """Like a text model's, over all modules and the manifest."""
    digest = hashlib.sha256(sampler.manifest.model_dump_json().encode())
    for name, module in sorted(sampler.modules.items()):
        digest.update(f"{name} {fingerprint(module, dtype)}".encode())
    return f"fp_{digest.hexdigest()[:16]}"


def write_latents(folder: Path, mean: Tensor, spread: Tensor) -> None:
    """What ``VaeSampler`` draws after."""
    tensors = {"mean": mean.contiguous(), "spread": spread.contiguous()}
    save_file(tensors, str(folder / LATENTS))


def _diffusion(folder: Path, manifest: Manifest) -> Sampler:
    from diffusers import UNet2DModel
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    unet = _of_disk(UNet2DModel, folder / UNET)
    known = unet.config.num_class_embeds
    wanted = len(manifest.classes) + 1 if manifest.classes else None
    if known != wanted:
        raise ValueError(f"its network knows {known} classes, its manifest needs {wanted}")
    _check_size(unet.config.sample_size, unet.config.in_channels, manifest)
    config = DPMSolverMultistepScheduler.load_config(folder / SCHEDULER, local_files_only=True)
    scheduler = DPMSolverMultistepScheduler.from_config(config)
    return DiffusionSampler(manifest, unet, scheduler)


def _gan(folder: Path, manifest: Manifest) -> Sampler:
    generator = load_generator(folder / GENERATOR)
    if generator.shape.classes != len(manifest.classes):
        raise ValueError("its network and its manifest name different numbers of classes")
    _check_size(generator.shape.image_size, generator.shape.channels, manifest)
    return GanSampler(manifest, generator)


def _vae(folder: Path, manifest: Manifest) -> Sampler:
    from diffusers import AutoencoderKL

    vae = _of_disk(AutoencoderKL, folder / VAE)
    _check_size(vae.config.sample_size, vae.config.in_channels, manifest)
    statistics = load_file(str(folder / LATENTS))
    mean, spread = statistics["mean"], statistics["spread"]
    if len(mean) != max(1, len(manifest.classes)) or len(spread) != len(mean):
        raise ValueError("its latents and its manifest name different numbers of classes")
    return VaeSampler(manifest, vae, mean, spread)


def _of_disk(kind: Any, folder: Path) -> Any:
    return kind.from_pretrained(folder, use_safetensors=True, local_files_only=True)


def _check_size(size: int, channels: int, manifest: Manifest) -> None:
    if (size, channels) != (manifest.image_size, manifest.channels):
        raise ValueError(
            f"its network draws {channels} channels of {size} pixels a side, its manifest says "
            f"{manifest.channels} of {manifest.image_size}"
        )
