"""A composed video: from a script to narration, pictures and the composition.

``slides``: the script is cut into scenes of a few sentences; each is read aloud and shown over a
picture, given or generated, with the narration's sentences as captions. ``presenter``: one portrait
(given or generated) speaks the whole script in one scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.db.models import Model
from shared.errors import InvalidRequest, UnsupportedParameter
from shared.plans.base import Offers, Seeds, Step
from shared.plans.references import captions_of, from_step, steps_named
from shared.plans.scenes import ScenePlan, cut, cut_for_pictures
from shared.plans.texts import at_most, one_line, sentences
from shared.specs import MediaReference, VideoSpec

IMAGES = "/v1/images/generations"
SPEECH = "/v1/audio/speech"
COMPOSITIONS = "/v1/videos/compositions"

PICTURE_PROMPT_CHARACTERS = 240
SILENT_SECONDS = 3.0
"""How long a given picture is shown for which no sentence is left."""
PORTRAIT_PROMPT = (
    "portrait photograph of a friendly news presenter, facing the camera, shoulders visible, "
    "plain background"
)
_GENERATED_ALONE = ("seconds", "input_reference", "steps", "guidance", "negative_prompt")


def plan_video(spec: VideoSpec, offers: Offers, *, row: str) -> list[Step]:
    """The steps of a composed video. Raises ModelNotFound, and InvalidRequest or
    UnsupportedParameter for members that don't fit."""
    _check(spec)
    scenes = _scenes(spec)
    models = {COMPOSITIONS: offers(COMPOSITIONS, spec.model, "model")}
    if any(scene.text for scene in scenes):
        models[SPEECH] = offers(SPEECH, spec.speech_model, "speech_model")
    if not spec.pictures and spec.portrait is None:
        models[IMAGES] = offers(IMAGES, spec.image_model, "image_model")
    return _Planner(spec, models, Seeds(spec.seed, row)).steps(scenes)


def _check(spec: VideoSpec) -> None:
    for name in _GENERATED_ALONE:
        if getattr(spec, name) is not None:
            raise UnsupportedParameter(
                f"{name!r} is for generated videos, and {spec.model!r} composes", param=name
            )
    if spec.style == "presenter" and spec.pictures:
        raise InvalidRequest(
            "pictures: a presenter shows one face; give it as 'portrait'", param="pictures"
        )
    if spec.style != "presenter" and spec.portrait is not None:
        raise InvalidRequest("portrait: needs the style 'presenter'", param="portrait")
    if not sentences(_script(spec)) and not spec.pictures:
        blamed = "prompt" if spec.script is None else "script"
        raise InvalidRequest(f"{blamed}: there is nothing to say in it", param=blamed)


def _script(spec: VideoSpec) -> str:
    return spec.prompt if spec.script is None else spec.script


def _scenes(spec: VideoSpec) -> list[ScenePlan]:
    script = _script(spec)
    if spec.style == "presenter":
        return [ScenePlan(script.strip())]
    if spec.pictures:
        return cut_for_pictures(script, len(spec.pictures))
    return [ScenePlan(text) for text in cut(script)]


@dataclass
class _Planner:
    spec: VideoSpec
    models: dict[str, Model]
    seeds: Seeds
    made: list[Step] = field(default_factory=list)

    def steps(self, scenes: list[ScenePlan]) -> list[Step]:
        body: dict[str, Any] = {
            "scenes": [self._scene(number, scene) for number, scene in enumerate(scenes, 1)],
            "size": self.spec.size,
            "output_format": self.spec.output_format,
            "transition": self.spec.transition,
            "style": self.spec.style or "slides",
        }
        optional: dict[str, Any] = {
            "fps": self.spec.fps,
            "lower_third": self.spec.title,
            "lower_third_detail": self.spec.subtitle,
            "logo": self.spec.logo and _given(self.spec.logo),
            "music": self.spec.music and _given(self.spec.music),
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        self._add("video", COMPOSITIONS, body)
        return self.made

    def _add(self, name: str, endpoint: str, body: dict[str, Any]) -> None:
        model = self.models[endpoint]
        named = steps_named(body)
        needs = tuple(step.name for step in self.made if step.name in named)
        body = {"model": model.id, **body}
        self.made.append(Step(name, endpoint, model.pool, model.id, body, needs))

    def _scene(self, number: int, scene: ScenePlan) -> dict[str, Any]:
        body: dict[str, Any] = {"picture": self._picture(number, scene)}
        if not scene.text:
            return body | {"seconds": SILENT_SECONDS}
        narration = f"narration {number}"
        # Lossless, as it is encoded once more inside the video.
        speech = {"input": scene.text, "voice": self.spec.voice, "response_format": "wav"}
        self._add(narration, SPEECH, speech | {"seed": self.seeds.of(narration)})
        body["narration"] = {"artifact_id": from_step(narration, "artifact_id")}
        if self.spec.captions:
            body["captions"] = captions_of(narration)
        return body

    def _picture(self, number: int, scene: ScenePlan) -> dict[str, Any]:
        if self.spec.pictures and scene.picture is not None:
            return _given(self.spec.pictures[scene.picture])
        if self.spec.portrait is not None:
            return _given(self.spec.portrait)
        presents = self.spec.style == "presenter"
        name = "portrait" if presents else f"picture {number}"
        prompt = PORTRAIT_PROMPT if presents else self._shown(scene)
        self._add(name, IMAGES, {"prompt": prompt, "seed": self.seeds.of(name)})
        return {"artifact_id": from_step(name, "data.0.artifact_id")}

    def _shown(self, scene: ScenePlan) -> str:
        """What the picture of a scene is made of: what the prompt says to show, then the words
        that are heard."""
        if self.spec.script is None:
            return at_most(one_line(scene.text), PICTURE_PROMPT_CHARACTERS)
        subject = at_most(one_line(self.spec.prompt), PICTURE_PROMPT_CHARACTERS // 2)
        heard = at_most(one_line(scene.text), PICTURE_PROMPT_CHARACTERS - len(subject))
        return f"{subject}, {heard}"


def _given(reference: MediaReference) -> dict[str, str]:
    given: dict[str, str] = reference.model_dump(exclude_none=True)
    return given
