"""From a script to a composed video."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidRequest, ModelNotFound
from shared.plans.scenes import SCENE_CHARACTERS, cut, cut_for_pictures
from shared.plans.texts import sentences
from shared.specs.videos import MAX_SCENES
from tests.unit.shared.plans_case import COMPOSITIONS, completed, video

SENTENCE = "The lamp has learned to follow the evening, and it does so without a sound. "


def test_slides_are_narrated_pictured_and_captioned() -> None:
    steps = video(script=SENTENCE * 6, prompt="a desk lamp", seed=3)
    assert [step.name for step in steps] == [
        "picture 1", "narration 1", "picture 2", "narration 2", "video",
    ]  # fmt: skip
    assert steps[-1].endpoint == COMPOSITIONS
    assert steps[-1].needs == ("picture 1", "narration 1", "picture 2", "narration 2")
    bodies = completed(steps)
    assert bodies["picture 1"]["prompt"].startswith("a desk lamp, The lamp has learned")
    spoken = " ".join(bodies[f"narration {number}"]["input"] for number in (1, 2))
    assert spoken == (SENTENCE * 6).strip()
    scene = bodies["video"]["scenes"][0]
    assert scene["picture"] == {"artifact_id": "art_picture1"}
    assert scene["narration"] == {"artifact_id": "art_narration1"}
    assert scene["captions"] == [{"text": "Light for the night.", "start": 0.0, "end": 1.5}]


def test_without_a_script_the_prompt_is_read_aloud() -> None:
    bodies = completed(video(prompt="A lamp that glows."))
    assert bodies["narration 1"]["input"] == "A lamp that glows."
    assert bodies["picture 1"]["prompt"] == "A lamp that glows."


def test_given_pictures_are_all_shown_in_order() -> None:
    pictures = [f"file-{number}" for number in range(3)]
    steps = video(script=SENTENCE * 2, pictures=pictures)
    assert [step.name for step in steps] == ["narration 1", "narration 2", "video"]
    scenes = completed(steps)["video"]["scenes"]
    assert [scene["picture"]["file_id"] for scene in scenes] == pictures
    assert scenes[2] == {"picture": {"file_id": "file-2"}, "seconds": 3.0}


def test_a_long_share_moves_over_its_picture_more_than_once() -> None:
    scenes = cut_for_pictures(SENTENCE * 20, 2)
    assert [scene.picture for scene in scenes] == sorted(scene.picture or 0 for scene in scenes)
    assert len(scenes) > 4
    assert {scene.picture for scene in scenes} == {0, 1}


@pytest.mark.parametrize("portrait", [None, "file-face"])
def test_a_presenter_speaks_all_of_it_in_one_scene(portrait: str | None) -> None:
    steps = video(
        style="presenter", script=SENTENCE * 9, portrait=portrait, title="Ada", subtitle="Desk"
    )
    assert [step.name for step in steps] == [
        *([] if portrait else ["portrait"]),
        "narration 1",
        "video",
    ]
    body = completed(steps)["video"]
    (scene,) = body["scenes"]
    assert scene["picture"] == (
        {"file_id": portrait} if portrait else {"artifact_id": "art_portrait"}
    )
    assert (body["style"], body["lower_third"], body["lower_third_detail"]) == (
        "presenter", "Ada", "Desk",
    )  # fmt: skip


def test_what_the_composition_is_told() -> None:
    given = {
        "size": "1080x1920", "fps": 30, "output_format": "webm", "transition": "wipe",
        "logo": "file-1", "music": "art_2", "captions": False, "voice": "amy",
    }  # fmt: skip
    bodies = completed(video(**given))
    body = bodies["video"]
    assert [body[name] for name in ("size", "fps", "output_format", "transition")] == [
        "1080x1920", 30, "webm", "wipe",
    ]  # fmt: skip
    assert (body["logo"], body["music"]) == ({"file_id": "file-1"}, {"artifact_id": "art_2"})
    assert "captions" not in body["scenes"][0]
    assert bodies["narration 1"]["voice"] == "amy"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"seconds": "8"}, "seconds"),
        ({"steps": 4}, "steps"),
        ({"guidance": 4.0}, "guidance"),
        ({"negative_prompt": "x"}, "negative_prompt"),
        ({"input_reference": "file-1"}, "input_reference"),
        ({"portrait": "file-1"}, "portrait"),
        ({"style": "presenter", "pictures": ["file-1"]}, "pictures"),
        ({"script": "  \n "}, "script"),
        ({"prompt": " "}, "prompt"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        video(**body)
    assert caught.value.param == param


def test_only_models_that_are_needed_are_asked_for() -> None:
    video(pictures=["file-1"], image_model="nobody")
    with pytest.raises(ModelNotFound) as caught:
        video(image_model="nobody")
    assert caught.value.param == "image_model"


def test_the_same_video_has_the_same_plan() -> None:
    assert video(seed=1) == video(row="another", seed=1)
    assert video() == video()
    assert video() != video(row="another")


@given(st.lists(st.sampled_from(["One.", SENTENCE, "Why? ", "x" * 400 + ". "]), max_size=200))
@settings(deadline=None)
def test_no_script_has_too_many_scenes_and_none_loses_a_word(pieces: list[str]) -> None:
    script = " ".join(pieces)
    scenes = cut(script)
    assert len(scenes) <= MAX_SCENES
    assert all(scenes)
    assert " ".join(scenes) == " ".join(sentences(script))


@given(st.integers(1, MAX_SCENES), st.integers(0, 150))
@settings(deadline=None)
def test_every_given_picture_is_shown_and_no_word_is_lost(pictures: int, count: int) -> None:
    scenes = cut_for_pictures(SENTENCE * count, pictures)
    assert len(scenes) <= MAX_SCENES
    assert list(dict.fromkeys(scene.picture for scene in scenes)) == list(range(pictures))
    assert " ".join(scene.text for scene in scenes if scene.text) == (SENTENCE * count).strip()


def test_scenes_are_about_as_long_as_they_should_be() -> None:
    lengths = [len(text) for text in cut(SENTENCE * 40)]
    assert max(lengths) <= 2 * SCENE_CHARACTERS
    assert min(lengths) >= SCENE_CHARACTERS / 4
