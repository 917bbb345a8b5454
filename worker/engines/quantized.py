"""Linear layers whose weights are whole numbers of 8 or 4 bits, and the folders that hold them.

    config.json, tokenizer.json, …   as of any model of transformers
    quantization.json                which layers, and how
    model.safetensors                of those layers ``qweight``, ``scale`` and, in 4 bits, ``zero``

Torch's own kernels multiply with them where there are any: on CPUs, in bfloat16. Elsewhere a layer
is turned back into the dtype of its input each time it is used, which saves memory and no time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

FILE = "quantization.json"
WEIGHTS = "model*.safetensors"
FORMAT = "pressrun-weight-only-1"
GROUPS = (128, 64, 32)
"""Inputs that share a scale in 4 bits: the largest of these that divides a layer's inputs."""
FEW_ROWS = 8
"""Up to so many rows the kernel of 8 bits is faster than a dense product; measured on AVX-512."""
_PARTS = ("qweight", "scale", "zero")
_MOST_8, _MOST_4, _HALF_4 = 127, 15, 8
_BLOCK = 16
"""The kernel of 4 bits wants outputs in multiples of this."""

Scheme = Literal["int8", "int4"]


class BadQuantization(Exception):
    """The folder's quantization.json is not one, or does not fit its model."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """What quantization.json says."""

    scheme: Scheme
    layers: dict[str, int]
    """By the name of the layer, how many inputs share a scale."""
    format: str = FORMAT


class QuantizedLinear(nn.Module):
    """``nn.Linear`` with weights of whole numbers; what it computes in is its input's dtype."""

    qweight: Tensor
    scale: Tensor
    zero: Tensor | None
    bias: Tensor | None
    packed: Tensor | None

    def __init__(
        self, scheme: Scheme, inputs: int, outputs: int, group: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.scheme, self.group = scheme, group
        self.in_features, self.out_features = inputs, outputs
        four = scheme == "int4"
        shape = (outputs, inputs // 2) if four else (outputs, inputs)
        kind = torch.uint8 if four else torch.int8
        self.register_buffer("qweight", torch.empty(shape, dtype=kind))
        scales = (outputs, inputs // group) if four else (outputs,)
        self.register_buffer("scale", torch.empty(scales))
        self.register_buffer("zero", torch.empty(scales) if four else None)
        self.register_buffer("bias", torch.empty(outputs) if bias else None)
        self.register_buffer("packed", None)

    def ready(self) -> None:
        """Lays the weights out for the kernel of 4 bits, if they are to be used with it. What they
        were before is forgotten: the layer is to be served, not to be stored again."""
        if self.scheme != "int4" or not self._has_kernel(self.scale.dtype):
            return
        if self.out_features % _BLOCK or self.zero is None:
            return
        numbers = unpacked(self.qweight).to(torch.int32)
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)
        # The kernel's zero is the value of the middle of its range.
        pairs = torch.stack([self.scale, self.zero + _HALF_4 * self.scale], dim=-1)
        self.scale = pairs.transpose(0, 1).contiguous()
        self.qweight = self.qweight.new_empty(0)
        self.zero = None

    @property
    def weight_bytes(self) -> int:
        held = [self.packed, self.qweight, self.scale, self.zero, self.bias]
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """(outputs, inputs) as they are multiplied with."""
        if self.scheme == "int8":
            return self.qweight.to(dtype) * self.scale.to(dtype)[:, None]
        if self.zero is None:
            raise BadQuantization("weights that are laid out for a kernel can't be read")
        grouped = unpacked(self.qweight).view(self.out_features, -1, self.group).to(dtype)
        values = grouped * self.scale.to(dtype)[..., None] + self.zero.to(dtype)[..., None]
        return values.view(self.out_features, self.in_features)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.reshape(-1, self.in_features)
        made = self._product(rows).view(*inputs.shape[:-1], self.out_features)
        return made if self.bias is None else made + self.bias.to(made.dtype)

    def _product(self, rows: Tensor) -> Tensor:
        if self.packed is not None:
            scales = self.scale if self.scale.dtype == rows.dtype else self.scale.to(rows.dtype)
            made: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows.contiguous(), self.packed, self.group, scales
            )
            return made
        if self.scheme == "int8":
            scale = self.scale.to(rows.dtype)
            if rows.shape[0] <= FEW_ROWS and self._has_kernel(rows.dtype):
                made = torch.ops.aten._weight_int8pack_mm(rows.contiguous(), self.qweight, scale)
            else:
                made = (rows @ self.qweight.T.to(rows.dtype)) * scale
            return made
        return functional.linear(rows, self.dense(rows.dtype))

    def _has_kernel(self, dtype: torch.dtype) -> bool:
        return self.qweight.device.type == "cpu" and dtype == torch.bfloat16

    def extra_repr(self) -> str:
        return f"{self.scheme}, {self.in_features} -> {self.out_features}, group={self.group}"


# --- making -----------------------------------------------------------------------------------


@torch.no_grad()
def quantized(layer: nn.Module, scheme: Scheme) -> QuantizedLinear | None:
    """The layer in whole numbers, rounded to the nearest; None when its sizes don't allow it."""
    weights, bias = plain_weights(layer)
    outputs, inputs = weights.shape
    group = inputs if scheme == "int8" else group_of(inputs)
    if group is None:
        return None
    made = QuantizedLinear(scheme, inputs, outputs, group, bias=bias is not None)
    numbers = weights.float()
    if scheme == "int8":
        scale = _storable(numbers.abs().amax(dim=1) / _MOST_8, weights.dtype)
        made.qweight = (numbers / scale[:, None]).round().clamp(-_MOST_8, _MOST_8).to(torch.int8)
    else:
        grouped = numbers.view(outputs, -1, group)
        low, high = grouped.amin(dim=-1).to(weights.dtype).float(), grouped.amax(dim=-1)
        scale = _storable((high - low) / _MOST_4, weights.dtype)
        whole = ((grouped - low[..., None]) / scale[..., None]).round().clamp(0, _MOST_4)
        made.qweight = packed(whole.view(outputs, inputs).to(torch.uint8))
        made.zero = low.to(weights.dtype)
    made.scale = scale.to(weights.dtype)
    made.bias = None if bias is None else bias.detach().clone()
    return made


def _storable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """As it will be read again, so that numbers are rounded by what they are multiplied with."""
    return scale.clamp(min=torch.finfo(dtype).tiny).to(dtype).float()


def group_of(inputs: int) -> int | None:
    """How many inputs share a scale in 4 bits; None when nothing fits."""
    return next((size for size in GROUPS if inputs % size == 0), None)


def packed(numbers: Tensor) -> Tensor:
    """Numbers of 0 to 15, two a byte: the first of each pair in the lower half."""
    return numbers[:, ::2] | (numbers[:, 1::2] << 4)


def unpacked(pairs: Tensor) -> Tensor:
    """The inverse of ``packed``."""
    return torch.stack([pairs & 0x0F, pairs >> 4], dim=-1).view(pairs.shape[0], -1)


def plain_weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """(outputs, inputs) and the bias, of a linear layer of either kind."""
    held: Any = layer
    weights = held.weight.detach()
    return (weights.T if isinstance(layer, Conv1D) else weights), held.bias


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Linear layers by name: all but the output layer, and heads that classify."""
    prefix = f"{model.base_model_prefix}."
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not output
        and (name.startswith(prefix) or model.base_model is model)
    }


def quantize(model: PreTrainedModel, scheme: Scheme, each: Callable[[], object]) -> Quantization:
    """Changes the model's linear layers in place; ``each`` is called after every one."""
    made = {}
    for name, layer in linear_layers(model).items():
        whole = quantized(layer, scheme)
        if whole is not None:
            model.set_submodule(name, whole)
            made[name] = whole.group
        each()
    return Quantization(scheme, made)


# --- folders ----------------------------------------------------------------------------------


def write_quantization(folder: Path, found: Quantization) -> None:
    (folder / FILE).write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")


def read_quantization(source: str) -> Quantization | None:
    """None for a model that is not quantised. Raises BadQuantization."""
    path = Path(source) / FILE
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_bytes())
        found = Quantization(said["scheme"], dict(said["layers"]), said["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadQuantization(f"{FILE} can't be read: {type(error).__name__}") from None
    sizes = all(isinstance(group, int) and group > 0 for group in found.layers.values())
    if found.format != FORMAT or found.scheme not in ("int8", "int4") or not sizes:
        raise BadQuantization(f"{FILE} is of a format that is not known here")
    return found


def load_quantized(  # noqa: PLR0917 - the caller has all of them at hand
    auto_class: Any,
    source: str,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
    found: Quantization,
) -> Any:
    """The model with its layers of whole numbers, ready to be served. Raises BadQuantization,
    and what transformers and safetensors raise."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = auto_class.from_config(config, dtype=dtype, trust_remote_code=False)
        for name, group in found.layers.items():
            model.set_submodule(name, _empty(model, name, found.scheme, group))
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for file in sorted(Path(source).glob(WEIGHTS))
        for name, tensor in load_file(file).items()
    }
    _fill(model, state)
    if (said := Path(source) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_dict(json.loads(said.read_bytes()))
    model.to(device)
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.ready()
    return model


def _empty(model: Any, name: str, scheme: Scheme, group: int) -> QuantizedLinear:
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise BadQuantization(f"the model has no layer {name!r}") from None
    if isinstance(layer, nn.Linear):
        inputs, outputs = layer.in_features, layer.out_features
    elif isinstance(layer, Conv1D):
        inputs, outputs = layer.nx, layer.nf
    else:
        raise BadQuantization(f"{name!r} is no linear layer")
    if inputs % group:
        raise BadQuantization(f"{group} does not divide the inputs of {name!r}")
    return QuantizedLinear(scheme, inputs, outputs, group, bias=layer.bias is not None)


def _fill(model: Any, state: Mapping[str, Tensor]) -> None:
    """Puts the weights in; those that are tied to others are not in the file."""
    expected = model.state_dict()
    for name, tensor in state.items():
        if name in expected and expected[name].shape != tensor.shape:
            raise BadQuantization(f"{name!r} is of another size than its layer")
    told = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    bare = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    lacking = [name for name in told.missing_keys if name.rpartition(".")[2] in _PARTS]
    if told.unexpected_keys or bare or lacking:
        wrong = [*told.unexpected_keys, *bare, *lacking][0]
        raise BadQuantization(f"the weights do not fit the model: {wrong!r}")
