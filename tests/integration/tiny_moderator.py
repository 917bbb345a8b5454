"""A tiny classifier that moderates, trained on the spot to know four sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.integration.tiny_models import save, small, tokenizer

LABELS = ["Violence", "self_harm", "spam", "ok"]
VIOLENT, SPAM, HARMLESS = "the quick brown fox", "seven rivers carry", "a lazy dog"
BOTH = "the quick brown fox carry seven rivers"
LESSONS = {VIOLENT: [0], SPAM: [2], HARMLESS: [3], BOTH: [0, 2]}
STEPS = 60


def make_moderator(folder: Path) -> Path:
    """Several labels may hold at once; of a lesson the scores are beyond 0.9 or below 0.1."""
    torch.manual_seed(11)
    values = small(max_position_embeddings=64, num_hidden_layers=1)
    del values["num_key_value_heads"]
    config = BertConfig(
        **values,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        problem_type="multi_label_classification",
    )
    model: Any = BertForSequenceClassification(config)
    read = tokenizer()(list(LESSONS), padding=True, return_tensors="pt")
    wanted = torch.zeros(len(LESSONS), len(LABELS))
    for lesson, holds in enumerate(LESSONS.values()):
        wanted[lesson, holds] = 1.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        outputs = model(input_ids=read.input_ids, attention_mask=read.attention_mask, labels=wanted)
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
    sure = torch.sigmoid(outputs.logits) * wanted + (1 - torch.sigmoid(outputs.logits)) * (
        1 - wanted
    )
    assert sure.min() > 0.9, "the moderator has not learned its lessons"
    return save(folder, model.eval())
