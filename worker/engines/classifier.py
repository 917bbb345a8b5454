"""The classifier engine: labels for texts, or the entities in them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from pydantic import Field

from shared.errors import InvalidRequest, PressrunError
from shared.specs import ClassificationSpec, parse_body_json
from worker.engines.base import Engine, OnProgress
from worker.engines.classifying import (
    Head,
    as_numbers,
    auto_class,
    head_of,
    longest_input,
    padding_token,
)
from worker.engines.input_queue import Input, InputQueue, InputRow
from worker.engines.loading import (
    EngineSettings,
    LoadedModel,
    dtype_name,
    load_model,
    read_settings,
)
from worker.engines.memory import give_back, is_out_of_memory
from worker.engines.protocol import Load, Row, RowResult
from worker.engines.responses import out_of_memory, refusal

log = structlog.get_logger()


class ClassifierSettings(EngineSettings):
    """The classifier engine's options in the model catalog."""

    microbatch_rows: int = Field(default=64, ge=1)
    """Most inputs in one forward pass."""
    microbatch_tokens: int = Field(default=8192, ge=16)
    """Most tokens in one forward pass, padding included."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Where inputs are cut; what the model's own files say."""


class Notes(msgspec.Struct, frozen=True):
    """Of a text that waits: what its answer is made of, beside the model's outputs."""

    text: str
    offsets: list[tuple[int, int]]
    truncated: bool


class ClassifierEngine:
    """An ``Engine`` for /v1/classifications. A step is one microbatch of inputs of like length."""

    def __init__(
        self, name: str, loaded: LoadedModel, head: Head, settings: ClassifierSettings
    ) -> None:
        self._name = name
        self._loaded = loaded
        self._head = head
        self._max_tokens = longest_input(loaded.config, loaded.tokenizer, settings.max_tokens)
        self._padding = padding_token(loaded.config, loaded.tokenizer)
        loaded.model.config.pad_token_id = self._padding
        self._rows_limit = settings.microbatch_rows
        self._queue: InputQueue[ClassificationSpec] = InputQueue(
            rows=settings.microbatch_rows, tokens=settings.microbatch_tokens
        )

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
            "kind": self._head.kind,
            "max_tokens": self._max_tokens,
            "labels": self._loaded.config.num_labels,
        }

    @property
    def busy(self) -> bool:
        return bool(self._queue)

    @property
    def active_rows(self) -> int:
        return 0

    @property
    def waiting_rows(self) -> int:
        return len(self._queue)

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        """Queues a row's inputs, or answers at once with status 400."""
        try:
            spec = self._read(row)
            tokens, notes = self._tokenise(spec.inputs)
            self._loaded.check_tokens(tokens, "input")
        except PressrunError as error:
            return refusal(
                shard,
                epoch,
                row.index,
                code=error.code,
                message=error.message,
                param=error.param,
            )
        answers = [None] * len(tokens)
        waiting = InputRow(shard, epoch, row.index, spec, sum(map(len, tokens)), answers)
        self._queue.add(
            waiting,
            [Input(waiting, i, t, n) for i, (t, n) in enumerate(zip(tokens, notes, strict=True))],
        )
        return None

    def cancel(self, shard: int, epoch: int) -> None:
        self._queue.cancel(shard, epoch)

    def step(self) -> list[RowResult]:
        inputs = self._queue.take()
        if not inputs:
            return []
        try:
            with torch.inference_mode():
                outputs = self._outputs([item.tokens for item in inputs])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out_of_memory", inputs=len(inputs))
            outputs = None
        if outputs is None:
            give_back(self._loaded.device)
            return [self._result(row) for row in self._queue.retreat(inputs)]
        for item, logits in zip(inputs, outputs, strict=True):
            item.row.answers[item.place] = self._answer(item, logits)
        return [self._result(row) for row in self._queue.settle(inputs)]

    def _read(self, row: Row) -> ClassificationSpec:
        spec = parse_body_json(row.endpoint, row.body)
        if not isinstance(spec, ClassificationSpec):
            raise InvalidRequest(f"the classifier engine does not serve {row.endpoint}")
        self._head.check(spec)
        return spec

    def _tokenise(self, texts: list[str]) -> tuple[list[list[int]], list[Notes]]:
        """Each text's tokens, cut at the model's length, and what its answer needs."""
        fast = self._loaded.tokenizer.is_fast
        read = self._loaded.tokenizer(
            texts,
            truncation=True,
            max_length=self._max_tokens,
            return_offsets_mapping=fast,
        )
        offsets = read["offset_mapping"] if fast else [[] for _ in texts]
        notes = [
            Notes(text, spans, self._is_longer(text, len(tokens)))
            for text, spans, tokens in zip(texts, offsets, read["input_ids"], strict=True)
        ]
        # A tokenizer without special tokens may make nothing of a control character.
        return [tokens or [self._padding] for tokens in read["input_ids"]], notes

    def _is_longer(self, text: str, token_n: int) -> bool:
        """Whether something of the text was cut off."""
        if token_n < self._max_tokens:
            return False
        return len(self._loaded.tokenizer(text)["input_ids"]) > token_n

    def _outputs(self, rows: list[list[int]]) -> list[NDArray[np.float32]]:
        """Each row's logits: (labels,), or (tokens, labels) without padding."""
        longest, device = max(map(len, rows)), self._loaded.device
        gaps = [longest - len(row) for row in rows]
        ids = [[*row, *[self._padding] * gap] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[1] * len(row) + [0] * gap for row, gap in zip(rows, gaps, strict=True)]
        model: Any = self._loaded.model
        logits = as_numbers(
            model(
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
            ).logits
        )
        if logits.ndim == 2:  # noqa: PLR2004 - one label for a text
            return list(logits)
        return [part[: len(row)] for part, row in zip(logits, rows, strict=True)]

    def _answer(self, item: Input[ClassificationSpec], logits: NDArray[np.float32]) -> Any:
        notes: Notes = item.notes
        return {
            "object": "classification",
            "index": item.place,
            "truncated": notes.truncated,
            **self._head.answer(item.row.spec, notes.text, notes.offsets, logits),
        }

    def _result(self, row: InputRow[ClassificationSpec]) -> RowResult:
        if row.failure is not None:
            return out_of_memory(row.shard, row.epoch, row.index, row.failure)
        usage = {"prompt_tokens": row.token_n, "total_tokens": row.token_n}
        body = {"object": "list", "data": row.answers, "model": self._name, "usage": usage}
        encoded = msgspec.json.encode(body)
        return RowResult(row.shard, row.epoch, row.index, 200, encoded, row.token_n, 0)


def create(load: Load, progress: OnProgress) -> Engine:
    """Loads a classifier. Raises EngineFailed ``model_load_failed`` or ``bad_settings``."""
    settings = read_settings(ClassifierSettings, load.settings)
    loaded = load_model(auto_class, load.source, settings, progress)
    head = head_of(loaded)
    progress(1.0, "ready")
    return ClassifierEngine(load.model, loaded, head, settings)
