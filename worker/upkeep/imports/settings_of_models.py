"""Settings of transformers' models that are taken over: those of the families in ``kinds``, and
what older releases called them. Whatever else a ``config.json`` says is left out."""

from __future__ import annotations

from worker.upkeep.imports.settings_kinds import label_numbers, numbered_labels, table

CONFIG = table(
    flags="""
        _remove_final_layer_norm add_cross_attention alibi
        apply_residual_connection_post_layernorm attention_bias bias classifier_bias
        decoder_bias deterministic_flash_attn do_layer_norm_before enable_bias is_decoder
        is_encoder_decoder is_gated_act layer_norm_elementwise_affine legacy mlp_bias
        multi_query new_decoder_architecture norm_bias norm_topk_prob output_router_logits
        parallel_attn position_biased_input qk_layernorm qkv_bias relative_attention
        reorder_and_upcast_attn rescale_prenorm_residual residual_in_fp32
        scale_attn_by_inverse_layer_idx scale_attn_weights scale_decoder_outputs
        scale_embedding share_encoder_decoder_embeddings sinusoidal_pos_embds slow_but_exact
        sparse_prediction summary_proj_to_labels summary_use_proj tie_word_embeddings
        use_associative_scan use_bias use_bidirectional_attention use_cache use_conv_bias
        use_mambapy use_parallel_residual use_qk_norm use_qkv_bias use_sliding_window
    """,
    integers="""
        _sliding_window_pattern attention_window_size bos_token_id chunk_size
        chunk_size_feed_forward cls_token_id conv1d_width conv_kernel d_ff d_kv d_model
        decoder_attention_heads decoder_ffn_dim decoder_layers decoder_sparse_step
        decoder_start_token_id decoder_vocab_size dim embedding_size encoder_attention_heads
        encoder_ffn_dim encoder_layers encoder_no_repeat_ngram_size expand ffn_dim
        ffn_hidden_size global_attn_every_n_layers head_dim hidden_dim hidden_size
        inner_group_num intermediate_size local_attention lru_width max_position_embeddings
        max_relative_positions max_window_layers moe_intermediate_size n_ctx n_embd n_groups
        n_head n_heads n_inner n_layer n_layers n_positions no_rope_layer_interval
        num_attention_heads num_channels num_decoder_layers num_experts num_experts_per_tok
        num_fc_layers num_heads num_hidden_groups num_hidden_layers num_key_value_heads
        num_kv_heads num_layers num_ln_in_parallel_attn num_local_experts
        original_max_position_embeddings pad_token_id pooler_hidden_size
        pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pretraining_tp
        projection_dim relative_attention_max_distance relative_attention_num_buckets
        rotary_dim sep_token_id shared_expert_intermediate_size sliding_window
        sliding_window_pattern sparse_pred_ignore_index state_size type_vocab_size
        vocab_size window_size word_embed_proj_dim
    """,
    words="""
        activation activation_function classifier_activation classifier_pooling dense_act_fn
        feed_forward_proj hidden_act hidden_activation model_type pooler_hidden_act
        pooler_type position_embedding_type problem_type summary_activation summary_type
        time_step_init_scheme transformers_version
    """,
    numbers="""
        activation_dropout attention_dropout attention_multiplier
        attention_probs_dropout_prob attn_logit_softcapping attn_pdrop classifier_dropout
        classifier_dropout_prob clip_qkv decoder_layerdrop dropout dropout_rate embd_pdrop
        embed_dropout embedding_dropout embedding_multiplier encoder_layerdrop
        final_logit_softcapping final_w_init_variance_scale global_rope_theta hidden_dropout
        hidden_dropout_prob init_std initializer_cutoff_factor initializer_factor
        initializer_range layer_norm_eps layer_norm_epsilon layerdrop local_rope_theta
        logit_scale logit_scale_init_value logits_scaling logits_soft_cap mlp_dropout
        norm_eps norm_epsilon partial_rotary_factor pooler_dropout qa_dropout
        query_pre_attn_scalar resid_dropout resid_pdrop residual_dropout residual_multiplier
        rms_norm_eps rope_local_base_freq rope_theta rotary_emb_base rotary_pct
        router_aux_loss_coef router_jitter_noise seq_classif_dropout summary_first_dropout
        summary_last_dropout time_step_floor time_step_max time_step_min time_step_scale
        w_init_variance_scale
    """,
    word_lists="""
        architectures attention_layers block_types layer_types pos_att_type
    """,
    mixed_lists="""
        attention_types
    """,
    integer_lists="""
        eos_token_id forced_eos_token_id image_size mlp_only_layers no_rope_layers
        patch_size
    """,
    number_lists="""
        time_step_limit
    """,
    scalars="""
        time_step_rank
    """,
    objects="""
        rope_parameters rope_scaling
    """,
    dtypes="dtype torch_dtype",
) | {"id2label": numbered_labels, "label2id": label_numbers}

SECTIONS = ("text_config", "vision_config")
"""Objects with settings of their own, in the configuration of a model that has two halves."""
