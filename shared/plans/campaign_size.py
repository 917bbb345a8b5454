"""How large a campaign gets, counted from the brief before a single step is made."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import InvalidRequest
from shared.specs import CampaignSpec
from shared.specs.campaigns import MAX_STEPS

MAX_LOGO_COPIES_CHARACTERS = 8 * 2**20
"""Of a logo given as a data URL: every video's step carries a copy of it."""
MAX_BRIEF_COPIES_CHARACTERS = 16 * 2**20
"""Of the brief's own words: every headline's and every body's step tells them again."""


@dataclass(frozen=True, slots=True)
class CampaignSize:
    """Which kinds of steps a brief takes, and how many.

    An output that another needs is made too: a voice-over needs the copy, a video needs the copy
    and one picture of each variant.
    """

    spec: CampaignSpec

    @property
    def voice_over(self) -> bool:
        return "voice_over" in self.spec.outputs

    @property
    def video(self) -> bool:
        return "video" in self.spec.outputs

    @property
    def speech(self) -> bool:
        return self.voice_over or self.video

    @property
    def copy(self) -> bool:
        return self.personal_copy or self.speech

    @property
    def personal_copy(self) -> bool:
        """Whether each audience gets its own; so it is with pictures."""
        return "copy" in self.spec.outputs

    @property
    def pictures(self) -> bool:
        return self.personal_pictures or self.video

    @property
    def personal_pictures(self) -> bool:
        return "pictures" in self.spec.outputs

    @property
    def sizes(self) -> list[str]:
        return self.spec.sizes if self.personal_pictures else self.spec.sizes[:1]

    @property
    def steps(self) -> int:
        """Of the whole plan, the bundle included."""
        languages, sizes = len(self.spec.languages), len(self.sizes)
        texts = 3 * self.copy + self.voice_over + 4 * self.video
        common = languages * texts + self.pictures * (1 + sizes)
        personal = 2 * self.personal_copy * languages + self.personal_pictures * sizes
        return self.spec.variants * (common + len(self.spec.audiences) * personal) + 1

    def check(self) -> None:
        """Raises InvalidRequest that names what multiplies, and blames the most of it."""
        if self.steps > MAX_STEPS:
            spec = self.spec
            counts = {
                "audiences": len(spec.audiences),
                "languages": len(spec.languages),
                "variants": spec.variants,
                "sizes": len(self.sizes) if self.pictures else 0,
            }
            factors = [f"{count:,} {name}" for name, count in counts.items() if count > 1]
            raise InvalidRequest(
                f"this brief takes {self.steps:,} steps and {MAX_STEPS:,} are the most; what "
                f"multiplies: {' × '.join(factors)}",
                param=max(counts, key=lambda name: counts[name]),
            )
        self._check_words()
        self._check_logo()

    def _check_words(self) -> None:
        spec = self.spec
        brief = len(spec.product) + len(spec.description)
        copies = brief + len(spec.audience)
        if self.personal_copy:
            copies += sum(brief + len(one.name) + len(one.description) for one in spec.audiences)
        copies *= 2 * self.copy * len(spec.languages) * spec.variants
        if copies > MAX_BRIEF_COPIES_CHARACTERS:
            raise InvalidRequest(
                f"the texts of this campaign would be asked for with {copies:,} characters in all, "
                f"and {MAX_BRIEF_COPIES_CHARACTERS:,} are the most: tell less, or make fewer",
                param="description" if len(spec.description) > len(spec.product) else "product",
            )

    def _check_logo(self) -> None:
        logo = self.spec.logo
        videos = self.video * len(self.spec.languages) * self.spec.variants
        if logo is None or logo.image_url is None:
            return
        if videos * len(logo.image_url) > MAX_LOGO_COPIES_CHARACTERS:
            raise InvalidRequest(
                f"each of {videos} videos would carry a copy of this data URL: upload the logo as "
                "a file and name its id",
                param="logo",
            )
