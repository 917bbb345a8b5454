"""Bare diffusers and bare hibari in a process of their own, so that torch stays out of the bench.

    python -m bench.bare_media IMAGE_MODEL_DIRECTORY

answers each line of JSON on standard input: ``{"images", "prompts", "microbatch", "steps",
"guidance", "dtype"}`` with images a second and the CPU seconds they took, ``{"texts", "threads"}``
with seconds of speech a second.
"""

from __future__ import annotations

import sys
import time
from functools import cache, partial
from typing import Any

from bench.beside import serve


def answer(model: str, asked: dict[str, Any]) -> float | dict[str, float]:
    """What one line asks for."""
    if "texts" in asked:
        return speak(asked["texts"], asked["threads"])
    return draw(model, asked)


def draw(model: str, asked: dict[str, Any]) -> dict[str, float]:
    """Images a second of the pipeline's own call, as its documentation writes it, and what it
    took."""
    import torch

    pipeline = _pipeline(model, asked["dtype"])
    prompts, size = asked["prompts"], asked["microbatch"]
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(prompts), size):
        part = prompts[first : first + size]
        pipeline(
            part,
            num_inference_steps=asked["steps"],
            guidance_scale=asked["guidance"],
            generator=[torch.Generator().manual_seed(first + i) for i in range(len(part))],
        )
    return {
        "rate": len(prompts) / (time.perf_counter() - began),
        "cpu_s": time.process_time() - cpu,
    }


@cache
def _pipeline(model: str, dtype: str) -> Any:
    import torch
    from diffusers import AutoPipelineForText2Image

    pipeline = AutoPipelineForText2Image.from_pretrained(model, torch_dtype=getattr(torch, dtype))
    pipeline.set_progress_bar_config(disable=True)
    pipeline(["warm"], num_inference_steps=2)
    return pipeline


def speak(texts: list[str], threads: int) -> float:
    """Seconds of speech a second, one text after the other, nothing written anywhere."""
    voice = _voice(threads)
    began = time.perf_counter()
    samples = sum(len(voice(text)) for text in texts)
    return float(samples / voice.sample_rate / (time.perf_counter() - began))


@cache
def _voice(threads: int) -> Any:
    from hibari import Hibari

    voice = Hibari(threads=threads)
    voice("warm")
    return voice


if __name__ == "__main__":
    serve(partial(answer, sys.argv[1]))
