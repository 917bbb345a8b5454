"""What the sandbox looks at: classes, tensors against classes, tokenizers, templates.

A model is built without memory, on torch's ``meta`` device, and the very code that loads it in an
engine is given tensors of the announced names and shapes. Only the sandbox imports this.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch._dynamo  # it looks around on this machine: before nothing may be found out
import transformers
from jinja2 import TemplateError
from transformers import AutoTokenizer
from transformers.utils import logging

TEMPLATE_SECONDS = 5.0
LONGEST_CONVERSATION = 2**16
"""Characters that the conversations below may become."""
MOST_NAMED = 3
MOST_TABLE_BYTES = 2**28
"""Of what a model computes when it is loaded, beyond as much as its weights take."""
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "U16": "uint16", "I16": "int16", "F16": "float16",
    "BF16": "bfloat16", "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64",
    "I64": "int64", "F64": "float64",
}  # fmt: skip
"""Torch's names of the format's types."""
CONVERSATIONS = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "What is 2 + 2?"},
    ],
)
Say = Callable[[str], None]
Problem = dict[str, str]


class Bad(Exception):
    """The part can't be served; ``code`` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class TooSlow(Exception):
    """A template has had its time."""


def examine(folder: Path, request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Judges every part of the model; the answer's ``problems`` have code, message and file."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    problems: list[Problem] = []
    parameters = 0
    for part in request["parts"]:
        try:
            parameters += _examine_part(folder / part["folder"], part, request["engine"], say)
        except Bad as bad:
            problems.append({"code": bad.code, "message": bad.message, "folder": part["folder"]})
    return {"problems": problems, "parameters": parameters}


def _examine_part(folder: Path, part: dict[str, Any], engine: str, say: Say) -> int:
    """How many parameters the part has. Raises Bad."""
    say("weights" if part["tensors"] else "settings")
    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, DTYPES[dtype]), device="meta")
        for name, (dtype, shape) in part["tensors"].items()
    }
    if engine == "image":
        from worker.examiner.pipelines import examine_component

        examine_component(folder, part["library"], part["name"], tensors)
    else:
        compare(folder, class_of(part["name"]), tensors)
        _examine_tokenizer(folder, engine, say)
    return sum(tensor.numel() for tensor in tensors.values())


def class_of(name: str) -> Any:
    """A class of transformers'. Raises Bad."""
    found = getattr(transformers, name, None)
    if found is None:
        raise Bad("architecture_unsupported", f"transformers has no {name} here")
    return found


def attempt(code: str, call: Callable[[], Any]) -> Any:
    """What ``call`` returns; whatever it raises is the model's fault, and told by its type."""
    try:
        return call()
    except (Bad, KeyboardInterrupt):
        raise
    except BaseException as error:  # a panic in a tokenizer's Rust is no Exception
        raise Bad(code, f"it can't be loaded ({type(error).__name__})") from error


# --- weights --------------------------------------------------------------------------------


def compare(folder: Path, kind: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Raises Bad unless the class of transformers', with the settings in ``folder``, has just these
    tensors."""
    config = attempt(
        "invalid_setting",
        lambda: kind.config_class.from_pretrained(folder, local_files_only=True),
    )
    refuse_tables(attempt("invalid_setting", lambda: _on_meta(kind, config)), tensors)
    _, found = attempt(
        "weights_mismatch",
        lambda: kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            use_safetensors=True,
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        ),
    )
    mismatched = [name for name, *_ in found["mismatched_keys"]]
    refuse_differences(mismatched, found["missing_keys"], found["unexpected_keys"], kind)


def _on_meta(kind: Any, config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = kind(config)
    return model


def refuse_tables(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Raises Bad where settings alone, and no weights, would take an engine's memory: tables of
    positions and masks, which a model fills for itself."""
    tables = sum(buffer.nbytes for buffer in model.buffers())
    if tables > MOST_TABLE_BYTES + sum(tensor.nbytes for tensor in tensors.values()):
        message = f"its settings ask for {tables >> 20} MiB of tables beside its weights"
        raise Bad("invalid_setting", message)


def refuse_differences(mismatched: Any, missing: Any, unexpected: Any, kind: Any) -> None:
    """Raises Bad unless the tensors are just those that the class has."""
    for names, what in (
        (mismatched, "other shapes than its settings say"),
        (missing, "no weights"),
        (unexpected, "weights that it does not know"),
    ):
        if names:
            listed = sorted(names)
            shown = ", ".join(listed[:MOST_NAMED])
            more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
            message = f"{kind.__name__} gets {what} for {shown}{more}"
            raise Bad("weights_mismatch", message)


# --- tokenizers -----------------------------------------------------------------------------


def _examine_tokenizer(folder: Path, engine: str, say: Say) -> None:
    say("tokenizer")
    tokenizer = attempt(
        "tokenizer_refused",
        lambda: AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        ),
    )
    encoded = attempt("tokenizer_refused", lambda: tokenizer("Hello, world")["input_ids"])
    attempt("tokenizer_refused", lambda: tokenizer.decode(encoded))
    if engine == "text" and tokenizer.chat_template:
        say("chat_template")
        for conversation in CONVERSATIONS:
            _render(tokenizer, conversation)


def _render(tokenizer: Any, conversation: list[dict[str, str]]) -> None:
    """Raises Bad for a template that hangs, fails or floods; it may refuse a conversation."""
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, TEMPLATE_SECONDS)
    try:
        rendered = tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False
        )
    except TooSlow:
        raise Bad("chat_template_refused", "the chat template takes too long") from None
    except TemplateError as error:
        if type(error) is not TemplateError:  # raise_exception() of a template is this one
            raise Bad("chat_template_refused", _failure(error)) from None
        return
    except Exception as error:
        raise Bad("chat_template_refused", _failure(error)) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if not isinstance(rendered, str) or len(rendered) > LONGEST_CONVERSATION:
        raise Bad("chat_template_refused", "the chat template makes too much of a few words")


def _failure(error: Exception) -> str:
    return f"the chat template fails ({type(error).__name__})"


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow
