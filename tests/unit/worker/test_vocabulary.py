"""Text and tokens: stops across tokens, characters across tokens, chats."""

from __future__ import annotations

import pytest

from shared.errors import InvalidRequest
from shared.specs import ChatMessage
from tests.integration.tiny_models import END, WORDS, tokenizer
from worker.engines.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    words = tokenizer()
    end = words.convert_tokens_to_ids(END)
    assert isinstance(end, int)
    return Vocabulary(words, [end])


def first_stop(vocabulary: Vocabulary, text: str, *stops: str) -> str | None:
    """What the engine would answer, looking after each token."""
    tokens = vocabulary.encode(text)
    for count in range(1, len(tokens) + 1):
        found = vocabulary.find_stop(tokens[:count], stops)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("text", [WORDS, "🎉🚀", "日本語 テスト", "a\n\n b", "naïve"])
def test_text_comes_back_as_it_went_in(vocabulary: Vocabulary, text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_every_prefix_of_a_multi_byte_text_is_a_prefix(vocabulary: Vocabulary) -> None:
    text = "ab 日本語 🎉🚀é"
    tokens = vocabulary.encode(text)
    for count in range(len(tokens) + 1):
        assert text.startswith(vocabulary.decode_cut(tokens[:count]))


@pytest.mark.parametrize(
    ("text", "stops", "before"),
    [
        ("the quick brown fox", ("k br",), "the quic"),
        ("the quick brown fox", ("never", "fox"), "the quick brown "),
        ("the quick brown fox", ("brown", "quick"), "the "),
        ("abc🎉🚀def", ("🚀",), "abc🎉"),
        ("日本語テスト", ("語テ",), "日本"),
        ("the", ("the",), ""),
        ("the quick", ("slow",), None),
    ],
)
def test_stops_are_found_across_tokens(
    vocabulary: Vocabulary, text: str, stops: tuple[str, ...], before: str | None
) -> None:
    assert first_stop(vocabulary, text, *stops) == before


def test_a_stop_is_found_through_special_tokens(vocabulary: Vocabulary) -> None:
    (end,) = vocabulary.end_ids
    tokens = [*vocabulary.encode("one th"), end, *vocabulary.encode("e two")]
    assert vocabulary.find_stop(tokens, ("the",)) == "one "


def test_an_empty_prompt_is_one_token(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.encode("")) == 1


def test_a_chat_is_rendered_by_the_template_and_opened(vocabulary: Vocabulary) -> None:
    messages = [
        ChatMessage(role="developer", content="be brief"),
        ChatMessage.model_validate(
            {
                "role": "user",
                "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}],
            }
        ),
    ]
    tokens = vocabulary.encode_chat(messages)
    assert vocabulary.decode(tokens) == "<system>be brief\n<user>hello\n<assistant>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 // 0 }}",
        "{{ messages + 1 }}",
        "{{ 'a' % 1 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ raise_exception('x' * 100000) }}",
        "{{ 'x' * 20000000 }}",
    ],
)
def test_a_template_that_fails_fails_its_row_alone(template: str) -> None:
    words = tokenizer()
    words.chat_template = template
    with pytest.raises(InvalidRequest) as refused:
        Vocabulary(words, []).encode_chat([ChatMessage(role="user", content="hi")])
    assert refused.value.param == "messages"
    assert len(refused.value.message) < 1_000


def test_a_template_may_refuse_and_must_exist() -> None:
    words = tokenizer()
    message = [ChatMessage(role="user", content="hi")]
    words.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        Vocabulary(words, []).encode_chat(message)
    words.chat_template = None
    with pytest.raises(InvalidRequest, match="no chat template"):
        Vocabulary(words, []).encode_chat(message)
