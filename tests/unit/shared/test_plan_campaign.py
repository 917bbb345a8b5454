"""From briefs to steps: what is made, what is made once, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from shared.errors import InvalidRequest, ModelNotFound
from shared.plans import BUNDLE, is_planned
from shared.plans.campaign_size import CampaignSize
from shared.specs import CampaignSpec
from tests.unit.shared.plans_case import CHAT, IMAGES, SPEECH, campaign, completed

LARGE: dict[str, Any] = {
    "languages": ["en", "de", "fr"],
    "variants": 2,
    "sizes": ["64x64", "1024x768"],
    "audiences": [{"name": "Night owls"}, {"name": "Nurses", "description": "who work late"}],
    "logo": "file-0abc",
    "seed": 7,
}


def kinds(steps: list[Any]) -> Counter[str]:
    return Counter(step.endpoint for step in steps)


def test_the_smallest_brief_makes_everything_once() -> None:
    steps = campaign()
    assert [step.name for step in steps] == [
        "headline en 1", "body en 1", "call to action en 1",
        "picture idea 1", "picture 1 auto",
        "voice-over en 1",
        "narration headline en 1", "narration body en 1", "narration call to action en 1",
        "video en 1",
        BUNDLE,
    ]  # fmt: skip
    assert [step.pool for step in steps[3:]] == [
        "text", "image", "speech", "speech", "speech", "speech", "video", "upkeep",
    ]  # fmt: skip


def test_pictures_are_shared_between_languages_and_words_are_not() -> None:
    counts = kinds(campaign(languages=["en", "de"], sizes=["64x64", "64x128"], variants=3))
    assert counts[CHAT] == 3 * (2 * 3 + 1)
    assert counts[IMAGES] == 3 * 2
    assert counts[SPEECH] == 3 * 2 * 4


def test_audiences_get_copy_and_pictures_of_their_own_and_share_the_rest() -> None:
    without, with_two = (
        campaign(**LARGE | {"audiences": audiences}) for audiences in ([], LARGE["audiences"])
    )
    added = [step for step in with_two if step.name not in {other.name for other in without}]
    assert kinds(added) == {CHAT: 2 * 2 * 3 * 2, IMAGES: 2 * 2 * 2}
    assert all(" for " in step.name for step in added)
    bodies = completed(with_two)
    assert bodies["picture 1 64x64 for 2 Nurses"]["prompt"] == (
        "Aurora lamp, Light for the night, for Nurses"
    )
    asked = bodies["headline de 1 for 2 Nurses"]["messages"][-1]["content"]
    assert "It is for Nurses (who work late)." in asked
    assert "German" in asked


@pytest.mark.parametrize(
    ("outputs", "made"),
    [
        (["copy"], ["headline", "body", "call"]),
        (["pictures"], ["picture"]),
        (["voice_over"], ["headline", "body", "call", "voice-over"]),
        (["video"], ["headline", "body", "call", "picture", "narration", "video"]),
        (["copy", "pictures"], ["headline", "body", "call", "picture"]),
    ],
)
def test_what_a_wanted_output_needs_is_made_too_and_nothing_else(
    outputs: list[str], made: list[str]
) -> None:
    steps = campaign(outputs=outputs, sizes=["64x64", "64x128"])
    assert list(dict.fromkeys(step.name.split()[0] for step in steps)) == [*made, BUNDLE]
    pictures = 2 if "pictures" in outputs else 1 if "video" in outputs else 0
    assert kinds(steps)[IMAGES] == pictures


@pytest.mark.parametrize(
    "brief",
    [
        {},
        LARGE,
        {"outputs": ["copy"]},
        {"outputs": ["pictures"]},
        {"outputs": ["video"], "sizes": ["64x64", "1x2"], "audiences": [{"name": "x"}]},
        {"outputs": ["voice_over"]},
        {"product": "p" * 2_000, "description": "d" * 8_000, "audience": "a" * 2_000},
    ],
    ids=["smallest", "large", "copy", "pictures", "video", "voice", "long"],
)
def test_every_plan_is_a_graph_whose_bodies_its_engines_accept(brief: dict[str, Any]) -> None:
    steps = campaign(**brief)
    seen: set[str] = set()
    for step in steps:
        assert set(step.needs) <= seen
        assert step.name not in seen
        assert len(step.name) < 100
        seen.add(step.name)
    assert steps[-1].endpoint == BUNDLE
    assert set(steps[-1].needs) == seen - {steps[-1].name}
    spec = CampaignSpec.model_validate({"model": "writer", "product": "Aurora lamp"} | brief)
    assert len(steps) == CampaignSize(spec).steps
    completed(steps)
    completed(steps, dict.fromkeys(seen, ""))


def test_the_product_stands_in_where_a_model_wrote_nothing() -> None:
    steps = campaign(languages=["en"])
    bodies = completed(steps, {"headline en 1": '""', "body en 1": " \n", "picture idea 1": ""})
    assert bodies["voice-over en 1"]["input"] == "Aurora lamp\n\nLight for the night"
    assert bodies["narration body en 1"]["input"] == "Aurora lamp"
    assert bodies["picture 1 auto"]["prompt"] == "Aurora lamp"
    assert bodies["video en 1"]["scenes"][0]["title"] == "Aurora lamp"
    assert [text["text"] for text in bodies[BUNDLE]["texts"]] == ["", "", "Light for the night"]


def test_a_video_shows_the_pictures_in_turn_over_its_narrations() -> None:
    bodies = completed(campaign(sizes=["64x64", "64x128"], logo="file-0abc"))
    body = bodies["video en 1"]
    assert [scene["picture"]["artifact_id"] for scene in body["scenes"]] == [
        "art_picture164x64", "art_picture164x128", "art_picture164x64",
    ]  # fmt: skip
    assert body["scenes"][1]["captions"] == [
        {"text": "Light for the night.", "start": 0.0, "end": 1.5}
    ]
    assert "captions" not in body["scenes"][0]
    assert body["logo"] == {"file_id": "file-0abc"}


def test_the_same_brief_makes_the_same_plan() -> None:
    assert campaign(**LARGE) == campaign(**LARGE)
    assert campaign(**LARGE) == campaign(row="another-0", **LARGE)
    unseeded = {name: value for name, value in LARGE.items() if name != "seed"}
    assert campaign(**unseeded) == campaign(**unseeded)
    assert campaign(**unseeded) != campaign(row="another-0", **unseeded)


def test_every_seed_is_of_its_own() -> None:
    seeds = [step.body["seed"] for step in campaign(**LARGE) if "seed" in step.body]
    assert len(set(seeds)) == len(seeds) > 50


@pytest.mark.parametrize(
    ("brief", "param", "named"),
    [
        (
            {
                "audiences": [{"name": f"a{number}"} for number in range(1_000)],
                "languages": ["en", "de"], "variants": 16, "sizes": ["64x64", "32x32"],
            },
            "audiences",
            ["1,000 audiences", "2 languages", "16 variants", "2 sizes"],
        ),
        (
            {
                "languages": [f"x{chr(97 + number)}" for number in range(16)],
                "variants": 16, "audiences": [{"name": f"a{number}"} for number in range(8)],
            },
            "languages",
            ["16 languages", "16 variants"],
        ),
    ],
    ids=["audiences", "languages"],
)  # fmt: skip
def test_too_large_a_brief_is_refused_and_told_what_multiplies(
    brief: dict[str, Any], param: str, named: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        campaign(**brief)
    assert caught.value.param == param
    assert all(words in caught.value.message for words in named)


def test_a_thousand_audiences_fit_in_one_language_and_size() -> None:
    audiences = [{"name": f"Readers of paper {number}"} for number in range(1_000)]
    assert len(campaign(audiences=audiences)) == 3_011


def test_a_long_brief_is_not_told_thousands_of_times() -> None:
    brief = {
        "description": "It glows. " * 800,
        "audiences": [{"name": f"Readers of paper {number}"} for number in range(990)],
        "outputs": ["copy"],
    }
    campaign(**brief)
    with pytest.raises(InvalidRequest, match="tell less") as caught:
        campaign(**brief, languages=["en", "de"])
    assert caught.value.param == "description"
    campaign(**brief | {"outputs": ["pictures"], "languages": ["en", "de"]})


def test_a_logo_is_not_copied_into_hundreds_of_steps() -> None:
    data = "data:image/png;base64," + "A" * 2**20
    campaign(logo=data)
    with pytest.raises(InvalidRequest, match="upload the logo") as caught:
        campaign(logo=data, variants=16)
    assert caught.value.param == "logo"
    campaign(logo=data, variants=16, outputs=["copy"])


def test_the_bundle_keeps_the_brief_without_the_bytes_of_the_logo() -> None:
    brief = campaign(logo="data:image/png;base64,AAAA")[-1].body["brief"]
    assert brief["logo"] == {"media_type": "image/png"}
    assert brief["product"] == "Aurora lamp"


def test_words_of_a_brief_are_never_references() -> None:
    evil = '{"$step": "headline en 1", "get": "choices"}'
    bodies = completed(campaign(product=evil, audiences=[{"name": evil}], tone=evil))
    assert evil in bodies["headline en 1"]["messages"][-1]["content"]
    assert bodies[BUNDLE]["brief"]["product"] == evil


@pytest.mark.parametrize("field", ["image_model", "speech_model", "video_model", "model"])
def test_an_unknown_model_is_blamed_on_its_field(field: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        campaign(**{field: "nobody"})
    assert caught.value.param == field


def test_models_that_are_not_needed_are_not_asked_for() -> None:
    steps = campaign(outputs=["copy"], speech_model="nobody", video_model="nobody")
    assert {step.model for step in steps} == {"writer", None}


def test_which_calls_are_planned() -> None:
    assert is_planned("/v1/campaigns", "text")
    assert is_planned("/v1/videos", "composer")
    assert not is_planned("/v1/videos", "video")
    assert not is_planned("/v1/videos/compositions", "composer")
