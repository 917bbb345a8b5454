"""Every generator of random numbers that training code draws from."""

from __future__ import annotations

import random

import numpy
import torch

from worker.recipes.order import step_seed


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Numbers of a step come from (seed, step, rank) and from nothing before it."""
    number = step_seed(seed, step, rank)
    torch.manual_seed(number)
    numpy.random.seed(number % 2**32)
    random.seed(number)
