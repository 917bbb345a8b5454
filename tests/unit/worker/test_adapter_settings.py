"""Which configurations of adapters are believed."""

from __future__ import annotations

from typing import Any

import pytest

from worker.engines.adapter_files import BadAdapter, check_config


@pytest.mark.parametrize(
    "config",
    [
        [],
        {"rank_pattern": ["q_proj"]},
        {"alpha_pattern": ["abc"]},
        {"alpha_pattern": {"(a+)+$": 4}},
        {"auto_mapping": {"parent_library": "os"}},
        {"peft_type": "IA3"},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_what_is_no_plain_adapter_is_refused(config: Any) -> None:
    with pytest.raises(BadAdapter):
        check_config(config)


def test_a_plain_adapter_is_taken() -> None:
    check_config({"peft_type": "LORA", "r": 8, "alpha_pattern": {"q_proj": 4}, "rank_pattern": {}})
    check_config({"rank_pattern": None, "modules_to_save": None, "alpha_pattern": []})
