"""How good drawn pictures are: a small network that was trained on the real ones says.

What it can't say is whether people like them; what it says is the same for every training on the
same data, so that numbers can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.recipes.pictures import PictureData, scaled

_STEPS = 300
_BATCH = 128
_RATE = 2e-3
_FEATURES = 64
_LARGEST_SIDE = 32
"""Larger pictures are judged scaled down."""
_KNOWN = 2048
"""Training pictures that tell what is usual, at most."""
_CHUNK = 512


class _Network(nn.Module):
    """Pictures to features, and from those to classes."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1, stride=2),
            nn.GroupNorm(8, 64),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(256, _FEATURES),
            nn.SiLU(),
        )
        self.end = nn.Linear(_FEATURES, classes)


class Judge:
    """Trained when it is first asked, with a seed of its own; random numbers elsewhere stay as
    they would have been. Pictures are (n, channels, side, side) of -1..1, on any device."""

    def __init__(self, data: PictureData, seed: int) -> None:
        self._data, self._seed = data, seed
        self._network: _Network | None = None
        self._usual: tuple[Tensor, Tensor] | None = None

    def names(self, pictures: Tensor) -> Tensor:
        """The class number that each picture looks like, on the CPU."""
        network = self._trained()
        with torch.no_grad():
            parts = [network.end(network.layers(part)) for part in _chunks(pictures)]
        return torch.cat(parts).argmax(1)

    def features(self, pictures: Tensor) -> Tensor:
        """(n, 64), each feature with a mean of 0 and a deviation of 1 over the training pictures;
        of an untrained network where the data have no labels."""
        if self._usual is None:
            known = self._raw(scaled(self._data.train.pixels[:_KNOWN]))
            self._usual = known.mean(0), known.std(0, correction=0) + 1e-6
        mean, deviation = self._usual
        return (self._raw(pictures) - mean) / deviation

    def _raw(self, pictures: Tensor) -> Tensor:
        network = self._trained()
        with torch.no_grad():
            return torch.cat([network.layers(part) for part in _chunks(pictures)])

    def accuracy(self) -> float:
        """On the held-out pictures."""
        held_out = self._data.validation
        return float((self.names(scaled(held_out.pixels)) == held_out.classes).float().mean())

    def _trained(self) -> _Network:
        if self._network is None:
            with torch.random.fork_rng(), torch.enable_grad():
                torch.manual_seed(self._seed)
                self._network = _Network(self._data.channels, max(1, len(self._data.classes)))
                if self._data.classes:
                    _train(self._network, self._data)
            self._network.eval()
        return self._network


def _train(network: _Network, data: PictureData) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(len(data.train), (_BATCH,))
        pictures = _fitted(_shifted(scaled(data.train.pixels[rows])))
        said = network.end(network.layers(pictures))
        loss = functional.cross_entropy(said, data.train.classes[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _shifted(pictures: Tensor) -> Tensor:
    """Each batch by up to an eighth of a side, so that it isn't learnt by heart."""
    most = pictures.shape[-1] // 8
    down, across = (int(torch.randint(-most, most + 1, ())) for _ in range(2))
    padded = functional.pad(pictures, (most,) * 4, mode="replicate")
    side = pictures.shape[-1]
    return padded[:, :, most + down : most + down + side, most + across : most + across + side]


def _fitted(pictures: Tensor) -> Tensor:
    if pictures.shape[-1] <= _LARGEST_SIDE:
        return pictures
    return functional.interpolate(pictures, size=(_LARGEST_SIDE,) * 2, mode="area")


def _chunks(pictures: Tensor) -> list[Tensor]:
    return [_fitted(part.float().cpu()) for part in pictures.split(_CHUNK)]


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """How different two sets of features (n, d) and (m, d) are: 0 for two of the same kind.

    The unbiased maximum mean discrepancy under KID's cubic kernel; it may be a little below zero.
    """
    width = one.shape[1]

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left.double() @ right.double().T / width + 1) ** 3

    def within(values: Tensor) -> Tensor:
        number = len(values)
        return (values.sum() - values.diagonal().sum()) / max(1, number * (number - 1))

    apart = within(kernel(one, one)) + within(kernel(other, other)) - 2 * kernel(one, other).mean()
    return float(apart)


def nearest(pictures: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of each picture the distance to the most similar known one, and which that is.

    Distances are root mean squares over pixels of 0..1. ``known`` is uint8.
    """
    flat = pictures.float().cpu().add(1).div(2).flatten(1)
    best = torch.full((len(flat),), torch.inf)
    which = torch.zeros(len(flat), dtype=torch.int64)
    for start in range(0, len(known), _CHUNK):
        part = known[start : start + _CHUNK].float().div(255).flatten(1)
        distances, places = torch.cdist(flat, part).min(1)
        closer = distances < best
        best = torch.where(closer, distances, best)
        which = torch.where(closer, places + start, which)
    return best / flat.shape[1] ** 0.5, which
