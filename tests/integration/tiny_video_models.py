"""Tiny random video pipelines in the hub's layout: noise, by the code of their large kin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

from tests.integration.tiny_diffusers import t5_encoder, t5_tokenizer


def wan(*, image: bool = False) -> Any:
    """A pipeline of the Wan family; with ``image``, one that continues a picture."""
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=36 if image else 16,
        out_channels=16,
        text_dim=32,
        freq_dim=64,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    parts: dict[str, Any] = {
        "transformer": transformer,
        "vae": vae,
        "scheduler": diffusers.UniPCMultistepScheduler(flow_shift=7.0),
        "text_encoder": t5_encoder(),
        "tokenizer": t5_tokenizer(),
    }
    if image:
        more = {"image_encoder": None, "image_processor": None, "transformer_2": None}
        return diffusers.WanImageToVideoPipeline(**parts, **more)
    return diffusers.WanPipeline(**parts)


def ltx() -> Any:
    """A pipeline of the LTX family, whose weights serve texts and pictures."""
    vae = diffusers.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=32,
    )
    return diffusers.LTXPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
    )


def save(folder: Path, pipeline: Any) -> Path:
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def make(folder: Path, kind: str) -> Path:
    """``wan``, ``wan_image`` or ``ltx``, the same each time."""
    torch.manual_seed(5)
    pipeline = ltx() if kind == "ltx" else wan(image=kind == "wan_image")
    return save(folder, pipeline)
