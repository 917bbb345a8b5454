"""In-flight scheduling over a slot cache: finished choices leave, waiting ones join."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
import torch
from torch import Tensor
from transformers import DynamicCache

from worker.engines.constraints import hold
from worker.engines.forward import Forward
from worker.engines.inflight import Headroom, Limits, departures, joining, prefill_groups
from worker.engines.likelihoods import mark
from worker.engines.memory import give_back, is_out_of_memory
from worker.engines.prefixes import PrefixStore
from worker.engines.sampling import pick
from worker.engines.slot_cache import SlotCache
from worker.engines.text_rows import Choice, Prompt
from worker.engines.vocabulary import Vocabulary

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Prefill:
    """Choices whose prompts are being prefilled together; a long prompt takes several steps."""

    choices: list[Choice]
    shared: int = 0
    """Tokens that the prompts begin with, …"""
    uses: int = 1
    """… and how many prompts do."""
    done: int = 0
    cache: DynamicCache | None = None

    @property
    def prompts(self) -> list[Prompt]:
        """Each prompt once, however many choices continue it."""
        return list({id(choice.prompt): choice.prompt for choice in self.choices}.values())

    @property
    def longest(self) -> int:
        return max(len(prompt.tokens) for prompt in self.prompts)


@dataclass(eq=False, slots=True)
class SlotScheduler:
    """Runs choices of any rows in one microbatch. A step is one forward pass."""

    forward: Forward
    vocabulary: Vocabulary
    limits: Limits
    cache: SlotCache
    share_prefixes: bool = True
    headroom: Headroom = field(init=False)
    prefixes: PrefixStore = field(init=False)
    _waiting: deque[Choice] = field(default_factory=deque)
    _prefills: deque[Prefill] = field(default_factory=deque)
    _active: list[Choice] = field(default_factory=list)
    """Choice i sits in slot i."""

    name = "in_flight"

    def __post_init__(self) -> None:
        self.headroom = Headroom(self.limits)
        self.prefixes = PrefixStore(
            self.forward,
            self.limits.prefill_tokens,
            most_kept_tokens=self.limits.cache_tokens // 8,
            share=self.share_prefixes,
        )

    @property
    def active(self) -> int:
        return len(self._active) + sum(len(prefill.choices) for prefill in self._prefills)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def resident_bytes(self) -> int:
        return self.cache.nbytes

    @property
    def detail(self) -> dict[str, Any]:
        return {"slots": self.limits.slots, "cache_tokens": self.limits.cache_tokens}

    def add(self, choices: Sequence[Choice]) -> None:
        self._waiting.extend(choices)

    def drop(self, gone: Callable[[Choice], bool]) -> None:
        """Forgets choices; their slots are free at once."""
        self._waiting = deque(choice for choice in self._waiting if not gone(choice))
        for prefill in self._prefills:
            prefill.choices = [choice for choice in prefill.choices if not gone(choice)]
        self._prefills = deque(prefill for prefill in self._prefills if prefill.choices)
        self._keep([not gone(choice) for choice in self._active])

    def rest(self) -> None:
        """Gives the cache back while another scheduler has the model."""
        self.cache.clear()
        self.prefixes.clear()
        give_back(self.forward.device)

    def step(self) -> list[Choice]:
        """One forward pass; returns the choices that it finished."""
        try:
            finished = self._step()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        else:
            self.headroom.calm()
            return finished
        # outside the except block: the traceback would keep the step's tensors alive
        return self._retreat(message)

    def _step(self) -> list[Choice]:
        self._refill()
        if self._prefills:
            return self._prefill(self._prefills[0])
        return self._decode() if self._active else []

    def _refill(self) -> None:
        if not self._waiting or self._prefills:
            return
        waiting = [choice.need for choice in self._waiting]
        active = [choice.need for choice in self._active]
        limits = self.headroom.now
        joined = [self._waiting.popleft() for _ in range(joining(waiting, active, limits))]
        by_prompt: dict[int, list[Choice]] = {}
        for choice in joined:
            by_prompt.setdefault(id(choice.prompt), []).append(choice)
        self._plan_prefills(list(by_prompt.values()))

    def _plan_prefills(self, joined: list[list[Choice]]) -> None:
        """``joined`` are choices by prompt. What prompts share is prefilled once, so those that
        begin alike go together."""
        tokens = [choices[0].prompt.tokens for choices in joined]
        for family in self.prefixes.families(tokens):
            rest = [len(tokens[index]) - family.shared for index in family.members]
            most = self.headroom.now.prefill_tokens
            for group in prefill_groups(rest, most, shared=family.shared):
                choices = [choice for one in group for choice in joined[family.members[one]]]
                self._prefills.append(Prefill(choices, family.shared, family.uses))

    def _prefill(self, prefill: Prefill) -> list[Choice]:
        prompts = prefill.prompts
        adapters = [prompt.adapter for prompt in prompts]
        if prefill.cache is None:
            begun = self.prefixes.begin(
                [prompt.tokens for prompt in prompts],
                adapters,
                shared=prefill.shared,
                uses=prefill.uses,
            )
            if begun is None:
                return []
            prefill.done, prefill.cache = begun
        pieces = [prompt.tokens[prefill.done :] for prompt in prompts]
        if len(prompts) == 1:
            pieces = [pieces[0][: self.headroom.now.prefill_tokens]]
        logits, prefill.cache = self.forward.prefill(pieces, prefill.cache, adapters)
        prefill.done += max(map(len, pieces))
        if prefill.done < prefill.longest:
            return []
        place = {id(prompt): row for row, prompt in enumerate(prompts)}
        rows = torch.tensor(
            [place[id(choice.prompt)] for choice in prefill.choices], device=logits.device
        )
        self._seat(prefill, rows)
        self._prefills.popleft()
        return self._accept(logits[rows], len(self._active) - len(prefill.choices))

    def _seat(self, prefill: Prefill, rows: Tensor) -> None:
        live, longest = len(self._active), prefill.longest
        if prefill.cache is None:
            raise RuntimeError("a prefill ended without a cache")
        self.cache.adopt(prefill.cache)
        held = max((choice.position for choice in self._active), default=0)
        self.cache.reserve(live + len(prefill.choices), max(longest, held) + 1, live)
        self.cache.insert(live, prefill.cache, rows, longest)
        self._active.extend(prefill.choices)

    def _decode(self) -> list[Choice]:
        positions = [choice.position for choice in self._active]
        self.cache.reserve(len(positions), max(positions) + 1, len(positions))
        newest = [choice.generated[-1] for choice in self._active]
        adapters = [choice.adapter for choice in self._active]
        return self._accept(self.forward.decode(newest, positions, self.cache, adapters), 0)

    def _accept(self, logits: Tensor, first: int) -> list[Choice]:
        """Gives a token to each active choice from slot ``first`` on; the finished leave."""
        choices = self._active[first:]
        kept = [True] * first
        tokens = pick(hold(logits, choices), choices)
        mark(logits, choices, tokens)
        for choice, token in zip(choices, tokens, strict=True):
            kept.append(not choice.accept(token, self.vocabulary))
        finished = [choice for choice, stays in zip(self._active, kept, strict=True) if not stays]
        self._keep(kept)
        return finished

    def _keep(self, kept: list[bool]) -> None:
        for source, target in departures(kept):
            mover = self._active[source]
            self.cache.move(source, target, mover.position)
            self._active[target] = mover
        del self._active[sum(kept) :]

    def _retreat(self, message: str) -> list[Choice]:
        """Out of memory: everybody starts again in a smaller microbatch.

        A choice that was alone has nobody to make room: it fails.
        """
        affected = [*self._active, *(c for prefill in self._prefills for c in prefill.choices)]
        self._active.clear()
        self._prefills.clear()
        self.cache.clear()
        self.prefixes.clear()
        give_back(self.forward.device)
        log.warning("out_of_memory", rows=len(affected), error=message[:200])
        if len(affected) == 1 and self.headroom.now.slots == 1:
            affected[0].failure = "one row alone does not fit the memory of this machine"
            return affected
        self.headroom.shrink(len(affected))
        for choice in reversed(affected):
            choice.restart()
            self._waiting.appendleft(choice)
        return []
