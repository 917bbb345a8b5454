"""What tokens add to a text: bytes, characters, a space that is left out, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from tests.integration.tiny_models import END, WORDS, tokenizer
from worker.engines.spelling import Spelling, Spellings
from worker.engines.vocabulary import Vocabulary


def spelled(words: PreTrainedTokenizerFast, tokens: Sequence[int]) -> tuple[Vocabulary, Spelling]:
    vocabulary = Vocabulary(words, [])
    spelling = Spellings(vocabulary).begin()
    for upto in range(1, len(tokens) + 1):
        spelling.read(tokens[:upto])
    return vocabulary, spelling


def made_of(pieces: list[str], decoder: Any) -> PreTrainedTokenizerFast:
    model = models.BPE({piece: at for at, piece in enumerate(pieces)}, [], unk_token=pieces[0])
    backend = Tokenizer(model)
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=pieces[0])


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["<unk>", *BYTES, "▁", "▁the", "▁cat", "s"]
LLAMA = decoders.Sequence(
    [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
)


@pytest.mark.parametrize("text", [WORDS, "🎉🚀", " leads", "日本語 テスト", "a\n\n b"])
def test_byte_level_tokens_are_the_bytes_of_their_text(text: str) -> None:
    words = tokenizer()
    tokens: list[int] = words(text).input_ids
    vocabulary, spelling = spelled(words, tokens)
    assert b"".join(spelling.bytes) == text.encode()
    assert spelling.within(text, tokens) == len(tokens)
    for token, begin, end in zip(tokens, spelling.begins, spelling.ends, strict=True):
        part = vocabulary.decode([token])
        assert "\ufffd" in part or part == text[begin:end]


def test_special_tokens_add_nothing() -> None:
    words = tokenizer()
    end = words.convert_tokens_to_ids(END)
    assert isinstance(end, int)
    the, quick = words("the").input_ids, words(" quick").input_ids
    tokens = [end, *the, end, *quick]
    _, spelling = spelled(words, tokens)
    assert b"".join(spelling.bytes) == b"the quick"
    assert spelling.bytes[0] == spelling.bytes[1 + len(the)] == b""


def test_half_a_character_at_the_end_has_no_part_in_the_text() -> None:
    words = tokenizer()
    tokens: list[int] = words("ab 🚀").input_ids
    whole, spelling = spelled(words, tokens)
    for count in range(1, len(tokens)):
        text = whole.decode_cut(tokens[:count])
        kept = spelling.within(text, tokens[:count])
        assert whole.decode_cut(tokens[:kept]) == text
        assert not kept or whole.decode_cut(tokens[: kept - 1]) != text


def test_the_space_that_a_tokenizer_leaves_out_is_left_out() -> None:
    words = made_of(PIECES, LLAMA)
    pieces = ["▁the", "▁cat", "s", *(f"<0x{byte:02X}>" for byte in " é".encode())]
    tokens = [PIECES.index(piece) for piece in pieces]
    vocabulary, spelling = spelled(words, tokens)
    text = vocabulary.decode(tokens)
    assert text == "the cats é"
    assert spelling.bytes == [b"the", b" cat", b"s", b" ", b"\xc3", b"\xa9"]
    assert list(spelling.begins) == [0, 3, 7, 8, 9, 9]
    assert list(spelling.ends) == [3, 7, 8, 9, 10, 10]


def test_bytes_that_are_no_text_are_counted_as_the_tokenizer_does() -> None:
    """It shows one mark for each of them, where others show one for several."""
    words = made_of(PIECES, LLAMA)
    tokens = [PIECES.index(one) for one in ("▁the", "<0xF0>", "<0x9F>", "▁cat", "s")]
    vocabulary, spelling = spelled(words, tokens)
    for count in range(1, len(tokens) + 1):
        if count != 2:
            assert spelling.within(vocabulary.decode(tokens[:count]), tokens) == count


def test_other_vocabularies_are_spelled_by_what_they_say() -> None:
    words = made_of(["[UNK]", "play", "##ing", "well", "!"], decoders.WordPiece(cleanup=False))
    tokens = [1, 2, 3, 4]
    vocabulary, spelling = spelled(words, tokens)
    text = vocabulary.decode(tokens)
    assert text == "playing well !"
    assert b"".join(spelling.bytes).decode() == text
    assert spelling.bytes == [b"play", b"ing", b" well", b" !"]
    assert spelling.within("playing", tokens) == 2


def test_alternatives_are_named_wherever_they_would_stand() -> None:
    words = tokenizer()
    token_bytes = Spellings(Vocabulary(words, [])).token_bytes
    end = words.convert_tokens_to_ids(END)
    assert isinstance(end, int)
    assert token_bytes.named(end) == END.encode()
    [quick] = words(" quick").input_ids
    assert token_bytes.named(quick) == b" quick"
    assert Spellings(Vocabulary(made_of(PIECES, LLAMA), [])).token_bytes.named(258) == b" the"
