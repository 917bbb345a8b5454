"""Settings of tokenizers, of generation, of pooling and of adapters that are taken over."""

from __future__ import annotations

from typing import Any

from worker.upkeep.imports.kinds import DECODERS, ENCODERS, TRANSLATORS
from worker.upkeep.imports.settings_kinds import (
    Table,
    digits,
    either,
    flag,
    integer,
    list_of,
    number,
    object_of,
    table,
    text,
    word,
)

_FAMILIES = {
    *DECODERS.values(), *ENCODERS.values(), *TRANSLATORS.values(), "CLIP", "CodeGen", "MBart",
}  # fmt: skip
TOKENIZERS = frozenset(
    {"PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend", "SentencePieceBackend"}
    | {f"{family}Tokenizer{kind}" for family in _FAMILIES for kind in ("", "Fast")}
)
"""Classes of transformers' own that a tokenizer may be of."""
MOST_ADDED_TOKENS = 300_000
MOST_LENGTH = 10**31
"""Tokenizers without a limit say 10^30."""
MOST_TEMPLATES = 8
MOST_TEMPLATE_CHARACTERS = 2**17

_MARKS = ("lstrip", "normalized", "rstrip", "single_word", "special")


def token(value: Any) -> bool:
    """A text, or one with the flags of how it is found."""
    if not isinstance(value, dict):
        return text(value)
    return (
        text(value.get("content"))
        and value.keys() <= {"content", "__type", *_MARKS}
        and all(flag(value[name]) for name in _MARKS if name in value)
        and value.get("__type", "AddedToken") == "AddedToken"
    )


named_tokens = either(list_of(token), object_of(token, word))
"""A list of tokens, or an object of them."""
numbered_tokens = object_of(token, digits, MOST_ADDED_TOKENS)
"""``{"0": {"content": "<s>", …}}``"""


def template(value: Any) -> bool:
    """A template, or a list of named ones."""
    if isinstance(value, str):
        return len(value) <= MOST_TEMPLATE_CHARACTERS
    return (
        isinstance(value, list)
        and len(value) <= MOST_TEMPLATES
        and all(
            isinstance(one, dict)
            and one.keys() == {"name", "template"}
            and word(one["name"])
            and isinstance(one["template"], str)
            and len(one["template"]) <= MOST_TEMPLATE_CHARACTERS
            for one in value
        )
    )


def tokenizer_class(value: Any) -> bool:
    return isinstance(value, str) and value in TOKENIZERS


_TOKENS = (
    "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token",
)  # fmt: skip

SPECIAL_TOKENS: Table = {
    **dict.fromkeys(_TOKENS, token),
    "additional_special_tokens": named_tokens,
    "extra_special_tokens": named_tokens,
}
TOKENIZER = (
    table(
        flags="""
            add_bos_token add_eos_token add_prefix_space clean_up_tokenization_spaces
            do_basic_tokenize do_lower_case fix_mistral_regex keep_accents legacy
            separate_vocabs spaces_between_special_tokens split_by_punct split_special_tokens
            strip_accents tokenize_chinese_chars trim_offsets use_default_system_prompt
        """,
        integers="extra_ids",
        words="backend errors padding_side truncation_side vocab_type",
        word_lists="model_input_names",
    )
    | SPECIAL_TOKENS
    | {
        "model_max_length": lambda value: (
            isinstance(value, int | float) and not flag(value) and 0 < value <= MOST_LENGTH
        ),
        "tokenizer_class": tokenizer_class,
        "added_tokens_decoder": numbered_tokens,
        "chat_template": template,
    }
)
GENERATION = table(
    flags="_from_model_config do_sample early_stopping renormalize_logits use_cache",
    integers="""
        bos_token_id decoder_start_token_id encoder_no_repeat_ngram_size forced_bos_token_id
        max_length max_new_tokens min_length min_new_tokens no_repeat_ngram_size num_beams
        num_return_sequences pad_token_id top_k
    """,
    integer_lists="eos_token_id forced_eos_token_id begin_suppress_tokens suppress_tokens",
    nested_integers="bad_words_ids",
    numbers="""
        encoder_repetition_penalty epsilon_cutoff eta_cutoff length_penalty min_p
        repetition_penalty temperature top_p typical_p
    """,
    words="transformers_version",
)
POOLING = table(
    flags="""
        include_prompt pooling_mode_cls_token pooling_mode_lasttoken pooling_mode_max_tokens
        pooling_mode_mean_sqrt_len_tokens pooling_mode_mean_tokens
        pooling_mode_weightedmean_tokens
    """,
    integers="word_embedding_dimension",
)
SENTENCES = table(flags="do_lower_case", integers="max_seq_length")
PICTURES = table(
    flags="do_center_crop do_convert_rgb do_normalize do_rescale do_resize",
    integers="resample",
    numbers="rescale_factor",
    number_lists="image_mean image_std",
    words="feature_extractor_type image_processor_type",
    objects="crop_size size",
) | {"crop_size": either(integer, table(objects="size")["size"])}
PICTURES["size"] = PICTURES["crop_size"]
INITIAL = (True, False, "gaussian", "orthogonal", "eva")
"""How an adapter began, where that says nothing of its base's weights."""
ADAPTER_LEFT_OUT = frozenset(
    {"base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern",
     "layers_to_transform", "megatron_core", "peft_version", "qalora_group_size", "revision",
     "target_modules", "task_type"}
)  # fmt: skip
"""Settings that the weights themselves tell, or that are not for here: names, paths, versions."""
ADAPTER = table(
    flags="fan_in_fan_out use_rslora", integers="r", numbers="lora_alpha lora_dropout"
) | {
    "peft_type": lambda value: value == "LORA",
    "bias": lambda value: value == "none",
    "init_lora_weights": lambda value: value in INITIAL,
    # By plain names of layers: an expression could keep an engine busy for ever.
    "alpha_pattern": object_of(number, word),
    "rank_pattern": object_of(integer, word),
}
