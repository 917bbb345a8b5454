"""Tiny random diffusion models in the hub's layout, made on the spot.

They draw noise, but by the same code as their large kin: text encoders, denoiser, VAE, scheduler.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

SIDE = 32
"""The models' own size, in pixels; their VAEs halve it twice."""
PROMPT_TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = "a red square on white, a blue circle, seven green boats with yellow sails on the sea"


def clip_tokenizer(folder: Path) -> Any:
    """Bytes as tokens, in CLIP's format."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    words = [*symbols, *(f"{symbol}</w>" for symbol in symbols), START, END]
    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=PROMPT_TOKENS)


def t5_tokenizer() -> Any:
    """Byte-level BPE that ends texts as T5 does."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    trained.train_from_iterator([WORDS], trainer)
    trained.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token="</s>", pad_token="<pad>", model_max_length=512
    )


def text_encoder(tokenizer: Any, kind: Any = CLIPTextModel, width: int = 32) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=37,
            projection_dim=width,
            num_attention_heads=4,
            num_hidden_layers=3,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5_encoder(width: int = 32) -> Any:
    return T5EncoderModel(
        T5Config(vocab_size=400, d_model=width, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    )


def vae(latent_channels: int = 4, **more: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16, 16),
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=latent_channels,
        norm_num_groups=2,
        sample_size=SIDE,
        **more,
    )


def stable_diffusion(
    folder: Path, *, channels: int = 4, latent_channels: int = 4, safety: bool = False
) -> Any:
    tokenizer = clip_tokenizer(folder)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=SIDE // 4,
        in_channels=channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=2,
    )
    kind: Any = diffusers.StableDiffusionPipeline
    if channels != latent_channels:
        kind = diffusers.StableDiffusionInpaintPipeline
    return kind(
        vae=vae(latent_channels),
        text_encoder=text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        requires_safety_checker=safety,
        **(_safety() if safety else {"safety_checker": None, "feature_extractor": None}),
    )


def _safety() -> dict[str, Any]:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    config = CLIPConfig(
        text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        },
        projection_dim=8,
    )
    checker = StableDiffusionSafetyChecker(config)
    size = {"height": 16, "width": 16}
    return {
        "safety_checker": checker,
        "feature_extractor": CLIPImageProcessor(size=size, crop_size=size),
    }


def stable_diffusion_xl(folder: Path) -> Any:
    tokenizer = clip_tokenizer(folder)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=SIDE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=32 + 6 * 8,
        cross_attention_dim=64,
        norm_num_groups=2,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=text_encoder(tokenizer),
        text_encoder_2=text_encoder(tokenizer, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
    )


def stable_diffusion_3(folder: Path) -> Any:
    tokenizer = clip_tokenizer(folder)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=SIDE // 4,
        patch_size=1,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        out_channels=16,
    )
    encoders = [text_encoder(tokenizer, CLIPTextModelWithProjection) for _ in range(2)]
    return diffusers.StableDiffusion3Pipeline(
        vae=vae(16, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        text_encoder_3=t5_encoder(64),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=t5_tokenizer(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux(folder: Path) -> Any:
    tokenizer = clip_tokenizer(folder)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return diffusers.FluxPipeline(
        vae=vae(4, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=text_encoder(tokenizer),
        text_encoder_2=t5_encoder(),
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "stable_diffusion": stable_diffusion,
    "stable_diffusion_xl": stable_diffusion_xl,
    "stable_diffusion_3": stable_diffusion_3,
    "flux": flux,
}


def save(folder: Path, make: Callable[..., Any], **options: Any) -> Path:
    """Writes a random model, the same each time, into ``folder``/model and returns that."""
    torch.manual_seed(7)
    pipeline = make(folder / "tokenizer", **options)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            _liven(component)
    pipeline.save_pretrained(folder / "model")
    return folder / "model"


def _liven(module: torch.nn.Module) -> None:
    """Layers that start at zero would make every image the same."""
    for parameter in module.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
