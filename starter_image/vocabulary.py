"""The tokenizer: CLIP's byte-pair encoding with a vocabulary made from the captions' own words.

Each of those words is one token. Any other word falls into letters and pieces, never into an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_PLENTY = 20_000


def build_tokenizer(texts: Iterable[str], length: int) -> CLIPTokenizer:
    """A tokenizer that knows every word of ``texts``, and cuts prompts at ``length`` tokens."""
    from transformers import CLIPTokenizer

    vocabulary, merges = _learn(texts)
    parts: dict[str, Any] = {"vocab": vocabulary, "merges": merges}  # pairs, for all the types say
    return CLIPTokenizer(**parts, model_max_length=length)


def kept_tokenizer(folder: Path, texts: Iterable[str], length: int) -> CLIPTokenizer:
    """The tokenizer kept in ``folder``, or a new one that is kept there from now on.

    Learning breaks ties by chance, so a resumed training must read the numbers it began with.
    """
    from transformers import CLIPTokenizer

    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        build_tokenizer(texts, length).save_pretrained(partial)
        partial.rename(folder)
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


def _learn(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    plain = CLIPTokenizer().backend_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=_WORD_END))
    learner.normalizer, learner.pre_tokenizer = plain.normalizer, plain.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=_PLENTY,
        min_frequency=1,
        initial_alphabet=letters,
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(sorted(set(texts)), trainer)
    merges = [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]
    pieces = [*letters, *(letter + _WORD_END for letter in letters)]
    pieces += [first + second for first, second in merges]
    pieces = [*dict.fromkeys(pieces), START, END]
    return {piece: number for number, piece in enumerate(pieces)}, merges
