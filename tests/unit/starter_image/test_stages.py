"""The whole way at tiny sizes: trained, exported, loaded by diffusers, scored, described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
from PIL import Image
from safetensors.torch import load_file, save_file

from starter_image import autoencoder
from starter_image.__main__ import main
from starter_image.dataset import Dataset
from starter_image.plan import Plan
from starter_image.stages import Run, run

OPTIONS = {"num_inference_steps": 2, "output_type": "pt"}


@pytest.fixture
def work(tmp_path: Path, dataset: Dataset) -> Path:
    """A work folder whose data stage is done."""
    folder = tmp_path / "work folder"
    folder.mkdir()
    save_file({"pictures": dataset.pictures}, folder / "icons.safetensors")
    (folder / "names.json").write_text(json.dumps(dataset.names), encoding="utf-8")
    return folder


def trained(work: Path, plan: Plan) -> tuple[Path, list[str]]:
    lines: list[str] = []
    target = work.parent / "model folder"
    run(Run(work, target, plan, lines.append))
    return target, lines


def test_a_training_gives_a_folder_that_pipelines_load(work: Path, plan: Plan) -> None:
    target, _ = trained(work, plan)

    drawing = AutoPipelineForText2Image.from_pretrained(target, torch_dtype=torch.float32)
    drawing.set_progress_bar_config(disable=True)
    (drawn,) = drawing("an unknown zyx heart", **OPTIONS).images
    assert drawn.shape == (3, 32, 32)

    canvas = Image.new("RGB", (32, 32), "white")
    changing = AutoPipelineForImage2Image.from_pretrained(target, torch_dtype=torch.float32)
    assert changing("red heart", image=canvas, **OPTIONS).images.shape == (1, 3, 32, 32)


def test_weights_are_fp16_safetensors_of_the_average(work: Path, plan: Plan) -> None:
    target, _ = trained(work, plan)

    exported = load_file(target / "unet" / "diffusion_pytorch_model.safetensors")
    saved = load_file(work / "denoiser.safetensors")

    assert {tensor.dtype for tensor in exported.values()} == {torch.float16}
    for name, tensor in exported.items():
        assert torch.equal(tensor, saved[f"average.unet.{name}"].half())


def test_a_later_export_has_the_tokenizer_of_the_training(work: Path, plan: Plan) -> None:
    target, _ = trained(work, plan)
    path = target / "tokenizer" / "tokenizer.json"
    first = json.loads(path.read_bytes())["model"]

    trained(work, replace(plan, sampling=replace(plan.sampling, steps=3)))

    assert json.loads(path.read_bytes())["model"] == first


def test_the_folder_describes_itself(work: Path, plan: Plan) -> None:
    target, _ = trained(work, plan)

    page = (target / "README.md").read_text(encoding="utf-8")

    assert "of 3**" in page
    assert "Copyright (c) Microsoft Corporation" in page
    assert "Copyright (c) Microsoft Corporation" in (target / "LICENSE.fluent-emoji").read_text()
    assert "{" not in page
    assert (target / "names.txt").read_text().split("\n")[0] == "red heart"
    with Image.open(target / "contact_sheet.png") as sheet:
        assert sheet.size == (10 * 36, 66)
    with Image.open(target / "references" / "red-heart.png") as reference:
        assert reference.size == (32, 32)
    assert Image.open(target / "loss.png").size[0] == 640


def test_what_is_done_is_not_done_again(work: Path, plan: Plan) -> None:
    target, _ = trained(work, plan)
    written = {path: path.stat().st_mtime_ns for path in target.rglob("*")}

    again, lines = trained(work, plan)

    assert lines == [f"done before: {again}"]
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == written


def test_other_settings_of_sampling_keep_the_trainings(work: Path, plan: Plan) -> None:
    target, _ = trained(work, plan)

    again, lines = trained(work, replace(plan, sampling=replace(plan.sampling, steps=3)))

    assert "denoiser: 3 of 3 steps were done" in lines
    assert "3 steps, guidance" in (again / "README.md").read_text(encoding="utf-8")
    assert again == target


def test_normalised_latents_have_mean_0_and_deviation_1_and_draw_the_same(
    dataset: Dataset, plan: Plan
) -> None:
    torch.manual_seed(2)
    vae = autoencoder.build(plan.autoencoder).eval()
    images = dataset.images(torch.arange(4))
    with torch.no_grad():
        before = vae.decode(vae.encode(images).latent_dist.mean).sample
        autoencoder.normalise(vae, autoencoder.all_latents(vae, dataset))
        sampled = vae.encode(images).latent_dist.sample()
        after = vae.decode(sampled).sample

    latents = autoencoder.all_latents(vae, dataset)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(16), atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(16), atol=1e-4)
    assert torch.allclose(before, after, atol=1e-2)


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--steps", "--autoencoder-steps", "--work", "--out"))


def test_a_checkpoint_of_another_training_ends_with_one_line(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "autoencoder.safetensors").write_bytes(b"damaged")

    code = main(["--work", str(work), "--out", str(tmp_path / "out")])

    assert code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
