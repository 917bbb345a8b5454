"""Direct preference optimization: of two answers to a prompt, the preferred one becomes likelier.

The reference is the model as it was before the first step, whether that is a base model or one with
an adapter to go on with. Its log-probabilities never change, so they are computed once, before
anything is trained, and no second copy of the model is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from worker.recipes import auto
from worker.recipes.answers import Answers
from worker.recipes.attention import computing
from worker.recipes.context import Context
from worker.recipes.loop import Loop
from worker.recipes.lora import add_lora, save_adapter
from worker.recipes.preferences import Pair, Preferences, a_token, answered, more, read_pairs
from worker.recipes.shape import RecipeError, Trained
from worker.recipes.text_models import count_parameters, load_model, load_tokenizer, save_model
from worker.recipes.texts import Encoder, cut
from worker.recipes.token_batches import padded, parts_by_size

TOKENS_AT_ONCE = 4096
"""Positions of one forward pass, both answers together."""
DEFAULT_BETA = 0.1


class DirectPreferenceOptimization:
    """Rows are ``{"prompt", "chosen", "rejected"}``, each a list of messages."""

    engine = "text"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}
        self.adapter = auto.takes_adapter("dpo", context.plan.adapter, None)

    def setup(self) -> None:
        context = self.context
        self._beta = float(context.hyperparameters.beta or DEFAULT_BETA)
        self._tokenizer = load_tokenizer(context.plan.base)
        self._model = self._load()
        encoder = Encoder(self._tokenizer)
        train, validation = context.train_rows(), context.validation_rows()
        self._train = self._cut(read_pairs(encoder, train))
        self._valid = self._cut(read_pairs(encoder, validation))
        self._model.eval()
        self._train_reference = self._reference(self._train)
        self._valid_reference = self._reference(self._valid)
        asked = [{"messages": [*row["prompt"], *row["chosen"]]} for row in validation]
        self._answers = Answers(context, self._model, encoder, asked)
        self.detail = {
            **count_parameters(self._model),
            "adapter": "lora" if self.adapter else "none",
        }

    def trained(self) -> Trained:
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        return Trained(
            {"model": self._model},
            {"model": parameters},
            len(self._train),
            lengths=[pair.longer for pair in self._train],
        )

    def train(self, loop: Loop) -> None:
        for batch in loop.batches():
            for microbatch in batch.microbatches:
                for rows in self._parts(self._train, microbatch):
                    said = self._preferences([self._train[row] for row in rows])
                    margin = said.margin(self._train_reference.rows(rows))
                    loss = -functional.logsigmoid(self._beta * margin).mean()
                    loop.backward(loss, share=len(rows) / len(batch.rows))
                    self._tell(loop, said, margin, rows)
            loop.update()

    def evaluate(self) -> dict[str, float]:
        """``valid_loss``; how often the model itself finds the preferred answer likelier, token by
        token (``valid_preference_accuracy``); and by how much its preference has grown since the
        beginning (``valid_rewards_…``, of which equal ones count half)."""
        sums = dict.fromkeys(("loss", "preferred", "grown", "margin", "pairs"), 0.0)
        mine = range(self.context.rank, len(self._valid), self.context.processes)
        for rows in self._parts(self._valid, mine):
            pairs = [self._valid[row] for row in rows]
            said = self._preferences(pairs)
            margin = said.margin(self._valid_reference.rows(rows))
            sums["loss"] -= float(functional.logsigmoid(self._beta * margin).sum())
            sums["margin"] += float(self._beta * margin.sum())
            sums["grown"] += float(more(margin).sum())
            sums["preferred"] += float(more(a_token(said, pairs)).sum())
            sums["pairs"] += len(rows)
        total = self.context.total(sums)
        return {
            "valid_loss": total["loss"] / total["pairs"],
            "valid_preference_accuracy": total["preferred"] / total["pairs"],
            "valid_rewards_accuracy": total["grown"] / total["pairs"],
            "valid_rewards_margin": total["margin"] / total["pairs"],
        }

    def save_checkpoint(self, folder: Path) -> None:
        if self.adapter:
            save_adapter(self._model, folder, base_model=self.context.plan.base_model)
        else:
            save_model(self._model, self._tokenizer, self.context.plan.base, folder)

    export = save_checkpoint

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """Answers to ``plan.generate`` validation prompts, and how near the preferred ones they
        come."""
        self._model.eval()
        return self._answers.report(which)

    # --- steps --------------------------------------------------------------------------------

    def _parts(self, pairs: Sequence[Pair], rows: Sequence[int]) -> list[list[int]]:
        lengths = {row: pairs[row].longer for row in rows}
        order = list(rows)
        parts = parts_by_size(
            range(len(order)), [lengths[row] for row in order], TOKENS_AT_ONCE // 2
        )
        return [[order[place] for place in part] for part in parts]

    def _preferences(self, pairs: Sequence[Pair]) -> Preferences:
        """One forward pass of both answers to every prompt."""
        examples = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        batch = padded(examples, int(self._tokenizer.pad_token_id), self.context.device)
        with computing(self.context, batch.inputs["input_ids"].shape[1]):
            told = answered(self._model, batch)
        return Preferences(*told.split(len(pairs)))

    def _tell(self, loop: Loop, said: Preferences, margin: Tensor, rows: Sequence[int]) -> None:
        margin = margin.detach()
        loop.report(
            rewards_accuracy=more(margin).mean(),
            rewards_margin=self._beta * margin.mean(),
            chosen_log_probability=said.chosen.mean(),
            rejected_log_probability=said.rejected.mean(),
            tokens=sum(self._train[row].tokens for row in rows),
        )

    @torch.no_grad()
    def _reference(self, pairs: Sequence[Pair]) -> Preferences:
        """Of all pairs, on every process; each computes its share."""
        mine = range(self.context.rank, len(pairs), self.context.processes)
        found = torch.zeros(2, len(pairs))
        for rows in self._parts(pairs, mine):
            said = self._preferences([pairs[row] for row in rows])
            found[0, rows], found[1, rows] = said.chosen.cpu(), said.rejected.cpu()
        flat = {str(place): value for place, value in enumerate(found.flatten().tolist())}
        summed = self.context.total(flat)
        told = torch.tensor([summed[str(place)] for place in range(len(flat))])
        chosen, rejected = told.reshape(2, len(pairs)).to(self.context.device)
        return Preferences(chosen, rejected)

    # --- setting up ---------------------------------------------------------------------------

    def _load(self) -> Any:
        plan = self.context.plan
        model = load_model(self.context, AutoModelForCausalLM, frozen=self.adapter)
        if self.adapter:
            return add_lora(model, plan.lora, continued=plan.base_adapter)
        if plan.base_adapter:
            message = "the model is an adapter, which is tuned as one: leave adapter at auto"
            raise RecipeError("bad_base_adapter", message, "request", "method")
        return model

    def _cut(self, pairs: list[Pair]) -> list[Pair]:
        """To ``max_length``, which the first call (of the training pairs) decides unless it was
        given."""
        context = self.context
        most = getattr(self._model.config, "max_position_embeddings", None) or 2**20
        lengths = [pair.longer for pair in pairs]
        numbers = context.hyperparameters.deciding(max_length=auto.max_length(lengths, most))
        context.hyperparameters = numbers
        limit = min(int(numbers.max_length or most), most)
        longer = sum(length > limit for length in lengths)
        if longer:
            context.note(f"{longer} of {len(pairs)} pairs are cut to {limit} tokens", "warn")
        return [Pair(cut(pair.chosen, limit), cut(pair.rejected, limit)) for pair in pairs]
