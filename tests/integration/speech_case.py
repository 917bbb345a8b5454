"""What tests of the speech engine share: rows, runs, and tiny random models of transformers."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    BarkConfig,
    BarkModel,
    EncodecConfig,
    PreTrainedTokenizerFast,
    SpeechT5Config,
    SpeechT5ForTextToSpeech,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    VitsConfig,
    VitsModel,
    VitsTokenizer,
)

from worker.engines.protocol import Load, Row, RowResult
from worker.engines.registry import create_engine
from worker.engines.speech import SpeechEngine

SPEECH = "/v1/audio/speech"
LETTERS = string.ascii_lowercase + string.ascii_uppercase + " .,'!?-"


def load(source: str | Path, spool: Path, **settings: Any) -> SpeechEngine:
    message = Load(
        "voice",
        engine="speech",
        source=str(source),
        settings={"threads": 1, **settings},
        spool=str(spool),
        public_url="http://plant.test",
    )
    engine = create_engine(message, lambda fraction, detail: None)
    assert isinstance(engine, SpeechEngine)
    return engine


def row(index: int, text: str, **more: Any) -> Row:
    body = {"model": "voice", "input": text, "response_format": "wav", **more}
    return Row(index, SPEECH, json.dumps(body).encode(), id=f"job_1-{index}")


def run(engine: SpeechEngine, *rows: Row) -> dict[int, RowResult]:
    """Submits all rows, steps to the end and returns their results by index."""
    results = [engine.submit(1, 1, given) for given in rows]
    while engine.busy:
        results += engine.step()
    return {result.index: result for result in results if result is not None}


def body_of(result: RowResult) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(result.body)
    return body


def error_of(result: RowResult) -> dict[str, Any]:
    assert result.status == 400
    error: dict[str, Any] = body_of(result)["error"]
    return error


# --- tiny models ------------------------------------------------------------------------------


def tiny_vits(folder: Path, *, speakers: int = 1, **tokenizer: Any) -> Path:
    torch.manual_seed(5)
    vocabulary = {"<pad>": 0, "<unk>": 1}
    vocabulary |= {letter: place + 2 for place, letter in enumerate(LETTERS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    given = {"language": "eng", "add_blank": True, "normalize": True, "phonemize": False}
    VitsTokenizer(str(folder / "vocab.json"), **{**given, **tokenizer}).save_pretrained(folder)
    config = VitsConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=16,
        flow_size=16,
        spectrogram_bins=9,
        upsample_initial_channel=16,
        upsample_rates=[8, 4],
        upsample_kernel_sizes=[16, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
        duration_predictor_num_flows=1,
        duration_predictor_flow_bins=4,
        wavenet_kernel_size=3,
        depth_separable_num_layers=1,
        num_speakers=speakers,
        speaker_embedding_size=8 if speakers > 1 else 0,
        sampling_rate=16_000,
        noise_scale=0.0,
        noise_scale_duration=0.0,
    )
    VitsModel(config).save_pretrained(folder)
    return folder


def _letters() -> PreTrainedTokenizerFast:
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {letter: place + 4 for place, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_speecht5(folder: Path) -> Path:
    torch.manual_seed(5)
    _letters().save_pretrained(folder)
    config = SpeechT5Config(
        vocab_size=80,
        hidden_size=24,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        speech_decoder_prenet_units=16,
        speech_decoder_postnet_layers=2,
        speech_decoder_postnet_units=16,
        speaker_embedding_dim=6,
        conv_dim=(24, 24),
        conv_stride=(2, 2),
        conv_kernel=(3, 3),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        max_text_positions=120,
    )
    SpeechT5ForTextToSpeech(config).save_pretrained(folder)
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=8,
        upsample_initial_channel=8,
        upsample_rates=[8, 8],
        upsample_kernel_sizes=[16, 16],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
    )
    spectrogram = SpeechT5HifiGan(vocoder)
    with torch.no_grad():
        for weights in spectrogram.parameters():  # as they come, they make silence
            weights.normal_(std=0.3)
    spectrogram.save_pretrained(folder / "vocoder")
    (folder / "speakers").mkdir()
    for name in ("ada", "bob"):
        save_file({"embedding": torch.randn(6)}, folder / "speakers" / f"{name}.safetensors")
    return folder


def tiny_bark(folder: Path) -> Path:
    torch.manual_seed(5)
    _letters().save_pretrained(folder)
    size = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "block_size": 400}
    config = BarkConfig(
        semantic_config={**size, "input_vocab_size": 300, "output_vocab_size": 120},
        coarse_acoustics_config={**size, "input_vocab_size": 240, "output_vocab_size": 240},
        fine_acoustics_config={
            **size, "input_vocab_size": 65, "output_vocab_size": 65, "n_codes_total": 4,
            "n_codes_given": 1, "block_size": 1024,
        },
        codec_config=EncodecConfig(
            num_filters=4, hidden_size=16, codebook_size=64, codebook_dim=16,
            target_bandwidths=[1.5, 3.0], upsampling_ratios=[8, 5, 4, 2], num_lstm_layers=1,
        ).to_dict(),
    )  # fmt: skip
    model = BarkModel(config)
    with torch.no_grad():
        for name, codes in model.codec_model.named_buffers():
            if name.endswith("codebook.embed"):  # as they come, all codes are nothing
                codes.normal_()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(_bark_generation()))
    prompt = {
        "semantic_prompt": torch.randint(0, 99, (20,)),
        "coarse_prompt": torch.randint(0, 64, (2, 30)),
        "fine_prompt": torch.randint(0, 64, (4, 30)),
    }
    save_file(prompt, folder / "ann.safetensors")
    return folder


def _bark_generation() -> dict[str, Any]:
    return {
        "model_type": "bark",
        "semantic_config": {
            "text_encoding_offset": 150, "text_pad_token": 299, "semantic_infer_token": 298,
            "semantic_vocab_size": 100, "max_input_semantic_length": 64, "eos_token_id": 100,
            "semantic_pad_token": 100, "max_new_tokens": 24, "semantic_rate_hz": 49.9,
        },
        "coarse_acoustics_config": {
            "coarse_semantic_pad_token": 228, "coarse_infer_token": 229, "coarse_rate_hz": 75,
            "n_coarse_codebooks": 2, "max_coarse_input_length": 64, "max_coarse_history": 60,
            "sliding_window_len": 20, "renormalize_logits": True,
        },
        "fine_acoustics_config": {
            "max_fine_history_length": 512, "max_fine_input_length": 1024, "n_fine_codebooks": 4,
        },
        "codebook_size": 64,
        "sample_rate": 24_000,
    }  # fmt: skip
