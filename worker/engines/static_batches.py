"""Static microbatches through ``generate``, for models whose cache cannot be split by rows.

Recurrent states, sliding windows, encoder-decoders: ``generate`` knows them all. It runs in a
thread of its own that is let go for one token at a time, so a step stays bounded and a cancel
takes effect within it; the two threads never run at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from worker.engines.adapters import Adapters
from worker.engines.constraints import hold
from worker.engines.inflight import Headroom, Limits
from worker.engines.likelihoods import mark
from worker.engines.memory import give_back, is_out_of_memory
from worker.engines.sampling import pick
from worker.engines.text_rows import Choice
from worker.engines.vocabulary import Vocabulary

log = structlog.get_logger()


class _AbandonedError(Exception):
    """Nobody waits for this microbatch any more."""


class Microbatch:
    """One ``generate`` call, advanced token by token."""

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        choices: list[Choice],
        adapters: Adapters,
    ) -> None:
        self.choices = choices
        self._adapters = adapters
        self.error: Exception | None = None
        self._gone: set[Choice] = set()
        self._finished: list[Choice] = []
        self._vocabulary = vocabulary
        self._model = model
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._generate, name="generate", daemon=True)
        self._thread.start()

    @property
    def open(self) -> list[Choice]:
        return [c for c in self.choices if c not in self._gone]

    @property
    def _folders(self) -> list[str]:
        return [choice.adapter for choice in self.choices]

    def drop(self, gone: Callable[[Choice], bool]) -> None:
        self._gone.update(choice for choice in self.choices if gone(choice))

    def advance(self) -> list[Choice]:
        """Lets every open choice have one more token; returns those that it finished.

        Sets ``error`` when generating failed; the microbatch is over then.
        """
        self._go.release()
        self._paused.acquire()
        finished, self._finished = self._finished, []
        self._gone.update(finished)
        return finished

    def close(self) -> None:
        """Ends the thread, finished or not."""
        self._gone.update(self.choices)
        self._go.release()
        self._thread.join()

    def pick_tokens(self, scores: Tensor) -> Tensor:
        """Scores whose only candidate is the token that each choice's own sampling picks."""
        choices = [c for c in self.choices if c not in self._gone]
        rows = [row for row, c in enumerate(self.choices) if c not in self._gone]
        tokens = torch.zeros(len(self.choices), dtype=torch.int64, device=scores.device)
        own = scores[rows]
        picked = pick(hold(own, choices), choices)
        mark(own, choices, picked)
        tokens[rows] = torch.tensor(picked, device=scores.device)
        for choice, token in zip(choices, picked, strict=True):
            if choice.accept(token, self._vocabulary):
                self._finished.append(choice)
        only = torch.full_like(scores, -torch.inf)
        return only.scatter_(1, tokens[:, None], 0.0)

    def ended_rows(self, device: torch.device) -> Tensor:
        """Which rows are done, (rows,) bool; waits here until the next token is wanted."""
        self._pause()
        ended = [c in self._gone or c.finish_reason is not None for c in self.choices]
        return torch.tensor(ended, device=device)

    def _pause(self) -> None:
        self._paused.release()
        self._go.acquire()
        if not self.open:
            raise _AbandonedError

    def _generate(self) -> None:
        self._go.acquire()
        try:
            if self.open:
                with torch.inference_mode(), self._adapters.serving(self._folders):
                    self._call_generate()
        except _AbandonedError:
            pass
        except Exception as error:
            self.error = error
        self._paused.release()

    def _call_generate(self) -> None:
        longest = max(len(choice.prompt.tokens) for choice in self.choices)
        pads = [longest - len(choice.prompt.tokens) for choice in self.choices]
        rows = [[0] * p + c.prompt.tokens for p, c in zip(pads, self.choices, strict=True)]
        ids = torch.tensor(rows, device=self._model.device)
        mask = torch.tensor([[0] * p + [1] * (longest - p) for p in pads], device=ids.device)
        model: Any = self._model
        model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max(choice.max_new_tokens for choice in self.choices),
            pad_token_id=0,
            eos_token_id=None,
            logits_processor=LogitsProcessorList([_OwnSampling(self)]),
            stopping_criteria=StoppingCriteriaList([_OwnEnds(self)]),
        )


class _OwnSampling(LogitsProcessor):
    def __init__(self, microbatch: Microbatch) -> None:
        self._microbatch = microbatch

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        return self._microbatch.pick_tokens(scores)


class _OwnEnds(StoppingCriteria):
    def __init__(self, microbatch: Microbatch) -> None:
        self._microbatch = microbatch

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return self._microbatch.ended_rows(input_ids.device)


class StaticScheduler:
    """Runs waiting choices in microbatches of like length, one after the other."""

    name = "static"

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        adapters: Adapters,
        *,
        rows: int,
        padding: bool,
    ) -> None:
        """``padding`` says whether prompts of different lengths may share a microbatch."""
        self._model = model
        self._adapters = adapters
        self._vocabulary = vocabulary
        self._padding = padding
        self._headroom = Headroom(Limits(rows, 2**62, 2**31, 1))
        self._waiting: list[Choice] = []
        self._running: Microbatch | None = None

    @property
    def active(self) -> int:
        return len(self._running.open) if self._running else 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def resident_bytes(self) -> int:
        return 0

    @property
    def detail(self) -> dict[str, Any]:
        return {"rows": self._headroom.now.slots, "padding": self._padding}

    def add(self, choices: Sequence[Choice]) -> None:
        self._waiting.extend(choices)

    def drop(self, gone: Callable[[Choice], bool]) -> None:
        self._waiting = [choice for choice in self._waiting if not gone(choice)]
        if self._running:
            self._running.drop(gone)
            self._close_if_over()

    def rest(self) -> None:
        """Nothing is held between microbatches."""

    def step(self) -> list[Choice]:
        if self._running is None:
            if not self._waiting:
                return []
            self._running = Microbatch(self._model, self._vocabulary, self._next(), self._adapters)
        running = self._running
        finished = running.advance()
        if running.error is not None:
            return finished + self._after(running, running.error)
        self._headroom.calm()
        self._close_if_over()
        return finished

    def _close_if_over(self) -> None:
        if self._running and not self._running.open:
            self._running.close()
            self._running = None

    def _next(self) -> list[Choice]:
        """The longest waiting one and those of like size; without padding, of equal length."""
        head = self._waiting[0]

        def distance(choice: Choice) -> tuple[int, int]:
            prompt = abs(len(choice.prompt.tokens) - len(head.prompt.tokens))
            return prompt, abs(choice.max_new_tokens - head.max_new_tokens)

        like = sorted(self._waiting, key=distance)
        if not self._padding:
            like = [choice for choice in like if distance(choice)[0] == 0]
        taken = like[: self._headroom.now.slots]
        members = set(taken)
        self._waiting = [choice for choice in self._waiting if choice not in members]
        return taken

    def _after(self, running: Microbatch, error: Exception) -> list[Choice]:
        """Out of memory: the open choices start again in smaller microbatches."""
        affected = running.open
        self._running = None
        if not is_out_of_memory(error):
            raise error
        log.warning("out_of_memory", rows=len(affected), error=str(error)[:200])
        give_back(self._model.device)
        if len(running.choices) == 1:
            affected[0].failure = "one row alone does not fit the memory of this machine"
            return affected
        self._headroom.shrink(len(running.choices))
        for choice in affected:
            choice.restart()
        self._waiting[:0] = affected
        return []


def padding_is_harmless(model: PreTrainedModel, tolerance: float) -> bool:
    """Whether left padding under an attention mask leaves a row's logits as they are.

    ``tolerance`` is the mean difference in units of the logits' spread. Any error means no.
    """
    ids = torch.tensor([[5, 3, 7, 2]], device=model.device)
    padded = torch.tensor([[0, 0, 0, 5, 3, 7, 2]], device=model.device)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]], device=model.device)
    options: dict[str, Any] = {
        "max_new_tokens": 2,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    generate: Any = model.generate
    try:
        alone = generate(ids, attention_mask=torch.ones_like(ids), **options)
        beside = generate(padded, attention_mask=mask, **options)
    except Exception:
        log.info("padding_check_failed", exc_info=True)
        return False
    one, other = (torch.stack(out.logits).float() for out in (alone, beside))
    same_tokens = torch.equal(alone.sequences[0, -2:], beside.sequences[0, -2:])
    if not same_tokens:
        one, other = one[:1], other[:1]
    difference = (one - other).abs().mean() / one.std().clamp(min=1e-6)
    return bool(difference <= tolerance)
