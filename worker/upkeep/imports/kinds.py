"""What a model is, by what its files say: which engine serves it, or why none does."""

from __future__ import annotations

from typing import Any, NamedTuple

from shared.models_catalog import DEFAULT_ENDPOINTS, DEFAULT_POOL, DEFAULT_POOLS
from worker.tuning.data.example import Refused, shown

UNSUPPORTED = "architecture_unsupported"
TEXT, EMBEDDING, CLASSIFIER, IMAGE = "text", "embedding", "classifier", "image"

DECODERS = {
    "bloom": "Bloom", "cohere": "Cohere", "cohere2": "Cohere2", "falcon": "Falcon",
    "gemma": "Gemma", "gemma2": "Gemma2", "gemma3_text": "Gemma3", "gpt2": "GPT2",
    "gpt_neo": "GPTNeo", "gpt_neox": "GPTNeoX", "gptj": "GPTJ", "granite": "Granite",
    "llama": "Llama", "mamba": "Mamba", "mamba2": "Mamba2", "mistral": "Mistral",
    "mixtral": "Mixtral", "olmo": "Olmo", "olmo2": "Olmo2", "olmo3": "Olmo3", "opt": "OPT",
    "phi": "Phi", "phi3": "Phi3", "qwen2": "Qwen2", "qwen2_moe": "Qwen2Moe", "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe", "recurrent_gemma": "RecurrentGemma", "smollm3": "SmolLM3",
    "stablelm": "StableLm", "starcoder2": "Starcoder2",
}  # fmt: skip
"""Families that continue text: by ``model_type``, the beginning of their classes' names."""
TRANSLATORS = {"bart": "Bart", "marian": "Marian", "t5": "T5"}
"""Families that read one text and write another."""
ENCODERS = {
    "albert": "Albert", "bert": "Bert", "camembert": "Camembert", "deberta-v2": "DebertaV2",
    "distilbert": "DistilBert", "electra": "Electra", "modernbert": "ModernBert", "mpnet": "MPNet",
    "roberta": "Roberta", "xlm-roberta": "XLMRoberta",
}  # fmt: skip
"""Families that only read."""
PARTS = {
    "CLIPTextModel": ("clip_text_model", "clip"),
    "CLIPTextModelWithProjection": ("clip_text_model", "clip"),
    "CLIPVisionModelWithProjection": ("clip_vision_model", "clip"),
    "T5EncoderModel": ("t5",),
}
"""Models of transformers' that pipelines are made of, with the ``model_type`` they may have."""
PIPELINES = {
    "FluxPipeline": ("transformer", "vae", "text_encoder", "text_encoder_2"),
    "LatentConsistencyModelPipeline": ("unet", "vae", "text_encoder"),
    "PixArtAlphaPipeline": ("transformer", "vae", "text_encoder"),
    "PixArtSigmaPipeline": ("transformer", "vae", "text_encoder"),
    "StableDiffusion3Pipeline": ("transformer", "vae", "text_encoder", "text_encoder_2"),
    "StableDiffusionImg2ImgPipeline": ("unet", "vae", "text_encoder"),
    "StableDiffusionInpaintPipeline": ("unet", "vae", "text_encoder"),
    "StableDiffusionPipeline": ("unet", "vae", "text_encoder"),
    "StableDiffusionXLImg2ImgPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "StableDiffusionXLInpaintPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
    "StableDiffusionXLPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
"""Pipelines that draw, and the components with weights that they can't do without."""

_HEADS = (
    ("ForSequenceClassification", CLASSIFIER),
    ("ForTokenClassification", CLASSIFIER),
    ("Model", EMBEDDING),
)
_WRITERS = ("ForCausalLM", "LMHeadModel")
_TRANSLATES = ("ForConditionalGeneration", "MTModel")
_CLASSES = {"Gemma3": "Gemma3Text"}
"""Families whose class without a head has a name of its own."""


class Kind(NamedTuple):
    """What a model is served as."""

    engine: str
    architecture: str
    """Its class in transformers or diffusers."""
    adapter: bool = False

    @property
    def pool(self) -> str:
        return DEFAULT_POOLS.get(self.engine, DEFAULT_POOL)

    @property
    def endpoints(self) -> list[str]:
        return DEFAULT_ENDPOINTS[self.engine]


def architectures() -> dict[str, tuple[str, str]]:
    """Every class of transformers' that can be imported: its ``model_type`` and its engine."""
    found: dict[str, tuple[str, str]] = {}
    for model_type, name in (DECODERS | ENCODERS).items():
        found |= {name + head: (model_type, engine) for head, engine in _HEADS}
        if name in _CLASSES:
            found.pop(f"{name}Model")
            found[f"{_CLASSES[name]}Model"] = (model_type, EMBEDDING)
    for model_type, name in DECODERS.items():
        found |= {name + head: (model_type, TEXT) for head in _WRITERS}
    for model_type, name in TRANSLATORS.items():
        found |= {name + head: (model_type, TEXT) for head in _TRANSLATES}
    return found


_ARCHITECTURES = architectures()


def kind_of_config(config: dict[str, Any]) -> Kind:
    """Of a transformers model, by its decoded ``config.json``. Raises Refused."""
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise Refused(UNSUPPORTED, "'architectures' must name one class", "architectures")
    model_type, engine = _ARCHITECTURES.get(names[0], ("", ""))
    if not engine:
        raise Refused(
            UNSUPPORTED, f"{shown(names[0])} is not taken; {supported()}", "architectures"
        )
    if config.get("model_type") != model_type:
        message = f"'model_type' of {names[0]} is '{model_type}'"
        raise Refused(UNSUPPORTED, message, "model_type")
    return Kind(engine, names[0])


def kind_of_pipeline(index: dict[str, Any]) -> Kind:
    """Of a diffusers pipeline, by its decoded ``model_index.json``. Raises Refused."""
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in PIPELINES:
        known = ", ".join(PIPELINES)
        message = f"the pipeline {shown(str(name))} is not taken; these are: {known}"
        raise Refused(UNSUPPORTED, message, "_class_name")
    return Kind(IMAGE, name)


def supported() -> str:
    """What is taken, in a sentence for whoever brought something else."""
    writers = ", ".join((DECODERS | TRANSLATORS).values())
    readers = ", ".join(ENCODERS.values())
    return (
        f"these are: models that write ({writers}: ForCausalLM, LMHeadModel or "
        f"ForConditionalGeneration), classifiers (ForSequenceClassification, "
        f"ForTokenClassification) and embedding models (Model) of those and of {readers}, "
        "LoRA adapters, and diffusers pipelines"
    )
