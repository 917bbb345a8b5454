"""The video engine on tiny random pipelines: texts and pictures become files that decode."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.integration.tiny_video_models import make
from tests.integration.video_case import Material, Run, checks, difference, frames, run
from worker.engines import one_by_one
from worker.engines.base import Engine, EngineFailed
from worker.engines.protocol import Load, Row
from worker.engines.video import create

Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    made: dict[str, Path] = {}

    def model(kind: str) -> Path:
        if kind not in made:
            made[kind] = make(tmp_path_factory.mktemp("tiny video model") / kind, kind)
        return made[kind]

    return model


def load(source: Path, spool: Path, **settings: Any) -> Engine:
    spool.mkdir(exist_ok=True)
    given = {"device": "cpu", "dtype": "float32", **settings}
    message = Load("tiny", "video", str(source), given, str(spool), "https://plant.example")
    return create(message, lambda fraction, detail: None)


def row(inputs: dict[str, str] | None = None, **body: Any) -> Row:
    given = {
        "model": "tiny", "prompt": "a red boat", "size": "32x32", "steps": 2, "seconds": "1",
        "fps": 8, "seed": 3,
    }  # fmt: skip
    merged = {name: value for name, value in {**given, **body}.items() if value is not None}
    return Row(0, "/v1/videos", json.dumps(merged).encode(), "job-0", inputs or {})


def error(made: Run) -> dict[str, Any]:
    assert made.result.status >= 400
    answer: dict[str, Any] = made.body["error"]
    return answer


@pytest.mark.parametrize("kind", ["wan", "ltx"])
def test_a_text_becomes_a_video(models: Models, tmp_path: Path, kind: str) -> None:
    engine = load(models(kind), tmp_path / "spool")
    made = run(engine, row())
    shown = frames(made.video)
    assert len(shown) == 9
    assert shown[0].shape == (32, 32, 3)
    assert difference(shown[0], shown[-1]) > 1
    body = made.body
    assert (body["object"], body["size"], body["fps"]) == ("video.file", "32x32", 8)
    assert (body["seed"], body["steps"], body["captions_id"]) == (3, 2, None)
    assert body["seconds"] == pytest.approx(9 / 8)
    files = made.files
    assert set(files) == {"video", "thumbnail", "spritesheet"}
    assert files["video"].provenance["prompt"] == "a red boat"
    assert files["video"].provenance["fingerprint"] == engine.detail["fingerprint"]
    with av.open(str(made.video)) as file:
        assert [stream.type for stream in file.streams] == ["video"]


def test_a_seed_repeats_a_video_and_another_does_not(models: Models, tmp_path: Path) -> None:
    engine = load(models("wan"), tmp_path / "spool")
    digests = [run(engine, row(seed=seed)).files["video"].sha256 for seed in (7, 7, 8)]
    assert digests[0] == digests[1] != digests[2]
    drawn = [run(engine, row(seed=None)).body["seed"] for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_a_picture_is_continued(models: Models, tmp_path: Path) -> None:
    material = Material(tmp_path)
    references = [
        material.picture(name, checks((64, 32), hue=hue))
        for name, hue in (("one", 10), ("other", 250))
    ]
    engine = load(models("ltx"), tmp_path / "spool", default_size="64x32")
    made = [
        frames(run(engine, row(material.paths, input_reference=reference)).video)
        for reference in references
    ]
    assert engine.detail["tasks"] == ["text_to_video", "image_to_video"]
    assert difference(made[0][0], made[1][0]) > 1
    wide = run(engine, row(material.paths, input_reference=references[0], size=None))
    assert wide.body["size"] == "64x32"


def test_weights_for_pictures_need_one(models: Models, tmp_path: Path) -> None:
    if find_spec("ftfy") is None:
        with pytest.raises(EngineFailed, match="ftfy"):
            load(models("wan_image"), tmp_path / "spool")
        return
    material = Material(tmp_path)
    reference = material.picture("one", checks((64, 64)))
    engine = load(models("wan_image"), tmp_path / "spool")
    assert engine.detail["tasks"] == ["image_to_video"]
    assert error(run(engine, row()))["param"] == "input_reference"
    made = run(engine, row(material.paths, input_reference=reference))
    assert len(frames(made.video)) == 9


def test_progress_tells_every_step(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_by_one, "STEP_SECONDS", 0.0)
    made = run(load(models("wan"), tmp_path / "spool"), row(steps=3))
    told = [(report.step, report.stage) for report in made.progress]
    assert told[:3] == [(1, "generating"), (2, "generating"), (3, "generating")]
    assert set(told[3:]) == {(3, "encoding")}
    assert {report.steps for report in made.progress} == {3}


@pytest.mark.parametrize("stage", ["generating", "encoding"])
def test_cancelling_takes_one_step_and_leaves_nothing(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(one_by_one, "STEP_SECONDS", 0.0)
    spool = tmp_path / "spool"
    engine: Any = load(models("wan"), spool)
    assert engine.submit(1, 1, row(steps=4)) is None
    assert engine.submit(2, 1, row()) is None
    reached = ""
    while reached != stage:
        assert engine.step() == []
        reached = engine.progress()[0].stage
    engine.cancel(1, 1)
    assert not list(spool.iterdir())
    results: list[Any] = []
    while engine.busy:
        results += engine.step()
    assert [(result.shard, result.status) for result in results] == [(2, 200)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        *(
            ({name: value}, name)
            for name, value in {
                "style": "slides", "script": "Words.", "title": "T", "subtitle": "S",
                "voice": "anna", "captions": True, "transition": "cut", "pictures": ["art_1"],
                "portrait": "art_1", "logo": "art_1", "music": "art_1", "image_model": "m",
                "speech_model": "m",
            }.items()
        ),
        ({"size": "40x32"}, "size"),
        ({"size": "2048x2048"}, "size"),
        ({"size": "4096x16"}, "size"),
        ({"size": "32x9984"}, "size"),
        ({"seconds": "21"}, "seconds"),
        ({"seconds": "20", "fps": 60}, "seconds"),
        ({"steps": 101}, "steps"),
        ({"input_reference": "art_1"}, "input_reference"),
    ],
)  # fmt: skip
def test_what_the_model_cannot_do_is_refused_by_name(
    models: Models, tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    made = run(load(models("wan"), tmp_path / "spool"), row(**body))
    assert made.result.status == 400
    assert error(made)["param"] == param


def test_a_row_that_fails_leaves_the_engine_well(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    engine: Any = load(models("wan"), spool)
    import diffusers

    def breaks(trouble: Exception) -> Callable[..., Any]:
        def decode(*arguments: Any, **more: Any) -> Any:
            raise trouble

        return decode

    for trouble, code in (
        (MemoryError(), "out_of_memory"),
        (ValueError("shapes do not fit"), "generation_failed"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(diffusers.AutoencoderKLWan, "decode", breaks(trouble))
            made = run(engine, row())
        assert (made.result.status, error(made)["code"]) == (500, code)
    assert not list(spool.iterdir())
    assert run(engine, row()).result.status == 200


def test_defaults_come_from_the_catalog(models: Models, tmp_path: Path) -> None:
    engine = load(
        models("wan"),
        tmp_path / "spool",
        default_size="48x32",
        default_seconds=0.5,
        default_fps=10,
        default_steps=1,
    )
    made = run(engine, row(size=None, seconds=None, fps=None, steps=None))
    assert (made.body["size"], made.body["fps"], made.body["steps"]) == ("48x32", 10, 1)
    assert len(frames(made.video)) == 5


def renamed(source: Path, target: Path, **index: Any) -> Path:
    shutil.copytree(source, target)
    path = target / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **index}))
    return target


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": "StableDiffusionPipeline"},
        {"_class_name": "AutoPipelineForText2Image"},
        {"_class_name": "os"},
        {"transformer": ["my_code", "Evil"]},
        {"vae": ["diffusers", "NoSuchModel"]},
    ],
)
def test_other_pipelines_and_foreign_code_are_not_loaded(
    models: Models, tmp_path: Path, index: dict[str, Any]
) -> None:
    folder = renamed(models("wan"), tmp_path / "model", **index)
    with pytest.raises(EngineFailed) as caught:
        load(folder, tmp_path / "spool")
    assert caught.value.code == "model_load_failed"


def test_pickled_weights_are_not_loaded(models: Models, tmp_path: Path) -> None:
    folder = renamed(models("wan"), tmp_path / "model")
    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(EngineFailed) as caught:
        load(folder, tmp_path / "spool")
    assert caught.value.code == "model_load_failed"


def test_webm_is_made_too(models: Models, tmp_path: Path) -> None:
    made = run(load(models("wan"), tmp_path / "spool"), row(output_format="webm"))
    assert made.files["video"].media_type == "video/webm"
    assert len(frames(made.video)) == 9
    assert float(np.mean([frame.std() for frame in frames(made.video)])) > 1
