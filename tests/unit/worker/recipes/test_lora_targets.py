"""Which layers an adapter may be asked for."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from worker.recipes.lora import add_lora
from worker.recipes.shape import RecipeError


@pytest.fixture
def model() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
        )
    )


@pytest.mark.parametrize(
    "targets",
    [["embed_tokens"], ["q_proj", "model.embed_tokens"], ["norm"], ["self_attn"], ["nothing"]],
)
def test_only_linear_layers_can_be_adapted(model: Any, targets: list[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        add_lora(model, {"target_modules": targets})
    assert (refused.value.code, refused.value.blame) == ("bad_target_modules", "request")


@pytest.mark.parametrize("targets", [None, ["q_proj"], ["self_attn.v_proj", "down_proj"]])
def test_linear_layers_are_adapted(model: Any, targets: list[str] | None) -> None:
    adapted = add_lora(model, {"rank": 2, "target_modules": targets})
    names = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_A" in name or "lora_B" in name for name in names)
