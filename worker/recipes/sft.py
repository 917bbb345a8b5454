"""Supervised fine-tuning of language models: conversations, prompts with completions, texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM

from worker.recipes import auto
from worker.recipes.answers import Answers
from worker.recipes.attention import computing
from worker.recipes.context import Context
from worker.recipes.loop import Loop
from worker.recipes.lora import add_lora, save_adapter
from worker.recipes.shape import Batch, RecipeError, Trained
from worker.recipes.text_models import count_parameters, load_model, load_tokenizer, save_model
from worker.recipes.texts import Encoded, Encoder, cut
from worker.recipes.token_batches import (
    Loss,
    TokenBatch,
    packed,
    packing_is_exact,
    padded,
    parts_by_size,
    token_loss,
)

TOKENS_AT_ONCE = 8192
"""Positions of one forward pass; a larger microbatch takes several."""
EVALUATED = 512
"""Validation examples that are looked at during the training; all of them before and after."""
_MOST_NATS = 100.0
_SHORT_OF_MEMORY = 0.5
_BYTES_A_TOKEN_AND_UNIT = 36


class SupervisedFineTuning:
    """Loss on what is to be said, as a LoRA adapter or on all weights."""

    engine = "text"

    def __init__(self, context: Context) -> None:
        self.context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}
        self.adapter = auto.takes_adapter("supervised", context.plan.adapter, None)

    def setup(self) -> None:
        context = self.context
        self._tokenizer = load_tokenizer(context.plan.base)
        self._model = self._load()
        encoder = Encoder(self._tokenizer)
        train_rows, self._validation_rows = context.train_rows(), context.validation_rows()
        self._train = self._encode(encoder, train_rows)
        limit = min(int(context.hyperparameters.max_length or 0), self._most_tokens())
        self._validation = [cut(encoder.encode(row), limit) for row in self._validation_rows]
        self._lengths = [len(example) for example in self._train]
        self._answers = Answers(context, self._model, encoder, self._validation_rows)
        self._choose_layout()
        self._save_memory()
        self.detail = {
            **count_parameters(self._model),
            "adapter": "lora" if self.adapter else "none",
            "tokens_an_epoch": sum(self._lengths),
        }

    def trained(self) -> Trained:
        parameters = [p for p in self._model.parameters() if p.requires_grad]
        return Trained(
            {"model": self._model},
            {"model": parameters},
            len(self._train),
            lengths=self._lengths,
        )

    def train(self, loop: Loop) -> None:
        for batch in loop.batches():
            self._step(loop, batch)
            loop.update()

    def evaluate(self) -> dict[str, float]:
        """``valid_loss`` per token of the answers in nats, over at most ``EVALUATED`` examples;
        the ``full_`` names only when that is all of them."""
        mine = self._validation[:EVALUATED][self.context.rank :: self.context.processes]
        measured = _means(self.context.total(self._sums(mine)))
        return measured if len(self._validation) > EVALUATED else measured | _full(measured)

    def save_checkpoint(self, folder: Path) -> None:
        if self.adapter:
            save_adapter(self._model, folder, base_model=self.context.plan.base_model)
        else:
            save_model(self._model, self._tokenizer, self.context.plan.base, folder)

    export = save_checkpoint

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """Answers to ``plan.generate`` validation prompts, and how near they come; the losses of
        the whole split, where ``evaluate`` looks at a part."""
        whole: dict[str, float] = {}
        if len(self._validation) > EVALUATED:
            whole = _full(_means(self._sums(self._validation)))
        return whole | self._answers.report(which)

    # --- steps --------------------------------------------------------------------------------

    def _step(self, loop: Loop, batch: Batch) -> None:
        """The step's loss is the mean over all its answers' tokens, on whichever process."""
        whole = max(1, sum(self._train[row].trained_count for row in batch.rows))
        right, trained = torch.zeros((), device=self.context.device), 0
        for microbatch in batch.microbatches:
            for rows in parts_by_size(microbatch, self._lengths, TOKENS_AT_ONCE):
                tokens = self._lay_out([self._train[row] for row in rows])
                loss = self._loss(tokens)
                loop.backward(loss.total / max(1, loss.trained), share=loss.trained / whole)
                loop.report(tokens=tokens.tokens)
                right, trained = right + loss.right, trained + loss.trained
        loop.report(train_mean_token_accuracy=right / max(1, trained))

    def _sums(self, mine: Sequence[Encoded]) -> dict[str, float]:
        lengths = [len(example) for example in mine]
        sums = {"loss": 0.0, "right": 0.0, "trained": 0.0}
        for part in parts_by_size(range(len(mine)), lengths, TOKENS_AT_ONCE):
            loss = self._loss(self._lay_out([mine[row] for row in part]))
            sums["loss"] += float(loss.total)
            sums["right"] += float(loss.right)
            sums["trained"] += loss.trained
        return sums

    def _loss(self, batch: TokenBatch) -> Loss:
        with computing(self.context, batch.inputs["input_ids"].shape[1]):
            return token_loss(self._model, batch)

    def _lay_out(self, examples: Sequence[Encoded]) -> TokenBatch:
        if self._packs:
            return packed(examples, self.context.device)
        return padded(examples, int(self._tokenizer.pad_token_id), self.context.device)

    # --- setting up ---------------------------------------------------------------------------

    def _load(self) -> Any:
        plan = self.context.plan
        model = load_model(self.context, AutoModelForCausalLM, frozen=self.adapter)
        if self.adapter:
            return add_lora(model, plan.lora, continued=plan.base_adapter)
        if plan.base_adapter:
            raise RecipeError(
                "bad_base_adapter",
                "the model is an adapter, which is tuned as one: leave adapter at auto",
                "request",
                "method",
            )
        return model

    def _most_tokens(self) -> int:
        return getattr(self._model.config, "max_position_embeddings", None) or 2**20

    def _encode(self, encoder: Encoder, rows: Sequence[dict[str, Any]]) -> list[Encoded]:
        """Cut to ``max_length``, which is decided here unless it was given."""
        examples = [encoder.encode(row) for row in rows]
        context = self.context
        most = self._most_tokens()
        lengths = [len(example) for example in examples]
        numbers = context.hyperparameters.deciding(max_length=auto.max_length(lengths, most))
        limit = min(int(numbers.max_length or most), most)
        context.hyperparameters = numbers
        longer = sum(length > limit for length in lengths)
        if longer:
            context.note(f"{longer} of {len(examples)} examples are cut to {limit} tokens", "warn")
        examples = [cut(example, limit) for example in examples]
        if not any(example.trained_count for example in examples):
            raise RecipeError(
                "nothing_to_learn", "no example has an answer to learn", "data", "training_file"
            )
        return examples

    def _choose_layout(self) -> None:
        """Packing only where it changes nothing."""
        self._packs = self.context.hyperparameters.packing
        if not self._packs or len(self._train) < 2:  # noqa: PLR2004 - a pair is tried
            return
        self._model.eval()
        with self.context.autocast():
            exact = packing_is_exact(self._model, self._train[:2], self.context.device)
        if not exact:
            self._packs = False
            self.context.note("packing is off: this model would mix examples in one line", "warn")

    def _save_memory(self) -> None:
        """On a GPU that could not hold the activations, they are computed a second time."""
        if self.context.device.type != "cuda":
            return
        config = self._model.config
        layers = getattr(config, "num_hidden_layers", 12)
        width = getattr(config, "hidden_size", 768)
        tokens = min(TOKENS_AT_ONCE, max(self._lengths) * self._rows_at_once())
        needed = tokens * layers * width * _BYTES_A_TOKEN_AND_UNIT
        free, _ = torch.cuda.mem_get_info(self.context.device)
        if needed > _SHORT_OF_MEMORY * free:
            self._model.gradient_checkpointing_enable({"use_reentrant": False})
            self._model.enable_input_require_grads()

    def _rows_at_once(self) -> int:
        numbers = self.context.hyperparameters
        parts = self.context.processes * numbers.gradient_accumulation
        return max(1, numbers.batch_size // parts)


def _means(sums: dict[str, float]) -> dict[str, float]:
    trained = max(1.0, sums["trained"])
    loss = sums["loss"] / trained
    return {
        "valid_loss": loss,
        "valid_mean_token_accuracy": sums["right"] / trained,
        "valid_perplexity": math.exp(min(loss, _MOST_NATS)),
    }


def _full(measured: dict[str, float]) -> dict[str, float]:
    """OpenAI's names for what was measured on the whole split."""
    return {f"full_{name}": value for name, value in measured.items() if "perplexity" not in name}
