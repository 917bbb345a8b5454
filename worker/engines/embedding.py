"""The embedding engine: one vector per input, as sentence-transformers computes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel

from shared.errors import ContextLengthExceeded, InvalidRequest, PressrunError
from shared.specs import EmbeddingSpec, parse_body_json
from worker.engines.base import Engine, OnProgress
from worker.engines.classifying import padding_token
from worker.engines.inflight import Headroom, Limits, prefill_groups
from worker.engines.loading import (
    EngineSettings,
    LoadedModel,
    dtype_name,
    load_model,
    read_settings,
)
from worker.engines.memory import give_back, is_out_of_memory
from worker.engines.pooling import Shape, pool, read_shape
from worker.engines.protocol import Load, Row, RowResult
from worker.engines.responses import embedding_body, out_of_memory, refusal

log = structlog.get_logger()


class EmbeddingSettings(EngineSettings):
    """The embedding engine's options in the model catalog."""

    microbatch_rows: int = Field(default=64, ge=1)
    """Most inputs in one forward pass."""
    microbatch_tokens: int = Field(default=8192, ge=16)
    """Most tokens in one forward pass, padding included."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest input; what the model's own files say."""


@dataclass(eq=False, slots=True)
class EmbeddingRow:
    """A row on its way."""

    shard: int
    epoch: int
    index: int
    spec: EmbeddingSpec
    token_n: int
    vectors: list[NDArray[np.float32] | None] = field(default_factory=list)
    failure: str | None = None


@dataclass(eq=False, slots=True)
class Input:
    """One text of a row."""

    row: EmbeddingRow
    place: int
    tokens: list[int]


class EmbeddingEngine:
    """An ``Engine`` for /v1/embeddings. A step is one microbatch of inputs of like length."""

    def __init__(
        self, name: str, loaded: LoadedModel, shape: Shape, settings: EmbeddingSettings
    ) -> None:
        self._name = name
        self._loaded = loaded
        self._shape = shape
        self._padding = padding_token(loaded.config.get_text_config(), loaded.tokenizer)
        self._headroom = Headroom(
            Limits(settings.microbatch_rows, 2**62, settings.microbatch_tokens, 1)
        )
        self._rows_limit = settings.microbatch_rows
        self._waiting: deque[Input] = deque()
        self._open: dict[EmbeddingRow, int] = {}

    @property
    def capacity(self) -> int:
        return 4 * self._rows_limit

    @property
    def resident_bytes(self) -> int:
        return self._loaded.weight_bytes

    @property
    def detail(self) -> dict[str, Any]:
        return {
            "device": str(self._loaded.device),
            "dtype": dtype_name(self._loaded.dtype),
            "scheduler": "sorted_microbatches",
            "pooling": self._shape.pooling,
            "max_tokens": self._shape.max_tokens,
            "dimensions": self._shape.dimensions,
        }

    @property
    def busy(self) -> bool:
        return bool(self._open)

    @property
    def active_rows(self) -> int:
        return 0

    @property
    def waiting_rows(self) -> int:
        return len(self._open)

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        """Queues a row's inputs, or answers at once with status 400."""
        try:
            spec, tokenised = self._read(row)
        except PressrunError as error:
            return refusal(
                shard,
                epoch,
                row.index,
                code=error.code,
                message=error.message,
                param=error.param,
            )
        waiting = EmbeddingRow(shard, epoch, row.index, spec, sum(map(len, tokenised)))
        waiting.vectors = [None] * len(tokenised)
        self._open[waiting] = len(tokenised)
        self._waiting.extend(Input(waiting, i, tokens) for i, tokens in enumerate(tokenised))
        return None

    def cancel(self, shard: int, epoch: int) -> None:
        gone = {row for row in self._open if (row.shard, row.epoch) == (shard, epoch)}
        self._open = {row: left for row, left in self._open.items() if row not in gone}
        self._waiting = deque(item for item in self._waiting if item.row not in gone)

    def step(self) -> list[RowResult]:
        if not self._waiting:
            return []
        inputs = self._next()
        try:
            with torch.inference_mode():
                vectors = self._embed([item.tokens for item in inputs])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out_of_memory", inputs=len(inputs))
            vectors = None
        if vectors is None:
            return self._retreat(inputs)
        self._headroom.calm()
        for item, vector in zip(inputs, vectors, strict=True):
            item.row.vectors[item.place] = vector
        return self._settle(inputs)

    def _read(self, row: Row) -> tuple[EmbeddingSpec, list[list[int]]]:
        spec = parse_body_json(row.endpoint, row.body)
        if not isinstance(spec, EmbeddingSpec):
            raise InvalidRequest(f"the embedding engine does not serve {row.endpoint}")
        if spec.dimensions is not None and spec.dimensions > self._shape.dimensions:
            raise InvalidRequest(
                f"this model has {self._shape.dimensions} dimensions, not {spec.dimensions}",
                param="dimensions",
            )
        tokenised: list[list[int]] = self._loaded.tokenizer(spec.inputs)["input_ids"]
        if spec.truncate:
            tokenised = self._loaded.tokenizer(
                spec.inputs, truncation=True, max_length=self._shape.max_tokens
            )["input_ids"]
        self._loaded.check_tokens(tokenised, "input")
        for place, tokens in enumerate(tokenised):
            if len(tokens) > self._shape.max_tokens:
                raise ContextLengthExceeded(
                    f"input {place} has {len(tokens)} tokens; this model takes "
                    f"{self._shape.max_tokens}",
                    param="input",
                )
        # A tokenizer without special tokens may make nothing of a space or a control character.
        return spec, [tokens or [self._padding] for tokens in tokenised]

    def _next(self) -> list[Input]:
        """Of the inputs at hand, the group of like lengths with the longest texts."""
        limits = self._headroom.now
        window = list(self._waiting)[: 4 * limits.slots]
        lengths = [len(item.tokens) for item in window]
        group = prefill_groups(lengths, limits.prefill_tokens)[0][: limits.slots]
        taken = [window[index] for index in group]
        members = set(taken)
        self._waiting = deque(item for item in self._waiting if item not in members)
        return taken

    def _embed(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
        """(inputs, dimensions), normalised when the model's files say so."""
        longest, device = max(map(len, rows)), self._loaded.device
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows], device=device)
        model: Any = self._loaded.model
        states: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        pooled = pool(states, mask, self._shape.pooling)
        if self._shape.normalize:
            pooled = functional.normalize(pooled, dim=-1)
        return cast(NDArray[np.float32], pooled.cpu().numpy())

    def _settle(self, inputs: Sequence[Input]) -> list[RowResult]:
        results = []
        for item in inputs:
            self._open[item.row] -= 1
            if self._open[item.row] == 0:
                del self._open[item.row]
                results.append(self._result(item.row))
        return results

    def _result(self, row: EmbeddingRow) -> RowResult:
        if row.failure is not None:
            return out_of_memory(row.shard, row.epoch, row.index, row.failure)
        vectors = np.stack([vector for vector in row.vectors if vector is not None])
        if row.spec.dimensions is not None:
            vectors = vectors[:, : row.spec.dimensions]
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        body = embedding_body(self._name, vectors, row.spec.encoding_format, row.token_n)
        return RowResult(row.shard, row.epoch, row.index, 200, body, row.token_n, 0)

    def _retreat(self, inputs: list[Input]) -> list[RowResult]:
        """Out of memory: again in smaller microbatches; an input that was alone fails its row."""
        give_back(self._loaded.device)
        if len(inputs) > 1:
            self._headroom.shrink(len(inputs))
            self._waiting.extendleft(reversed(inputs))
            return []
        inputs[0].row.failure = "one input alone does not fit the memory of this machine"
        return self._settle(inputs)


def create(load: Load, progress: OnProgress) -> Engine:
    """Loads an embedding model. Raises EngineFailed ``model_load_failed`` or ``bad_settings``."""
    settings = read_settings(EmbeddingSettings, load.settings)
    loaded = load_model(lambda config: AutoModel, load.source, settings, progress)
    shape = read_shape(load.source, loaded, settings.max_tokens)
    progress(1.0, "ready")
    return EmbeddingEngine(load.model, loaded, shape, settings)
