"""Which tokens of a row are learnt, with several kinds of chat template."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.integration.tiny_models import END, tokenizer
from worker.recipes.shape import RecipeError
from worker.recipes.texts import Encoded, Encoder, _shared, cut

# As SmolLM2's: it adds a system message of its own, and a turn ends with a token and a line.
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<sys>Be kind.<|end|>\n"
    "{% endif %}<{{ m['role'] }}>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)
STRIPPING = CHATML.replace("m['content']", "m['content'] | trim")
# Opens a turn with more than it shows of a closed one.
THINKING = CHATML.replace("<assistant>\n{% endif %}", "<assistant>\n<think>\n{% endif %}")
# Shows only the last answer whole, as models do that think: earlier ones lose what is in brackets.
FORGETTING = CHATML.replace(
    "{{ m['content'] }}",
    "{{ m['content'] if loop.last or m['role'] != 'assistant' else m['content'].split('] ')[-1] }}",
)
NOT_EMPTY = "{% if not messages %}{{ raise_exception('nothing') }}{% endif %}" + CHATML
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
)
TALK = [
    {"role": "user", "content": "the quick fox"},
    {"role": "assistant", "content": "jumps over"},
    {"role": "user", "content": "a lazy dog"},
    {"role": "assistant", "content": "while rivers carry boats"},
]


def _encoder(template: str) -> Encoder:
    words = tokenizer()
    words.chat_template = template
    return Encoder(words)


def _learnt(encoder: Encoder, encoded: Encoded) -> list[str]:
    """The learnt stretches, decoded."""
    stretches: list[list[int]] = []
    was = False
    for token, learnt in zip(encoded.ids, encoded.trained, strict=True):
        if learnt and not was:
            stretches.append([])
        if learnt:
            stretches[-1].append(token)
        was = learnt
    return [str(encoder.tokenizer.decode(stretch)) for stretch in stretches]


@pytest.mark.parametrize("template", [CHATML, STRIPPING, THINKING, NOT_EMPTY])
def test_every_answer_is_learnt_with_its_end(template: str) -> None:
    encoder = _encoder(template)
    encoded = encoder.encode({"messages": TALK})
    assert _learnt(encoder, encoded) == [f"jumps over{END}", f"while rivers carry boats{END}"]
    assert encoder.tokenizer.decode(encoded.ids) == encoder.render(TALK)


def test_a_conversation_of_weight_0_is_read_and_not_learnt() -> None:
    silent: list[dict[str, Any]] = [TALK[0], {**TALK[1], "weight": 0}]
    encoder = _encoder(CHATML)
    assert encoder.encode({"messages": silent}).trained_count == 0
    with pytest.raises(RecipeError) as refused:
        encoder.answered(silent[:1], silent[1:])
    assert (refused.value.code, refused.value.blame) == ("nothing_to_learn", "data")


@pytest.mark.parametrize("template", [CHATML, "{{ 1 // 0 }}"])
def test_a_conversation_that_a_template_fails_on_is_the_datas_fault(template: str) -> None:
    with pytest.raises(RecipeError) as refused:
        _encoder(template).encode({"messages": TALK[1:2]})
    assert (refused.value.code, refused.value.blame) == ("bad_chat_template", "data")


def test_blanks_that_a_template_strips_are_not_learnt() -> None:
    encoder = _encoder(STRIPPING)
    talk = [TALK[0], {"role": "assistant", "content": "  jumps over \n"}]
    assert _learnt(encoder, encoder.encode({"messages": talk})) == [f"jumps over{END}"]


def test_a_prompt_is_tokenised_as_it_is_asked() -> None:
    encoder = _encoder(CHATML)
    encoded = encoder.encode({"messages": TALK[:2]})
    question = encoder.question({"messages": TALK[:2]})
    assert question is not None
    assert encoded.ids[: len(question.ids)] == question.ids
    assert not any(encoded.trained[: len(question.ids)])
    assert (question.prompt, question.answer) == ("the quick fox", "jumps over")


def test_answers_that_are_shown_otherwise_later_are_left_out() -> None:
    encoder = _encoder(FORGETTING)
    talk = [TALK[0], {"role": "assistant", "content": "[boats] jumps over"}, *TALK[2:]]
    learnt = _learnt(encoder, encoder.encode({"messages": talk}))
    assert learnt == [f"while rivers carry boats{END}"]


def test_a_weight_of_zero_is_not_learnt() -> None:
    encoder = _encoder(CHATML)
    talk = [TALK[0], TALK[1] | {"weight": 0}, *TALK[2:]]
    learnt = _learnt(encoder, encoder.encode({"messages": talk}))
    assert learnt == [f"while rivers carry boats{END}"]
    answered = encoder.answered(TALK[:3], TALK[3:])
    assert _learnt(encoder, answered) == [f"while rivers carry boats{END}"]


def test_an_end_is_added_where_the_template_has_none() -> None:
    words = tokenizer()  # its template ends a turn with a line
    encoder = Encoder(words)
    assert _learnt(encoder, encoder.encode({"messages": TALK})) == [
        "jumps over\n",
        f"while rivers carry boats\n{END}",
    ]


def test_completions_and_texts() -> None:
    encoder = _encoder(CHATML)
    row = {"prompt": "the quick", "completion": " brown fox"}
    assert _learnt(encoder, encoder.encode(row)) == [f" brown fox{END}"]
    whole = encoder.encode({"text": "seven rivers"})
    assert _learnt(encoder, whole) == [f"seven rivers{END}"]
    assert whole.trained_count == len(whole) - 1
    assert encoder.question({"text": "seven rivers"}) is None


def test_what_a_template_refuses_is_the_datas_fault() -> None:
    talk = [{"role": "system", "content": "be brief"}, *TALK]
    with pytest.raises(RecipeError) as caught:
        _encoder(NO_SYSTEM).encode({"messages": talk})
    assert (caught.value.code, caught.value.blame) == ("bad_chat_template", "data")
    bare: Any = tokenizer()
    bare.chat_template = None
    with pytest.raises(RecipeError) as caught:
        Encoder(bare).encode({"messages": TALK})
    assert caught.value.code == "no_chat_template"


def test_a_tokenizer_that_wraps_every_text_is_unwrapped() -> None:
    words: PreTrainedTokenizerFast = tokenizer()
    encoder = Encoder(words)
    ids = encoder.plain("the quick")
    assert ids == list(words("the quick")["input_ids"])
    assert encoder.plain(f"the quick{END}")[-1] == encoder.end_id


def test_cutting_keeps_something_to_learn() -> None:
    short = Encoded([1, 2, 3], [False, False, True])
    assert cut(short, 3) is short
    early = Encoded([1, 2, 3, 4], [False, True, True, True])
    assert cut(early, 2).ids == [1, 2]
    late = Encoded([1, 2, 3, 4], [False, False, False, True])
    assert cut(late, 2).ids == [3, 4]


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [
        ("", "a", 0),
        ("abc", "abd", 2),
        ("abc", "abcd", 3),
        ("xa", "ya", 0),
        ("a" * 99, "a" * 99, 99),
    ],
)
def test_a_shared_beginning_is_counted(one: str, other: str, length: int) -> None:
    assert _shared(one, other) == _shared(other, one) == length
