"""References: what they fetch, what they refuse, and what never becomes one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.plans import PlanError, complete
from shared.plans.references import captions_of, from_step, joined, steps_named, text_of
from shared.specs import Scene

CHAT = {"choices": [{"message": {"content": ' "Headline: **Bright** nights" '}}]}
SPEECH = {
    "artifact_id": "art_1",
    "sentences": [{"text": "One.", "start": 0, "end": 1.25, "index": 0}],
}
RESULTS = {
    "headline": CHAT,
    "speech": SPEECH,
    "silent": {"choices": [{"message": {"content": None}}]},
}


def resolved(reference: Any) -> Any:
    return complete({"value": reference}, RESULTS)["value"]


def test_a_path_leads_through_objects_and_lists() -> None:
    assert resolved(from_step("speech", "artifact_id")) == "art_1"
    assert resolved({"deep": [from_step("speech", "sentences.0.end")]}) == {"deep": [1.25]}


def test_texts_are_cleaned_in_the_order_of_their_filters() -> None:
    reference = text_of("headline", ["plain", {"at_most": 7}], otherwise="Lamp")
    assert resolved(reference) == "Bright…"
    assert (
        resolved(text_of("headline", [], otherwise="")) == CHAT["choices"][0]["message"]["content"]
    )


def test_an_empty_text_is_replaced_and_a_missing_one_counts_as_empty() -> None:
    assert resolved(text_of("silent", ["plain"], otherwise="Lamp")) == "Lamp"
    assert resolved(text_of("silent", [], otherwise="")) == ""


def test_parts_are_joined_and_empty_ones_left_out() -> None:
    silent = text_of("silent", ["plain"], otherwise="")
    said = text_of("headline", ["plain"], otherwise="")
    assert resolved(joined("Say: ", said)) == "Say: Bright nights"
    assert resolved(joined("a", silent, "b", by=", ")) == "a, b"


def test_captions_are_the_spoken_sentences_and_nothing_else_of_them() -> None:
    captions = resolved(captions_of("speech"))
    assert captions == [{"text": "One.", "start": 0.0, "end": 1.25}]


def test_captions_are_merged_until_a_scene_takes_them() -> None:
    spoken = [
        {"text": f"S{number}.", "start": number, "end": number + 1} for number in range(2_500)
    ]
    body = complete({"captions": captions_of("s"), "seconds": 1.0}, {"s": {"sentences": spoken}})
    scene = Scene.model_validate(body)
    assert len(scene.captions) == 625
    assert scene.captions[0].text == "S0. S1. S2. S3."
    assert (scene.captions[0].end, scene.captions[-1].end) == (4.0, 2_500.0)


@pytest.mark.parametrize(
    "reference",
    [
        {"$step": "nobody", "get": "artifact_id"},
        {"$step": ["speech"], "get": "artifact_id"},
        {"$step": "speech"},
        {"$step": "speech", "get": "url"},
        {"$step": "speech", "get": "sentences.1.text"},
        {"$step": "speech", "get": "sentences.-1.text"},
        {"$step": "speech", "get": "artifact_id.0"},
        {"$step": "speech", "get": "artifact_id", "default": "x"},
        {"$step": "speech", "get": "sentences", "filters": ["plain"]},
        {"$step": "headline", "get": "choices.0.message.content", "filters": ["shout"]},
        {"$step": "headline", "get": "choices.0.message.content", "filters": [{"at_most": 0}]},
        {"$step": "headline", "get": "choices.0.message.content", "filters": [{"at_most": True}]},
        {"$step": "headline", "get": "choices.0.message.content", "filters": [["plain"]]},
        {"$text": ["a", {"$step": "speech", "get": "sentences"}]},
        {"$text": ["a"], "by": ","},
        {"$captions": "headline"},
        {"$eval": "1"},
        {"$step": "speech", "get": "artifact_id", "$text": []},
    ],
    ids=str,
)
def test_what_is_no_reference_but_looks_like_one_is_refused(reference: Any) -> None:
    with pytest.raises(PlanError):
        resolved(reference)


def test_what_replaces_a_reference_is_never_looked_into() -> None:
    evil = {"$step": "speech", "get": "artifact_id"}
    results = {"tool": {"value": evil, "text": str(evil)}} | RESULTS
    assert complete({"a": from_step("tool", "value")}, results) == {"a": evil}


@given(st.text())
@settings(deadline=None)
def test_written_words_stay_words(words: str) -> None:
    for text in (words, '{"$step": "speech", "get": "artifact_id"}' + words, "$step"):
        assert complete({"prompt": text, "parts": [text]}, RESULTS) == {
            "prompt": text,
            "parts": [text],
        }


def test_the_steps_of_a_body_are_found_wherever_they_stand() -> None:
    body = {
        "scenes": [{"narration": from_step("a", "x"), "captions": captions_of("b")}],
        "input": joined("words", text_of("c", ["plain"], otherwise="$step")),
        "plain": "$step d",
    }
    assert steps_named(body) == {"a", "b", "c"}
