"""Tiny trainings: everything as in the real one, in sizes that take a moment."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from starter_image.dataset import Dataset
from starter_image.plan import AutoencoderPlan, DenoiserPlan, Plan, SamplingPlan
from starter_image.training import Schedule

NAMES = ["red heart", "blue circle", "green square", "traffic light"]


@pytest.fixture
def dataset() -> Dataset:
    """Four pictures of 32 x 32: one colour each, on white."""
    pictures = torch.full((4, 3, 32, 32), 255, dtype=torch.uint8)
    for index, colour in enumerate([(220, 20, 20), (20, 20, 220), (20, 160, 20), (40, 40, 40)]):
        pictures[index, :, 8:24, 8:24] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return Dataset(NAMES, pictures)


@pytest.fixture
def plan() -> Plan:
    """Two levels, eight channels, a few steps, in float32."""
    schedule = Schedule(steps=3, seed=5, peak_rate=1e-3, warmup=1, average_decay=0.5)
    return Plan(
        autoencoder=AutoencoderPlan(
            pixels=32,
            channels=(8, 8),
            microbatch=4,
            bfloat16=False,
            schedule=schedule,
            refining=replace(schedule, seed=6),
        ),
        denoiser=DenoiserPlan(
            channels=(8, 16),
            heads=2,
            pooling_heads=2,
            norm_groups=4,
            text_width=16,
            text_layers=1,
            text_tokens=16,
            microbatch=4,
            bfloat16=False,
            schedule=replace(schedule, falling=0.5),
        ),
        sampling=SamplingPlan(steps=2, count=3),
    )
