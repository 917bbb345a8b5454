"""The bundle: what is in the ZIP, what the sheet shows, and what no brief can make of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, cast
from urllib.parse import unquote

import pytest

from shared.lifecycle.working import Claim
from shared.storage.base import Store
from tests.unit.worker.bundle_case import (
    JOB,
    TENANT,
    MadeCampaign,
    MemoryStore,
    made_campaign,
    renamed,
)
from worker.upkeep.assembly import DamagedObject, Interrupted
from worker.upkeep.bundle import Bundler
from worker.upkeep.bundle_links import EmbeddedLinks, FolderLinks
from worker.upkeep.bundle_manifest import manifest
from worker.upkeep.bundle_names import Names, extension, readable
from worker.upkeep.bundle_sheet import contact_sheet

EVIL = (
    '"><script>alert(1)</script><img src=x onerror=alert(2)> javascript:alert(3) '
    "'; --><svg onload=alert(4)>]]></style>"
)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def claim(epoch: int = 1) -> Claim:
    return Claim(
        shard_id=9, epoch=epoch, job_id=JOB, tenant_id=TENANT, kind="campaign", pool="upkeep",
        stage="step", ordinal=9, endpoint="bundle", model=None, spec="{}", row_count=1,
        byte_start=None, byte_end=None, first_line=None, suspect=False, crash_n=0, input_key=None,
        stop_reason=None, step="bundle",
    )  # fmt: skip


def bundled(store: MemoryStore, made: MadeCampaign) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The result, and the content of each file by role."""
    body, artifacts = Bundler(
        cast(Store, store), claim(), "bundle", lambda: False, made.contents()
    ).run()
    files = {item.role: b"".join(store.read(item.stored.key)) for item in artifacts}
    for item in artifacts:
        assert hashlib.sha256(files[item.role]).hexdigest() == item.stored.sha256
        assert item.stored.key.startswith(f"t/{TENANT}/j/{JOB}/a/9/e1/art_")
    return body, files


def opened(data: bytes) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    return archive


class Page(HTMLParser):
    """Collects tags, and every address that the page names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.targets: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in {"href", "src", "poster"}:
                self.links.append(value or "")
            if name == "id":
                self.targets.add(f"#{value}")

    def handle_data(self, data: str) -> None:
        self.words += data


LARGE: dict[str, Any] = {
    "languages": ["en", "de"],
    "variants": 2,
    "sizes": ["64x64", "128x64"],
    "audiences": [{"name": "Night owls / NYC"}, {"name": "..\\nurses", "description": "late"}],
}


def test_the_zip_has_readable_names_and_every_file(store: MemoryStore) -> None:
    made = made_campaign(store)
    body, files = bundled(store, made)
    archive = opened(files["bundle"])
    assert sorted(archive.namelist()) == [
        "index.html",
        "manifest.json",
        "pictures/thumbnails/variant-1 8x4.webp",
        "pictures/variant-1 8x4.png",
        "texts/en-1.txt",
        "video/en-1.mp4",
        "video/en-1.vtt",
        "video/spritesheets/en-1.webp",
        "video/thumbnails/en-1.webp",
        "voice-over/en-1.mp3",
        "voice-over/parts/en-1 body.mp3",
        "voice-over/parts/en-1 call to action.mp3",
        "voice-over/parts/en-1 headline.mp3",
        "voice-over/parts/waveforms/en-1 body.png",
        "voice-over/parts/waveforms/en-1 call to action.png",
        "voice-over/parts/waveforms/en-1 headline.png",
        "voice-over/waveforms/en-1.png",
    ]
    assert archive.read("texts/en-1.txt").decode() == (
        "Light for the night\n\nLight for the night.\n\nLight for the night\n"
    )
    assert body == {
        "object": "campaign.bundle",
        "manifest_id": body["manifest_id"],
        "zip_id": body["zip_id"],
        "contact_sheet_id": body["contact_sheet_id"],
        "artifacts": len(made.artifacts),
    }
    assert len({body["manifest_id"], body["zip_id"], body["contact_sheet_id"]}) == 3


def test_the_manifest_names_every_file_and_text_and_how_it_was_made(store: MemoryStore) -> None:
    made = made_campaign(store, {"body de 2": "", "headline en 1": "** **"}, **LARGE)
    _, files = bundled(store, made)
    archive = opened(files["bundle"])
    described = json.loads(archive.read("manifest.json"))
    assert files["manifest"] == archive.read("manifest.json")
    assert len(described["artifacts"]) == len(made.artifacts)
    for entry in described["artifacts"]:
        content = archive.read(entry["file"])
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            entry["bytes"],
            entry["sha256"],
        )
    (picture,) = (
        entry
        for entry in described["artifacts"]
        if entry["step"] == "picture 2 64x64" and entry["role"] == "image"
    )
    assert picture["prompt"] == "Aurora lamp, Light for the night"
    assert (picture["model"], picture["width"], picture["media_type"]) == (
        "painter",
        8,
        "image/png",
    )
    assert isinstance(picture["seed"], int)
    texts = {(text["step"]): text for text in described["texts"]}
    assert len(texts) == 2 * 2 * 3 + 2 * 2 * 2 * 2
    assert texts["body de 2"]["empty"] is True
    assert texts["headline en 1"]["stand_in"] == "Aurora lamp"
    assert texts["headline de 1"] == {
        "kind": "headline", "language": "de", "variant": 1, "audience": None,
        "text": "Light for the night", "empty": False, "file": "texts/de-1.txt",
        "step": "headline de 1", "model": "writer",
        "prompt": texts["headline de 1"]["prompt"], "seed": texts["headline de 1"]["seed"],
    }  # fmt: skip
    assert texts["headline de 1 for 2 ..\\nurses"]["audience"] == "..\\nurses"
    assert described["brief"]["languages"] == ["en", "de"]
    assert [step["name"] for step in described["steps"]] == [step.name for step in made.steps]
    assert set(archive.namelist()) >= {text["file"] for text in described["texts"]}


def test_the_same_campaign_has_the_same_manifest_and_zip(store: MemoryStore) -> None:
    first, second = (bundled(store, made_campaign(store, **LARGE)) for _ in range(2))
    assert first == second
    later = renamed(made_campaign(store, **LARGE), created_at=5.0)
    described = [
        json.loads(manifest(made.contents())) for made in (later, made_campaign(store, **LARGE))
    ]
    for entry in (*described[0]["artifacts"], *described[1]["artifacts"]):
        entry["created_at"] = None
    assert described[0] == described[1]


def test_the_pages_name_only_what_is_in_the_zip(store: MemoryStore) -> None:
    _, files = bundled(store, made_campaign(store, **LARGE))
    archive = opened(files["bundle"])
    names = set(archive.namelist())
    for html in (archive.read("index.html"), files["contact_sheet"]):
        page = Page(html.decode())
        assert len(page.links) > 30
        for link in page.links:
            if link.startswith("#"):
                assert link in page.targets
            elif not link.startswith("data:"):
                assert unquote(link) in names
    assert "data:" not in archive.read("index.html").decode().replace("img-src data:", "").replace(
        "media-src data:", ""
    )


def test_names_of_audiences_stay_inside_their_folder(store: MemoryStore) -> None:
    _, files = bundled(store, made_campaign(store, **LARGE))
    names = opened(files["bundle"]).namelist()
    assert "audiences/001 Night owls NYC/texts/de-2.txt" in names
    assert "audiences/002 nurses/pictures/variant-1 8x4.png" in names
    assert all(re.fullmatch(r"[\w .()/-]+", name) and ".." not in name for name in names)
    assert len({name.casefold() for name in names}) == len(names)


def test_the_standalone_page_holds_the_media_themselves(store: MemoryStore) -> None:
    made = made_campaign(store)
    _, files = bundled(store, made)
    page = Page(files["contact_sheet"].decode())
    inside = [link for link in page.links if link.startswith("data:")]
    types = sorted(link.partition(";")[0] for link in inside)
    assert types == [
        "data:audio/mpeg", "data:image/png", "data:image/png", "data:image/webp", "data:video/mp4",
    ]  # fmt: skip
    (sound,) = (link for link in inside if link.startswith("data:audio"))
    (voice,) = (
        item for item in made.artifacts if item.step == "voice-over en 1" and item.role == "audio"
    )
    content = base64.b64decode(sound.partition(",")[2], validate=True)
    assert hashlib.sha256(content).hexdigest() == voice.sha256
    assert "not inside this page" not in page.words


def test_media_that_do_not_fit_are_linked_and_counted(store: MemoryStore) -> None:
    made = made_campaign(store)
    contents = made.contents()
    most = max(item.bytes for item in made.artifacts if item.role != "video") * 4

    def read(artifact: Any) -> Iterator[bytes]:
        return store.read(artifact.storage_key)

    html = b"".join(contact_sheet(contents, EmbeddedLinks(contents, read, most))).decode()
    page = Page(html)
    assert "1 of 3 media are not inside this page" in page.words
    assert "video" not in page.tags
    assert "video/en-1.mp4" in page.links
    nothing = b"".join(contact_sheet(contents, EmbeddedLinks(contents, read, 0))).decode()
    assert Page(nothing).tags.count("img") == 0
    assert "3 of 3 media" in nothing


def test_nothing_that_is_written_becomes_markup(store: MemoryStore) -> None:
    texts = dict.fromkeys(
        ("headline en 1", "body en 1", "call to action en 1", "picture idea 1"), EVIL
    )
    made = made_campaign(
        store, texts, product=EVIL, description=EVIL, audience=EVIL, tone=EVIL[:200],
        audiences=[{"name": EVIL, "description": EVIL}], user="u",
    )  # fmt: skip
    harmless = made_campaign(store, audiences=[{"name": "a", "description": "b"}],
                             description="d", audience="e")  # fmt: skip
    _, files = bundled(store, made)
    _, expected = bundled(store, harmless)
    archive = opened(files["bundle"])
    for html, other in (
        (archive.read("index.html"), opened(expected["bundle"]).read("index.html")),
        (files["contact_sheet"], expected["contact_sheet"]),
    ):
        page, plain_page = Page(html.decode()), Page(other.decode())
        assert set(page.tags) == set(plain_page.tags)
        assert page.attributes == plain_page.attributes
        assert not any(link.lower().startswith("javascript") for link in page.links)
        assert "<script>alert(1)</script>" in page.words
        assert '"><script>' not in html.decode()


def test_the_policy_allows_the_pages_own_style_and_nothing_else(store: MemoryStore) -> None:
    contents = made_campaign(store).contents()
    html = b"".join(contact_sheet(contents, FolderLinks(contents))).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    style = re.search(r"<style>(.*)</style>", html, re.DOTALL)
    assert policy
    assert style
    allowed = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{allowed}'" in policy[1]
    assert policy[1].startswith("default-src 'none';")
    assert "script" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert " style=" not in html


def test_an_empty_text_is_shown_as_such(store: MemoryStore) -> None:
    made = made_campaign(store, {"headline en 1": "", "body en 1": ""})
    contents = made.contents()
    page = Page(b"".join(contact_sheet(contents, FolderLinks(contents))).decode())
    assert "(stands in)" in page.words
    assert "The model wrote no body." in page.words


def test_damaged_media_never_reach_a_bundle(store: MemoryStore) -> None:
    made = made_campaign(store)
    victim = made.artifacts[3]
    store.put_bytes(victim.storage_key, b"x" * victim.bytes, media_type=victim.media_type)
    with pytest.raises(DamagedObject):
        bundled(store, made)
    assert left_over(store) == []


def test_an_interrupted_bundle_leaves_nothing_half_written(store: MemoryStore) -> None:
    made = made_campaign(store)
    answers = iter([False] * 9)
    with pytest.raises(Interrupted):
        Bundler(
            cast(Store, store), claim(), "bundle", lambda: next(answers, True), made.contents()
        ).run()
    assert left_over(store) == []


def left_over(store: MemoryStore) -> list[str]:
    """What the bundle's attempt has stored, other than the manifest, which comes first."""
    folder = f"t/{TENANT}/j/{JOB}/a/9/"
    return [key for key in store.objects if key.startswith(folder) and not key.endswith(".json")]


def test_media_pass_through_in_pieces(store: MemoryStore) -> None:
    made = made_campaign(store, data=b"\0" * (3 * 2**20), outputs=["voice_over"])
    store.largest_write = 0
    bundled(store, made)
    assert 0 < store.largest_write < 2**18


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Night owls", "Night owls"),
        ("../../etc/passwd", "etc passwd"),
        ("a:b*c?d|e<f>g", "a b c d e f g"),
        ("Nachtschwärmer 夜", "Nachtschwärmer 夜"),
        ("\u202egpj.exe", "gpj exe"),
        ("x" * 300, "x" * 60),
        ("", ""),
    ],
)
def test_names_are_readable_and_safe(words: str, name: str) -> None:
    assert readable(words) == name
    assert len(readable("夜" * 300).encode()) <= 120


def test_no_two_files_have_one_name() -> None:
    names = Names()
    assert [names.take("a", stem, ".png") for stem in ("x", "X", "x")] == [
        "a/x.png", "a/X (2).png", "a/x (3).png",
    ]  # fmt: skip
    assert [extension(name) for name in ("a.PNG", "a", "a.tar/x", "a.<b>")] == [
        ".png", ".bin", ".bin", ".bin",
    ]  # fmt: skip
