"""The lists of what is taken against the libraries that read it: a setting of a family that is
taken, and that the lists forget, would be lost on the way in."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING

from worker.engines.images.settings import Scheduler
from worker.examiner.examining import Bad, compare
from worker.upkeep.imports.dangers import refuse_dangers
from worker.upkeep.imports.kinds import (
    DECODERS,
    ENCODERS,
    PARTS,
    PIPELINES,
    TRANSLATORS,
    architectures,
)
from worker.upkeep.imports.settings_of_models import CONFIG, SECTIONS
from worker.upkeep.imports.settings_of_pipelines import (
    DENOISER,
    DENOISERS,
    INDEX,
    ROLES,
    SCHEDULER,
    SCHEDULERS,
)

OF_NO_MODEL = {
    "_name_or_path", "architectures", "dtype", "output_attentions", "output_hidden_states",
    "return_dict", "solver_p",
}  # fmt: skip
"""Written by transformers beside a model's own settings, or objects that no file holds."""
FAMILIES = [*DECODERS, *ENCODERS, *TRANSLATORS, "clip_text_model", "clip_vision_model"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_setting_of_a_family_is_taken_with_its_default(family: str) -> None:
    settings: dict[str, Any] = CONFIG_MAPPING[family]().to_dict()
    refuse_dangers(_as_json(settings))
    left = settings.keys() - CONFIG.keys() - OF_NO_MODEL - set(SECTIONS)
    assert not left
    wrong = {
        name: value
        for name, value in settings.items()
        if name in CONFIG and value is not None and not CONFIG[name](_as_json(value))
    }
    assert not wrong


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _as_json(inner) for name, inner in value.items()}
    return [_as_json(one) for one in value] if isinstance(value, list | tuple) else value


def test_every_class_is_one_of_transformers() -> None:
    written = {name for name, (_, engine) in architectures().items() if engine == "text"}
    for family, name in (DECODERS | TRANSLATORS).items():
        own = [kind for kind in written if kind.startswith(name) and hasattr(transformers, kind)]
        assert own, family
    for name in PARTS:
        assert hasattr(transformers, name)


@pytest.mark.parametrize("name", sorted(DENOISERS | SCHEDULERS))
def test_every_setting_of_a_component_is_taken(name: str) -> None:
    table = DENOISER if name in DENOISERS else SCHEDULER
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    assert not parameters.keys() - table.keys() - OF_NO_MODEL - {"self", "kwargs"}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_component_of_a_pipeline_is_known(name: str) -> None:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    assert not parameters.keys() - ROLES.keys() - INDEX.keys() - {"self"}


def test_schedulers_are_those_of_the_image_engine() -> None:
    assert frozenset(Scheduler.__args__) == SCHEDULERS  # type: ignore[attr-defined]


def test_settings_alone_take_no_memory(tmp_path: Path) -> None:
    """A few weights whose settings ask for a table of positions of half a gigabyte."""
    settings = transformers.GPTJConfig(
        vocab_size=32, n_positions=2**25, n_embd=16, n_layer=1, n_head=2, rotary_dim=4,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.device("meta"):
        weights = transformers.GPTJForCausalLM(settings).state_dict()
    settings.save_pretrained(tmp_path)
    with pytest.raises(Bad, match="512 MiB of tables") as refused:
        compare(tmp_path, transformers.GPTJForCausalLM, weights)
    assert refused.value.code == "invalid_setting"
    usual = transformers.GPTJConfig(**settings.to_dict() | {"n_positions": 2048})
    usual.save_pretrained(tmp_path)
    compare(tmp_path, transformers.GPTJForCausalLM, weights)


@pytest.mark.parametrize("steps", [0, -1, 10**8, 2**40, True, "1000"])
def test_a_scheduler_has_a_sane_number_of_steps(steps: Any) -> None:
    assert SCHEDULER["num_train_timesteps"](1_000)
    assert not SCHEDULER["num_train_timesteps"](steps)
