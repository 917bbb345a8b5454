"""The text engine: chat completions and completions on a causal language model."""

from __future__ import annotations

from typing import Any

import torch

from shared.errors import PressrunError
from worker.engines.adapter_files import BadAdapter
from worker.engines.adapter_line import AdapterLine
from worker.engines.adapters import Adapters
from worker.engines.base import OnProgress
from worker.engines.grammars import Grammars, SchemaLine
from worker.engines.loading import (
    LoadedModel,
    dtype_name,
    load_model,
    read_settings,
)
from worker.engines.protocol import Load, Row, RowDelta, RowResult
from worker.engines.responses import refusal, unusable_adapter, unusable_schema
from worker.engines.scheduling import choose_scheduler, model_class
from worker.engines.spelling import Spellings
from worker.engines.text_deltas import Deltas
from worker.engines.text_rows import Room, TextRow, read_row
from worker.engines.text_settings import TextSettings
from worker.engines.turns import Lane
from worker.engines.vocabulary import Vocabulary

NAP_SECONDS = 0.02


class TextEngine:
    """An ``Engine`` over any scheduler."""

    def __init__(
        self,
        *,
        name: str,
        loaded: LoadedModel,
        vocabulary: Vocabulary,
        scheduler: Lane,
        adapters: Adapters,
        max_context: int,
        settings: TextSettings,
        why: str,
    ) -> None:
        self._name = name
        self._loaded = loaded
        self._vocabulary = vocabulary
        self._scheduler = scheduler
        self._room = Room(max_context, settings.default_max_tokens)
        self._settings = settings
        self._why = why
        self._rows: set[TextRow] = set()
        self._spellings = Spellings(vocabulary)
        self._deltas = Deltas(vocabulary, self._spellings)
        self._adapters = adapters
        self._line: AdapterLine[TextRow] = AdapterLine(
            adapters.load,
            adapters.unload,
            most=settings.max_adapters,
            quota=4 * settings.slots,
        )
        self._grammars = Grammars(vocabulary)
        self._schemas: SchemaLine[TextRow] = SchemaLine(self._grammars.get)

    @property
    def capacity(self) -> int:
        """Twice the slots: while one microbatch runs, the next rows are at hand."""
        return 2 * self._settings.slots

    @property
    def resident_bytes(self) -> int:
        return self._loaded.weight_bytes + self._scheduler.resident_bytes

    @property
    def detail(self) -> dict[str, Any]:
        return {
            "device": str(self._loaded.device),
            "dtype": dtype_name(self._loaded.dtype),
            "scheduler": self._scheduler.name,
            "why": self._why,
            "max_context": self._room.context,
            "default_max_tokens": self._room.default_output,
            "max_adapters": self._settings.max_adapters,
            "system_fingerprint": self._loaded.fingerprint,
            **self._scheduler.detail,
        }

    @property
    def busy(self) -> bool:
        return bool(self._rows)

    @property
    def active_rows(self) -> int:
        return self._scheduler.active

    @property
    def waiting_rows(self) -> int:
        return self._scheduler.waiting + self._line.waiting + self._schemas.waiting

    def submit(self, shard: int, epoch: int, row: Row) -> RowResult | None:
        """Queues a row, or answers at once with status 400 when it cannot be run."""
        try:
            text_row = read_row(shard, epoch, row, self._vocabulary, self._room)
            texts = (prompt.tokens for prompt in text_row.prompts)
            self._loaded.check_tokens(texts, "messages" if text_row.chat else "prompt")
        except PressrunError as error:
            return refusal(
                shard,
                epoch,
                row.index,
                code=error.code,
                message=error.message,
                param=error.param,
            )
        self._rows.add(text_row)
        if text_row.streamed:
            self._deltas.add(text_row)
        if text_row.schema is not None:
            self._schemas.add(text_row)
        else:
            self._let_in(text_row)
        return None

    def _let_in(self, row: TextRow) -> None:
        if row.adapter:
            self._line.add(row)
        else:
            self._scheduler.add(row.choices)

    def cancel(self, shard: int, epoch: int) -> None:
        def gone(row: TextRow) -> bool:
            return (row.shard, row.epoch) == (shard, epoch)

        self._scheduler.drop(lambda choice: gone(choice.row))
        for row in [row for row in self._rows if gone(row)]:
            self._forget(row)

    def deltas(self) -> list[RowDelta]:
        return self._deltas.take()

    def step(self) -> list[RowResult]:
        results = self._board()
        with torch.inference_mode():
            finished = self._scheduler.step()
        for choice in finished:
            row = choice.row
            row.finished_n += 1
            if row.finished_n == len(row.choices):
                results.append(row.result(self._name, self._fingerprint(row), self._spellings))
                self._forget(row)
        return results

    def _board(self) -> list[RowResult]:
        """Lets rows in whose schemas and adapters are ready by now; answers those whose can't
        be."""
        results = self._board_schemas()
        boarded, failed = self._line.board()
        for row in boarded:
            self._scheduler.add(row.choices)
        for row, _ in failed:
            self._rows.remove(row)
            self._deltas.forget(row)
        return results + [_without_adapter(row, why) for row, why in failed]

    def _board_schemas(self) -> list[RowResult]:
        if not self._schemas.waiting:
            return []
        ready, useless = self._schemas.board()
        for row in ready:
            self._let_in(row)
        for row, _ in useless:
            self._rows.remove(row)
            self._deltas.forget(row)
        if self._schemas.waiting == len(self._rows):  # nothing else to do
            self._grammars.wait(NAP_SECONDS)
        return [unusable_schema(row.shard, row.epoch, row.index, why) for row, why in useless]

    def _forget(self, row: TextRow) -> None:
        self._rows.remove(row)
        self._deltas.forget(row)
        if row.schema is not None and row.grammar is None:
            self._schemas.leave(row)
        elif row.adapter:
            self._line.leave(row)

    def _fingerprint(self, row: TextRow) -> str:
        own = self._loaded.fingerprint
        return self._adapters.fingerprint(row.adapter, own) if row.adapter else own

    def close(self) -> None:
        """Ends the threads of its scheduler; a process that ends at once need not call it."""
        self._scheduler.rest()


def create(load: Load, progress: OnProgress) -> TextEngine:
    """Loads a model for text. Raises EngineFailed ``model_load_failed`` or ``bad_settings``."""
    settings = read_settings(TextSettings, load.settings)
    loaded = load_model(model_class, load.source, settings, progress)
    vocabulary = Vocabulary(loaded.tokenizer, end_ids(loaded))
    adapters = Adapters(loaded.model, loaded.device, loaded.dtype)
    progress(0.75, "checking which scheduler the model allows")
    with torch.inference_mode():
        chosen = choose_scheduler(loaded, vocabulary, settings, adapters)
    progress(1.0, chosen.scheduler.name)
    return TextEngine(
        name=load.model,
        loaded=loaded,
        vocabulary=vocabulary,
        scheduler=chosen.scheduler,
        adapters=adapters,
        max_context=chosen.max_context,
        settings=settings,
        why=chosen.why,
    )


def _without_adapter(row: TextRow, why: BadAdapter) -> RowResult:
    return unusable_adapter(row.shard, row.epoch, row.index, row.adapter_name, str(why))


def end_ids(loaded: LoadedModel) -> set[int]:
    """The tokens that end a generation, by generation config, config and tokenizer."""
    found: set[int] = set()
    generation = getattr(loaded.model, "generation_config", None)
    for value in (
        getattr(generation, "eos_token_id", None),
        getattr(loaded.config, "eos_token_id", None),
        loaded.tokenizer.eos_token_id,
    ):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return found
