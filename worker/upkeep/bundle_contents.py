"""What a campaign has made, in the order and with the names that its bundle gives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.db.bundles import MadeArtifact, MadeStep
from shared.plans import complete
from worker.upkeep.bundle_names import Names, extension, readable

COMPANION_FOLDERS = {
    "thumbnail": "thumbnails",
    "waveform": "waveforms",
    "spritesheet": "spritesheets",
}
"""Where pictures of media go, beside them; what is not listed stands right next to its medium."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose something is. ``audience`` counts from 1; None is what all audiences share."""

    language: str | None
    variant: int
    audience: int | None


@dataclass(frozen=True, slots=True)
class Origin:
    """How a step made what it made."""

    step: str
    model: str | None
    prompt: str
    seed: int | None


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of copy after cleaning; an empty one is marked as such wherever it is shown."""

    kind: str
    place: Place
    origin: Origin
    text: str
    file: str


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture, sound or video, and the files that belong to it."""

    kind: str
    place: Place
    origin: Origin
    main: MadeArtifact
    companions: Mapping[str, MadeArtifact]
    """By role."""


@dataclass(slots=True)
class Contents:
    """Everything, once: the manifest, the sheet and the ZIP are three ways to write it down."""

    job_id: str
    line: int
    created_at: float
    brief: Mapping[str, Any]
    stand_in: str
    """What was said and shown instead of an empty text."""
    steps: Sequence[MadeStep]
    artifacts: Sequence[MadeArtifact]
    texts: list[Text] = field(default_factory=list)
    media: list[Medium] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Paths in the ZIP by artifact id; every artifact has one."""
    origins: dict[str, Origin] = field(default_factory=dict)
    """By step."""

    @property
    def audiences(self) -> list[Mapping[str, Any]]:
        return list(self.brief.get("audiences", ()))

    def text_files(self) -> dict[str, list[Text]]:
        """The texts of each file, in reading order."""
        files: dict[str, list[Text]] = defaultdict(list)
        for text in self.texts:
            files[text.file].append(text)
        return files


def gather(
    body: Mapping[str, Any],
    *,
    job_id: str,
    line: int,
    created_at: float,
    steps: Sequence[MadeStep],
    artifacts: Sequence[MadeArtifact],
) -> Contents:
    """Reads the bundle step's ``body`` (``shared.plans.campaign``) against what was made.

    Raises PlanError when a result does not fit the plan.
    """
    contents = Contents(
        job_id=job_id,
        line=line,
        created_at=created_at,
        brief=body["brief"],
        stand_in=body["stand_in"],
        steps=steps,
        artifacts=artifacts,
    )
    results = {step.name: step.result for step in steps if step.result is not None}
    contents.origins = {step.name: _origin(step, results) for step in steps}
    _add_texts(contents, complete({"texts": body["texts"]}, results)["texts"])
    _add_media(contents, body["media"])
    return contents


def _origin(step: MadeStep, results: Mapping[str, Any]) -> Origin:
    needed = {name: results[name] for name in step.needs if name in results}
    asked = complete(step.body, needed)
    messages = asked.get("messages")
    prompt = messages[-1]["content"] if messages else asked.get("prompt", asked.get("input", ""))
    return Origin(step.name, step.model, prompt, asked.get("seed"))


def _place(item: Mapping[str, Any]) -> Place:
    return Place(item["language"], item["variant"], item["audience"])


def _folder(contents: Contents, place: Place, kind: str) -> str:
    if place.audience is None:
        return kind
    name = readable(contents.audiences[place.audience - 1]["name"])
    return f"audiences/{place.audience:03} {name}".rstrip() + f"/{kind}"


def _add_texts(contents: Contents, listed: Iterable[Mapping[str, Any]]) -> None:
    for item in listed:
        place = _place(item)
        file = f"{_folder(contents, place, 'texts')}/{place.language}-{place.variant}.txt"
        origin = contents.origins[item["step"]]
        contents.texts.append(Text(item["kind"], place, origin, item["text"], file))


def _add_media(contents: Contents, listed: Iterable[Mapping[str, Any]]) -> None:
    by_step: dict[str | None, list[MadeArtifact]] = defaultdict(list)
    by_parent: dict[str, dict[str, MadeArtifact]] = defaultdict(dict)
    for artifact in contents.artifacts:
        if artifact.parent_id is None:
            by_step[artifact.step].append(artifact)
        else:
            by_parent[artifact.parent_id][artifact.role] = artifact
    names = Names()
    for item in listed:
        for main in by_step[item["step"]]:
            medium = Medium(
                item["kind"],
                _place(item),
                contents.origins[item["step"]],
                main,
                by_parent[main.id],
            )
            contents.media.append(medium)
            _name_files(contents, medium, names)
    for artifact in contents.artifacts:  # of engines that make more than they are known for
        if artifact.id not in contents.files:
            stem = readable(f"{artifact.step or ''} {artifact.name.rpartition('.')[0]}")
            path = names.take("other", stem or artifact.id, extension(artifact.name))
            contents.files[artifact.id] = path


def _name_files(contents: Contents, medium: Medium, names: Names) -> None:
    folder, stem = _folder_and_stem(contents, medium)
    path = names.take(folder, stem, extension(medium.main.name))
    contents.files[medium.main.id] = path
    stem = path.rpartition("/")[2].rpartition(".")[0]
    for role, companion in sorted(medium.companions.items()):
        beside = "/".join(filter(None, (folder, COMPANION_FOLDERS.get(role))))
        contents.files[companion.id] = names.take(beside, stem, extension(companion.name))


def _folder_and_stem(contents: Contents, medium: Medium) -> tuple[str, str]:
    place, main = medium.place, medium.main
    if medium.kind == "picture":
        size = f" {main.width}x{main.height}" if main.width and main.height else ""
        return _folder(contents, place, "pictures"), f"variant-{place.variant}{size}"
    stem = f"{place.language}-{place.variant}"
    if medium.kind.startswith("narration"):
        part = medium.kind.removeprefix("narration ")
        return _folder(contents, place, "voice-over/parts"), f"{stem} {part}"
    return _folder(contents, place, medium.kind), stem
