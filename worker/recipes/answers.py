"""What a language model answers to held-out prompts, before and after: scores, and samples to
read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from worker.recipes.context import Context
from worker.recipes.text_scores import scores
from worker.recipes.texts import Encoder, Question

SHOWN = 8
"""Samples in report.md; all are in samples.jsonl."""
SHOWN_CHARACTERS = 400
MOST_NEW_TOKENS = 256
POSITIONS_AT_ONCE = 16_384
"""Of all rows of one call of ``generate``: a step costs little more for many rows than for one, but
what is remembered of all positions has to fit into memory."""
_FILE = "answers-{}.json"
SAMPLES = "samples.jsonl"


class Answers:
    """Of ``plan.generate`` validation rows; none when they are plain texts."""

    def __init__(
        self, context: Context, model: Any, encoder: Encoder, rows: Sequence[dict[str, Any]]
    ) -> None:
        self._context, self._model, self._encoder = context, model, encoder
        asked = [encoder.question(row) for row in rows[: context.plan.generate]]
        questions = [question for question in asked if question is not None]
        self._most = getattr(model.config, "max_position_embeddings", None) or 2**20
        longest = min(context.hyperparameters.max_length or self._most, self._most - 1)
        self._questions = [each for each in questions if len(each.ids) <= longest]
        if left_out := len(questions) - len(self._questions):
            context.note(f"{left_out} held-out prompts are too long to be answered", "warn")

    @property
    def wanted(self) -> list[str]:
        """What ought to be said to each prompt that is asked."""
        return [question.answer for question in self._questions]

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """Asks, keeps the answers, and compares them with the wanted ones."""
        if not self._questions:
            return {}
        texts = self.ask()
        kept = self._context.files / _FILE.format(which)
        kept.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
        if which == "after":
            self._write_samples(texts)
        return scores(texts, self.wanted)

    def ask(self) -> list[str]:
        """Greedy answers, in order."""
        order = sorted(
            range(len(self._questions)), key=lambda number: -len(self._questions[number].ids)
        )
        answers = [""] * len(order)
        for chosen in self._parts(order):
            found = self._generate([self._questions[number] for number in chosen])
            for number, text in zip(chosen, found, strict=True):
                answers[number] = text
        return answers

    def _parts(self, order: Sequence[int]) -> list[list[int]]:
        """Longest prompts first, as many rows at once as fit."""
        parts: list[list[int]] = []
        room = 0
        for number in order:
            if room == 0:
                positions = len(self._questions[number].ids) + MOST_NEW_TOKENS
                room = max(1, POSITIONS_AT_ONCE // positions)
                parts.append([])
            parts[-1].append(number)
            room -= 1
        return parts

    @torch.no_grad()
    def _generate(self, questions: Sequence[Question]) -> list[str]:
        """With room for twice the longest wanted answer."""
        tokenizer, end = self._encoder.tokenizer, self._encoder.end_id
        wanted = 8 + 2 * max(self._tokens(q.answer) for q in questions)
        width = max(len(question.ids) for question in questions)
        limit = min(MOST_NEW_TOKENS, wanted, self._most - width)
        ids = torch.full((len(questions), width), int(tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for line, question in enumerate(questions):  # the end is where a prompt goes on
            ids[line, width - len(question.ids) :] = torch.tensor(question.ids)
            mask[line, width - len(question.ids) :] = 1
        with self._context.autocast():
            made = self._model.generate(
                input_ids=ids.to(self._context.device),
                attention_mask=mask.to(self._context.device),
                max_new_tokens=limit,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=self._ends(end),
                pad_token_id=int(tokenizer.pad_token_id),
            )
        return [
            str(tokenizer.decode(line[width:], skip_special_tokens=True)).strip() for line in made
        ]

    def _ends(self, end: int) -> list[int]:
        """Where an engine would stop too."""
        known = self._model.generation_config.eos_token_id
        more = known if isinstance(known, list) else [known]
        return sorted({end, *(int(token) for token in more if token is not None)})

    def _tokens(self, text: str) -> int:
        return len(self._encoder.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _write_samples(self, after: Sequence[str]) -> None:
        before = self._texts_before()
        samples = [
            {"prompt": q.prompt, "wanted": q.answer, "before": old, "after": new}
            for q, old, new in zip(self._questions, before, after, strict=True)
        ]
        lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
        (self._context.files / SAMPLES).write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._context.sections["Samples"] = "\n\n".join(
            [
                f"Greedy answers to held-out prompts; all {len(samples)} are in `{SAMPLES}`.",
                *map(_shown, samples[:SHOWN]),
            ]
        )
        for which in ("before", "after"):
            (self._context.files / _FILE.format(which)).unlink(missing_ok=True)

    def _texts_before(self) -> list[str]:
        path: Path = self._context.files / _FILE.format("before")
        if not path.exists():
            return [""] * len(self._questions)
        return [str(text) for text in json.loads(path.read_text(encoding="utf-8"))]


def _shown(sample: dict[str, str]) -> str:
    names = ("prompt", "wanted", "before", "after")
    return "\n".join(f"- **{name}**: {quoted(sample[name])}" for name in names)


def quoted(text: str) -> str:
    """For a report, on one line and as it is: Markdown in it is not obeyed."""
    line = " ".join(text.split())
    short = line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + " …"
    ticks = "`" * (1 + max((len(run) for run in _runs_of_ticks(short)), default=0))
    return f"{ticks} {short} {ticks}" if short else "(nothing)"


def _runs_of_ticks(text: str) -> list[str]:
    return "".join(c if c == "`" else " " for c in text).split()
