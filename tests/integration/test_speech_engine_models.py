"""The speech engine with tiny random models of transformers: VITS, SpeechT5, Bark, pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.integration.speech_case import (
    body_of,
    error_of,
    load,
    row,
    run,
    tiny_bark,
    tiny_speecht5,
    tiny_vits,
)
from worker.engines.base import EngineFailed
from worker.engines.protocol import RowResult
from worker.engines.sounds import decode_sound
from worker.engines.speech.base import Utterance
from worker.engines.speech.engine import SpeechEngine
from worker.engines.speech.pipeline_model import load as load_pipeline
from worker.engines.speech.settings import SpeechSettings
from worker.engines.speech.transformers_model import Checkpoint, load_transformers

TEXT = "Hello there. How are you today?"


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vits(tmp_path_factory.mktemp("tiny vits"))


@pytest.fixture(scope="module")
def speecht5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_speecht5(tmp_path_factory.mktemp("tiny speecht5"))


@pytest.fixture(scope="module")
def bark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bark(tmp_path_factory.mktemp("tiny bark"))


def heard(result: RowResult) -> tuple[str, int]:
    """The digest of what was delivered, and its rate."""
    assert result.status == 200, result.body
    sound = decode_sound(Path(result.files[0].path))
    assert float(np.abs(sound.mono).max()) > 0.01
    assert len(body_of(result)["sentences"]) == 2
    return result.files[0].sha256, sound.rate


def code_of(source: Path, spool: Path, **settings: Any) -> tuple[str, str]:
    with pytest.raises(EngineFailed) as failed:
        load(source, spool, **settings)
    return failed.value.code, failed.value.message


# --- VITS -------------------------------------------------------------------------------------


def test_vits_speaks(vits: Path, tmp_path: Path) -> None:
    engine = load(vits, tmp_path)
    assert (engine.detail["backend"], engine.detail["device"]) == ("vits", "cpu")
    assert heard(run(engine, row(0, TEXT))[0])[1] == 16_000


def test_vits_says_the_same_alone_and_in_a_microbatch(vits: Path) -> None:
    """The tiny model has no noise, so that company can show in nothing but the padding."""
    settings = SpeechSettings(microbatch_sentences=4, device="cpu")
    model = load_transformers(str(vits), settings, 1, lambda fraction, detail: None)
    texts = ["hello there", "how are you today", "no"]
    utterances = [Utterance(text, "default", 1.0, 1) for text in texts]
    together = model.speak(utterances)
    for utterance, sound in zip(utterances, together, strict=True):
        alone = model.speak([utterance])[0]
        assert len(alone) == len(sound)
        # The vocoder's last samples look ahead: alone into zeros, in company into padding.
        np.testing.assert_allclose(alone[:-64], sound[:-64], atol=1e-4)


def test_vits_takes_rows_of_several_speeds_in_one_microbatch(vits: Path, tmp_path: Path) -> None:
    engine = load(vits, tmp_path, microbatch_sentences=4)
    results = run(engine, row(0, TEXT), row(1, TEXT, speed=0.5), row(2, TEXT))
    spoken = [
        sum(item["end"] - item["start"] for item in body_of(results[index])["sentences"])
        for index in range(3)
    ]
    assert spoken[0] == pytest.approx(spoken[2], abs=0.01)
    assert spoken[1] > 1.4 * spoken[0]


def test_vits_speakers_are_voices(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder = tiny_vits(tmp_path / "model", speakers=3)
    engine = load(folder, tmp_path)
    assert engine.detail["voices"] == ["speaker-0", "speaker-1", "speaker-2"]
    results = run(engine, row(0, TEXT, voice="speaker-1"), row(1, TEXT, voice="speaker-2"))
    assert heard(results[0])[0] != heard(results[1])[0]
    named = load(folder, tmp_path, voices=[{"id": "eve", "speaker": 1, "language": "en-GB"}])
    assert named.detail["voices"] == ["eve"]
    code, message = code_of(folder, tmp_path, voices=[{"id": "eve", "speaker": 3}])
    assert (code, "3 speakers" in message) == ("bad_settings", True)


def test_a_tokenizer_of_phonemes_is_refused(tmp_path: Path) -> None:
    code, message = code_of(tiny_vits(tmp_path, phonemize=True), tmp_path)
    assert code == "gpl_phonemizer_needed"
    assert "phonemize" in message


def test_a_romanised_script_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engines.speech.vits_model.find_spec", lambda name: None)
    code, message = code_of(tiny_vits(tmp_path, is_uroman=True), tmp_path)
    assert (code, "uroman" in message) == ("uroman_needed", True)


def test_letters_that_the_model_does_not_know_are_refused(vits: Path, tmp_path: Path) -> None:
    engine = load(vits, tmp_path)
    assert error_of(run(engine, row(0, "你好"))[0])["param"] == "input"


# --- SpeechT5 ---------------------------------------------------------------------------------


def test_speecht5_speaks_with_the_voices_in_its_directory(speecht5: Path, tmp_path: Path) -> None:
    engine = load(speecht5, tmp_path)
    assert engine.detail["voices"] == ["ada", "bob"]
    results = run(engine, row(0, TEXT, seed=1), row(1, TEXT, voice="bob", seed=1))
    assert heard(results[0])[0] != heard(results[1])[0]


def test_speecht5_reads_a_number_in_parts_that_is_too_long_once_it_is_spelled(
    speecht5: Path, tmp_path: Path
) -> None:
    written = "7" * 70 + "."
    body = body_of(run(load(speecht5, tmp_path), row(0, written, seed=1))[0])
    assert len(body["sentences"]) > 1
    assert "".join(sentence["text"] for sentence in body["sentences"]) == written


def test_speecht5_is_refused_without_vocoder_or_voice(speecht5: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in speecht5.iterdir():
        if file.is_file():
            (bare / file.name).write_bytes(file.read_bytes())
    assert "vocoder" in code_of(bare, tmp_path)[1]
    vocoder = str(speecht5 / "vocoder")
    assert "speaker embedding" in code_of(bare, tmp_path, vocoder=vocoder)[1]
    save_file({"x": torch.zeros(7)}, bare / "odd.safetensors")
    voices = [{"id": "odd", "file": "odd.safetensors"}]
    assert "6 numbers" in code_of(bare, tmp_path, vocoder=vocoder, voices=voices)[1]
    voices = [{"id": "gone", "file": "gone.safetensors"}]
    assert "gone.safetensors" in code_of(bare, tmp_path, vocoder=vocoder, voices=voices)[1]


# --- Bark -------------------------------------------------------------------------------------


def test_bark_speaks_with_and_without_a_prompt(bark: Path, tmp_path: Path) -> None:
    voices = [{"id": "own"}, {"id": "ann", "file": "ann.safetensors"}]
    engine = load(bark, tmp_path, voices=voices, max_new_tokens=16)
    results = run(engine, row(0, TEXT, seed=1), row(1, TEXT, voice="ann", seed=1))
    first, second = heard(results[0]), heard(results[1])
    assert first[1] == 24_000
    assert first[0] != second[0]


def test_a_bark_prompt_of_other_tensors_is_refused(bark: Path, tmp_path: Path) -> None:
    save_file({"semantic_prompt": torch.zeros(3)}, bark / "half.safetensors")
    code, message = code_of(bark, tmp_path, voices=[{"id": "x", "file": "half.safetensors"}])
    assert (code, "coarse_prompt" in message) == ("model_load_failed", True)


# --- others, and what is never read -----------------------------------------------------------


def test_other_models_speak_through_the_pipeline(vits: Path, tmp_path: Path) -> None:
    """No other kind is small enough to be made here: VITS stands in for one."""
    from transformers import AutoConfig

    settings = SpeechSettings(language="en")
    checkpoint = Checkpoint(
        str(vits), AutoConfig.from_pretrained(vits), settings, torch.device("cpu"), torch.float32
    )
    model = load_pipeline(checkpoint)
    engine = SpeechEngine(
        "voice", model, settings, spool=tmp_path, public_url="http://plant.test", threads=1
    )
    assert heard(run(engine, row(0, TEXT))[0])[1] == 16_000
    with pytest.raises(EngineFailed, match="one at most"):
        load_pipeline(
            Checkpoint(
                checkpoint.source,
                checkpoint.config,
                SpeechSettings.model_validate({"voices": [{"id": "a"}, {"id": "b"}]}),
                checkpoint.device,
                checkpoint.dtype,
            )
        )


def test_pickled_weights_are_never_read(vits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for file in vits.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    torch.save({}, folder / "pytorch_model.bin")
    code, message = code_of(folder, tmp_path)
    assert (code, "safetensors" in message) == ("model_load_failed", True)


def test_code_of_a_checkpoint_is_never_run(vits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "custom"
    folder.mkdir()
    for file in vits.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "someones_own"
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("open('ran', 'w')")
    code, _ = code_of(folder, tmp_path)
    assert code == "model_load_failed"
    assert not Path("ran").exists()


def test_a_directory_that_is_no_model_and_a_bad_dtype(vits: Path, tmp_path: Path) -> None:
    assert code_of(tmp_path, tmp_path)[0] == "model_load_failed"
    assert code_of(vits, tmp_path, dtype="int8")[0] == "bad_settings"


def test_a_sentence_that_does_not_fit_the_memory_fails_its_row(
    vits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(vits, tmp_path)
    original = type(engine._model).speak

    def cramped(self: Any, utterances: Any) -> Any:
        if "today" in utterances[0].text:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, utterances)

    monkeypatch.setattr(type(engine._model), "speak", cramped)
    results = run(engine, row(0, TEXT), row(1, "Hello there."))
    assert (results[0].status, results[1].status) == (500, 200)
    assert body_of(results[0])["error"]["code"] == "out_of_memory"
    assert {str(path) for path in tmp_path.iterdir()} == {file.path for file in results[1].files}
