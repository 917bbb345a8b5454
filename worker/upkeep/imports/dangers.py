"""Settings that have made loaders run or fetch code: a model that has one is refused as a whole.

What is merely unknown is left out when a configuration is rewritten. These are looked for anywhere
in the document, however deep, since a loader may look there too.
"""

from __future__ import annotations

from typing import Any

from worker.tuning.data.example import Refused

REMOTE_CODE, LOADER = "remote_code_refused", "loader_setting_refused"
QUANTIZED = "quantization_unsupported"

_REFUSED = {
    "auto_map": REMOTE_CODE,
    "custom_generate": REMOTE_CODE,
    "custom_pipeline": REMOTE_CODE,
    "custom_pipelines": REMOTE_CODE,
    "custom_revision": REMOTE_CODE,
    "trust_remote_code": REMOTE_CODE,
    "_attn_implementation_internal": LOADER,
    "_experts_implementation_internal": LOADER,
    "auto_mapping": LOADER,
    "kernel_config": LOADER,
    "megatron_config": LOADER,
    "parent_library": LOADER,
    "runtime_config": LOADER,
    "quantization_config": QUANTIZED,
    "_pre_quantization_dtype": QUANTIZED,
}
_IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "_experts_implementation")
"""Harmless while they are plain words; with a slash they name a kernel on a hub."""
_MEGATRON, _PLAIN_MEGATRON = "megatron_core", "megatron.core"
"""PEFT writes this one into every configuration, and imports what it says."""
_OF_OTHERS = ("::", "diffusers_modules", "transformers_modules")
"""How loaders write that a class is in another repository, or in code that they have fetched."""


def refuse_dangers(document: Any) -> None:
    """Raises Refused for the first setting in ``document`` that must not be there."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            for name, inner in value.items():
                _judge(name, inner)
            waiting += value.values()


def _judge(name: str, value: Any) -> None:
    code = _REFUSED.get(name)
    if code is not None and value is not None and value is not False:
        raise Refused(code, f"'{name}' is not taken", name)
    if name == _MEGATRON and value not in (None, _PLAIN_MEGATRON):
        raise Refused(LOADER, f"'{name}' names a module to import", name)
    if name in _IMPLEMENTATIONS and not _is_plain(value):
        raise Refused(LOADER, f"'{name}' names code that is not transformers' own", name)
    if isinstance(value, str) and name.endswith("_class") and any(m in value for m in _OF_OTHERS):
        raise Refused(REMOTE_CODE, f"'{name}' names a class of other code", name)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or (isinstance(value, str) and value.replace("_", "").isalnum())
