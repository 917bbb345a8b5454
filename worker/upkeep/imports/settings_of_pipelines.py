"""What a diffusers pipeline may be made of, and the settings of its parts that are taken over."""

from __future__ import annotations

from worker.upkeep.imports.kinds import PARTS
from worker.upkeep.imports.settings_kinds import Table, flag, integer, table, word

SCHEDULERS = frozenset(
    {
        "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler", "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler",
        "PNDMScheduler", "TCDScheduler", "UniPCMultistepScheduler",
    }
)  # fmt: skip
DENOISERS = frozenset(
    {
        "AutoencoderKL", "FluxTransformer2DModel", "PixArtTransformer2DModel",
        "SD3Transformer2DModel", "UNet2DConditionModel",
    }
)  # fmt: skip
"""Models of diffusers' own."""
TOKENIZERS = frozenset(
    {"CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast",
     "PreTrainedTokenizerFast", "TokenizersBackend"}
)  # fmt: skip
READERS = frozenset({"CLIPImageProcessor", "CLIPFeatureExtractor"})
"""They prepare pictures; the one name is the other's predecessor."""
SAFETY = ("stable_diffusion", "StableDiffusionSafetyChecker")

ROLES: dict[str, frozenset[tuple[str, str]]] = {
    "scheduler": frozenset(("diffusers", name) for name in SCHEDULERS),
    "unet": frozenset({("diffusers", "UNet2DConditionModel")}),
    "transformer": frozenset(
        ("diffusers", name) for name in DENOISERS if name.endswith("Transformer2DModel")
    ),
    "vae": frozenset({("diffusers", "AutoencoderKL")}),
    "image_encoder": frozenset({("transformers", "CLIPVisionModelWithProjection")}),
    "feature_extractor": frozenset(("transformers", name) for name in READERS),
    "safety_checker": frozenset({SAFETY}),
} | {
    role + number: frozenset(("transformers", name) for name in names)
    for number in ("", "_2", "_3")
    for role, names in (
        ("text_encoder", [name for name in PARTS if "Vision" not in name]),
        ("tokenizer", TOKENIZERS),
    )
}
"""By a component's name, the libraries and classes that it may be of."""

INDEX: Table = {
    "_class_name": word,
    "_diffusers_version": word,
    "requires_safety_checker": flag,
    "force_zeros_for_empty_prompt": flag,
    "add_watermarker": flag,
    "requires_aesthetics_score": flag,
}
"""Settings of ``model_index.json`` beside its components."""

MOST_TRAIN_STEPS = 100_000
"""Schedulers keep several numbers of each, whatever the weights; 1000 are usual."""

DENOISER = table(
    words="""
        _class_name _diffusers_version act_fn activation_fn addition_embed_type attention_type
        class_embed_type cross_attention_norm encoder_hid_dim_type mid_block_type norm_type qk_norm
        resnet_time_scale_shift time_embedding_act_fn time_embedding_type timestep_post_act
    """,
    integers="""
        addition_embed_type_num_heads addition_time_embed_dim caption_channels
        caption_projection_dim conv_in_kernel conv_out_kernel downsample_padding encoder_hid_dim
        freq_shift in_channels joint_attention_dim latent_channels norm_num_groups num_class_embeds
        num_embeds_ada_norm num_layers num_single_layers out_channels patch_size
        pooled_projection_dim pos_embed_max_size projection_class_embeddings_input_dim
        time_cond_proj_dim time_embedding_dim
    """,
    integer_lists="""
        attention_head_dim axes_dims_rope block_out_channels cross_attention_dim
        dual_attention_layers layers_per_block num_attention_heads sample_size
    """,
    nested_integers="transformer_layers_per_block reverse_transformer_layers_per_block",
    numbers="""
        dropout interpolation_scale mid_block_scale_factor norm_eps resnet_out_scale_factor
        scaling_factor shift_factor
    """,
    number_lists="latents_mean latents_std",
    flags="""
        attention_bias center_input_sample class_embeddings_concat dual_cross_attention
        flip_sin_to_cos force_upcast guidance_embeds mid_block_add_attention
        mid_block_only_cross_attention norm_elementwise_affine resnet_skip_time_act
        upcast_attention use_additional_conditions use_linear_projection use_post_quant_conv
        use_quant_conv
    """,
    flag_lists="only_cross_attention",
    word_lists="down_block_types up_block_types",
)
SCHEDULER = table(
    words="""
        _class_name _diffusers_version algorithm_type beta_schedule final_sigmas_type
        interpolation_type prediction_type solver_type time_shift_type timestep_spacing
        timestep_type variance_type
    """,
    integers="""
        base_image_seq_len max_image_seq_len original_inference_steps
        solver_order steps_offset
    """,
    integer_lists="disable_corrector",
    numbers="""
        base_shift beta_end beta_start clip_sample_range dynamic_thresholding_ratio flow_shift
        lambda_min_clipped max_shift sample_max_value shift shift_terminal sigma_max sigma_min
        timestep_scaling
    """,
    number_lists="trained_betas",
    flags="""
        clip_sample euler_at_final invert_sigmas lower_order_final predict_x0
        rescale_betas_zero_snr set_alpha_to_one skip_prk_steps stochastic_sampling thresholding
        use_beta_sigmas use_dynamic_shifting use_exponential_sigmas use_flow_sigmas
        use_karras_sigmas use_lu_lambdas
    """,
) | {"num_train_timesteps": lambda value: integer(value) and 0 < value <= MOST_TRAIN_STEPS}
