"""transformers' continuous-batching manager as a scheduler: paged attention for GPUs.

The manager has one random stream and one greedy-or-sampling switch, and drops penalties with a
log line only; so it gets the choices it runs truthfully, ``lane_of`` says which, and the others
take the exact path in turns with it, because a model serves one of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching import ContinuousBatchingManager

from worker.engines.inflight import Limits
from worker.engines.memory import give_back, is_out_of_memory
from worker.engines.text_rows import Choice
from worker.engines.vocabulary import Vocabulary

log = structlog.get_logger()

_WAIT_SECONDS = 0.05
_PAGE_TOKENS = 64
_OTHER_THAN_DEFAULT = 0.5
"""Processors exist only for values that differ from the defaults; each request sets its own."""


def lane_of(choice: Choice) -> str:
    """``greedy`` or ``sampled`` for the manager, ``exact`` for what it does not do truthfully."""
    if choice.sampling.penalised or choice.adapter or choice.constraint or choice.marks:
        return "exact"
    if choice.sampling.greedy:
        return "greedy"
    return "exact" if choice.seeded else "sampled"


class ContinuousScheduler:
    """Feeds a manager, which runs in a thread of its own, and collects what it says."""

    name = "continuous"

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        limits: Limits,
        *,
        token_bytes: int,
        sampled: bool,
    ) -> None:
        """``token_bytes`` is what one token holds in the cache, over all layers."""
        self._model = model
        self._vocabulary = vocabulary
        self._limits = limits
        self._token_bytes = token_bytes
        self._sampled = sampled
        self._pages = max(2, limits.cache_tokens // _PAGE_TOKENS)
        self._manager: ContinuousBatchingManager | None = None
        self._open: dict[str, Choice] = {}
        self._number = 0

    @property
    def active(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> int:
        return 0

    @property
    def resident_bytes(self) -> int:
        return self._pages * _PAGE_TOKENS * self._token_bytes if self._manager else 0

    @property
    def detail(self) -> dict[str, Any]:
        return {"pages": self._pages, "page_tokens": _PAGE_TOKENS}

    def add(self, choices: Sequence[Choice]) -> None:
        manager = self._started()
        for choice in choices:
            self._number += 1
            name = str(self._number)
            self._open[name] = choice
            sampling = choice.sampling
            own: dict[str, Any] = {}
            if self._sampled:
                own = {"temperature": float(sampling.temperature), "top_p": float(sampling.top_p)}
            accepted = manager.add_request(
                choice.prompt.tokens,
                request_id=name,
                max_new_tokens=choice.max_new_tokens,
                streaming=bool(choice.row.stops) or choice.row.streamed,
                **own,
            )
            if accepted is None:
                raise RuntimeError("the continuous-batching manager refused a request")

    def drop(self, gone: Callable[[Choice], bool]) -> None:
        for name in [name for name, choice in self._open.items() if gone(choice)]:
            self._cancel(name)

    def step(self) -> list[Choice]:
        """Waits a moment for a result, then takes all that are there."""
        if self._manager is None:
            return []
        finished: list[Choice] = []
        output = self._manager.get_result(timeout=_WAIT_SECONDS)
        while output is not None:
            finished += self._heed(output)
            output = None
            if not self._manager.output_router.output_queue.empty():
                output = self._manager.get_result(timeout=0)
        fatal = self._manager.background_thread_status.fatal_error
        if fatal is not None:
            self._retreat(fatal)
        return finished

    def rest(self) -> None:
        """Stops the manager: the model is free for ordinary forward passes again."""
        if self._manager is not None:
            self._manager.stop(block=True, hard_stop=True)
            self._manager = None

    def _started(self) -> ContinuousBatchingManager:
        if self._manager is None:
            model: Any = self._model
            self._manager = model.init_continuous_batching(
                generation_config=self._generation_config(),
                continuous_batching_config=ContinuousBatchingConfig(
                    page_size=_PAGE_TOKENS,
                    num_blocks=self._pages,
                    max_batch_tokens=max(self._limits.prefill_tokens, self._limits.slots),
                    max_requests_per_batch=self._limits.slots,
                    per_request_processors=True,
                ),
            )
            self._manager.start()
        return self._manager

    def _generation_config(self) -> GenerationConfig:
        ends = sorted(self._vocabulary.end_ids) or [-1]
        if not self._sampled:
            return GenerationConfig(do_sample=False, eos_token_id=ends)
        return GenerationConfig(
            do_sample=True,
            temperature=_OTHER_THAN_DEFAULT,
            top_p=_OTHER_THAN_DEFAULT,
            top_k=0,
            eos_token_id=ends,
        )

    def _heed(self, output: Any) -> list[Choice]:
        choice = self._open.get(output.request_id)
        if choice is None or output.error is not None:
            return []  # cancelled before, or failed with the whole manager: see _retreat
        for token in output.generated_tokens[len(choice.generated) :]:
            if choice.accept(token, self._vocabulary):
                if output.is_finished():
                    del self._open[output.request_id]
                else:
                    self._cancel(output.request_id)
                return [choice]
        if output.is_finished():
            raise RuntimeError("the continuous-batching manager ended a row before its end")
        return []

    def _cancel(self, name: str) -> None:
        del self._open[name]
        self._started().cancel_request(name)

    def _retreat(self, error: Exception) -> None:
        """Out of memory: the open choices start again with half the pages."""
        self.rest()
        least = max(choice.need for choice in self._open.values()) if self._open else 0
        if not is_out_of_memory(error) or self._pages // 2 * _PAGE_TOKENS < least:
            raise error
        self._pages //= 2
        give_back(self._model.device)
        log.warning("out_of_memory", rows=len(self._open), pages=self._pages)
        affected = list(self._open.values())
        self._open.clear()
        for choice in affected:
            choice.restart()
        self.add(affected)
