"""Forward passes of a decoder-only model: prefill, decode with slots, and the check of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from worker.engines.adapters import Adapters
from worker.engines.slot_cache import SlotCache, decoding_mask


class Forward:
    """Runs a causal language model by rows whose lengths, and adapters, differ."""

    def __init__(self, model: PreTrainedModel, adapters: Adapters | None = None) -> None:
        self._model = model
        self._adapters = adapters
        self.device = model.device
        self.dtype = model.dtype
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise TypeError("the model has no output embeddings")
        self._head = head

    def prefill(
        self,
        prompts: Sequence[Sequence[int]],
        cache: DynamicCache | None = None,
        adapters: Sequence[str] = (),
    ) -> tuple[Tensor, DynamicCache]:
        """Logits after each prompt, (prompts, vocabulary), and a cache of right-padded rows.

        With ``cache`` the prompts continue what it holds, the same number of tokens for each.
        Causal attention keeps what follows a row's end, the padding, from its tokens.
        ``adapters`` has a loaded one, or "", for each prompt; none at all leaves the model as it
        is.
        """
        cache = DynamicCache() if cache is None else cache
        past = cache.get_seq_length()
        longest = max(map(len, prompts))
        padded = [[*tokens, *[0] * (longest - len(tokens))] for tokens in prompts]
        last = torch.tensor([len(tokens) - 1 for tokens in prompts], device=self.device)
        positions = torch.arange(past, past + longest, device=self.device)[None]
        with self._head_at(last), self._serving(adapters):
            output = self._call(padded, positions.expand(len(prompts), -1), None, cache)
        return output[:, -1], cache

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        cache: SlotCache,
        adapters: Sequence[str] = (),
    ) -> Tensor:
        """Logits after one more token per slot, (rows, vocabulary); the cache gains the tokens."""
        places = torch.tensor(positions, device=self.device)
        cache.prepare(places)
        mask = decoding_mask(places, self.dtype)
        with self._serving(adapters):
            return self._call([[t] for t in tokens], places[:, None], mask, cache)[:, -1]

    def _serving(self, adapters: Sequence[str]) -> AbstractContextManager[None]:
        return nullcontext() if self._adapters is None else self._adapters.serving(adapters)

    def plain(self, tokens: Sequence[int]) -> Tensor:
        """Logits at every position of one row without any cache, (tokens, vocabulary)."""
        ids = torch.tensor([list(tokens)], device=self.device)
        logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits[0]

    def _call(
        self,
        rows: Sequence[Sequence[int]],
        positions: Tensor,
        mask: Tensor | None,
        cache: DynamicCache | SlotCache,
    ) -> Tensor:
        model: Any = self._model
        logits: Tensor = model(
            input_ids=torch.tensor(rows, device=self.device),
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits

    @contextmanager
    def _head_at(self, last: Tensor) -> Iterator[None]:
        """The vocabulary projection sees one position per row: the others' logits cost most."""

        def only_last(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden = inputs[0]
            rows = torch.arange(hidden.shape[0], device=hidden.device)
            return (hidden[rows, last][:, None], *inputs[1:])

        hook = self._head.register_forward_pre_hook(only_last)
        try:
            yield
        finally:
            hook.remove()


_CHECKED_STEPS = 3


def slots_agree(forward: Forward, vocabulary_size: int) -> float:
    """How far two rows in slots are from plain forwards of the same rows.

    The mean difference of logits in units of their spread; about 1e-6 in fp32 and 0.01 in bf16
    for a model that can be split by rows, above 0.3 for one that can't. May raise whatever an
    unsuitable model raises.
    """
    size = min(vocabulary_size, 1000)
    rows = [[(7 * i + 3) % size for i in range(9)], [(11 * i + 5) % size for i in range(14)]]
    prompts = [row[: len(row) - _CHECKED_STEPS] for row in rows]
    logits, prefilled = forward.prefill(prompts)
    slots = SlotCache(byte_limit=2**62)
    slots.adopt(prefilled)
    slots.reserve(2, max(map(len, rows)), live=0)
    longest = max(map(len, prompts))
    slots.insert(0, prefilled, torch.tensor([0, 1], device=forward.device), longest)
    seen = [logits]
    for step in range(_CHECKED_STEPS):
        positions = [len(prompt) + step for prompt in prompts]
        tokens = [row[at] for row, at in zip(rows, positions, strict=True)]
        seen.append(forward.decode(tokens, positions, slots))
    in_slots = torch.stack(seen).float()
    plain = torch.stack([forward.plain(row)[-_CHECKED_STEPS - 1 :].float() for row in rows], dim=1)
    spread = plain.std(dim=-1).mean().clamp(min=1e-6)
    return float((in_slots - plain).abs().mean() / spread)
