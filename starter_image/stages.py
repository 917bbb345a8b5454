"""The stages of the training in their order; each finds on disk what was already done.

data → autoencoder → denoiser → export → score → card. The work folder holds the first three as
files that a later call continues or just reads.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from starter_image import autoencoder, card, denoiser, export, pictures, score
from starter_image.autoencoder import AutoencoderLoss
from starter_image.captions import corpus
from starter_image.dataset import Dataset, prepare
from starter_image.denoiser import Denoiser, DenoiserLoss
from starter_image.plan import AutoencoderPlan, DenoiserPlan, Plan
from starter_image.progress import Report
from starter_image.training import Outcome, Training, joined
from starter_image.vocabulary import kept_tokenizer

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

_RESULT = "result.json"
_DATA_LICENCE = Path(__file__).with_name("LICENSE.fluent-emoji")
REFERENCES = (
    "red heart", "star", "sun", "pizza", "red apple", "dog face", "rocket", "house", "umbrella",
    "soccer ball", "christmas tree", "birthday cake",
)  # fmt: skip
"""Icons whose originals lie beside the model, for whoever wants to compare."""


@dataclass(frozen=True)
class Run:
    """What every stage works with. ``target`` is the folder of the finished model."""

    work: Path
    target: Path
    plan: Plan
    report: Report


def run(given: Run) -> None:
    """All stages. Raises DataError, CheckpointError or OSError."""
    if _is_done(given):
        given.report(f"done before: {given.target}")
        return
    dataset = prepare(given.work, given.plan.autoencoder.pixels, given.report)
    vae, first = train_autoencoder(given, dataset)
    latents = normalised_latents(vae, dataset)
    trained, second = train_denoiser(given, dataset, latents)
    given.report(f"export: {given.target}")
    parameters = _parameters(vae, trained)
    export.export(vae, trained, given.target)
    given.report("score: drawing")
    measured = score.measure(export.load(given.target), dataset, given.plan.sampling)
    given.report(f"score: {measured.hits} of {len(measured.names)}, error {measured.error:.4f}")
    _write_pages(given, dataset, measured, parameters, (first, second))
    (given.work / _RESULT).write_text(_mark(given), encoding="utf-8")


def _is_done(given: Run) -> bool:
    result = given.work / _RESULT
    return (
        result.is_file()
        and result.read_text(encoding="utf-8") == _mark(given)
        and (given.target / export.PAGES).is_file()
    )


def _mark(given: Run) -> str:
    return json.dumps({"plan": asdict(given.plan), "target": str(given.target.resolve())})


def train_autoencoder(given: Run, dataset: Dataset) -> tuple[AutoencoderKL, Outcome]:
    """Trains it twice over, or reads what is done. Its latents are not normalised yet."""
    plan = given.plan.autoencoder
    torch.manual_seed(plan.schedule.seed)
    vae = autoencoder.build(plan)
    stages = (
        ("autoencoder", plan.schedule, 0.0),
        ("refining", plan.refining, plan.refining_colour_weight),
    )
    outcomes = []
    for name, schedule, weight in stages:
        loss = AutoencoderLoss(vae, dataset, plan, seed=schedule.seed, colour_weight=weight)
        training = Training(name, vae, loss, schedule, _sizes(plan))
        outcomes.append(training.run(given.work / f"{name}.safetensors", given.report))
    return vae, joined(outcomes)


def normalised_latents(vae: AutoencoderKL, dataset: Dataset) -> torch.Tensor:
    """Normalises the autoencoder; returns the latents of all icons, of mean 0 and deviation 1."""
    autoencoder.normalise(vae, autoencoder.all_latents(vae, dataset))
    return autoencoder.all_latents(vae, dataset)


def train_denoiser(given: Run, dataset: Dataset, latents: torch.Tensor) -> tuple[Denoiser, Outcome]:
    """Trains UNet and text encoder, or reads them when their last step is done."""
    plan = given.plan.denoiser
    torch.manual_seed(plan.schedule.seed)
    tokenizer = kept_tokenizer(given.work / "tokenizer", corpus(dataset.names), plan.text_tokens)
    built = denoiser.build(plan, tokenizer, latents.shape[1:])
    outcomes = []
    for name, schedule in (("denoiser", plan.schedule), ("denoiser-refining", plan.refining)):
        if schedule.steps:
            loss = DenoiserLoss(built, dataset.names, latents, plan, seed=schedule.seed)
            training = Training(name, built.modules(), loss, schedule, _sizes(plan))
            outcomes.append(training.run(given.work / f"{name}.safetensors", given.report))
    return built, joined(outcomes)


def _sizes(plan: AutoencoderPlan | DenoiserPlan) -> str:
    """All of a plan but its schedule: what a checkpoint must share with it to be continued."""
    return json.dumps({**asdict(plan), "schedule": None, "refining": None})


def _parameters(vae: AutoencoderKL, trained: Denoiser) -> dict[str, int]:
    modules = {"vae": vae, **trained.modules()}
    return {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}


def _write_pages(
    given: Run,
    dataset: Dataset,
    measured: score.Score,
    parameters: dict[str, int],
    outcomes: tuple[Outcome, Outcome],
) -> None:
    target = given.target
    pictures.write_sheet(target / "contact_sheet.png", measured.pictures, measured.names)
    pictures.write_sheet(given.work / "unlabelled.png", measured.pictures)
    titles = "autoencoder: colours, edges, shapes", "denoiser: squared error of the velocity"
    curves = [
        pictures.Curve(title, outcome.losses)
        for title, outcome in zip(titles, outcomes, strict=True)
    ]
    pictures.write_curves(target / "loss.png", curves)
    _write_references(target / "references", dataset)
    shutil.copyfile(_DATA_LICENCE, target / _DATA_LICENCE.name)
    (target / "names.txt").write_text("\n".join([*dataset.names, ""]), encoding="utf-8")
    facts = card.Facts(
        icons=len(dataset.names),
        parameters=parameters,
        minutes=(outcomes[0].seconds / 60, outcomes[1].seconds / 60),
        hits=measured.hits,
        misses=[
            pair
            for pair in zip(measured.names, measured.nearest, strict=True)
            if pair[0] != pair[1]
        ],
        error=measured.error,
    )
    (target / export.PAGES).write_text(card.render(given.plan, facts), encoding="utf-8")


def _write_references(folder: Path, dataset: Dataset) -> None:
    folder.mkdir(exist_ok=True)
    for name in REFERENCES:
        if name in dataset.names:
            picture = dataset.pictures[dataset.names.index(name)]
            path = folder / f"{name.replace(' ', '-')}.png"
            pictures.to_image(picture).save(path, optimize=True)
