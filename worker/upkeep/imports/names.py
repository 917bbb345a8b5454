"""Which files a model may consist of, judged by name alone before any of them is opened."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from worker.tuning.data.example import Refused

CODE = frozenset({".py", ".pyc", ".pyx", ".so", ".dll", ".dylib", ".sh", ".exe", ".js", ".ipynb"})
OTHER_WEIGHTS = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".msgpack",
     ".h5", ".hdf5", ".keras", ".onnx", ".gguf", ".ggml", ".tflite", ".pb", ".ot", ".mar", ".nemo"}
)  # fmt: skip
LEFT_OUT = re.compile(
    r"(README|LICEN[SC]E|NOTICE|COPYING|CHANGELOG|USE_POLICY|MODEL_CARD)([._-][A-Za-z0-9._-]*)?\Z",
    re.ASCII | re.IGNORECASE,
)
"""What is for people: it is not stored."""

CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm",
     "target.spm", "vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json",
     "tokenizer_config.json", "added_tokens.json", CHAT_TEMPLATE}
)  # fmt: skip
STORED_AS_THEY_ARE = TOKENIZER_FILES - {
    "special_tokens_map.json", "tokenizer_config.json", "added_tokens.json"
}  # fmt: skip
"""Vocabularies and the like: data, which the sandbox reads before an engine does."""
MOST_BYTES = 2**26
"""Of a vocabulary."""
MOST_TEMPLATE_BYTES = 2**17

MODEL, DENOISER = "model", "diffusion_pytorch_model"
_SHARD = re.compile(
    r"(model|diffusion_pytorch_model)-[0-9]{5}-of-[0-9]{5}\.safetensors\Z", re.ASCII
)


def is_weights(name: str, stem: str) -> bool:
    """Whether it is the file, or one of the files, of weights named after ``stem``."""
    match = _SHARD.match(name)
    return name == f"{stem}.safetensors" or (match is not None and match[1] == stem)


def refuse_kind(path: str) -> None:
    """Raises Refused for what is code, or weights of a format that is not taken, so that its owner
    learns why; of what is left each kind of model knows its own files."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in CODE:
        raise Refused("code_refused", "code is not taken, and never run")
    if suffix in OTHER_WEIGHTS:
        raise Refused("weights_format_refused", "weights are taken as safetensors only")


def is_for_people(path: str) -> bool:
    return LEFT_OUT.match(PurePosixPath(path).name) is not None
