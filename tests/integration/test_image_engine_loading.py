"""Loading image models: what is refused, settings, schedulers, adapters."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration import tiny_diffusers
from tests.integration.image_case import apart, body_of, drawn, images, load, one_thread, row, run
from worker.engines.base import EngineFailed
from worker.engines.image import ImageEngine
from worker.engines.images.settings import Scheduler
from worker.engines.protocol import Load
from worker.engines.registry import create_engine

__all__ = ["one_thread"]

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusers.save(tmp_path_factory.mktemp("tiny sd"), tiny_diffusers.stable_diffusion)


def copy(model: Path, target: Path, **index: Any) -> Path:
    """The model with other entries in its index."""
    shutil.copytree(model, target)
    path = target / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | index))
    return target


def failure(source: Path, spool: Path, **settings: Any) -> EngineFailed:
    with pytest.raises(EngineFailed) as failed:
        load(source, spool, **settings)
    return failed.value


def test_the_registry_finds_it_and_it_says_what_was_chosen(model: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    seen: list[float] = []
    message = Load("tiny", "image", str(model), {"microbatch": 3}, str(spool))
    engine = create_engine(message, lambda fraction, detail: seen.append(fraction))
    assert seen == sorted(seen)
    assert {
        "device": engine.detail["device"],
        "scheduler": "DDIMScheduler",
        "pipeline": "StableDiffusionPipeline",
        "tasks": ["text_to_image", "image_to_image", "inpainting"],
        "microbatch": 3,
        "default_size": "32x32",
    }.items() <= engine.detail.items()
    assert engine.resident_bytes > 100_000


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": "ClearlyNotThere"},
        {"_class_name": "DDIMScheduler"},
        {"_class_name": ["pipeline", "MyPipeline"]},
        {"_class_name": "../pipeline"},
        {"unet": ["my_unet", "MyUNet"]},
        {"unet": ["os", "system"]},
        {"unet": ["diffusers.utils", "logging"]},
        {"unet": ["diffusers", "utils"]},
        {"unet": ["/opt/evil", "UNet"]},
        {"unet": ["..", "UNet"]},
        {"unet": ["diffusers", "UNet2DConditionModel", "more"]},
        {"text_encoder": ["transformers", "AutoModel"]},
        {"text_encoder": [1, "CLIPTextModel"]},
        {"../unet": ["diffusers", "UNet2DConditionModel"]},
        {"a/b": "c"},
        {"unet": {"diffusers": "UNet2DConditionModel"}},
    ],
    ids=str,
)
def test_an_index_that_names_foreign_code_is_refused_before_anything_runs(
    model: Path, tmp_path: Path, index: dict[str, Any]
) -> None:
    source = copy(model, tmp_path / "model", **index)
    (source / "unet" / "my_unet.py").write_text("raise SystemExit('ran')")
    failed = failure(source, tmp_path / "spool")
    assert failed.code == "model_load_failed"
    assert "model_index.json" in failed.message


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b" " * (2 << 20)])
def test_a_folder_without_a_sound_index_is_refused(
    model: Path, tmp_path: Path, content: bytes | None
) -> None:
    source = copy(model, tmp_path / "model")
    (source / "model_index.json").unlink()
    if content is not None:
        (source / "model_index.json").write_bytes(content)
    failed = failure(source, tmp_path / "spool")
    assert (failed.code, "model_index.json" in failed.message) == ("model_load_failed", True)


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    failed = failure(tmp_path / "gone", tmp_path / "spool")
    assert (failed.code, "there is no folder" in failed.message) == ("model_load_failed", True)


class Bomb:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, (f"open({str(Bomb.mark)!r}, 'w').close()",))

    mark = Path()


def test_pickled_weights_are_never_opened(model: Path, tmp_path: Path) -> None:
    source = copy(model, tmp_path / "model")
    Bomb.mark = tmp_path / "went off"
    for part in ("unet", "vae", "text_encoder"):
        for weights in (source / part).glob("*.safetensors"):
            weights.unlink()
            for name in ("diffusion_pytorch_model.bin", "pytorch_model.bin"):
                (source / part / name).write_bytes(pickle.dumps(Bomb()))
    assert failure(source, tmp_path / "spool").code == "model_load_failed"
    assert not Bomb.mark.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 3}, "stepz"),
        ({"scheduler": "MyScheduler"}, "scheduler"),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "cannot replace DDIMScheduler"),
        ({"default_steps": 30, "max_steps": 20}, "max_steps"),
        ({"default_size": "4096x8"}, "max_side"),
        ({"offload": "model"}, "offload"),
        ({"dtype": "int8"}, "dtype"),
        ({"adapters": {"a": {"source": "missing.safetensors"}}}, "missing.safetensors"),
        ({"adapters": {"a": {"source": "unet"}, "b": {"weight": 1}}}, "source"),
    ],
)
def test_bad_settings_are_refused_by_name(
    model: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    failed = failure(model, tmp_path / "spool", **settings)
    assert failed.code == "bad_settings"
    assert message in failed.message


def test_without_a_spool_there_is_no_image_engine(model: Path) -> None:
    with pytest.raises(EngineFailed) as failed:
        create_engine(Load("tiny", "image", str(model)), lambda fraction, detail: None)
    assert failed.value.code == "bad_settings"


@pytest.mark.parametrize("name", [n for n in get_args(Scheduler) if "Flow" not in n])
def test_every_scheduler_runs_and_keeps_seeds_apart_from_company(
    model: Path, tmp_path: Path, name: str
) -> None:
    engine = load(model, tmp_path / "spool", scheduler=name)
    assert engine.detail["scheduler"] == name
    rows = [row(index, "sea", seed=index, steps=6) for index in range(3)]
    together = run(engine, rows)
    for given in rows[::2]:
        alone = run(engine, [given])
        assert apart(drawn(alone[given.index]), drawn(together[given.index])) <= 1
    assert apart(drawn(together[0]), drawn(together[1])) > 10
    assert images(together[0])[0].provenance["scheduler"] == name


@pytest.mark.parametrize("name", [n for n in get_args(Scheduler) if "Flow" in n])
def test_flow_models_take_flow_schedulers(tmp_path: Path, name: str) -> None:
    model = tiny_diffusers.save(tmp_path, tiny_diffusers.stable_diffusion_3)
    engine = load(model, tmp_path / "spool", scheduler=name)
    assert engine.detail["scheduler"] == name
    assert drawn(run(engine, [row(0, seed=1)])[0]).std() > 0


def test_the_fingerprint_follows_weights_dtype_and_scheduler(model: Path, tmp_path: Path) -> None:
    def fingerprint(source: Path, **settings: Any) -> str:
        return str(load(source, tmp_path / "spool", **settings).detail["fingerprint"])

    changed = copy(model, tmp_path / "model")
    weights = next((changed / "vae").glob("*.safetensors"))
    tensors = load_file(weights)
    tensors[min(tensors)] += 1
    save_file(tensors, weights, {"format": "pt"})
    same = [fingerprint(model), fingerprint(model)]
    other = [
        fingerprint(changed),
        fingerprint(model, dtype="bfloat16"),
        fingerprint(model, scheduler="PNDMScheduler"),
    ]
    assert same[0] == same[1]
    assert len({same[0], *other}) == 4


def test_the_vae_is_spared_when_told_or_when_memory_is_short(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(**settings: Any) -> tuple[bool, bool]:
        detail = load(model, tmp_path / "spool", **settings).detail
        return detail["vae_slicing"], detail["vae_tiling"]

    assert chosen() == (False, False)
    assert chosen(vae_slicing=True, vae_tiling=True) == (True, True)
    monkeypatch.setattr("worker.engines.images.description.free_bytes", lambda device: 8 << 20)
    # a microbatch of 32 images of 32x32: 4 MiB at 128 bytes a pixel; the largest image: 512 MiB
    assert chosen() == (False, True)
    monkeypatch.setattr("worker.engines.images.description.free_bytes", lambda device: 6 << 20)
    assert chosen() == (True, True)
    assert chosen(vae_slicing=False, vae_tiling=False) == (False, False)


def adapter(model: Path, target: Path, seed: int) -> Path:
    """A LoRA of random weights for the model's attention."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(seed)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model)
    pipeline.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_v"]))
    for name, weights in pipeline.unet.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weights, std=2.0)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    pipeline.save_lora_weights(target, unet_lora_layers=layers)
    return target / "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def adapted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageEngine:
    folder = tmp_path_factory.mktemp("adapters")
    one, two = (adapter(model, folder / name, seed) for name, seed in (("one", 1), ("two", 2)))
    offered = {
        "style.one": {"source": str(one)},
        "two": {"source": str(two.parent), "weight": 0.5},
    }
    return load(model, folder / "spool", adapters=offered)


def test_adapters_change_the_image_by_their_weight_and_leave_no_trace(
    adapted: ImageEngine, model: Path, tmp_path: Path
) -> None:
    bodies: list[dict[str, Any]] = [
        {},
        {"adapter": "style.one"},
        {"adapter": "style.one", "adapter_weight": 0.0},
        {"adapter": "two"},
        {},
        {"adapter": "two", "adapter_weight": 2.0},
    ]
    rows = [row(i, **{"seed": 8, **body}) for i, body in enumerate(bodies)]
    found = [drawn(run(adapted, [given])[given.index]) for given in rows]
    plain = drawn(run(load(model, tmp_path / "spool"), rows[:1])[0])
    for none in (0, 2, 4):
        assert apart(found[none], plain) <= 1
    styled = [found[index] for index in (1, 3, 5)]
    assert all(apart(one, plain) > 1 for one in styled)
    assert len({one.tobytes() for one in styled}) == 3
    together = run(adapted, rows)
    for index, expected in enumerate(found):
        assert apart(drawn(together[index]), expected) <= 1


def test_an_adapter_is_named_in_provenance_and_unknown_ones_are_refused(
    adapted: ImageEngine,
) -> None:
    result = run(adapted, [row(0, adapter="two", adapter_weight=0.25)])[0]
    named = images(result)[0].provenance["adapter"]
    assert (named["name"], named["weight"], len(named["sha256"])) == ("two", 0.25, 64)
    refusal = adapted.submit(1, 1, row(0, adapter="three"))
    assert refusal is not None
    assert "style.one, two" in body_of(refusal)["error"]["message"]


def test_an_adapter_must_be_safetensors_and_fit(model: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled" / "pytorch_lora_weights.bin"
    pickled.parent.mkdir()
    pickled.write_bytes(pickle.dumps({}))
    failed = failure(model, tmp_path / "spool", adapters={"a": {"source": str(pickled)}})
    assert failed.code == "bad_settings"
    foreign = tmp_path / "foreign.safetensors"
    save_file({"unet.nothing.lora.up.weight": torch.from_numpy(np.ones((2, 2)))}, foreign)
    failed = failure(model, tmp_path / "spool", adapters={"a": {"source": str(foreign)}})
    assert failed.code == "model_load_failed"
